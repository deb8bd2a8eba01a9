"""Whether an accuracy is better than guessing: one rule for verdict, tables and page."""

import math
from typing import Literal

from scipy.stats import binomtest

Standing = Literal["above", "level", "below"]


def against_chance(mean: float, n: int, ci95: tuple[float, float] | None, chance: float = 0.5) -> Standing:
    """Above or below chance if chance alone would hardly have given this share of n; else level with it.

    The whole 95% interval must lie there (a bound that is exactly chance does not exclude it, nor does an interval that
    is not known: None, or infinite). And, as the bootstrap is narrow with few values and has no width where all agree,
    a binomial test at 5% must agree, ties counted for chance: five of five right are no proof, six of six are.
    """
    low, high = ci95 or (-math.inf, math.inf)
    if low <= chance <= high:
        return "level"
    right = math.floor(mean * n + 1e-9) if mean > chance else math.ceil(mean * n - 1e-9)
    if binomtest(right, n, chance).pvalue >= 0.05:
        return "level"
    return "above" if mean > chance else "below"
