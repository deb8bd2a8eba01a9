"""A piece of work with a folder: what it rests on, what it left, and a way to go on after an interruption.

In the folder lie, in the order in which they appear: settings.json, everything that the result rests on; records.jsonl
and a checkpoint, while the work goes on; what the work leaves, a model for one; result.json, written last.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pairtune import disk, manifest, parallel
from pairtune.engine.cost import Cost, measured, together
from pairtune.engine.version import engine_version
from pairtune.hashes import value_hash
from pairtune.progress import say
from pairtune.training.checkpoint import CHECKPOINTS, LOGS, SETTINGS, forget_checkpoint

# Raise it whenever a stage's work changes in a way that what it rests on does not show.
STAGES_VERSION = 4

Facts = dict[str, Any]
# work(folder): does it there, and returns its facts, plain values; under "cost", what it cost if it knows better.
Work = Callable[[Path], Facts]


@dataclass(frozen=True)
class Done:
    """A finished stage: the key of what its result rests on, where it lies, its facts, what it cost."""

    key: str
    folder: Path
    facts: Facts
    cost: Cost


@dataclass(frozen=True)
class Stage:
    """One piece of work: its folder, and everything that its result rests on, as plain values."""

    folder: Path
    rests_on: Mapping[str, Any]

    @cached_property
    def settings(self) -> dict[str, Any]:
        """What it rests on, the versions of what computes among it, as settings.json holds it."""
        versions = {"stages": STAGES_VERSION, "engine": engine_version()}
        found: dict[str, Any] = json.loads(json.dumps({**self.rests_on, "versions": versions}))
        return found

    @cached_property
    def key(self) -> str:
        """SHA-256 of what it rests on."""
        return value_hash(self.settings)

    @property
    def begun(self) -> bool:
        """Whether work lies in the folder, this or another."""
        return (self.folder / SETTINGS).is_file()

    def changed(self) -> list[str]:
        """What the work that lies in the folder rests on otherwise, by dotted names; none if it is this or none."""
        if not self.begun:
            return []
        try:
            before = flat(json.loads((self.folder / SETTINGS).read_text(encoding="utf-8")))
        except (OSError, ValueError, AttributeError):
            return [f"its {SETTINGS} cannot be read"]
        now = flat(self.settings)
        return [name for name in before | now if before.get(name) != now.get(name)]

    def finished(self) -> Done | None:
        """The result of just this work, every file as it was written. One that is damaged is told of and removed."""
        found = manifest.read(self.folder)
        if found and found["key"] != self.key:
            return None
        if trouble := manifest.damage(self.folder):
            say(f"{self.folder}: {trouble}; making it again")
            for name in (*(found["files"] if found else (SETTINGS, *LOGS)), manifest.RESULT):
                (self.folder / name).unlink(missing_ok=True)
            return None
        if not found:
            return None
        forget_checkpoint(self.folder)  # where a kill came between the two
        facts = {name: fact for name, fact in found.items() if name not in ("key", "cost", "files")}
        return Done(self.key, self.folder, facts, Cost(**found["cost"]))

    def run(self, work: Work, *, spent: Cost | None = None) -> Done:
        """Do the work, or go on with it where it was left. `spent`: what preparing it cost, which counts too."""
        if parallel.is_first():
            self.folder.mkdir(parents=True, exist_ok=True)
            disk.sweep(self.folder)
            disk.write(self.folder / SETTINGS, json.dumps(self.settings, indent=2, sort_keys=True))
        with measured() as cost:
            facts = work(self.folder)
        cost = Cost(**facts.pop("cost")) if "cost" in facts else (spent or Cost()) + together(cost)
        if not parallel.is_first():
            return Done(self.key, self.folder, facts, cost)
        result = {**facts, "key": self.key, "cost": cost.to_json()}
        manifest.write(self.folder, result, without=CHECKPOINTS)
        forget_checkpoint(self.folder)
        return Done(self.key, self.folder, facts, cost)


def flat(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings by dotted key."""
    values: dict[str, Any] = {}
    for name, value in nested.items():
        values.update(flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value})
    return values
