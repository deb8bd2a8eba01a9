"""A mean never stands alone: how many values it is over, and how far chance alone could have moved it.

Answers to one prompt resemble each other, so the bootstrap draws prompts, not values: all the values of a
drawn prompt come along. The mean stays example-weighted: a resample's mean is its summed values over their
count.
Shapes: N values, K prompts, R resamples.
"""

import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pairtune.chance import against_chance

# Resamples of an interval of ranks: each one ranks anew.
RESAMPLES = 400
# Values that all agree, from which on that is not chance: 2·½⁶ is below 5%.
ENOUGH = 6

_DRAWS_AT_ONCE = 1 << 20
"""Prompt draws held in memory together: about 24 MB, whatever N and R are."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean, the number of values it is over, and the 95% percentile-bootstrap interval around it.

    One prompt says nothing of how prompts differ: the interval is then (-inf, inf), in JSON null.
    """

    mean: float
    n: int
    ci95: tuple[float, float]

    def to_json(self) -> dict[str, Any]:
        """``{"mean": m, "n": n, "ci95": [low, high]}``, plain numbers; ci95 is null where it is unbounded."""
        bounded = all(math.isfinite(bound) for bound in self.ci95)
        return {"mean": self.mean, "n": self.n, "ci95": list(self.ci95) if bounded else None}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Self:
        """The inverse of to_json. KeyError names a missing field."""
        low, high = fields["ci95"] or (-math.inf, math.inf)
        return cls(mean=float(fields["mean"]), n=int(fields["n"]), ci95=(float(low), float(high)))


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
    sums_K, counts_K = _by_prompt(values_N - origin, prompts_N)
    mean = origin + float(sums_K.sum() / counts_K.sum())
    if len(sums_K) == 1:
        return Estimate(mean=mean, n=len(values_N), ci95=(-math.inf, math.inf))
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


def detectable(difference: Estimate) -> bool:
    """Whether the interval excludes zero; a bound that is exactly zero does not exclude it."""
    low, high = difference.ci95
    return low > 0 or high < 0


def above_chance(share: Estimate, chance: float = 0.5) -> bool:
    """Whether an accuracy is better than guessing, by `pairtune.chance`: its whole interval lies above chance."""
    return against_chance(share.mean, share.n, share.ci95, chance) == "above"


def below_chance(share: Estimate, chance: float = 0.5) -> bool:
    """Whether an accuracy is worse than guessing."""
    return against_chance(share.mean, share.n, share.ci95, chance) == "below"


def is_bounded(figure: Estimate) -> bool:
    """Whether it has an interval: not of one prompt, nor where none can be taken."""
    return all(math.isfinite(bound) for bound in figure.ci95)


def told_from_chance(share: Estimate, chance: float = 0.5) -> bool:
    """Whether it is better or worse than guessing."""
    return above_chance(share, chance) or below_chance(share, chance)


def changed(difference: Estimate) -> bool:
    """Whether the interval excludes zero, and there are enough values for an interval to mean something."""
    return is_bounded(difference) and detectable(difference) and difference.n >= ENOUGH


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


def _by_prompt(
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
