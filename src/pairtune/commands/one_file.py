"""A result that is one file: where it may lie, and how it is written."""

import glob
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from pairtune import disk, own
from pairtune.errors import InputError


def result_file(out: str, *, inputs: Sequence[str], overwrite: bool, name: str = "out") -> Path | None:
    """The file for a result, if one was asked for.

    Raises InputError if it cannot be one: a folder, one of the `inputs` by whatever name, a file that exists unless it
    is to be overwritten.
    """
    if not out:
        return None
    path = Path(out)
    if path.is_dir():
        raise InputError(f'{name}: "{out}" is a folder; give a file')
    if path.exists() and any(_is_read(path, given) for given in inputs):
        raise InputError(f'{name}: "{out}" is a file that is read here; give another')
    if path.exists() and not overwrite:
        raise InputError(f'{name}: "{out}" exists; give another, or --overwrite')
    return path


def _is_read(path: Path, given: str) -> bool:
    """Whether a file is one that is given to be read, or lies in a folder that is."""
    given = own.file_of(given) or given
    with suppress(OSError, ValueError):  # a hub's name
        for found in map(Path, [given, *glob.glob(given, recursive=True)] if given else []):
            found = found.expanduser()
            if found.is_dir() and path.resolve().is_relative_to(found.resolve()):
                return True
            if found.exists() and path.samefile(found):
                return True
    return False


def write(path: Path, text: str) -> None:
    """A result that is one file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    disk.write(path, text)
