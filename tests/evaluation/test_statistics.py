"""The interval: exact where it can be, right as often as it says, and wider where prompts repeat."""

import json
import math

import numpy as np
import pytest
import scipy.stats

from pairtune.evaluation import statistics
from pairtune.evaluation.statistics import (
    Estimate,
    above_chance,
    below_chance,
    changed,
    detectable,
    estimate,
    paired_difference,
    told_from_chance,
)


def test_a_constant_is_exact() -> None:
    for constant in (0.1, -3.7, 1e300):
        result = estimate([constant] * 7, list("aabbbcd"))
        assert result == Estimate(mean=constant, n=7, ci95=(constant, constant))


def test_the_mean_is_example_weighted_and_n_counts_values() -> None:
    result = estimate([1.0, 1.0, 1.0, 5.0], ["a", "a", "a", "b"])
    assert (result.mean, result.n) == (2.0, 4)
    # Two prompts can be drawn as aa (mean 1), ab (mean 2) or bb (mean 5), with probabilities 1/4, 1/2, 1/4.
    assert result.ci95 == (1.0, 5.0)


def test_same_seed_same_interval_and_prompts_of_any_hashable() -> None:
    values = np.random.default_rng(0).normal(size=30)
    numbers = [index % 11 for index in range(30)]
    first = estimate(values, numbers, seed=3)
    assert first == estimate(values, [("prompt", number) for number in numbers], seed=3)
    assert first != estimate(values, numbers, seed=4)


def test_bounded_memory_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).normal(size=50)
    whole = estimate(values, resamples=500)
    monkeypatch.setattr(statistics, "_DRAWS_AT_ONCE", 50 * 7)
    assert estimate(values, resamples=500) == whole


def test_agrees_with_scipy_where_nothing_is_clustered() -> None:
    values = np.random.default_rng(5).exponential(size=80)
    ours = estimate(values, resamples=20_000)
    theirs = scipy.stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(6)
    ).confidence_interval
    width = theirs.high - theirs.low
    assert ours.mean == pytest.approx(values.mean(), rel=1e-12)
    assert ours.ci95 == pytest.approx((theirs.low, theirs.high), abs=0.03 * width)


def _clustered(generator: np.random.Generator, prompts: int, each: int) -> tuple[np.ndarray, list[int]]:
    """True mean 0: a standard normal per prompt, plus noise a third as strong per answer."""
    shared = np.repeat(generator.normal(size=prompts), each)
    return shared + generator.normal(size=prompts * each) / 3, list(np.repeat(range(prompts), each))


def test_repeated_prompts_widen_the_interval() -> None:
    values, prompts = _clustered(np.random.default_rng(1), prompts=40, each=8)
    naive, clustered = estimate(values), estimate(values, prompts)
    assert naive.mean == pytest.approx(clustered.mean)
    ratio = np.diff(clustered.ci95)[0] / np.diff(naive.ci95)[0]
    # The design effect of 8 answers with intraclass correlation 0.9 is 1 + 7 x 0.9 = 7.3; its root is 2.7.
    assert 2.2 < ratio < 3.2


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    generator = np.random.default_rng(2)
    held = held_naively = 0
    for _ in range(400):
        values, prompts = _clustered(generator, prompts=40, each=4)
        low, high = estimate(values, prompts, resamples=400).ci95
        held += low <= 0 <= high
        low, high = estimate(values, resamples=400).ci95
        held_naively += low <= 0 <= high
    assert 0.91 <= held / 400 <= 0.97  # three standard errors around 0.94, what 40 prompts allow
    assert held_naively / 400 < 0.80  # treating answers as independent would have lied


def test_differences_are_paired() -> None:
    generator = np.random.default_rng(3)
    easy = generator.normal(scale=10, size=60)
    second = easy + generator.normal(scale=0.1, size=60)
    first = easy + 0.5
    difference = paired_difference(first, second)
    assert difference == estimate(first - second)
    assert detectable(difference)
    assert not detectable(paired_difference(second, second))


@pytest.mark.parametrize(
    ("interval", "answer"),
    [
        ((0.1, 0.2), True),
        ((-0.2, -0.1), True),
        ((-0.1, 0.1), False),
        ((0.0, 0.2), False),
        ((-0.2, 0.0), False),
    ],
)
def test_detectable_means_the_interval_excludes_zero(interval: tuple[float, float], answer: bool) -> None:
    assert detectable(Estimate(mean=sum(interval) / 2, n=9, ci95=interval)) is answer


