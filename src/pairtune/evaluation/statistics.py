"""A mean never stands alone: how many values it is over, and how far chance alone could have moved it.

Answers to one prompt resemble each other, so the bootstrap draws prompts, not values: all the values of a
drawn prompt come along. The mean stays example-weighted: a resample's mean is its summed values over their
count. A share of right ones has an exact interval in its place: of few values the bootstrap is too sure, and
of values that all agree it knows nothing.
Shapes: N values, K prompts, R resamples.
"""

from collections.abc import Hashable, Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from pairtune.estimate import Estimate

# Resamples of an interval of ranks: each one ranks anew.
RESAMPLES = 400

_DRAWS_AT_ONCE = 1 << 20
"""Prompt draws held in memory together: about 24 MB, whatever N and R are."""


def estimate(
    values_N: ArrayLike,
    prompts_N: Sequence[Hashable] | None = None,
    *,
    seed: int = 0,
    resamples: int = 4000,
) -> Estimate:
    """The mean of the values and its 95% interval, by the bootstrap over prompts.

    values_N: the values, one dimension, finite. prompts_N: the prompt each value belongs to; without it every
    value is its own prompt. The same values, prompts and seed give the same interval to the bit.

    With few prompts the percentile interval is narrow (by √((K-1)/K), and by the normal's tails in place of
    Student's), and where all values agree it has no width: read it with n.
    ValueError: no values, more than one dimension, a value that isn't finite, or prompts of another length.
    Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13, with prompts as the
    sampling unit.
    """
    values_N = _checked(values_N)
    # Measured from the first value, constants are exactly zero, so their mean and interval are exact.
    origin = float(values_N[0])
    sums_K, counts_K = by_prompt(values_N - origin, prompts_N)
    mean = origin + float(sums_K.sum() / counts_K.sum())
    if len(sums_K) == 1:
        return Estimate(mean=mean, n=len(values_N), ci95=None)
    means_R = np.concatenate(list(_resampled_means(sums_K, counts_K, seed=seed, resamples=resamples)))
    low, high = np.quantile(means_R, (0.025, 0.975))
    return Estimate(mean=mean, n=len(values_N), ci95=(origin + float(low), origin + float(high)))


def paired_difference(
    first_N: ArrayLike,
    second_N: ArrayLike,
    prompts_N: Sequence[Hashable] | None = None,
    *,
    seed: int = 0,
    resamples: int = 4000,
) -> Estimate:
    """The mean of first − second, taken value by value before any averaging, and its 95% interval.

    What two arms share (an easy prompt, a lucky pair) cancels here, so two arms whose intervals overlap may
    still differ detectably. ValueError: as for estimate, and when the two don't pair up.
    """
    first_N, second_N = _checked(first_N), _checked(second_N)
    if len(first_N) != len(second_N):
        raise ValueError(f"{len(first_N)} values can't be paired with {len(second_N)}")
    return estimate(first_N - second_N, prompts_N, seed=seed, resamples=resamples)


def share(right_N: ArrayLike, prompts_N: Sequence[Hashable] | None = None) -> Estimate:
    """The share of right ones (1 right, 0 wrong, ½ a tie) and its exact 95% interval, wider where prompts repeat.

    Clopper and Pearson's interval of as many independent values as have the variance of these, prompts drawn as wholes:
    at most N, and K where all agree. So the interval excludes ½ where a binomial test at 5% would reject it: that of
    five right of five holds it, that of six of six does not. A tie counts as a coin that is thrown. Of ties alone,
    which no sample decides, the interval is ½ itself; of one prompt there is none. ValueError: as for estimate.
    Source: Korn and Graubard, Confidence Intervals for Proportions with Small Expected Number of Positive Counts
    Estimated from Survey Data (1998).
    """
    right_N = _checked(right_N)
    sums_K, counts_K = by_prompt(right_N, prompts_N)
    size, prompts, mean = len(right_N), len(sums_K), float(right_N.mean())
    if prompts == 1:
        return Estimate(mean=mean, n=size, ci95=None)
    if (right_N == 0.5).all():
        return Estimate(mean=0.5, n=size, ci95=(0.5, 0.5))
    if mean in (0.0, 1.0):
        return Estimate(mean=mean, n=size, ci95=exact_interval(mean, prompts))
    variance = float(((sums_K - mean * counts_K) ** 2).sum()) * prompts / (prompts - 1) / size**2
    wider = max(1.0, variance * (size - 1) / (mean * (1 - mean)))  # the design effect; ties would make it narrower
    few = (stats.t.ppf(0.975, size - 1) / stats.t.ppf(0.975, prompts - 1)) ** 2  # prompts, by which it is estimated
    return Estimate(mean=mean, n=size, ci95=exact_interval(mean, size / wider * float(few)))


