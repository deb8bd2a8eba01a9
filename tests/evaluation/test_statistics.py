"""The interval: exact where it can be, right as often as it says, and wider where prompts repeat."""

import json
import math

import numpy as np
import pytest
import scipy.stats

from pairtune.estimate import Estimate
from pairtune.evaluation import statistics
from pairtune.evaluation.statistics import enough_to_tell, estimate, of_moments, paired_difference, share


def interval(found: Estimate) -> tuple[float, float]:
    assert found.ci95
    return found.ci95


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
    ratio = np.diff(interval(clustered))[0] / np.diff(interval(naive))[0]
    # The design effect of 8 answers with intraclass correlation 0.9 is 1 + 7 x 0.9 = 7.3; its root is 2.7.
    assert 2.2 < ratio < 3.2


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    generator = np.random.default_rng(2)
    held = held_naively = 0
    for _ in range(400):
        values, prompts = _clustered(generator, prompts=40, each=4)
        low, high = interval(estimate(values, prompts, resamples=400))
        held += low <= 0 <= high
        low, high = interval(estimate(values, resamples=400))
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
    assert difference.is_detectable
    assert not paired_difference(second, second).is_detectable


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
    assert Estimate(mean=sum(interval) / 2, n=9, ci95=interval).is_detectable is answer


def test_one_prompt_detects_nothing() -> None:
    alone = estimate([3.0, 4.0], ["same", "same"])
    assert alone == Estimate(mean=3.5, n=2, ci95=None)
    assert not alone.is_detectable
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


def test_of_moments_it_is_students_interval() -> None:
    values = np.random.default_rng(8).normal(size=12)
    found = of_moments(values.mean(), values.std(ddof=1), 12)
    theirs = scipy.stats.ttest_1samp(values, 0).confidence_interval()
    assert interval(found) == pytest.approx((theirs.low, theirs.high))
    assert of_moments(0.3, 0.0, 1) == Estimate(mean=0.3, n=1, ci95=None)


# ---- better than guessing? ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bounds", "said"),
    [
        ((0.51, 0.65), "above"),
        ((0.465, 0.60), "level"),
        ((0.50, 0.65), "level"),  # a bound that is chance holds chance
        ((0.35, 0.50), "level"),
        ((0.35, 0.48), "below"),
        (None, "level"),  # one prompt
        ((0.5, 0.5), "level"),  # all ties
    ],
)
def test_an_accuracy_is_told_from_chance_by_its_whole_interval(bounds: tuple[float, float] | None, said: str) -> None:
    assert Estimate(mean=sum(bounds) / 2 if bounds else 0.9, n=200, ci95=bounds).against_chance == said


def throws(right: int, wrong: int, ties: int = 0) -> list[float]:
    return [1.0] * right + [0.0] * wrong + [0.5] * ties


@pytest.mark.parametrize(("right", "n"), [(0, 3), (1, 3), (6, 6), (9, 12), (114, 200), (200, 200), (430, 1000)])
def test_a_share_of_independent_values_has_clopper_and_pearsons_interval(right: int, n: int) -> None:
    theirs = scipy.stats.binomtest(right, n).proportion_ci(method="exact")
    assert interval(share(throws(right, n - right))) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_interval_and_test_agree_whatever_the_share() -> None:
    """So no sentence is at odds with the interval beside it: 57% of 200 was "50.1 to 63.9" and like chance."""
    for n in (2, 5, 6, 7, 20, 35, 200):
        for right in range(n + 1):
            told = bool(scipy.stats.binomtest(right, n).pvalue < 0.05)
            assert (share(throws(right, n - right)).against_chance != "level") is told, (right, n)


def test_a_share_is_surer_by_no_tie_and_of_ties_alone_it_is_one_half() -> None:
    for right, wrong, ties in ((6, 0, 34), (20, 8, 12), (3, 9, 4)):
        as_coins = share(throws(right + ties // 2, wrong + ties // 2))
        assert interval(share(throws(right, wrong, ties))) == pytest.approx(interval(as_coins))
    alone = share([0.5] * 40)
    assert (alone.mean, alone.ci95, alone.is_all_ties) == (0.5, (0.5, 0.5), True)
    assert alone.against_chance == "level"


def test_a_share_of_repeated_prompts_is_as_sure_as_its_prompts() -> None:
    each, prompts = 6, 30
    right = [float(i % 3 > 0) for i in range(prompts)]  # all pairs of a prompt agree: it is one throw
    repeated = share(np.repeat(right, each), list(np.repeat(range(prompts), each)))
    alone = interval(share(right))
    assert interval(repeated) == pytest.approx(alone, abs=0.02)
    assert np.diff(interval(repeated))[0] >= np.diff(alone)[0]
    assert repeated.n == prompts * each
    assert interval(share([1.0] * 12, list("aabbccddeeff"))) == interval(share([1.0] * 6))
    # Of two prompts nothing is known of how prompts differ.
    assert share([1.0, 1.0, 0.0, 1.0], list("aabb")).against_chance == "level"


def test_of_one_prompt_nothing_is_told() -> None:
    assert share([1.0] * 50, ["the same"] * 50) == Estimate(mean=1.0, n=50, ci95=None)


def test_under_chance_it_is_seldom_told() -> None:
    generator = np.random.default_rng(0)
    for n, each in ((4, 1), (10, 1), (40, 1), (12, 4)):
        prompts = list(np.repeat(range(n), each))
        found = [share(np.repeat(generator.integers(2, size=n), each), prompts).against_chance for _ in range(300)]
        assert np.mean([standing != "level" for standing in found]) < 0.08, (n, each)


def test_how_many_it_takes_to_tell_a_share() -> None:
    for mean in (0.6, 0.4, 0.55):
        needed = enough_to_tell(mean)
        right = round(mean * needed)
        near = [scipy.stats.binomtest(right + each, needed).pvalue for each in (-1, 1)]
        assert min(near) < 0.05 < max(near) + 0.01, "about the least number"
        few = needed * 9 // 10
        assert scipy.stats.binomtest(round(mean * few), few).pvalue > 0.045
    assert enough_to_tell(1.0) == 6
    assert enough_to_tell(0.6) == pytest.approx(100, rel=0.08)
    with pytest.raises(ValueError, match="that of a coin"):
        enough_to_tell(0.5)


def test_a_change_needs_more_than_a_few_values_that_agree() -> None:
    assert not paired_difference([1.0] * 3, [0.0] * 3).is_detectable
    assert paired_difference([1.0] * 8, [0.0] * 8).is_detectable
    assert not paired_difference([1.0, 0.0] * 8, [0.0, 1.0] * 8).is_detectable


def test_the_other_way_round_a_difference_has_no_signed_zero() -> None:
    turned = Estimate(mean=0.0, n=9, ci95=(0.0, 0.2)).negated()
    assert (str(turned.mean), str(turned.ci95)) == ("0.0", "(-0.2, 0.0)")
    assert Estimate(mean=0.5, n=1, ci95=None).negated() == Estimate(mean=-0.5, n=1, ci95=None)