def test_one_prompt_detects_nothing() -> None:
    alone = estimate([3.0, 4.0], ["same", "same"])
    assert alone == Estimate(mean=3.5, n=2, ci95=(-math.inf, math.inf))
    assert not detectable(alone)
    assert alone.to_json() == {"mean": 3.5, "n": 2, "ci95": None}


@pytest.mark.parametrize("values", [[1.0, 2.0, 4.0], [3.0]])
def test_json_round_trip(values: list[float]) -> None:
    result = estimate(values)
    assert Estimate.from_json(json.loads(json.dumps(result.to_json(), allow_nan=False))) == result


@pytest.mark.parametrize(
    ("values", "prompts", "words"),
    [
        ([], None, "no values"),
        ([[1.0]], None, "one dimension"),
        ([1.0, math.nan, math.inf], None, "2 of 3 values are not finite"),
        ([1.0, 2.0], ["a"], "2 values but 1 prompts"),
    ],
)
def test_what_cannot_be_averaged_is_refused(values: list[float], prompts: list[str] | None, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        estimate(values, prompts)


def test_pairs_must_pair_up() -> None:
    with pytest.raises(ValueError, match="2 values can't be paired with 1"):
        paired_difference([1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match="resamples"):
        estimate([1.0, 2.0], resamples=0)


# ---- better than guessing? ----------------------------------------------------------------------------------------


def share(low: float, high: float, mean: float | None = None, n: int = 200) -> Estimate:
    return Estimate(mean=(low + high) / 2 if mean is None else mean, n=n, ci95=(low, high))


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0.51, 0.65, "above"),
        (0.465, 0.60, "level"),
        (0.50, 0.65, "level"),  # a bound that is chance holds chance
        (0.35, 0.50, "level"),
        (0.35, 0.48, "below"),
        (-math.inf, math.inf, "level"),  # one prompt
        (0.5, 0.5, "level"),  # all ties
    ],
)
def test_an_accuracy_is_told_from_chance_by_its_whole_interval(low: float, high: float, said: str) -> None:
    found = share(low, high, mean=0.9 if math.isinf(high) else None)
    assert (above_chance(found), below_chance(found)) == (said == "above", said == "below")


def test_accuracies_that_are_chance_are_rarely_called_better() -> None:
    """Of 400 sets of 100 coin throws about one in forty lies above by its interval, and one in forty below."""
    generator = np.random.default_rng(3)
    found = [estimate(generator.integers(2, size=100).astype(float), resamples=400) for _ in range(400)]
    for called in (above_chance, below_chance):
        assert 0.002 < sum(map(called, found)) / 400 < 0.06
    assert not any(above_chance(each) and below_chance(each) for each in found)


def test_another_share_may_be_chance() -> None:
    assert above_chance(share(0.3, 0.4), chance=0.25)
    assert not above_chance(share(0.3, 0.4))
    assert not above_chance(share(1.0, 1.0, n=10), chance=0.75)  # 0.75^10 is one in 18


@pytest.mark.parametrize(
    ("right", "n", "told"),
    [
        (1, 1, False),
        (2, 2, False),  # the bootstrap alone would be certain
        (5, 5, False),  # 2·½⁵ = 6%
        (6, 6, True),
        (0, 6, True),  # worse than chance is not chance
        (6, 7, False),  # the interval excludes ½, the binomial test does not
        (9, 10, True),
        (18, 35, False),
        (26, 35, True),
    ],
)
def test_what_chance_alone_would_hardly_do(right: int, n: int, told: bool) -> None:
    assert told_from_chance(estimate([1.0] * right + [0.0] * (n - right))) is told


def test_ties_count_for_chance() -> None:
    assert not told_from_chance(estimate([0.5] * 40))
    assert not told_from_chance(estimate([1.0] * 6 + [0.5] * 34))


def test_of_one_prompt_nothing_is_told() -> None:
    assert not told_from_chance(estimate([1.0] * 50, ["the same"] * 50))


def test_under_chance_it_is_seldom_told() -> None:
    generator = np.random.default_rng(0)
    for n in (4, 10, 40):
        told = [told_from_chance(estimate(generator.integers(2, size=n), resamples=200)) for _ in range(300)]
        assert np.mean(told) < 0.08, n


def test_a_change_needs_more_than_a_few_values_that_agree() -> None:
    assert not changed(paired_difference([1.0] * 3, [0.0] * 3))
    assert changed(paired_difference([1.0] * 8, [0.0] * 8))
    assert not changed(paired_difference([1.0, 0.0] * 8, [0.0, 1.0] * 8))
