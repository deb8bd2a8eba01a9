"""What a person may have meant by a name that is not there."""

import difflib
from collections.abc import Iterable
from pathlib import Path

# Names at least this alike (difflib's ratio) may be a slip of the keys; below it a hint is a guess.
ALIKE = 0.75
# Letters that a name must share with the beginning or the end of another for that alone to be a hint.
SHARED = 3


def nearest(wrong: str, known: Iterable[str]) -> str | None:
    """The known name that a wrong one is a slip of, the beginning of, or the last word of; None if there is none.

    Dashes and underscores are one, and case does not count: `--PPO-step` is a slip of `ppo_steps`.
    """
    plain = {_plain(name): name for name in reversed(list(known))}
    given = _plain(wrong)
    if near := difflib.get_close_matches(given, list(plain), 1, ALIKE):
        return plain[near[0]]
    if len(given) < SHARED:
        return None
    related = [name for name in plain if len(name) >= SHARED and _extends(name, given)]
    return plain[min(related, key=lambda name: abs(len(name) - len(given)))] if related else None


def suggestion(wrong: str, known: Iterable[str]) -> str:
    """`; did you mean "..."?`, or nothing where no known name is near."""
    near = nearest(wrong, known)
    return f'; did you mean "{near}"?' if near else ""


def near_path(path: str | Path) -> str:
    """The same for a path that is not there: the entry of its folder (or of the last folder that is) nearest to it."""
    missing = Path(path).expanduser()
    while missing.parent != missing and not missing.parent.is_dir():
        missing = missing.parent
    try:
        beside = sorted(entry.name for entry in missing.parent.iterdir())
    except OSError:
        return ""
    near = nearest(missing.name, beside)
    return f'; did you mean "{missing.parent / near}"?' if near else ""


def _plain(name: str) -> str:
    return name.strip("-").replace("-", "_").lower()


def _extends(name: str, given: str) -> bool:
    """output and out, data and dataset, steps and ppo_steps."""
    return name.startswith(given) or given.startswith(name) or name.endswith(f"_{given}")
