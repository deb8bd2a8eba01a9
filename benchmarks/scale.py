"""Scale: cost per pair and peak memory of `pairtune tune` from 1,000 to 50,000 pairs, and a second objective."""

import sys

from benchmarks.options import Options, main
from benchmarks.processes import OURS, Result, Worker, take_turns
from benchmarks.results import BenchmarkError, Row, versus

SIZES, REPETITIONS = (1_000, 10_000, 50_000), 2


def measure(options: Options) -> list[Row]:
    """Rows against the smallest size: 1 is flat, less is dearer. Raises BenchmarkError if a reference is made twice."""
    sizes = tuple(size for size in SIZES if size <= (options.pairs or SIZES[-1]))
    repetitions = options.repetitions or REPETITIONS
    jobs = {size: {"task": "scale", "pairs": size, "second_objective": size == sizes[0]} for size in sizes}
    workers = {str(size): Worker(OURS, job) for size, job in jobs.items()}
    results = take_turns(workers, repetitions=repetitions, unit="pairs/s")
    settings = {
        "data": "random pairs, prompts of 8 to 40 tokens, responses of 4 to 24; a random model of 2 layers",
        "both": "all of `pairtune tune`: reading, checking, tokenising, reference, training, measuring, saving; less "
        f"what a run on 64 pairs costs; {repetitions} runs",
        "peer": f"the same on {sizes[0]} pairs",
    }
    rows = []
    for size in sizes[1:]:
        many, few = results[str(size)], results[str(sizes[0])]
        for name, unit, values in (
            ("cost", "ms/pair", [[1e3 * r["seconds"] / r["examples"] for r in part] for part in (many, few)]),
            ("memory", "GB", [[r["peak_memory_bytes"] / 1e9 for r in part] for part in (many, few)]),
        ):
            row = versus(f"{name}-{size}", unit, *values, peer_version="", settings=settings, less_is_better=True)
            rows.append(row)
    return [*rows, second_objective(results[str(sizes[0])], sizes[0])]


def second_objective(results: list[Result], size: int) -> Row:
    """The row of a second objective on the same pairs. Raises BenchmarkError if it passed the reference over them."""
    made = [(result["first_reference"], result["second_reference"]) for result in results]
    if any(second for _, second in made):
        raise BenchmarkError(f"a second objective on the same pairs made a reference pass again (tokens: {made})")
    settings = {
        "ours": f"ipo on {size} pairs after dpo: 0 tokens through the reference",
        "peer": f"dpo on {size} pairs, the first run: {made[0][0]} tokens through the reference",
    }
    seconds = ([r["second_seconds"] for r in results], [r["first_seconds"] for r in results])
    return versus("second-objective", "s", *seconds, peer_version="", settings=settings, less_is_better=True)


if __name__ == "__main__":
    sys.exit(main("scale", measure))
