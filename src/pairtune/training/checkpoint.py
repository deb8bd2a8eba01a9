"""Checkpoints of a stage under way, and its records: what Ctrl-C or a crash leaves to go on from.

A checkpoint is one safetensors file, written whole before it replaces the last. Going on from it gives the same
weights, to the bit, as never having stopped.
"""

import dataclasses
import json
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from pairtune.engine.cost import Cost, current
from pairtune.progress import say

CHECKPOINT, RECORDS = "checkpoint.safetensors", "records.jsonl"


class Journal:
    """The records of one stage, a JSON object a line, and its latest checkpoint; both may be absent (folder None).

    `cost` is what the stage is being measured into, here if it is not given: a resumed stage costs what
    both its parts did.
    """

    def __init__(
        self, stage: str, folder: Path | None = None, *, every: float = 180.0, cost: Cost | None = None
    ) -> None:
        self.stage, self.folder, self.every = stage, folder, every
        self.cost = cost or current() or Cost()
        self.rows: list[dict[str, Any]] = []
        self.saved_at = time.monotonic()
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)

    def record(self, **row: Any) -> None:
        """Append one row."""
        self.rows.append(row)
        if self.folder is not None:
            with (self.folder / RECORDS).open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")

    def end(self) -> dict[str, Any]:
        """Where the stage ended: its last step, and the seconds of all its steps."""
        return {name: self.rows[-1][name] for name in ("step", "seconds")}

    def resume(self) -> tuple[int, float, dict[str, Tensor]]:
        """The checkpoint's step, its seconds and its tensors; (0, 0, {}) and empty records without one."""
        if self.folder is None:
            return 0, 0.0, {}
        path = self.folder / CHECKPOINT
        step, seconds = 0, 0.0
        tensors: dict[str, Tensor] = {}
        if path.is_file():
            try:
                step, seconds, spent, tensors = _read(path)
            except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
                say(f"  the checkpoint cannot be used ({error}); starting this stage again")
            else:
                say(f"  going on at step {step + 1}")
                for name, value in (spent + self.cost).to_json().items():
                    setattr(self.cost, name, value)
        self._truncate(step)
        return step, seconds, tensors

    def checkpoint(self, step: int, seconds: float, tensors: dict[str, Tensor], *, stopping: bool) -> None:
        """Keep the state after `step` if the last was kept long enough ago; keep it and stop if asked to stop."""
        if self.folder is not None and (stopping or time.monotonic() - self.saved_at >= self.every):
            self._save(step, seconds, tensors)
        if stopping:
            raise KeyboardInterrupt

    def _save(self, step: int, seconds: float, tensors: dict[str, Tensor]) -> None:
        assert self.folder is not None
        partial = self.folder / "checkpoint.partial"
        spent = dataclasses.replace(self.cost, seconds=seconds)  # the cost's own seconds are known at its end only
        facts = json.dumps({"step": step, "seconds": seconds, "cost": spent.to_json()})
        save_file({name: value.contiguous() for name, value in tensors.items()}, partial, metadata={"facts": facts})
        partial.replace(self.folder / CHECKPOINT)
        self.saved_at = time.monotonic()

    def _truncate(self, step: int) -> None:
        assert self.folder is not None
        path = self.folder / RECORDS
        if path.is_file():
            rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
            self.rows = [row for row in rows if row["step"] <= step]
            path.write_text("".join(json.dumps(row) + "\n" for row in self.rows), encoding="utf-8")


def _read(path: Path) -> tuple[int, float, Cost, dict[str, Tensor]]:
    """A checkpoint's step, seconds, cost and tensors."""
    with safe_open(path, framework="pt") as file:
        facts = json.loads(file.metadata()["facts"])
    return int(facts["step"]), float(facts["seconds"]), Cost(**facts["cost"]), load_file(path)


def read_records(folder: Path) -> list[dict[str, Any]]:
    """The records of the stage in this folder; none where there are none."""
    path = folder / RECORDS
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []


def forget_checkpoint(folder: Path) -> None:
    """The stage's result is saved: its checkpoint, kept until now in case saving failed, is not needed."""
    (folder / CHECKPOINT).unlink(missing_ok=True)


class Interruption:
    """Whether the person has asked to stop."""

    asked = False


@contextmanager
def interruptible() -> Iterator[Interruption]:
    """Ctrl-C lets the step under way finish and its checkpoint be kept; a second Ctrl-C stops at once."""
    interruption = Interruption()
    if threading.current_thread() is not threading.main_thread():
        yield interruption
        return

    def ask(number: int, frame: FrameType | None) -> None:
        if interruption.asked:
            raise KeyboardInterrupt
        interruption.asked = True
        say("\n  stopping after this step; press Ctrl-C again to stop at once")

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield interruption
    finally:
        signal.signal(signal.SIGINT, before)
