"""A finished work's result.json: its facts, and the size and SHA-256 of every file that it left; written last.

Whoever uses what lies in such a folder can tell whether it still is what was written, the file itself included.
"""

import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from pairtune import disk
from pairtune.hashes import file_hash, value_hash

RESULT = "result.json"
# How long each sitting of a comparison took: it is written after the stages, and belongs to none.
SITTINGS = "stages/sittings.json"


def write(folder: Path, content: Mapping[str, Any], *, without: Collection[str] = ()) -> None:
    """Write what is to be known of a finished work, and what its folder holds but for the files named in `without`."""
    files = {
        path.relative_to(folder).as_posix(): _known(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in {*without, RESULT}
    }
    _seal(folder, {**content, "files": files})


def _known(path: Path) -> dict[str, Any]:
    disk.sync(path)  # what a manifest says is there is there after a power cut
    return {"size": path.stat().st_size, "sha256": file_hash(path)}


def _seal(folder: Path, content: Mapping[str, Any]) -> None:
    whole = json.loads(json.dumps(content))  # as it will be read: keys are text
    disk.write(folder / RESULT, json.dumps(whole | {"seal": value_hash(whole)}, indent=2) + "\n")


def read(folder: Path) -> dict[str, Any] | None:
    """What was written, if it still is just that; None if there is nothing, or something damaged."""
    try:
        content = json.loads((folder / RESULT).read_text(encoding="utf-8"))
        return content if content.pop("seal") == value_hash(content) else None
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return None


def seal_run(out: Path) -> None:
    """Write what is to be known of a comparison's own files; those of its stages have manifests of their own."""
    own = [path for path in [*out.iterdir(), out / SITTINGS] if path.is_file() and path.name != RESULT]
    _seal(out, {"files": {path.relative_to(out).as_posix(): _known(path) for path in sorted(own)}})


def damage(folder: Path) -> str:
    """What in a finished work's folder is not as it was written, in words; nothing if all is.

    Nothing either of a folder without a result, or with one that says nothing of its files: of another program.
    """
    content = read(folder)
    if content is None:
        text = (folder / RESULT).read_text(errors="replace") if (folder / RESULT).is_file() else "{}"
        others = text.rstrip().endswith("}") and '"seal"' not in text
        return "" if others else f"{RESULT} is damaged"
    return next(damages(folder, content["files"]), "")


def damages(folder: Path, files: Mapping[str, Any]) -> Iterator[str]:
    """Each of a manifest's files that is not as it was written, in words."""
    for name, wanted in files.items():
        path = folder / name
        if not path.is_file():
            yield f"{name} is gone"
        elif path.stat().st_size != wanted["size"] or file_hash(path) != wanted["sha256"]:
            yield f"{name} is not what was written"
