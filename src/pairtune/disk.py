"""The disk: a file written whole, and whether an error means that no space is left."""

import errno
from pathlib import Path

from pairtune.errors import InputError

_SIGNS = ("No space left on device", "os error 28", "StorageFull")


def write(path: Path, text: str) -> None:
    """Write a text file atomically: a reader finds the old content or all of the new.

    Raises InputError where a device or the like stands in its place: a file would take that away.
    """
    if path.exists() and not path.is_file():
        raise InputError(f'"{path}" is no ordinary file; give another path')
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def is_full(error: BaseException | None) -> bool:
    """Whether `error`, or an error behind it, says that no space is left: libraries wrap the system's in theirs."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if any(sign in str(error) for sign in _SIGNS):  # safetensors and transformers raise errors of their own
            return True
        error = error.__cause__ or error.__context__
    return False
