"""A folder that one run writes to: held until that ends, by a lock that dies with its process."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pairtune.errors import InputError

# Where Linux lists the locks that processes have: "1: FLOCK ADVISORY WRITE <process> <device>:<inode> 0 EOF".
LOCKS = Path("/proc/locks")


def lock(folder: Path) -> int | None:
    """An open folder that no other run can lock until it is closed; None if another run has it."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except OSError:  # a file system without locks
        pass
    return descriptor


def taken(folder: Path) -> InputError:
    """The error of a folder that another run has: it says which process that is, where the system tells."""
    inode, process = folder.stat().st_ino, ""
    with suppress(OSError, ValueError):
        for words in map(str.split, LOCKS.read_text(encoding="ascii").splitlines()):
            if len(words) > 5 and words[1] == "FLOCK" and words[5].endswith(f":{inode}") and int(words[4]) > 0:
                process = f" (process {words[4]})"
    return InputError(f'out: another run{process} is writing to "{folder}"; wait for its end, or give another --out')


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """The folder, made if need be, is this run's alone until the block ends. Raises InputError if another has it.

    A folder in which nothing was written is not left behind.
    """
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = lock(folder)
    if descriptor is None:
        raise taken(folder)
    try:
        yield
    finally:
        os.close(descriptor)
        for path in missing:
            with suppress(OSError):  # it is not empty: then it is the result
                path.rmdir()
