"""Several differences at once: intervals that hold together, so that no one is surprised by the best of many.

With eight arms that are equal, intervals of 95% each would show a difference in more than half of all comparisons: the
best is named by the same values that it is then tested on. These hold for all of a family with 95%, whichever of them
is looked at. Shapes: N values, K prompts, M differences, R resamples.
"""

import math
from collections.abc import Hashable, Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from pairtune.estimate import Estimate
from pairtune.evaluation.statistics import by_prompt

Floats = NDArray[np.float64]

LEVEL = 0.95
RESAMPLES = 4000
_AT_ONCE = 1 << 20
"""Weights held in memory together."""


def simultaneous(
    differences_NM: ArrayLike,
    prompts_N: Sequence[Hashable] | None = None,
    *,
    largest: float = math.inf,
    resamples: int = RESAMPLES,
) -> list[Estimate]:
    """The mean of each difference with an interval; all of the intervals hold together with 95%.

    differences_NM: value by value, of one figure in the same order of values. prompts_N: the prompt that each belongs
    to, or every value is its own. The largest |t| of all M over a bootstrap that draws the same prompts for all of them
    (so how they hang together is kept) is the distance that its 95th percentile gives; it is read with Student's tails,
    for few prompts: of equal arms with skewed scores 5% are told apart from 40 prompts on, 7% on 12. A difference that
    is the same for every prompt has no width. largest: what no difference can exceed either way, where intervals end
    (1 for shares). ValueError: not two dimensions, no values, or values that are not finite.
    Source: Westfall and Young, Resampling-Based Multiple Testing (1993), single-step max-T; Hothorn, Bretz and
    Westfall, Simultaneous Inference in General Parametric Models (2008), for intervals of all pairs.
    """
    values_NM = np.asarray(differences_NM, dtype=np.float64)
    if values_NM.ndim != 2 or not values_NM.size or not np.isfinite(values_NM).all():
        raise ValueError(f"differences must be finite numbers of two dimensions, not shape {values_NM.shape}")
    size = len(values_NM)
    origin_M = values_NM[0]  # what is the same everywhere is exactly zero from here, as is its spread
    columns = [by_prompt(column, prompts_N) for column in (values_NM - origin_M).T]
    sums_KM, counts_K = np.stack([sums for sums, _ in columns], axis=1), columns[0][1]
    means_M, errors_M = _means_and_errors(sums_KM, counts_K)
    prompts = len(counts_K)
    if prompts == 1:
        return [Estimate(mean=float(mean), n=size, ci95=None) for mean in origin_M + means_M]
    vary_M = errors_M > 0
    reach_M = np.zeros_like(means_M)
    if vary_M.any():
        largest_R = _largest(sums_KM[:, vary_M], counts_K, means_M[vary_M], errors_M[vary_M], resamples)
        reach_M[vary_M] = _students(float(np.quantile(largest_R, LEVEL)), prompts) * errors_M[vary_M]
    centres_M = origin_M + means_M
    return [
        Estimate(mean=float(mean), n=size, ci95=(max(float(mean - reach), -largest), min(float(mean + reach), largest)))
        for mean, reach in zip(centres_M, reach_M, strict=True)
    ]


def _means_and_errors(sums_KM: Floats, counts_K: Floats) -> tuple[Floats, Floats]:
    """Example-weighted means, and their standard errors over prompts (of a ratio, linearised)."""
    prompts, size = len(counts_K), counts_K.sum()
    means_M = sums_KM.sum(axis=0) / size
    residuals_KM = sums_KM - counts_K[:, None] * means_M
    freedom = max(prompts - 1, 1)
    errors_M = np.sqrt((residuals_KM**2).sum(axis=0) * prompts / freedom) / size
    return means_M, errors_M


def _largest(sums_KM: Floats, counts_K: Floats, means_M: Floats, errors_M: Floats, resamples: int) -> Floats:
    """Of each resample the largest distance of any mean from its own, in standard errors of a resample."""
    prompts = len(counts_K)
    spread_M = errors_M * np.sqrt((prompts - 1) / prompts)  # a resample's own: it divides by K, not K − 1
    found = []
    for weights_RK in weights(prompts, resamples):
        means_RM = weights_RK @ sums_KM / (weights_RK @ counts_K)[:, None]
        found.append((np.abs(means_RM - means_M) / spread_M).max(axis=1))
    return np.concatenate(found)


def _students(distance: float, prompts: int) -> float:
    """The distance that Student's t exceeds as often as the normal exceeds this one."""
    return float(stats.t.isf(stats.norm.sf(distance), prompts - 1))


def weights(prompts: int, resamples: int, *, seed: int = 0) -> Iterator[Floats]:
    """How often each prompt is drawn in each resample, a bounded number of resamples at a time."""
    generator = np.random.default_rng(seed)
    at_once = max(1, _AT_ONCE // prompts)
    for start in range(0, resamples, at_once):
        count = min(at_once, resamples - start)
        drawn_RK = generator.integers(prompts, size=(count, prompts)) + np.arange(count)[:, None] * prompts
        yield np.bincount(drawn_RK.ravel(), minlength=count * prompts).reshape(count, prompts).astype(np.float64)