def of_moments(mean: float, deviation: float, size: int) -> Estimate:
    """A mean of independent values of which the standard deviation (with n − 1) is all that was kept: Student's t."""
    if size < 2:
        return Estimate(mean=mean, n=size, ci95=None)
    reach = float(stats.t.ppf(0.975, size - 1)) * deviation / size**0.5
    return Estimate(mean=mean, n=size, ci95=(mean - reach, mean + reach))


def exact_interval(mean: float, size: float) -> tuple[float, float]:
    """Clopper and Pearson's 95% interval of a share of so many independent values, which may be no whole number."""
    right, wrong = mean * size, (1 - mean) * size
    low = float(stats.beta.ppf(0.025, right, wrong + 1)) if right > 0 else 0.0
    high = float(stats.beta.ppf(0.975, right + 1, wrong)) if wrong > 0 else 1.0
    return low, high


def enough_to_tell(mean: float) -> int:
    """How many independent values it takes until a share like this one is told from the 50% of a coin.

    ValueError: it is 50%, or so near that no data set would do.
    """
    if abs(mean - 0.5) < 0.001:
        raise ValueError(f"a share of {mean} is that of a coin")
    size = 1
    while Estimate(mean=mean, n=size, ci95=exact_interval(mean, size)).against_chance == "level":
        size += max(1, size // 50)  # to 2%, which is near enough for advice
    return size


def resamples(prompts: Sequence[Hashable]) -> list[np.ndarray]:
    """Indices of values, for each of a few resamples: all values of prompts drawn with replacement."""
    index: dict[Hashable, list[int]] = {}
    for i, prompt in enumerate(prompts):
        index.setdefault(prompt, []).append(i)
    groups = [np.array(each) for each in index.values()]
    generator = np.random.default_rng(0)
    return [
        np.concatenate([groups[k] for k in generator.integers(len(groups), size=len(groups))]) for _ in range(RESAMPLES)
    ]


def _checked(values: ArrayLike) -> NDArray[np.float64]:
    values_N = np.asarray(values, dtype=np.float64)
    if values_N.ndim != 1:
        raise ValueError(f"values must have one dimension, not shape {values_N.shape}")
    if not len(values_N):
        raise ValueError("no values: a mean needs at least one")
    if not np.isfinite(values_N).all():
        raise ValueError(f"{int((~np.isfinite(values_N)).sum())} of {len(values_N)} values are not finite")
    return values_N


def by_prompt(
    values_N: NDArray[np.float64], prompts_N: Sequence[Hashable] | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Per prompt, in order of first appearance: the sum of its values and their count."""
    if prompts_N is None:
        return values_N, np.ones_like(values_N)
    if len(prompts_N) != len(values_N):
        raise ValueError(f"{len(values_N)} values but {len(prompts_N)} prompts")
    index: dict[Hashable, int] = {}
    prompt_of_N = np.array([index.setdefault(prompt, len(index)) for prompt in prompts_N])
    sums_K = np.asarray(np.bincount(prompt_of_N, weights=values_N), dtype=np.float64)
    counts_K = np.bincount(prompt_of_N).astype(np.float64)
    return sums_K, counts_K


def _resampled_means(
    sums_K: NDArray[np.float64], counts_K: NDArray[np.float64], *, seed: int, resamples: int
) -> Iterator[NDArray[np.float64]]:
    """Means of resamples of K prompts drawn with replacement, a bounded number of draws at a time."""
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, not {resamples}")
    generator = np.random.default_rng(seed)
    prompts = len(sums_K)
    at_once = max(1, _DRAWS_AT_ONCE // prompts)
    for start in range(0, resamples, at_once):
        drawn_RK = generator.integers(prompts, size=(min(at_once, resamples - start), prompts))
        yield sums_K[drawn_RK].sum(axis=1) / counts_K[drawn_RK].sum(axis=1)
