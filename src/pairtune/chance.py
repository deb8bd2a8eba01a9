"""Whether an accuracy is better than guessing: one rule for verdict, table and page."""

from typing import Literal

Standing = Literal["above", "level", "below"]


def against_chance(n: int, ci95: tuple[float, float] | None, chance: float = 0.5) -> Standing:
    """Above or below chance if the whole 95% interval lies there; else it cannot be told from chance: level.

    A bound that is exactly chance does not exclude it, and nor does an interval that is not known (None, or infinite).
    An interval without width comes of values that all agree, of which the bootstrap can draw no others: it excludes
    chance only if so many guesses would all agree in less than one case of twenty (the two-sided sign test; at ½, six
    of them). n counts values; several of one prompt are taken for independent there.
    """
    low, high = ci95 or (float("-inf"), float("inf"))
    sure = 2 * max(chance, 1 - chance) ** n < 0.05 if low == high else True
    if low > chance and sure:
        return "above"
    return "below" if high < chance and sure else "level"
