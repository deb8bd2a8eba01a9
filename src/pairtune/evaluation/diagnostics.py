"""What goes wrong in practice: chosen responses losing probability, answers drifting in length, margins made of length.

Figures of held-out pairs; the sentences about them, and where they begin, are `comparison.notices`.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from scipy.stats import spearmanr

from pairtune.data.pack import Tokens
from pairtune.estimate import Estimate
from pairtune.evaluation.heldout import margins
from pairtune.evaluation.statistics import resamples


def per_token(log_ratios: Sequence[Sequence[float]], rows: Sequence[Tokens], side: int) -> list[float]:
    """Log-ratio of each pair's chosen (side 0) or rejected (side 1) response, in nats per token of it."""
    return [pair[side] / len(row.responses[side]) for pair, row in zip(log_ratios, rows, strict=True)]


def fell(log_ratios: Sequence[Sequence[float]]) -> list[float]:
    """1 where the chosen response has become less probable than under the reference, else 0."""
    return [float(chosen < 0) for chosen, _ in log_ratios]


def margin_length_correlation(
    log_ratios: Sequence[Sequence[float]], rows: Sequence[Tokens], *, interval: bool = True
) -> Estimate | None:
    """Spearman's rank correlation of the margin with how many tokens longer the chosen response is.

    Its interval is a percentile bootstrap over prompts; none without `interval` or of one prompt. None where
    either is the same for all pairs: there is nothing to correlate.
    """
    margin_N = np.array(margins(log_ratios))
    longer_N = np.array([len(row.responses[0]) - len(row.responses[1]) for row in rows])
    correlation = _spearman(margin_N, longer_N)
    if correlation is None:
        return None
    bounds = None
    if interval and len({row.prompt for row in rows}) > 1:
        drawn = [_spearman(margin_N[drawn_N], longer_N[drawn_N]) for drawn_N in resamples([row.prompt for row in rows])]
        low, high = np.quantile([value for value in drawn if value is not None] or [correlation], (0.025, 0.975))
        bounds = (float(low), float(high))
    return Estimate(mean=correlation, n=len(rows), ci95=bounds)


def distinct_bigrams(responses: Sequence[Sequence[int]]) -> Estimate:
    """Distinct 2-grams of tokens over all answers, divided by their number; 0 without any.

    Source: Li et al., A Diversity-Promoting Objective Function for Neural Conversation Models (2016), section 5. It
    falls with the number and the length of the answers, so arms are compared on the same prompts, and has no interval:
    a resample, in which answers come twice, has fewer distinct ones by construction.
    """
    grams = [(first, second) for response in responses for first, second in pairwise(response)]
    share = len(set(grams)) / len(grams) if grams else 0.0
    return Estimate(mean=share, n=len(responses), ci95=None)


def _spearman(first_N: np.ndarray, second_N: np.ndarray) -> float | None:
    if len(set(first_N)) < 2 or len(set(second_N)) < 2:
        return None
    return float(spearmanr(first_N, second_N).statistic)
