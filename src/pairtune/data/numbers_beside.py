"""Numbers that stand beside a row: its `weight` and, of a pair, its `margin`."""

import math
from collections.abc import Mapping

from pairtune.data.scales import number_of
from pairtune.data.turns import Columns, MalformedError, UnusableError
from pairtune.data.wording import kind, quoted

WEIGHT, MARGIN = NUMBERS = ("weight", "margin")

# What people call a score of a side, the side before or after it.
_SCORES = ("rating", "score", "reward", "avg_rating", "average_rating", "overall_score", "rm_score")
_RATINGS = tuple(
    names
    for noun in _SCORES
    for names in (
        (f"chosen_{noun}", f"rejected_{noun}"),
        (f"{noun}_chosen", f"{noun}_rejected"),
        (f"chosen-{noun}", f"rejected-{noun}"),
        (f"chosen_{noun}s", f"rejected_{noun}s"),
    )
)


def numbers_in(columns: Columns, *names: str) -> dict[str, object]:
    """The columns of a row that are such numbers, of these names."""
    return {name: columns[name] for name in names if columns.get(name) is not None}


def weight_of(columns: Columns) -> float:
    """A row's weight, 1 where it says none. Raises MalformedError for what is no weight, UnusableError for 0."""
    weight = _number(columns, WEIGHT)
    if weight is None:
        return 1.0
    if weight < 0:
        raise MalformedError(f'"{WEIGHT}" is {weight:g}; it must be 0 or more')
    if weight == 0:
        raise UnusableError(f'its "{WEIGHT}" is 0', "", mistake=False)
    return weight


def margin_of(columns: Columns) -> float | None:
    """By how much a pair's chosen response was preferred; None where it is not said. Raises MalformedError."""
    return _number(columns, MARGIN)


def ratings_of(columns: Columns) -> tuple[tuple[str, str], float, float] | None:
    """The columns with a score of each of two named sides, and what they hold; None where there are none."""
    for names in _RATINGS:
        if names[0] in columns and names[1] in columns:
            good, poor = (number_of(columns[name]) for name in names)
            return None if good is None or poor is None else (names, good, poor)
    sides = columns.get("chosen"), columns.get("rejected")
    if isinstance(sides[0], Mapping) and isinstance(sides[1], Mapping):
        for noun in _SCORES:
            good, poor = (number_of(side.get(noun)) for side in sides if isinstance(side, Mapping))
            if good is not None and poor is not None:
                return (f"chosen.{noun}", f"rejected.{noun}"), good, poor
    return None


def check_same(before: Mapping[str, object], now: Mapping[str, object]) -> None:
    """Raises MalformedError if a row has a number that the first one has not, or lacks one: none is made up."""
    for name in NUMBERS:
        if name in before and name not in now:
            raise MalformedError(f'"{name}" is missing, and the rows before have one; fill it in, or remove the column')
        if name in now and name not in before:
            raise MalformedError(
                f'"{name}" is given here, and not in the rows before; fill it in everywhere, or nowhere'
            )


def _number(columns: Columns, name: str) -> float | None:
    value = columns.get(name)
    if value is None:
        return None
    try:
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise ValueError
        number = float(value)
        if not math.isfinite(number):
            raise ValueError
    except (ValueError, OverflowError):
        shown = quoted(value) if isinstance(value, str) else str(value) if isinstance(value, float) else kind(value)
        raise MalformedError(
            f'"{name}" is {shown}, and it must be a number; a column that is something else needs another name'
        ) from None
    return number
