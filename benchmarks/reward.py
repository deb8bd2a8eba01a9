"""Reward-model training: TRL's RewardTrainer in bfloat16."""

import sys

from benchmarks.options import Options, main
from benchmarks.peers import TRL, WORKER
from benchmarks.processes import OURS, Worker, prepared, rates, take_turns
from benchmarks.results import Row, versus

PAIRS, REPETITIONS, EPOCHS, BATCH, RATE = 16, 2, 2, 8, 5e-5
# A pair at a time was TRL's fastest: a batch of 8 is padded to its longest row.
PEER = {
    "bf16": True,
    "gradient_checkpointing": False,
    "per_device_train_batch_size": 1,
    "gradient_accumulation_steps": BATCH,
}


def measure(options: Options) -> list[Row]:
    """The one row: pairs a second against TRL."""
    repetitions = options.repetitions or REPETITIONS
    with prepared(model=options.model, data=options.data, pairs=options.pairs or PAIRS, warmup=BATCH) as files:
        shared = {"task": "reward", **{name: files[name] for name in ("model", "pairs", "warmup")}}
        mine = {"batch_size": BATCH, "epochs": EPOCHS, "learning_rate": RATE}
        theirs = {**PEER, "num_train_epochs": EPOCHS, "learning_rate": RATE}
        workers = {
            "ours": Worker(OURS, {**shared, "dtype": "auto", "settings": mine}),
            "trl": Worker(WORKER, {**shared, "dtype": "bfloat16", "options": theirs}, TRL.python()),
        }
        results = take_turns(workers, repetitions=repetitions, unit="pairs/s")
    settings = {
        "data": files["described"],
        "both": f"batch of {BATCH} pairs, {EPOCHS} epochs, AdamW at {RATE:g}, {repetitions} runs",
        "peer": "bfloat16 weights, " + ", ".join(f"{name}={value}" for name, value in PEER.items()),
    }
    ours, peer = rates(results["ours"]), rates(results["trl"])
    return [versus("trl", "pairs/s", ours, peer, peer_version=TRL.versions(), settings=settings)]


if __name__ == "__main__":
    sys.exit(main("reward", measure))
