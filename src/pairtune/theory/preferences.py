"""How preferences arise from a reward, and how often each labelled pair is seen.

Shape suffixes: X, prompts; Y, responses; W and L, the response preferred and the one refused (both run over responses);
K, the places of a ranking. A *pair law* `weight_XWL` is the probability that a pair drawn at random has prompt x,
chosen response w and rejected response l; it sums to 1.
"""

from collections.abc import Sequence

import numpy as np
from scipy.special import expit

from pairtune.theory.world import Array, World


def bradley_terry(reward_XY: Array) -> Array:
    """P(w ≻ l | x) = σ(r(x, w) − r(x, l)) [X, W, L]: Bradley & Terry 1952; DPO paper (arXiv 2305.18290), eq. 1."""
    result: Array = expit(reward_XY[:, :, None] - reward_XY[:, None, :])
    return result


def plackett_luce(reward_XY: Array, ranking_K: Sequence[int]) -> Array:
    """P(ranking | x) = ∏_k exp(r_k) / Σ_{j ≥ k} exp(r_j), best response first, for each prompt. Returns [X].

    Each place is won from the responses not yet placed: Plackett 1975, Luce 1959; DPO paper, appendix A.3.
    """
    strength_XK = np.exp(reward_XY - reward_XY.max(axis=-1, keepdims=True))[:, list(ranking_K)]
    left_XK = strength_XK[:, ::-1].cumsum(axis=-1)[:, ::-1]
    result: Array = (strength_XK / left_XK).prod(axis=-1)
    return result


def every_pair(world: World) -> Array:
    """Full coverage: a prompt by its frequency, then two different responses, all equally often. Returns [X, Y, Y]."""
    responses = world.reward_XY.shape[1]
    different_YY = (1 - np.eye(responses)) / (responses * (responses - 1))
    result: Array = world.prompt_X[:, None, None] * different_YY
    return result


def independent_pairs(world: World, source_XY: Array) -> Array:
    """A prompt by its frequency, then two independent responses from a source policy [X, Y]. Returns [X, Y, Y]."""
    result: Array = world.prompt_X[:, None, None] * source_XY[:, :, None] * source_XY[:, None, :]
    return result


def label(draw_XYY: Array, preference_XYY: Array) -> Array:
    """The pair law [X, W, L] of pairs drawn by one table and labelled by another.

    A pair (w, l) may be drawn in either order; the label, not the order, says which response is the chosen one.
    """
    result: Array = (draw_XYY + draw_XYY.swapaxes(1, 2)) * preference_XYY
    return result


def sample_pairs(rng: np.random.Generator, weight_XWL: Array, *, pairs: int) -> Array:
    """The pair law of a finite data set: counts of `pairs` independent draws, divided by their number. [X, W, L]."""
    flat = weight_XWL.ravel() / weight_XWL.sum()
    result: Array = rng.multinomial(pairs, flat).reshape(weight_XWL.shape) / pairs
    return result
