"""Held-out pairs: does the policy (or the reward model) put the chosen response above the rejected one?"""

from collections.abc import Hashable, Sequence

import numpy as np
from scipy.stats import rankdata
from torch import Tensor
from transformers import PreTrainedModel

from pairtune.data.pack import Tokens
from pairtune.engine.own_score import OwnScore
from pairtune.engine.reference import compute_logprobs
from pairtune.engine.value_heads import score_rewards
from pairtune.estimate import Estimate
from pairtune.evaluation.statistics import exact_interval, resamples, share
from pairtune.models.heads import ScalarModel


def log_ratios(model: PreTrainedModel, rows: Sequence[Tokens], reference: Sequence[Tensor]) -> list[list[float]]:
    """log π(y|x) − log π_ref(y|x) of every response, summed over its tokens, in nats: one list a row."""
    logprobs = compute_logprobs(model, rows)
    return [
        [float(part.sum()) for part in (own - frozen).split([len(response) for response in row.responses])]
        for own, frozen, row in zip(logprobs, reference, rows, strict=True)
    ]


def margins(log_ratios: Sequence[Sequence[float]]) -> list[float]:
    """Log-ratio of chosen minus log-ratio of rejected for each pair, in nats."""
    return [chosen - rejected for chosen, rejected in log_ratios]


def reward_margins(model: ScalarModel | OwnScore, rows: Sequence[Tokens]) -> list[float]:
    """Reward of chosen minus reward of rejected for each pair."""
    return [chosen - rejected for chosen, rejected in score_rewards(model, rows)]


def told_apart(log_ratio_N: Sequence[float], label_N: Sequence[bool], prompts: Sequence[Hashable]) -> Estimate | None:
    """How often a desirable response has a higher log-ratio than an undesirable one, over all two of them; ties ½.

    The area under the ROC curve: 50% is chance, whatever the share of the labels. Its interval is the exact one of as
    many coins as have its variance, prompts drawn as wholes, and of no more than have the variance that chance alone
    gives it by Mann and Whitney: 3mw / (m + w + 1), with m prompts of desirable responses and w of others.
    n is twice the rarer label's responses. None with one label only.
    """
    ratio_N, desirable_N = np.asarray(log_ratio_N), np.asarray(label_N)
    whole = _area(ratio_N, desirable_N)
    if whole is None:
        return None
    rarer = int(min(desirable_N.sum(), (~desirable_N).sum()))
    bounds = None
    if len(set(prompts)) > 1:
        above, below = (
            len({prompt for prompt, label in zip(prompts, label_N, strict=True) if bool(label) is side})
            for side in (True, False)
        )
        areas = [_area(ratio_N[drawn_N], desirable_N[drawn_N]) for drawn_N in resamples(prompts)]
        variance = float(np.var([area for area in areas if area is not None]))
        most = 3 * above * below / (above + below + 1)
        bounds = exact_interval(whole, min(most, whole * (1 - whole) / variance) if variance > 0 else most)
    return Estimate(mean=whole, n=2 * rarer, ci95=bounds)


def _area(ratio_N: np.ndarray, desirable_N: np.ndarray) -> float | None:
    """Mann and Whitney's statistic as a share, by the ranks of the desirable ones."""
    above = int(desirable_N.sum())
    below = len(desirable_N) - above
    if not above or not below:
        return None
    ranks = float(rankdata(ratio_N)[desirable_N].sum())
    return (ranks - above * (above + 1) / 2) / (above * below)


def wins(margin_N: Sequence[float]) -> list[float]:
    """1 where the margin is above 0, ½ where it is 0, else 0. Their mean is the held-out accuracy."""
    return [1.0 if margin > 0 else 0.5 if margin == 0 else 0.0 for margin in margin_N]


def accuracy(margin_N: Sequence[float], rows: Sequence[Tokens]) -> Estimate:
    """The held-out accuracy of pairs with these margins, wider in its interval where prompts repeat."""
    return share(wins(margin_N), [row.prompt for row in rows])
