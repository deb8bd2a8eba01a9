"""Checkpoints of a stage under way, and its records: what Ctrl-C or a crash leaves to go on from.

A checkpoint is one safetensors file, written whole before it takes its place, and the one before it stays. It says of
what stage it is, what its tensors' content is, and how long the stage's logs were, so that nothing damaged is gone on
from. Going on gives the same weights, to the bit, as never having stopped.
"""

import dataclasses
import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from pairtune import disk, parallel
from pairtune.engine.content import tensors_hash
from pairtune.engine.cost import Cost, current
from pairtune.engine.sharded import Part
from pairtune.hashes import file_hash, value_hash
from pairtune.progress import say

# The latest checkpoint, the one before it, and the stage's logs: files of JSON lines that only grow.
CHECKPOINT, EARLIER = "checkpoint.safetensors", "checkpoint.earlier.safetensors"
RECORDS, SNAPSHOTS = "records.jsonl", "snapshots.jsonl"
CHECKPOINTS, LOGS = (CHECKPOINT, EARLIER), (RECORDS, SNAPSHOTS)
# What the stage's work rests on, as `stages.stage` writes it: a checkpoint belongs to it.
SETTINGS = "settings.json"
# In it: the settings that the stage was begun with, where it was gone on with under others (`--resume-anyway`).
WENT_ON = "went_on"
# Unless it is asked for otherwise, no more seconds of work than this are at stake, or saving takes this share of them.
EVERY, SHARE = 30.0, 0.02
_UNUSABLE = (SafetensorError, KeyError, TypeError, ValueError, AttributeError)


class Kept(NamedTuple):
    """What a checkpoint holds: the step and its seconds, what the stage had cost, how long its logs were, tensors."""

    step: int
    seconds: float
    cost: Cost
    logs: dict[str, int]
    tensors: dict[str, Tensor]


