"""The optimum of the KL-constrained objective, the reward hidden inside a policy, and what PPO sees of both.

Shape suffixes: X, prompts; Y, responses. Sources: Rafailov et al. 2023, arXiv 2305.18290 (DPO); Schulman et al. 2017,
arXiv 1707.06347 (PPO).
"""

import numpy as np
from scipy.special import logsumexp

from pairtune.theory.world import Array, World, expectation, kl, tilt


def log_partition(world: World) -> Array:
    """log Z(x) = log Σ_y π_ref(y|x)·exp(r(x, y)/β): in nats, below eq. 4 of the DPO paper. Returns [X]."""
    result: Array = logsumexp(world.reward_XY / world.beta, b=world.reference_XY, axis=-1)
    return result


def optimal_policy(world: World) -> Array:
    """π*(y|x) = π_ref(y|x)·exp(r(x, y)/β) / Z(x): DPO paper, eq. 4. Returns [X, Y]."""
    result: Array = world.reference_XY * np.exp(world.reward_XY / world.beta - log_partition(world)[:, None])
    return result


def gap(world: World, policy_XY: Array) -> Array:
    """How far a policy is from the best: J(π*) − J(π) = β·KL(π‖π*) for each prompt, in reward units. Returns [X].

    Never negative and zero only at π*: that is the whole proof that π* is the optimum (DPO paper, appendix A.1).
    """
    return world.beta * kl(policy_XY, optimal_policy(world))


def implicit_reward(policy_XY: Array, reference_XY: Array, *, beta: float) -> Array:
    """r̂(x, y) = β·log(π(y|x)/π_ref(y|x)): the reward a policy carries inside itself. Returns [X, Y]."""
    result: Array = beta * (np.log(policy_XY) - np.log(reference_XY))
    return result


def reward_from_optimum(policy_XY: Array, reference_XY: Array, *, beta: float, log_partition_X: Array) -> Array:
    """r(x, y) = β·log(π*(y|x)/π_ref(y|x)) + β·log Z(x): DPO paper, eq. 5. Returns [X, Y]."""
    return implicit_reward(policy_XY, reference_XY, beta=beta) + beta * log_partition_X[:, None]


def canonical_reward(world: World) -> Array:
    """r(x, y) − β·log Z(x): of all rewards that differ by a function of the prompt, the one whose Z is 1.

    It is the only one of them that is β times the log-ratio of a policy: DPO paper, theorem 1. Returns [X, Y].
    """
    result: Array = world.reward_XY - world.beta * log_partition(world)[:, None]
    return result


def shaped_reward(world: World, policy_XY: Array) -> Array:
    """r(x, y) − β·log(π(y|x)/π_ref(y|x)): the reward PPO is given, the KL penalty inside it. Returns [X, Y]."""
    result: Array = world.reward_XY - implicit_reward(policy_XY, world.reference_XY, beta=world.beta)
    return result


def advantage(world: World, policy_XY: Array) -> Array:
    """The shaped reward less its mean under the policy: how much better a response is than usual. Returns [X, Y]."""
    shaped_XY = shaped_reward(world, policy_XY)
    result: Array = shaped_XY - expectation(policy_XY, shaped_XY)[:, None]
    return result


def ppo_surrogate(policy_XY: Array, old_XY: Array, advantage_XY: Array, *, clip: float) -> Array:
    """E_{y∼π_old}[min(ρ·A, clip(ρ, 1 − ε, 1 + ε)·A)] with ρ = π/π_old, for each prompt. Returns [X].

    PPO paper, eq. 7, with its expectation taken exactly and the whole response as one action. The branches are chosen
    by the real part, so that a complex step passes through.
    """
    ratio_XY = policy_XY / old_XY
    clipped_XY = np.where(ratio_XY.real > 1 + clip, 1 + clip, np.where(ratio_XY.real < 1 - clip, 1 - clip, ratio_XY))
    plain_XY, bounded_XY = ratio_XY * advantage_XY, clipped_XY * advantage_XY
    return expectation(old_XY, np.where(plain_XY.real <= bounded_XY.real, plain_XY, bounded_XY))


def beta_slopes(world: World) -> tuple[Array, Array]:
    """(dKL(π*‖π_ref)/dβ, dE_{π*}[r]/dβ) = (−Var/β³, −Var/β²), Var the variance of the reward under π*. Two [X].

    Both are negative: a larger β keeps the optimum closer to the reference and earns less. From the exponential tilt
    π* ∝ π_ref·exp(r/β): with η = 1/β, dKL/dη = η·Var and dE[r]/dη = Var.
    """
    policy_XY = optimal_policy(world)
    mean_X = expectation(policy_XY, world.reward_XY)
    variance_X = expectation(policy_XY, (world.reward_XY - mean_X[:, None]) ** 2)
    return -variance_X / world.beta**3, -variance_X / world.beta**2


def ipo_policy(world: World, preference_XYY: Array, source_XY: Array) -> Array:
    """π(y|x) ∝ π_ref(y|x)·exp(p(y ≻ μ|x)/β): where IPO ends when pairs are two independent draws from a policy μ.

    The same tilt as `optimal_policy`, but by how often y beats a draw from μ, a number between 0 and 1 that stays
    finite however certain the labels are: Azar et al. 2023, arXiv 2310.12036, the section on IPO, β written τ. [X, Y].
    """
    wins_XY = (preference_XYY * source_XY[:, None, :]).sum(axis=2)
    return tilt(world.reference_XY, wins_XY / world.beta)
