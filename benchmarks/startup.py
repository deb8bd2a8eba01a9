"""Start-up: how long `--help` takes, which is how long a typing error takes."""

import subprocess
import sys
import time
from pathlib import Path

from benchmarks.options import Options, main
from benchmarks.peers import TRL
from benchmarks.processes import say
from benchmarks.results import BenchmarkError, Row, versus

REPETITIONS = 5


def measure(options: Options) -> list[Row]:
    """The one row: wall-clock seconds of `pairtune --help` against `trl --help`."""
    ours = [sys.executable, "-m", "pairtune.cli", "--help"]
    peer = [str(Path(TRL.python()).parent / "trl"), "--help"]
    seconds: dict[str, list[float]] = {"ours": [], "trl": []}
    for turn in range((options.repetitions or REPETITIONS) + 1):
        for name, command in (("ours", ours), ("trl", peer)):
            took = _seconds(command)
            if turn:  # the first finds nothing compiled and nothing in the file cache
                seconds[name].append(took)
                say(f"  {name} {turn}: {took:.2f} s")
    settings = {"both": f"wall clock of a process, {len(seconds['ours'])} runs after one that does not count"}
    return [
        versus("help", "s", seconds["ours"], seconds["trl"], peer_version=TRL.versions(), settings=settings,
               less_is_better=True)
    ]  # fmt: skip


def _seconds(command: list[str]) -> float:
    began = time.perf_counter()
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode:
        raise BenchmarkError(f"{Path(command[0]).name} --help failed with exit code {done.returncode}")
    return time.perf_counter() - began


if __name__ == "__main__":
    sys.exit(main("startup", measure))
