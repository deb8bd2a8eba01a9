"""Whether an accuracy is better than guessing: one rule for verdict, table and page."""

from math import comb, floor
from typing import Literal

Standing = Literal["above", "level", "below"]

# Fewer values than this, and a bootstrap's interval is too narrow to be believed alone; of values that all agree it has
# no width at all.
FEW = 30


def against_chance(mean: float, n: int, ci95: tuple[float, float] | None, chance: float = 0.5) -> Standing:
    """Above or below chance if the whole 95% interval lies there; else it cannot be told from chance: level.

    A bound that is exactly chance does not exclude it, and nor does an interval that is not known (None, or infinite).
    Of few values the exact binomial test must agree (at 2.5% on that side, ties counted against): five of five right
    are no proof, six of six are. n counts values; several of one prompt are taken for independent there.
    """
    low, high = ci95 or (float("-inf"), float("inf"))
    if low > chance and _sure(mean, n, chance):
        return "above"
    return "below" if high < chance and _sure(1 - mean, n, 1 - chance) else "level"


def _sure(share: float, n: int, chance: float) -> bool:
    """Whether so many right ones would come by chance in one case of forty at most."""
    if n >= FEW:
        return True
    right = floor(share * n + 1e-9)
    return sum(comb(n, k) * chance**k * (1 - chance) ** (n - k) for k in range(right, n + 1)) <= 0.025
