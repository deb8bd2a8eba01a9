"""Timed processes: one worker each, taking turns."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.results import BenchmarkError

ROOT = Path(__file__).resolve().parent.parent
OURS = "benchmarks.workers.ours"
Result = dict[str, Any]


@dataclass(frozen=True)
class Worker:
    """A module run by an interpreter, and the job it is given."""

    module: str
    job: Mapping[str, Any]
    python: Path = Path(sys.executable)

    def run(self) -> Result:
        """The worker's result. Raises BenchmarkError with its last line of standard error if it fails."""
        with tempfile.TemporaryFile("w+", encoding="utf-8") as errors, tempfile.TemporaryDirectory() as cache:
            path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
            # A cache of its own: a reference that an earlier process kept would be free.
            own = {"PYTHONPATH": path, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
            own |= {} if self.job["task"] == "prepare" else {"PAIRTUNE_CACHE": cache}
            done = subprocess.run(
                [self.python, "-m", self.module],
                input=json.dumps(self.job),
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env={**os.environ, **own},
                check=False,
            )
            errors.seek(0)
            said = errors.read().strip().splitlines()
        if done.returncode:
            last = said[-1] if said else f"exit code {done.returncode}"
            raise BenchmarkError(f"{self.module} {self.job['task']}: {last}")
        result: Result = json.loads(done.stdout)
        return result


def take_turns(workers: Mapping[str, Worker], *, repetitions: int, unit: str) -> dict[str, list[Result]]:
    """Run each worker once, in order, and again until each has run `repetitions` times; says each result."""
    results: dict[str, list[Result]] = {name: [] for name in workers}
    for turn in range(repetitions):
        for name, worker in workers.items():
            result = worker.run()
            results[name].append(result)
            told = (
                f"{result['examples'] / result['seconds']:.3g} {unit}, peak {result['peak_memory_bytes'] / 1e9:.2f} GB"
            )
            say(f"  {name} {turn + 1}/{repetitions}: {told}")
    return results


def rates(results: list[Result]) -> list[float]:
    """Examples a second of each repetition."""
    return [result["examples"] / result["seconds"] for result in results]


@contextmanager
def prepared(
    *, model: str, data: str | None, shape: Mapping[str, Any] | None = None, **counts: int
) -> Iterator[Result]:
    """The files of `workers/pairs.py`, in a folder that goes when the block ends.

    With a `shape` (transformers' configuration), the model is one of random weights beside this model's tokenizer.
    """
    with tempfile.TemporaryDirectory(prefix="pairtune-benchmark-") as folder:
        wanted = {"pairs": 0, "warmup": 0, "compared": 0, "prompts": 0, **counts}
        job = {"task": "prepare", "model": model, "data": data, "folder": folder, "shape": shape, **wanted}
        yield Worker(OURS, job).run()


def say(line: str) -> None:
    """Progress goes to standard error: standard output is for results."""
    print(line, file=sys.stderr, flush=True)
