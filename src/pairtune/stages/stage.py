"""A piece of work with a folder: what it rests on, what it left, and a way to go on after an interruption.

In the folder lie, in the order in which they appear: settings.json, everything that the result rests on; records.jsonl
and a checkpoint, while the work goes on; what the work leaves, a model for one; result.json, written last.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pairtune import disk, manifest, parallel
from pairtune.engine.cost import Cost, measured, together
from pairtune.engine.version import engine_version
from pairtune.errors import InputError
from pairtune.hashes import file_hash, value_hash
from pairtune.progress import say
from pairtune.training.checkpoint import CHECKPOINTS, LOGS, SETTINGS, WENT_ON, bound_to, forget_checkpoint

# Raise it whenever a stage's work changes in a way that what it rests on does not show.
STAGES_VERSION = 4

Facts = dict[str, Any]
# What work is: with another there is nothing to go on with.
NEVER_OTHER = ("command", "preference.objective", "online.objective", "lora")
# Characters of a value in a line.
SHOWN = 40
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

    @property
    def before(self) -> dict[str, Any]:
        """What the stage rested on before it was gone on with under other settings; nothing if it was not."""
        return {name: self.settings[name] for name in (WENT_ON,) if name in self.settings}

    @property
    def text(self) -> str:
        """What settings.json is to hold."""
        return json.dumps(self.settings, indent=2, sort_keys=True)

    def changed(self) -> list[str]:
        """What the work that lies in the folder rests on otherwise, by dotted names; none if it is this or none.

        A checkpoint knows the hash of the settings that it belongs to: it says whose work this is where settings.json
        is damaged or gone.
        """
        if self._bound:
            return []
        if not self.begun:
            return [f"its {SETTINGS} is gone"] if bound_to(self.folder) else []
        try:
            before = flat(json.loads((self.folder / SETTINGS).read_text(encoding="utf-8")))
        except (OSError, ValueError, AttributeError):
            return [f"its {SETTINGS} cannot be read"]
        now = flat(self.settings)
        return [name for name in before | now if before.get(name) != now.get(name)]

    def going_on(self) -> "Stage":
        """This stage, as what goes on with the work in its folder although it rests on other things; each is said.

        The stage then rests on both, in the order in which they came. Raises InputError where nothing says what it
        rested on before, or where it was work of another kind.
        """
        names = self.changed()
        if not names:
            return self
        try:
            before = json.loads((self.folder / SETTINGS).read_bytes())
            earlier = before.pop(WENT_ON, [])
        except (OSError, ValueError, AttributeError) as error:
            raise InputError(
                f'out: what the work in "{self.folder}" rested on cannot be read ({names[0]}), so it cannot be gone on '
                "with; give another --out, or remove it"
            ) from error
        if before == self.settings:  # it went on before, and goes on again
            return Stage(self.folder, {**self.rests_on, WENT_ON: earlier})
        old, new = flat(before), flat(self.settings)
        other = {name: [old.get(name), new.get(name)] for name in old | new if old.get(name) != new.get(name)}
        if fixed := next((name for name in other if name.startswith(NEVER_OTHER)), ""):
            given, wanted = map(_short, other[fixed])
            raise InputError(
                f'out: the work in "{self.folder}" cannot be gone on with under another {fixed} ({given} before, now '
                f"{wanted}); give another --out"
            )
        say(f"out: going on with {self.folder} although it was begun with other settings, data, model or code:")
        for name, (was, now) in other.items():
            say(f"  {name}: {_short(was)} before, {_short(now)} from here on")
        say("  the result is that of neither: steps done stay as they were made, the rest is made otherwise")
        entry = {"of": file_hash(self.folder / SETTINGS), "otherwise": other}
        return Stage(self.folder, {**self.rests_on, WENT_ON: [*earlier, entry]})

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
            self._write_settings()
        with measured() as cost:
            facts = work(self.folder)
        cost = Cost(**facts.pop("cost")) if "cost" in facts else (spent or Cost()) + together(cost)
        if not parallel.is_first():
            return Done(self.key, self.folder, facts, cost)
        result = {**facts, **self.before, "key": self.key, "cost": cost.to_json()}
        manifest.write(self.folder, result, without=CHECKPOINTS)
        forget_checkpoint(self.folder)
        return Done(self.key, self.folder, facts, cost)

    @property
    def _bound(self) -> bool:
        """Whether a checkpoint in the folder says that it is this stage's."""
        return hashlib.sha256(self.text.encode()).hexdigest() in bound_to(self.folder)

    def _write_settings(self) -> None:
        """Write settings.json; that it was damaged is said where work lies here that is not to be lost."""
        path, text = self.folder / SETTINGS, self.text.encode()
        if self._bound and (not path.is_file() or path.read_bytes() != text):
            say(f"  {SETTINGS} is not what was written; the checkpoint knows what it was, and it is written again")
        disk.write(path, self.text)


def _short(value: Any) -> str:
    """A setting's value in a line, a hash by its beginning."""
    text = json.dumps(value)
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."


def flat(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings by dotted key."""
    values: dict[str, Any] = {}
    for name, value in nested.items():
        values.update(flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value})
    return values