class Journal:
    """The records of one stage, a JSON object a line, and its checkpoints; both may be absent (folder None).

    every: seconds of work between checkpoints; 0: 30, or as many as keep saving below 2% of the time. `cost` is what
    the stage is being measured into, here if it is not given: a resumed stage costs what both its parts did.
    """

    def __init__(self, stage: str, folder: Path | None = None, *, every: float = 0.0, cost: Cost | None = None) -> None:
        self.asked = folder is not None  # that there is a folder; the first rank's journal alone writes there
        folder = folder if parallel.is_first() else None
        self.stage, self.folder, self.every = stage, folder, every
        self.cost = cost or current() or Cost()
        self.rows: list[dict[str, Any]] = []
        self.warnings: list[dict[str, str]] = []  # what went wrong, once training has ended
        self.kept, self.saving = 0, 0.0  # the step of the latest checkpoint, and the seconds that it took to save
        self.saved_at = time.monotonic()
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            disk.sweep(folder)

    def record(self, **row: Any) -> None:
        """Append one row."""
        self.rows.append(row)
        if self.folder is not None:
            disk.append(self.folder / RECORDS, row)

    def end(self) -> dict[str, Any]:
        """Where the stage ended: its last step, and the seconds of all its steps; what is to be warned of."""
        return {name: self.rows[-1][name] for name in ("step", "seconds")} | self.warned()

    def warned(self) -> dict[str, Any]:
        """What is to be warned of, for the stage's facts."""
        return {"warnings": self.warnings} if self.warnings else {}

    def left(self) -> str:
        """What the same command begins with, in words."""
        if self.folder is None or not self.kept:
            return "the same command begins this stage again"
        return f"the same command goes on at step {self.kept + 1}"

    def resume(
        self, take: Callable[[str, Tensor], Tensor] = lambda name, tensor: tensor
    ) -> tuple[int, float, dict[str, Tensor]]:
        """The checkpoint's step, its seconds and its tensors; (0, 0, {}) and empty records without one.

        One that is damaged, or of another stage, is told of and removed, and the one before it is used. The first rank
        reads it, and gives it to the others; `take` says what a rank holds of each tensor.
        """
        if not self.asked:
            return 0, 0.0, {}
        found: tuple[int, float, dict[str, Tensor]] = (0, 0.0, {})
        if parallel.is_first():
            found = self._resume()
        step, seconds, self.kept, self.rows = parallel.from_first(lambda: (*found[:2], self.kept, self.rows))
        return step, seconds, parallel.tensors_from_first(found[2], take)

    def _resume(self) -> tuple[int, float, dict[str, Tensor]]:
        assert self.folder is not None
        found = next((kept for name in CHECKPOINTS if (kept := self._usable(self.folder / name))), None)
        if found is None:
            if any((self.folder / name).is_file() and (self.folder / name).stat().st_size for name in LOGS):
                say("  there is no checkpoint to go on from; starting this stage again")
            self._take_back({})
            return 0, 0.0, {}
        say(f"  going on at step {found.step + 1}")
        for name, value in (found.cost + self.cost).to_json().items():
            setattr(self.cost, name, value)
        self._take_back(found.logs)
        self.kept = found.step
        return found.step, found.seconds, found.tensors

    @property
    def due(self) -> bool:
        """Whether the last checkpoint was kept long enough ago."""
        every = self.every or max(EVERY, self.saving / SHARE)
        return self.folder is not None and time.monotonic() - self.saved_at >= every

    def checkpoint(
        self,
        step: int,
        seconds: float,
        tensors: Mapping[str, Tensor | Part],
        *,
        stopping: bool,
        due: bool | None = None,
    ) -> None:
        """Keep the state after `step` if the last was kept long enough ago; keep it and stop if asked to stop.

        due: what the ranks have agreed on; all give their part of what lies in parts.
        """
        due = self.due if due is None else due
        if self.folder is not None and (stopping or due):
            self._save(step, seconds, tensors)
        elif self.asked and (stopping or due):
            gather(tensors)
        if stopping:
            raise KeyboardInterrupt

    def _save(self, step: int, seconds: float, tensors: Mapping[str, Tensor | Part]) -> None:
        """Logs first, then the checkpoint whole, beside; only then does the earlier one give way."""
        assert self.folder is not None
        began = time.monotonic()
        logs = {name: path.stat().st_size for name in LOGS if (path := self.folder / name).is_file()}
        for name in logs:
            disk.sync(self.folder / name)
        spent = dataclasses.replace(self.cost, seconds=seconds)  # the cost's own seconds are known at its end only
        facts = {
            "stage": self.stage,
            "of": _settings_hash(self.folder),
            "step": step,
            "seconds": seconds,
            "cost": spent.to_json(),
            "logs": {name: [size, _beginning(self.folder / name, size)] for name, size in logs.items()},
        }
        content = {name: value.contiguous() for name, value in gather(tensors, self.folder).items()}
        text = json.dumps(facts)
        latest, partial = self.folder / CHECKPOINT, disk.beside(self.folder / CHECKPOINT)
        try:
            save_file(content, partial, metadata={"facts": text, "sha256": value_hash([text, tensors_hash(content)])})
            _keep(latest, self.folder / EARLIER)
            disk.put(partial, latest)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
        self.kept, self.saved_at = step, time.monotonic()
        self.saving = self.saved_at - began

    def _usable(self, path: Path) -> Kept | None:
        """A checkpoint that is what was written, of this stage, with the logs that belong to it; else it goes."""
        assert self.folder is not None
        if not path.is_file():
            return None
        try:
            return _read(path, self.stage, self.folder)
        except _UNUSABLE as error:
            other = "the one before it" if path.name == CHECKPOINT and (self.folder / EARLIER).is_file() else ""
            said = " ".join(str(error).split())
            then = f"{other} is used" if other else "this stage begins again"
            say(f"  {path.name} cannot be used ({said}); {then}")
            path.unlink(missing_ok=True)
            return None

    def _take_back(self, logs: dict[str, int]) -> None:
        """Leave of each log what the checkpoint knows of: the rest, a line cut short among it, is done again."""
        assert self.folder is not None
        for name in LOGS:
            path, size = self.folder / name, logs.get(name, 0)
            if not size:
                path.unlink(missing_ok=True)
            elif path.stat().st_size > size:
                partial = disk.beside(path)
                partial.write_bytes(path.read_bytes()[:size])
                disk.put(partial, path)
        self.rows = read_records(self.folder)


