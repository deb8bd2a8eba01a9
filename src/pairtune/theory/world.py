"""A world small enough to enumerate: prompts, responses, a reward, a reference; every expectation is a sum.

Shape suffixes: X, prompts; Y, responses. A policy is a table of probabilities [X, Y] whose rows sum to 1. Rewards are
plain numbers, `beta` is in reward units per nat, KL is in nats. Arrays are float64, or complex128 when a test
differentiates by a complex step.
"""

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.special import xlogy

Array: TypeAlias = npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True, eq=False)
class World:
    """Everything the derivation needs to know, and nothing learned.

    `prompt_X` is how often each prompt is asked, `reference_XY` the reference policy π_ref, positive everywhere,
    `reward_XY` the reward r(x, y), and `beta` > 0 the weight of KL(π‖π_ref). Raises ValueError on anything else.
    """

    prompt_X: Array
    reference_XY: Array
    reward_XY: Array
    beta: float

    def __post_init__(self) -> None:
        if self.reward_XY.ndim != 2 or self.reference_XY.shape != self.reward_XY.shape:
            raise ValueError("reward and reference must be tables [prompts, responses] of the same shape")
        if self.prompt_X.shape != self.reward_XY.shape[:1]:
            raise ValueError("prompt frequencies must be one number for each row of the reward")
        if not (np.isfinite(self.reward_XY).all() and np.isfinite(self.beta) and self.beta > 0):
            raise ValueError("rewards must be finite and beta must be a positive number")
        for name, table in (("prompt frequencies", self.prompt_X), ("reference", self.reference_XY)):
            if not ((table > 0).all() and np.allclose(table.sum(axis=-1), 1, rtol=0, atol=1e-12)):
                raise ValueError(f"{name} must be positive everywhere and sum to 1: full support is assumed")


def random_world(rng: np.random.Generator, *, prompts: int = 3, responses: int = 4) -> World:
    """A world with standard normal rewards, a random reference, and β between 0.2 and 2 (uniform in its logarithm)."""
    return World(
        prompt_X=softmax(rng.normal(size=prompts)),
        reference_XY=softmax(rng.normal(size=(prompts, responses))),
        reward_XY=rng.normal(size=(prompts, responses)),
        beta=float(np.exp(rng.uniform(np.log(0.2), np.log(2.0)))),
    )


def random_policy(rng: np.random.Generator, world: World) -> Array:
    """Any policy [X, Y] with full support: the softmax of standard normal logits."""
    return softmax(rng.normal(size=world.reward_XY.shape))


def log_softmax(logit_XY: Array) -> Array:
    """log(exp(logit) / Σ exp(logit)) along the last axis, shifted by the largest real part against overflow."""
    shifted_XY = logit_XY - logit_XY.real.max(axis=-1, keepdims=True)
    result: Array = shifted_XY - np.log(np.exp(shifted_XY).sum(axis=-1, keepdims=True))
    return result


def softmax(logit_XY: Array) -> Array:
    """exp(logit) / Σ exp(logit) along the last axis."""
    result: Array = np.exp(log_softmax(logit_XY))
    return result


def tilt(reference_XY: Array, logratio_XY: Array) -> Array:
    """The policy π ∝ π_ref·exp(u) [X, Y]. Zero u is the reference; adding a constant to a row of u changes nothing."""
    return softmax(np.log(reference_XY) + logratio_XY)


def expectation(policy_XY: Array, value_XY: Array) -> Array:
    """E_{y∼π(·|x)}[value(x, y)] for each prompt, as a sum over responses. Returns [X]."""
    result: Array = (policy_XY * value_XY).sum(axis=-1)
    return result


def kl(policy_XY: Array, other_XY: Array) -> Array:
    """KL(policy‖other) = Σ_y policy·log(policy/other) for each prompt, in nats; 0·log 0 is 0. Returns [X]."""
    result: Array = xlogy(policy_XY, policy_XY / other_XY).sum(axis=-1)
    return result


def objective(world: World, policy_XY: Array) -> Array:
    """What RLHF maximises: E_π[r] − β·KL(π‖π_ref) for each prompt, in reward units. Returns [X].

    Equation 3 of Rafailov et al. 2023, arXiv 2305.18290. The average over prompts is `world.prompt_X @` this.
    """
    result: Array = expectation(policy_XY, world.reward_XY) - world.beta * kl(policy_XY, world.reference_XY)
    return result
