"""DPO with adapters: TRL with the same ones at its best settings, and our own training of all weights."""

import sys

from benchmarks.dpo import BATCH, BEST, EPOCHS, PAIRS, REPETITIONS, SAME, said
from benchmarks.options import Options, main
from benchmarks.peers import TRL, WORKER
from benchmarks.processes import OURS, Worker, prepared, rates, take_turns
from benchmarks.results import Row, versus

RANK, ALPHA, RATE = 16, 32, 2e-4


def measure(options: Options) -> list[Row]:
    """Pairs a second and peak memory, against both."""
    repetitions = options.repetitions or REPETITIONS
    dtype, best = BEST
    with prepared(model=options.model, data=options.data, pairs=options.pairs or PAIRS, warmup=BATCH) as files:
        shared = {"task": "dpo", **{name: files[name] for name in ("model", "pairs", "warmup")}}
        adapters = {"rank": RANK, "alpha": ALPHA}
        mine = {"dtype": "auto", "settings": {"batch_size": BATCH, "epochs": EPOCHS, "learning_rate": RATE}}
        theirs = {"dtype": dtype, "options": {**SAME, **best, "learning_rate": RATE}}
        workers = {
            "ours": Worker(OURS, {**shared, **mine, "lora": adapters}),
            "trl": Worker(WORKER, {**shared, **theirs, "lora": adapters}, TRL.python()),
            "full": Worker(OURS, {**shared, **mine}),
        }
        results = take_turns(workers, repetitions=repetitions, unit="pairs/s")
    told = {
        "data": files["described"],
        "both": f"adapters of rank {RANK}, alpha {ALPHA}, beside all linear layers but the head; batch of {BATCH} "
        f"pairs, {EPOCHS} epochs with the reference, AdamW at {RATE:g}, {repetitions} runs",
    }
    peaks = {name: [result["peak_memory_bytes"] / 1e9 for result in part] for name, part in results.items()}
    ours, rows = rates(results["ours"]), list[Row]()
    for name, peer, version in (
        ("trl", f"weights {dtype}, {said(best)}, peft's LoraConfig of the same", TRL.versions()),
        ("full", "our training of all weights", ""),
    ):
        about = {**told, "peer": peer}
        speed = versus(name, "pairs/s", ours, rates(results[name]), peer_version=version, settings=about)
        memory = versus(
            f"memory-{name}",
            "GB",
            peaks["ours"],
            peaks[name],
            peer_version=version,
            settings=about,
            less_is_better=True,
        )
        rows += [speed, memory]
    return rows


if __name__ == "__main__":
    sys.exit(main("lora", measure))
