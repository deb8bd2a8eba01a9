"""What every benchmark is told on its command line, and how it ends."""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass

from rich.console import Console

from benchmarks.processes import say
from benchmarks.results import BenchmarkError, Row
from benchmarks.table import show


@dataclass(frozen=True)
class Options:
    """The flags; what is None is the benchmark's own choice."""

    data: str | None = None
    pairs: int | None = None
    repetitions: int | None = None
    model: str = "smollm2-135m"


Measure = Callable[[Options], list[Row]]


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags that all benchmarks share."""
    parser.add_argument("--json", action="store_true", help="print the rows as JSON instead of a table")
    parser.add_argument("--data", metavar="FILE", help="pairs to measure on (default: cut from the built-in reviews)")
    parser.add_argument(
        "--pairs", type=int, metavar="N", help="pairs (or prompts) in a run, where the row leaves it open"
    )
    parser.add_argument("--repetitions", type=int, metavar="N", help="how often each side runs")


def main(name: str, measure: Measure) -> int:
    """Run one benchmark from the command line. Exit code 1, with one line, if nothing can be counted."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=sys.modules["__main__"].__doc__)
    add_flags(parser)
    return finish(parser.parse_args(), lambda options: {name: measure(options)})


def finish(given: argparse.Namespace, measure_all: Callable[[Options], dict[str, list[Row]]]) -> int:
    """Measure and print what the flags ask for."""
    try:
        rows = measure_all(Options(given.data, given.pairs, given.repetitions))
    except BenchmarkError as error:
        say(f"benchmarks: {error}")
        return 1
    if given.json:
        print(json.dumps([row.to_json() for group in rows.values() for row in group], indent=2, ensure_ascii=False))
    else:
        show(rows, Console())
    return 0
