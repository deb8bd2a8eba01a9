"""The memory that this process may have: the machine's, or less where a container or `ulimit -v` says so."""

import resource
from contextlib import suppress
from pathlib import Path

import psutil

# Where Linux keeps control groups, and which this process is in.
GROUPS, OWN = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
# Limit and use by version of control groups: (the controller's folder, file of the limit, file of what is used).
_FILES = (("", "memory.max", "memory.current"), ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes"))


def total() -> int:
    """Bytes that this process may come to."""
    limits = [limit for limit, _ in _of_groups()]
    return min([int(psutil.virtual_memory().total), *limits, *_address_space()])


def free() -> int:
    """Bytes that this process may still take."""
    rooms = [max(0, limit - used) for limit, used in _of_groups()]
    held = psutil.Process().memory_info().vms
    return min([int(psutil.virtual_memory().available), *rooms, *(max(0, limit - held) for limit in _address_space())])


def told() -> str:
    """How much this process may have, in words, and what says so where it is less than the machine has."""
    groups, space = [limit for limit, _ in _of_groups()], _address_space()
    most, machine = total(), int(psutil.virtual_memory().total)
    why = "a control group's limit" if most in groups else "ulimit -v" if most in space else "the machine's"
    return f"{most / 1e9:.1f} GB, {why if most < machine else 'all that the machine has'}"


def _address_space() -> list[int]:
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    return [] if soft == resource.RLIM_INFINITY else [soft]


def _of_groups() -> list[tuple[int, int]]:
    """(limit, used) in bytes of every group that the process is in and that has a limit, both versions."""
    found = []
    for line in _text(OWN).splitlines():
        _, controllers, inside = (*line.split(":", 2), "", "")[:3]
        folder, limit_file, used_file = _FILES[1 if "memory" in controllers.split(",") else 0]
        if controllers and not folder:
            continue
        place = Path(inside.lstrip("/"))
        # A container sees its own group as the root, whatever the path says; a limit of an outer group holds as well.
        for group in (place, *place.parents):
            with suppress(ValueError):
                limit = int(_text(GROUPS / folder / group / limit_file))
                found.append((limit, int(_text(GROUPS / folder / group / used_file))))
    return found


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except (OSError, ValueError):
        return ""
