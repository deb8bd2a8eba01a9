"""Runs are killed, at random moments and between each write, fsync and rename, and gone on with until they are done.

`python -m benchmarks.kill --times 200 --seed 0`: all trainers and `compare`, each killed up to three times. Counted are
runs that end otherwise than one that nobody disturbed (different), that do a step again which a checkpoint held
(lost), that end in an error (refused), in a traceback, or not at all (stuck). All are to be 0.
"""

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import runs

KILLS = 3  # of one run, at most
# Seconds that a kill may come later than an undisturbed run's end: then it is not disturbed.
BEYOND = 0.1


@dataclass(frozen=True)
class Undisturbed:
    """A command's run that nobody disturbed: what it left, the seconds and calls that it took, the steps it did."""

    left: dict[str, str]
    seconds: float
    calls: int
    steps: int


def die() -> None:
    """As the kernel ends a process that has used up the memory: nothing is cleaned up."""
    os.kill(os.getpid(), signal.SIGKILL)


def watched(call_to_die_at: int, seconds: float, log: Path) -> Callable[[], None]:
    """Planted in a process: calls that change files are counted, steps noted; it dies at a call, or at a moment."""

    def plant() -> None:
        from pairtune.training import checkpoint

        calls, record = [0], checkpoint.Journal.record

        def counted(call: Callable[..., Any], halve: bool = False) -> Callable[..., Any]:
            def before(*given: Any, **named: Any) -> Any:
                calls[0] += 1
                with log.with_suffix(".calls").open("w") as file:
                    file.write(str(calls[0]))
                if calls[0] == call_to_die_at:
                    if halve:  # half of it is in the file
                        call(given[0], given[1][: len(given[1]) // 2], *given[2:], **named)
                    die()
                return call(*given, **named)

            return before

        def recorded(self: checkpoint.Journal, **row: Any) -> None:
            with log.open("a") as file:
                file.write(".")
            record(self, **row)

        os.fsync, os.link = counted(os.fsync), counted(os.link)
        for name in ("replace", "unlink", "write_text", "write_bytes"):
            setattr(Path, name, counted(getattr(Path, name), halve=name.startswith("write")))
        setattr(checkpoint, "save_file", counted(getattr(checkpoint, "save_file")))  # noqa: B009, B010
        checkpoint.Journal.record = recorded  # type: ignore[method-assign]
        if seconds:
            timer = threading.Timer(seconds, die)
            timer.daemon = True
            timer.start()

    return plant


def undisturbed(work: Path, command: str) -> Undisturbed:
    """Run a command twice (the first fills the cache that all share) and keep what the second left."""
    log = work / "log"
    for _ in range(2):
        shutil.rmtree(work / "out", ignore_errors=True)
        log.unlink(missing_ok=True)
        began = time.monotonic()
        found = runs.attempt(work, typed(command), plant=watched(0, 0.0, log))
        assert found.code == 0, found.said
    seconds, calls = time.monotonic() - began, int(log.with_suffix(".calls").read_text())
    return Undisturbed(runs.left(work / "out"), seconds, calls, len(log.read_text()))


def typed(command: str) -> list[str]:
    """The command, each of its steps kept."""
    return [*runs.words(command), "--checkpoint-every", "0.000001"]


def disturbed(work: Path, command: str, expected: Undisturbed, chance: random.Random) -> tuple[str, str]:
    """Kill a run some times, go on until it is done: what became of it, and where it was killed."""
    log, out, where = work / "log", work / "out", []
    shutil.rmtree(out, ignore_errors=True)
    log.unlink(missing_ok=True)
    wanted, kills = chance.randint(1, KILLS), 0
    for number in range(wanted + 1):
        at, after = 0, 0.0
        if number < wanted and chance.random() < 0.5:
            at = chance.randint(1, expected.calls)
        elif number < wanted:
            after = chance.uniform(0.05, expected.seconds + BEYOND)
        where.append(f"call {at}" if at else f"{after:.2f} s")
        found = runs.attempt(work, typed(command), plant=watched(at, after, log))
        if found.traceback:
            return "traceback", f"{where}: {found.said[-300:]}"
        if found.code is None:
            return "stuck", str(where)
        if found.code == -signal.SIGKILL:
            kills += 1
        elif found.code == 0 or "holds a finished result" in found.said:
            break
        else:
            return "refused", f"{where}: {found.said[-300:]}"
    if other := runs.differing(out, expected.left):
        return "different", f"{where}: {sorted(other)}"
    if log.is_file() and len(log.read_text()) > expected.steps + kills:  # a step under way is nobody's loss
        return "lost", f"{where}: {len(log.read_text()) - expected.steps} steps again after {kills} kills"
    return "as it was", ""


def main(arguments: list[str] | None = None) -> int:
    """The counts; 1 if anything is not as it is to be."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kill", description=__doc__)
    parser.add_argument("--times", type=int, default=20, help="runs to disturb")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--command", nargs="+", default=list(runs.COMMANDS), help="commands to try")
    options = parser.parse_args(arguments)
    chance, counts = random.Random(options.seed), Counter[str]()
    with tempfile.TemporaryDirectory() as place:
        work = Path(place)
        runs.prepare(work, options.command)
        expected = {command: undisturbed(work, command) for command in options.command}
        for number in range(options.times):
            command = options.command[number % len(options.command)]
            verdict, where = disturbed(work, command, expected[command], chance)
            counts[verdict] += 1
            if where:
                print(f"  {command}: {verdict}: {where}", flush=True)
    print(f"{options.times} runs, seed {options.seed}: {dict(counts)}")
    return 0 if set(counts) <= {"as it was"} else 1


if __name__ == "__main__":
    sys.exit(main())
