"""The disk: files written whole, lines appended whole, what a crash leaves behind; whether no space is left."""

import errno
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pairtune.errors import InputError

_SIGNS = ("No space left on device", "os error 28", "StorageFull")
# The end of a file's name while it is written.
PARTIAL = ".partial"


def write(path: Path, text: str) -> None:
    """Write a text file atomically: a reader finds the old content or all of the new, after a power cut too.

    Raises InputError where a device or the like stands in its place: a file would take that away.
    """
    if path.exists() and not path.is_file():
        raise InputError(f'"{path}" is no ordinary file; give another path')
    partial = beside(path)
    try:
        partial.write_text(text, encoding="utf-8")
        put(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def beside(path: Path) -> Path:
    """Where a file is written before it takes its place."""
    return path.with_name(f"{path.name}{PARTIAL}")


def put(partial: Path, path: Path) -> None:
    """Let a file that is written take its place, once its content is on the disk."""
    sync(partial)
    partial.replace(path)
    sync(path.parent)


def sync(path: Path) -> None:
    """Wait until what was written to a file, or which names a folder holds, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EBADF, errno.ENOTSUP):  # a file system that cannot
            raise
    finally:
        os.close(descriptor)


def append(path: Path, row: Mapping[str, Any]) -> None:
    """Append one row to a file of JSON lines; it is in the file when this returns, on the disk after `sync`."""
    with path.open("ab") as file:
        file.write(f"{json.dumps(row)}\n".encode())


def sweep(folder: Path) -> None:
    """Remove what a crash left half written in a folder. Only who holds the folder may: nobody else writes there."""
    for path in folder.glob(f"*{PARTIAL}"):
        if path.is_file():
            path.unlink(missing_ok=True)


def holds_nothing(folder: Path) -> bool:
    """Whether there is nothing in a folder but what a crash left half written."""
    return all(path.name.endswith(PARTIAL) and path.is_file() for path in folder.iterdir())


def is_full(error: BaseException | None) -> bool:
    """Whether `error`, or an error behind it, says that no space is left: libraries wrap the system's in theirs."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if any(sign in str(error) for sign in _SIGNS):  # safetensors and transformers raise errors of their own
            return True
        error = error.__cause__ or error.__context__
    return False
