"""Sampling: transformers' `generate` in bfloat16, batches of 64 and 256, 32 new tokens, pure sampling."""

import sys

from benchmarks.options import Options, main
from benchmarks.peers import TRL, WORKER
from benchmarks.processes import OURS, Worker, prepared, rates, take_turns
from benchmarks.results import Row, versus

BATCHES, REPETITIONS, NEW_TOKENS = (64, 256), 2, 32


def measure(options: Options) -> list[Row]:
    """A row for each batch size: tokens a second, prompts read included."""
    return [row for size in BATCHES for row in _batch(options, options.pairs or size, f"generate-{size}")]


def _batch(options: Options, size: int, name: str) -> list[Row]:
    repetitions = options.repetitions or REPETITIONS
    with prepared(model=options.model, data=options.data, prompts=size) as files:
        shared = {
            "task": "generate",
            "model": files["model"],
            "prompts": files["prompts"],
            "max_new_tokens": NEW_TOKENS,
        }
        workers = {
            "ours": Worker(OURS, {**shared, "dtype": "auto"}),
            "generate": Worker(WORKER, {**shared, "dtype": "bfloat16"}, TRL.python()),
        }
        results = take_turns(workers, repetitions=repetitions, unit="tokens/s")
    settings = {
        "data": files["prompts_described"],
        "both": f"{size} rows in one batch, {NEW_TOKENS} new tokens each (no token ends an answer), no top-k or top-p, "
        f"reading the prompts included, {repetitions} runs",
        "peer": "generate, bfloat16 weights, sdpa attention, dynamic cache, left padding",
    }
    ours, peer = rates(results["ours"]), rates(results["generate"])
    return [versus(name, "tokens/s", ours, peer, peer_version=TRL.versions(), settings=settings)]


if __name__ == "__main__":
    sys.exit(main("sampling", measure))
