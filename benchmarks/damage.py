"""Every file of finished and unfinished runs is damaged in turn, and the same command is given again.

`python -m benchmarks.damage`: a byte flipped, the file cut to its half, the file removed. Counted are results that are
another without a word (silent), files that are damaged and stay so (kept), runs that are refused for ever (refused),
tracebacks and runs that do not end (stuck). All are to be 0.
"""

import argparse
import os
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks import runs

Damage = Callable[[Path], None]
STOP_AFTER = 3  # steps, and the unfinished run ends


def flip(path: Path) -> None:
    """One bit of the byte in the middle of the file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def cut(path: Path) -> None:
    """The file's first half is left."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


DAMAGES: dict[str, Damage] = {"flipped": flip, "cut": cut, "removed": Path.unlink}


def stop_after(steps: int) -> Callable[[], None]:
    """Planted in a process: it is killed after so many steps of its first long stage, each with a checkpoint."""

    def plant() -> None:
        from pairtune.training.checkpoint import Journal

        keep = Journal.checkpoint

        def checkpoint(self: Journal, step: int, seconds: float, tensors: Any, *, stopping: bool, **how: Any) -> None:
            self.every = 1e-9
            keep(self, step, seconds, tensors, stopping=stopping)
            if step == steps:
                os.kill(os.getpid(), signal.SIGKILL)

        Journal.checkpoint = checkpoint  # type: ignore[method-assign]

    return plant


def cases(folder: Path, only: str) -> Iterator[tuple[str, str, Damage]]:
    """Every file below, with every damage that changes it."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.stat().st_size and only in path.as_posix():
            for how, do in DAMAGES.items():
                yield path.relative_to(folder).as_posix(), how, do


def judged(found: runs.Attempt, expected: dict[str, str], folder: Path, name: str) -> str:
    """What became of the run that was given again."""
    if found.code is None:
        return "stuck"
    if found.traceback:
        return "traceback"
    if found.code == 0 and runs.left(folder) == expected:
        return "as it was"
    if found.code == 0:
        return "kept" if Path(name).name in found.said else "silent"
    if "holds a finished result" in found.said:  # the file is none that is known of, or the damage was not seen
        return "as it was" if runs.left(folder) == expected else "silent"
    return "refused, with a remedy" if "remove" in found.said or "give another" in found.said else "refused"


def run(work: Path, command: str, *, steps: int | None, only: str, every: int) -> Counter[str]:
    """Damage what one command leaves (`steps`: unfinished after so many), file by file; how often what came of it."""
    counts: Counter[str] = Counter()
    out, whole, kept = work / "out", work / "whole", work / "kept"
    for folder in (out, whole, kept):
        shutil.rmtree(folder, ignore_errors=True)
    assert runs.attempt(work, runs.words(command)).code == 0
    expected = runs.left(out)
    if steps is not None:
        shutil.rmtree(out)
        runs.attempt(work, runs.words(command), plant=stop_after(steps))
    out.rename(kept)
    for number, (name, how, do) in enumerate(cases(kept, only)):
        if number % every:
            continue
        shutil.copytree(kept, out)
        do(out / name)
        found = runs.attempt(work, runs.words(command))
        verdict = judged(found, expected, out, name)
        counts[verdict] += 1
        if verdict != "as it was":
            last = found.said.strip().splitlines()[-1:] or [""]
            if found.code == 0:
                last = [f"other than it was to be: {sorted(runs.differing(out, expected))}"]
            print(f"  {command} {name} {how}: {verdict}: {last[0][:200]}", flush=True)
        shutil.rmtree(out)
    return counts


def main(arguments: list[str] | None = None) -> int:
    """The counts of all commands, finished and unfinished; 1 if anything is not as it is to be."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.damage", description=__doc__)
    parser.add_argument("--command", nargs="+", default=list(runs.COMMANDS), help="commands to try")
    parser.add_argument("--file", default="", help="only files with this in their name")
    parser.add_argument("--every", type=int, default=1, help="every so many damages only")
    options = parser.parse_args(arguments)
    total: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as place:
        work = Path(place)
        runs.prepare(work, options.command)
        for command in options.command:
            for steps in (None, STOP_AFTER):
                counts = run(work, command, steps=steps, only=options.file, every=options.every)
                print(f"{command}, {'finished' if steps is None else 'unfinished'}: {dict(counts)}", flush=True)
                total += counts
    print(f"all: {dict(total)}")
    return 1 if set(total) & {"silent", "kept", "refused", "stuck", "traceback"} else 0


if __name__ == "__main__":
    sys.exit(main())
