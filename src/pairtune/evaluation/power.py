"""How large a difference a comparison is able to see, and how many prompts a smaller one needs.

For the test that the verdict makes: every arm against every other, all intervals together (`simultaneous`).
"""

import math

from scipy import optimize, stats

LEVEL = 0.95
# How often a difference is to be found that is called the smallest that can be seen.
WANTED = 0.8


def critical(arms: int, prompts: int) -> float:
    """How many standard errors a difference of two arms must have, of so many that are all compared with each other.

    For arms whose differences vary alike: Tukey's studentised range, with the degrees of freedom of a paired
    difference. Two arms: Student's t. Source: Tukey, The Problem of Multiple Comparisons (1953).
    """
    if arms < 2 or prompts < 2:
        raise ValueError(f"{arms} arms on {prompts} prompts: it takes two of each")
    if arms == 2:
        return float(stats.t.ppf((1 + LEVEL) / 2, prompts - 1))
    normal = float(stats.studentized_range.ppf(LEVEL, arms, math.inf)) / math.sqrt(2)
    return float(stats.t.isf(stats.norm.sf(normal), prompts - 1))


def power(difference: float, deviation: float, *, prompts: int, arms: int = 2) -> float:
    """How often a difference of two arms is found, whose paired differences have this standard deviation.

    Either way round, by the noncentral t. Source: Cohen, Statistical Power Analysis (1988), chapter 2.
    """
    if deviation <= 0:
        return float(difference != 0)
    limit, shift = critical(arms, prompts), abs(difference) / deviation * math.sqrt(prompts)
    wrong_way = stats.nct.cdf(-limit, prompts - 1, shift) if shift < limit else 0.0  # scipy's is no number far out
    return float(stats.nct.sf(limit, prompts - 1, shift) + wrong_way)


def smallest(deviation: float, *, prompts: int, arms: int = 2) -> float:
    """The difference that is found in 80% of comparisons, in the unit of the standard deviation."""
    if deviation <= 0:
        return 0.0
    most = 1.0
    while power(most, 1.0, prompts=prompts, arms=arms) < WANTED:
        most *= 2
    found = optimize.brentq(lambda each: power(each, 1.0, prompts=prompts, arms=arms) - WANTED, 0.0, most)
    return float(found) * deviation


def prompts_for(difference: float, deviation: float, *, arms: int = 2) -> int:
    """How many prompts it takes to find this difference in 80% of comparisons. ValueError: it is none."""
    if difference == 0:
        raise ValueError("a difference of nothing is never found")
    low, high = 2, 4
    while power(difference, deviation, prompts=high, arms=arms) < WANTED:
        low, high = high, high * 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (
            (low, middle) if power(difference, deviation, prompts=middle, arms=arms) >= WANTED else (middle, high)
        )
    return high
