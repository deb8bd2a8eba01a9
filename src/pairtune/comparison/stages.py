"""Stages kept by content: the same work on the same inputs is done once, and a half-done stage is gone on with."""

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pairtune import disk
from pairtune.comparison.sittings import Sittings
from pairtune.engine.cost import Cost, measured
from pairtune.engine.version import engine_version
from pairtune.progress import duration, say
from pairtune.training.checkpoint import forget_checkpoint

# Raise it whenever a stage's work changes in a way that its inputs do not show.
STAGES_VERSION = 3


@dataclass(frozen=True)
class Done:
    """A finished stage: what its result depends on, where it lies, the facts it left, what it cost."""

    key: str
    folder: Path
    facts: dict[str, Any]
    cost: Cost


class Stages:
    """The stages of one run, a folder each. `cost` is what the stage under way is being measured into."""

    def __init__(self, folder: Path, sittings: Sittings | None = None) -> None:
        self.folder, self.sittings = folder, sittings or Sittings()
        self.cost = Cost()

    def run(
        self,
        name: str,
        inputs: dict[str, Any],
        work: Callable[[Path], dict[str, Any]],
        *,
        title: str,
        leaves: Path | None = None,
    ) -> Done:
        """The stage's result, from an earlier run if its inputs are the same.

        `work(folder)` does it and returns the stage's facts; what it leaves in its folder, and the folder `leaves`
        outside of it, belong to the stage. If it is interrupted, the next run finds its folder as it was left.
        """
        key, folder = _key(name, inputs), self.folder / name
        kept = self.kept(name, inputs)
        if kept and leaves and not leaves.is_dir():
            say(f"{title}: {leaves} is gone; doing the stage again")
            kept = None
        if kept:
            say(f"{title}: kept from an earlier run ({duration(kept.cost.seconds)})")
            self.sittings.keep(key)
            return kept
        key_file = folder / "key"
        if folder.exists() and (not key_file.is_file() or key_file.read_text() != key):
            shutil.rmtree(folder)
        folder.mkdir(parents=True, exist_ok=True)
        key_file.write_text(key)
        say(title)
        with self.sittings.working_on(key), measured() as cost:
            self.cost = cost
            facts = work(folder)
        cost = Cost(**facts.pop("cost")) if "cost" in facts else cost
        result = {"key": key, "facts": facts, "cost": cost.to_json()}
        disk.write(folder / "result.json", json.dumps(result, indent=2))
        forget_checkpoint(folder)
        say(f"  done in {duration(cost.seconds)}")
        return Done(key, folder, facts, cost)

    def finished(self, name: str) -> bool:
        """Whether there is a result of the stage, of these inputs or of others."""
        return (self.folder / name / "result.json").is_file()

    def kept(self, name: str, inputs: dict[str, Any]) -> Done | None:
        """The stage's result from an earlier run, if its inputs were the same. A damaged one is told of and removed."""
        key, path = _key(name, inputs), self.folder / name / "result.json"
        try:
            result = json.loads(path.read_text(encoding="utf-8"))
            if result["key"] != key:
                return None
            return Done(key, path.parent, result["facts"], Cost(**result["cost"]))
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            say(f"{name}: its result.json cannot be used ({error}); doing the stage again")
            path.unlink()  # told once
            return None


def _key(name: str, inputs: dict[str, Any]) -> str:
    return content_key({"stage": name, "versions": [STAGES_VERSION, engine_version()], **inputs})


def content_key(inputs: dict[str, Any]) -> str:
    """SHA-256 of the inputs as canonical JSON."""
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()
