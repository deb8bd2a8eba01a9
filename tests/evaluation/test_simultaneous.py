"""Intervals that hold together: how often equal arms are told apart, and how often unequal ones are."""

from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from pairtune.evaluation.power import critical, power, prompts_for, smallest
from pairtune.evaluation.simultaneous import simultaneous

SIMULATED = 300
# Binomial: what 5% gives in so many comparisons, but for one time in a thousand.
ALLOWED = int(stats.binom.isf(0.001, SIMULATED, 0.05))


def scores(generator: np.random.Generator, arms: int, prompts: int) -> np.ndarray:
    """Prompts that are hard for all arms, and skewed noise of each arm's own."""
    return generator.normal(size=(prompts, 1)) + generator.gumbel(size=(prompts, arms))


def all_pairs(scores_NA: np.ndarray) -> np.ndarray:
    return np.stack([scores_NA[:, i] - scores_NA[:, j] for i, j in combinations(range(scores_NA.shape[1]), 2)], axis=1)


@pytest.mark.parametrize("arms", [2, 3, 5, 8])
def test_equal_arms_are_told_apart_in_some_five_of_a_hundred_comparisons(arms: int) -> None:
    """On few prompts, where tails matter."""
    generator, prompts = np.random.default_rng(arms), 12
    told = once = 0
    for _ in range(SIMULATED):
        differences = all_pairs(scores(generator, arms, prompts))
        told += any(each.is_detectable for each in simultaneous(differences, resamples=1000))
        means, errors = differences.mean(0), differences.std(0, ddof=1) / prompts**0.5
        once += bool((np.abs(means / errors) > stats.t.ppf(0.975, prompts - 1)).any())
    assert told <= ALLOWED
    assert told >= SIMULATED * 0.01, "it still tells something"
    if arms >= 5:
        assert once > 3 * ALLOWED, "each by itself they would be"


@pytest.mark.parametrize(("arms", "planted"), [(2, 0.35), (2, 0.6), (5, 0.6)])
def test_a_planted_difference_is_found_as_often_as_the_power_computation_says(arms: int, planted: float) -> None:
    generator, prompts = np.random.default_rng(9), 48
    found = 0
    for _ in range(SIMULATED):
        drawn = generator.normal(size=(prompts, 1)) + generator.normal(size=(prompts, arms))
        drawn[:, 0] += planted
        found += simultaneous(all_pairs(drawn), resamples=1000)[0].is_detectable  # the first arm against the second
    expected = power(planted, 2**0.5, prompts=prompts, arms=arms)
    assert 0.05 < expected < 0.95
    assert found / SIMULATED == pytest.approx(expected, abs=3.3 * (expected * (1 - expected) / SIMULATED) ** 0.5)


def test_the_interval_of_a_difference_of_shares_ends_where_shares_do() -> None:
    differences = np.array([[1.0, 0.0]] * 9 + [[0.0, 1.0]])
    plain, ended = simultaneous(differences), simultaneous(differences, largest=1.0)
    assert plain[0].ci95
    assert plain[0].ci95[1] > 1
    assert ended[0].ci95 == (plain[0].ci95[0], 1.0)
    assert ended[1] == plain[1]


def test_what_the_power_computation_says() -> None:
    # Cohen's table 2.3.5 for a t test: d = 0.5 of paired differences (his d·√2) with 80% at n = 34.
    assert prompts_for(0.5, 1.0) == 34
    assert power(0.5, 1.0, prompts=34) == pytest.approx(0.808, abs=0.002)
    assert smallest(2.0, prompts=34) == pytest.approx(2 * 0.5, rel=0.02)
    assert power(0.0, 1.0, prompts=50) == pytest.approx(0.05)
    # Tukey's table: q(0.95; 3, ∞) = 3.31, of five 3.86.
    assert critical(3, 10**6) == pytest.approx(3.31 / 2**0.5, abs=0.01)
    assert critical(5, 10**6) == pytest.approx(3.86 / 2**0.5, abs=0.01)
    assert prompts_for(0.5, 1.0, arms=8) > prompts_for(0.5, 1.0)
    with pytest.raises(ValueError, match="never found"):
        prompts_for(0.0, 1.0)


def test_one_difference_has_students_interval() -> None:
    values = np.random.default_rng(1).normal(0.3, 1, size=40)
    (found,) = simultaneous(values[:, None])
    right = stats.ttest_1samp(values, 0).confidence_interval()
    assert found.mean == pytest.approx(values.mean())
    assert found.ci95 == pytest.approx((right.low, right.high), abs=0.02)


def test_values_of_a_prompt_come_along() -> None:
    """Each value five times says no more than once."""
    values = np.random.default_rng(2).normal(size=(30, 3))
    once = simultaneous(values)
    often = simultaneous(np.repeat(values, 5, axis=0), [i for i in range(30) for _ in range(5)])
    for a, b in zip(once, often, strict=True):
        assert (a.mean, a.ci95) == (pytest.approx(b.mean), pytest.approx(b.ci95))


def test_what_is_the_same_everywhere_has_no_width_and_takes_nothing_from_the_others() -> None:
    values = np.random.default_rng(3).normal(size=(30, 1))
    found = simultaneous(np.hstack([values, np.full((30, 1), 0.1), np.zeros((30, 1))]))
    assert found[0] == simultaneous(values)[0]
    assert [each.ci95 for each in found[1:]] == [(0.1, 0.1), (0.0, 0.0)]
    assert simultaneous([[0.1, 0.2]])[0].ci95 is None
    for wrong in ([1.0, 2.0], np.empty((0, 2)), [[np.nan, 0.0]]):
        with pytest.raises(ValueError, match="finite numbers of two dimensions"):
            simultaneous(wrong)
