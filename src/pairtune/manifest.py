"""A finished work's result.json: its facts, and the size and SHA-256 of every file that it left; written last.

Whoever uses what lies in such a folder can tell whether it still is what was written, the file itself included.
"""

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from pairtune import disk
from pairtune.hashes import file_hash, value_hash

RESULT = "result.json"


def write(folder: Path, content: Mapping[str, Any], *, without: Collection[str] = ()) -> None:
    """Write what is to be known of a finished work, and what its folder holds but for the files named in `without`."""
    files = {
        path.relative_to(folder).as_posix(): {"size": path.stat().st_size, "sha256": file_hash(path)}
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in {*without, RESULT}
    }
    whole = {**content, "files": files}
    whole = json.loads(json.dumps(whole))  # as it will be read: keys are text
    disk.write(folder / RESULT, json.dumps(whole | {"seal": value_hash(whole)}, indent=2) + "\n")


def read(folder: Path) -> dict[str, Any] | None:
    """What was written, if it still is just that; None if there is nothing, or something damaged."""
    try:
        content = json.loads((folder / RESULT).read_text(encoding="utf-8"))
        return content if content.pop("seal") == value_hash(content) else None
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return None


def damage(folder: Path) -> str:
    """What in a finished work's folder is not as it was written, in words; nothing if all is.

    Nothing either of a folder without a result, or with one that says nothing of its files: of another program.
    """
    content = read(folder)
    if content is None:
        text = (folder / RESULT).read_text(errors="replace") if (folder / RESULT).is_file() else "{}"
        others = text.rstrip().endswith("}") and '"seal"' not in text
        return "" if others else f"{RESULT} is damaged"
    for name, wanted in content["files"].items():
        path = folder / name
        if not path.is_file():
            return f"{name} is gone"
        if path.stat().st_size != wanted["size"] or file_hash(path) != wanted["sha256"]:
            return f"{name} is not what was written"
    return ""
