"""What a column's numbers say of its scale, over all rows of a source: no row tells by itself."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

#: So many numbers that are never below zero are no chance.
ENOUGH = 20


class Scale(NamedTuple):
    """The least and the largest of a column's numbers, whether all are whole, and how many there are."""

    low: float = float("inf")
    high: float = float("-inf")
    whole: bool = True
    numbers: int = 0

    def with_(self, number: float) -> "Scale":
        """The scale with one number more."""
        whole = self.whole and number == int(number)
        return Scale(min(self.low, number), max(self.high, number), whole, self.numbers + 1)

    @property
    def has_two_sides(self) -> bool:
        """Whether zero may be the middle of it: not if it goes from 1 to 5, or from 0 to 1."""
        return self.low < 0 or (self.whole and self.high <= 3 and self.numbers < ENOUGH)


NONE = Scale()


def number_of(value: object) -> float | None:
    """A finite number, also as text; None of anything else."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if abs(number) < float("inf") else None


def scales_of(rows: Iterable[Mapping[str, object]]) -> dict[str, Scale]:
    """The scale of every column that gives anything in one of the rows; one of texts has no numbers."""
    found: dict[str, Scale] = {}
    for row in rows:
        for name, value in row.items():
            scale, number = found.setdefault(name, NONE), number_of(value)
            if number is not None:
                found[name] = scale.with_(number)
    return found