def _read(path: Path, stage: str, folder: Path) -> Kept:
    """What a checkpoint holds. Raises an error that says why it cannot be used."""
    if not path.stat().st_size:
        raise ValueError("it is empty")
    with safe_open(path, framework="pt") as file:
        told = file.metadata() or {}
    if not {"facts", "sha256"} <= told.keys():
        raise ValueError("it does not say what it is")
    tensors = load_file(path)
    if told["sha256"] != value_hash([told["facts"], tensors_hash(tensors)]):
        raise ValueError("it is not what was written")
    facts = json.loads(told["facts"])
    if facts["stage"] != stage or facts["of"] not in _belonging(folder):
        raise ValueError("it is another stage's")
    for name, (size, found) in facts["logs"].items():
        if not (folder / name).is_file() or _beginning(folder / name, size) != found:
            raise ValueError(f"{name} is not what it was when this was kept")
    logs = {name: size for name, (size, _) in facts["logs"].items()}
    return Kept(int(facts["step"]), float(facts["seconds"]), Cost(**facts["cost"]), logs, tensors)


def gather(tensors: Mapping[str, Tensor | Part], folder: Path | None = None) -> dict[str, Tensor]:
    """What lies in parts on several ranks, whole: every rank has to ask. In a file in the folder, not in memory.

    Without a folder this rank only gives its parts, and gets nothing.
    """
    parts = {name: value for name, value in tensors.items() if isinstance(value, Part)}
    found = {name: value for name, value in tensors.items() if not isinstance(value, Part)}
    if folder is None or not parts:
        for value in parts.values():
            value.whole()
        return found
    scratch, sizes = disk.beside(folder / "gathered"), [value.like.numel() for value in parts.values()]
    rooms = torch.from_file(str(scratch), shared=True, size=sum(sizes), dtype=torch.float32).split(sizes)
    scratch.unlink()  # it is there as long as it is mapped
    for (name, value), room in zip(parts.items(), rooms, strict=True):
        found[name] = room.view(value.like.shape).copy_(value.whole())
    return found


def _keep(latest: Path, earlier: Path) -> None:
    """Give the latest checkpoint the earlier one's name as well: at no moment is there none."""
    if not latest.is_file():
        return
    other = disk.beside(earlier)
    try:
        os.link(latest, other)
        other.replace(earlier)
    except OSError:  # a file system without links
        latest.replace(earlier)
    with suppress(OSError):  # both were the same file
        other.unlink()


def _settings_hash(folder: Path) -> str:
    path = folder / SETTINGS
    return file_hash(path) if path.is_file() else ""


def _belonging(folder: Path) -> set[str]:
    """The hashes of the settings whose checkpoints may be gone on with: the stage's, and those it went on from."""
    path = folder / SETTINGS
    before = json.loads(path.read_text(encoding="utf-8")).get(WENT_ON, []) if path.is_file() else []
    return {_settings_hash(folder), *(each["of"] for each in before)}


def _beginning(path: Path, size: int) -> str:
    """SHA-256 of a file's first `size` bytes."""
    with path.open("rb") as file:
        return hashlib.sha256(file.read(size)).hexdigest()


def bound_to(folder: Path) -> set[str]:
    """The SHA-256 of the settings that checkpoints in a folder say they belong to; those that say nothing are none."""
    found = set()
    for path in (folder / name for name in CHECKPOINTS):
        with suppress(OSError, *_UNUSABLE), safe_open(path, framework="pt") as file:
            found.add(str(json.loads((file.metadata() or {})["facts"])["of"]))
    return found


def read_records(folder: Path) -> list[dict[str, Any]]:
    """The records of the stage in this folder; none where there are none."""
    path = folder / RECORDS
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []


def forget_checkpoint(folder: Path) -> None:
    """The stage's result is saved: its checkpoints, kept until now in case saving failed, are not needed."""
    for name in CHECKPOINTS:
        (folder / name).unlink(missing_ok=True)
