"""PPO: the last PPOTrainer that TRL had, with answers of 24 tokens, 2 epochs over each batch of 16."""

import sys

from benchmarks.options import Options, main
from benchmarks.peers import TRL_PPO, WORKER
from benchmarks.processes import OURS, Worker, prepared, rates, take_turns
from benchmarks.results import Row, versus

STEPS, BATCH, NEW_TOKENS, EPOCHS, RATE, REPETITIONS = 2, 16, 24, 2, 2e-5, 3


def measure(options: Options) -> list[Row]:
    """The one row: episodes a second, from the first answer to the last update. `--pairs` is the number of episodes."""
    repetitions = options.repetitions or REPETITIONS
    steps = max(1, options.pairs // BATCH) if options.pairs else STEPS
    with prepared(model=options.model, data=options.data, prompts=steps * BATCH) as files:
        shared = {"task": "ppo", "model": files["model"], "prompts": files["prompts"]}
        mine = {
            "steps": steps, "batch_size": BATCH, "minibatches": 1, "epochs": EPOCHS, "learning_rate": RATE,
            "value_learning_rate": RATE, "missing_end_penalty": 0.0,
        }  # fmt: skip
        theirs = {
            "bf16": False, "gradient_checkpointing": False, "per_device_train_batch_size": BATCH,
            "num_mini_batches": 1, "num_ppo_epochs": EPOCHS, "response_length": NEW_TOKENS, "temperature": 1.0,
            "total_episodes": steps * BATCH, "learning_rate": RATE, "num_sample_generations": 0,
            "local_rollout_forward_batch_size": BATCH,
        }  # fmt: skip
        ours = {**shared, "dtype": "auto", "settings": mine, "max_new_tokens": NEW_TOKENS}
        workers = {
            "ours": Worker(OURS, ours),
            "trl": Worker(WORKER, {**shared, "dtype": "bfloat16", "options": theirs}, TRL_PPO.python()),
        }
        results = take_turns(workers, repetitions=repetitions, unit="episodes/s")
    settings = {
        "data": files["prompts_described"],
        "both": f"{steps} steps of {BATCH} episodes, {NEW_TOKENS} tokens each (no token ends an answer), {EPOCHS} PPO "
        f"epochs of one minibatch, four models, AdamW at {RATE:g}, {repetitions} runs",
        "peer": "bfloat16 weights, " + ", ".join(f"{name}={value}" for name, value in theirs.items()),
    }
    rates_of = [rates(results[name]) for name in ("ours", "trl")]
    return [versus("trl", "episodes/s", *rates_of, peer_version=TRL_PPO.versions(), settings=settings)]


if __name__ == "__main__":
    sys.exit(main("ppo", measure))
