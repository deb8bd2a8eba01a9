"""What checks have found, kept by all that it depends on: the model's content, the machine, the versions.

A file that does not hold what was written counts as none: the check is done again.
"""

import hashlib
import json
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

from transformers import PreTrainedModel

from pairtune import disk
from pairtune.cache import cache_folder
from pairtune.engine.content import model_key
from pairtune.engine.version import engine_version

# Raise it whenever a check looks at more than it did.
CHECK_VERSION = 1

Found = TypeVar("Found")


def place(model: PreTrainedModel, kind: str) -> Path:
    """Where what a check of this kind finds about this model is kept."""
    facts = [model_key(model), type(model).__name__, str(model.config._attn_implementation), engine_version()]
    facts += [version(name) for name in ("torch", "transformers")]
    digest = hashlib.sha256(json.dumps([kind, CHECK_VERSION, *facts]).encode()).hexdigest()
    return cache_folder() / "checks" / "verdicts" / f"{digest}.json"


def recall(path: Path, of: type[Found]) -> Found | None:
    """What was found, as it was remembered; None if the check has to be done."""
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        return of(**kept["found"]) if kept["seal"] == _seal(path, kept["found"]) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def remember(path: Path, found: dict[str, Any]) -> None:
    """Keep what a check has found. A cache that cannot be written is done without."""
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        disk.write(path, json.dumps({"found": found, "seal": _seal(path, found)}))


def _seal(path: Path, found: dict[str, Any]) -> str:
    return hashlib.sha256(f"{path.name} {json.dumps(found, sort_keys=True)}".encode()).hexdigest()
