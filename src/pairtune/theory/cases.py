"""What β does, what DPO saves and what it gives up: the numbers behind the figures of docs/derivation.md.

Shape suffixes: X, prompts; Y, responses; W and L, chosen and rejected response; T, steps of training; S, the
settings of a sweep; R, repeated data sets.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from pairtune.theory import population, preferences
from pairtune.theory.optimum import optimal_policy
from pairtune.theory.world import Array, World, expectation, kl, tilt


def example_world(*, beta: float = 0.5) -> World:
    """One prompt, four responses A to D: A is the best, C the reference's favourite, D the worst."""
    return World(
        prompt_X=np.array([1.0]),
        reference_XY=np.array([[0.1, 0.2, 0.4, 0.3]]),
        reward_XY=np.array([[1.0, 0.5, 0.0, -1.0]]),
        beta=beta,
    )


def uncovered_world() -> World:
    """One prompt, three responses: the pairs will compare A with B, and C, the worst of all, is in no pair."""
    return World(
        prompt_X=np.array([1.0]),
        reference_XY=np.array([[0.1, 0.6, 0.3]]),
        reward_XY=np.array([[1.0, 0.0, -2.0]]),
        beta=0.5,
    )


def beta_sweep(world: World, beta_S: Sequence[float]) -> tuple[Array, Array]:
    """KL(π*‖π_ref) in nats and E_π*[r] of the optimum for each β, averaged over prompts. Returns two [S]."""
    kl_S, reward_S = [], []
    for beta in beta_S:
        policy_XY = optimal_policy(replace(world, beta=beta))
        kl_S.append(world.prompt_X @ kl(policy_XY, world.reference_XY))
        reward_S.append(world.prompt_X @ expectation(policy_XY, world.reward_XY))
    return np.array(kl_S), np.array(reward_S)


def descend(problem: population.Problem, start_XY: Array, *, rate: float, steps: int) -> Array:
    """Plain gradient descent on u: the start and each step after it. Returns [T = steps + 1, X, Y]."""
    path = [start_XY]
    for _ in range(steps):
        path.append(path[-1] - rate * problem.gradient(path[-1]))
    return np.stack(path)


def training_kl(world: World, *, rate: float, steps: int) -> Array:
    """KL(π‖π_ref) in nats along gradient descent on DPO's exact loss, with full coverage and true labels. [T]."""
    weight_XWL = preferences.label(preferences.every_pair(world), preferences.bradley_terry(world.reward_XY))
    problem = population.on_margins(population.dpo(beta=world.beta), weight_XWL)
    path_TXY = descend(problem, np.zeros(world.reward_XY.shape), rate=rate, steps=steps)
    return np.array([world.prompt_X @ kl(tilt(world.reference_XY, u_XY), world.reference_XY) for u_XY in path_TXY])


def certainty_sweep(chance_S: Sequence[float], *, beta: float) -> tuple[Array, Array]:
    """KL(π‖π_ref) of DPO's and IPO's minimiser as labels grow certain: two equally likely responses, P(w ≻ l) = p.

    The minimisers are found numerically. Returns two [S] in nats. Raises ValueError where p is 1: DPO has no minimiser.
    """
    reference_XY = np.array([[0.5, 0.5]])
    rows = []
    for chance in chance_S:
        weight_XWL = np.array([[[0.0, chance], [1 - chance, 0.0]]])
        row = []
        for loss in (population.dpo(beta=beta), population.ipo(beta=beta)):
            found = population.minimise(population.on_margins(loss, weight_XWL), np.zeros((1, 2)))
            if not found.attained:
                raise ValueError(f"no minimiser at P(w ≻ l) = {chance}: the loss falls all the way to infinity")
            row.append(kl(tilt(reference_XY, found.logratio_XY), reference_XY)[0])
        rows.append(row)
    dpo_S, ipo_S = np.array(rows).T
    return dpo_S, ipo_S


def uncovered_path(world: World, *, rate: float, steps: int) -> Array:
    """The policy along gradient descent on DPO's exact loss when no pair shows the last response. Returns [T, X, Y]."""
    seen_XYY = preferences.every_pair(world)
    seen_XYY[:, -1, :] = seen_XYY[:, :, -1] = 0
    weight_XWL = preferences.label(seen_XYY / seen_XYY.sum(), preferences.bradley_terry(world.reward_XY))
    problem = population.on_margins(population.dpo(beta=world.beta), weight_XWL)
    path_TXY = descend(problem, np.zeros(world.reward_XY.shape), rate=rate, steps=steps)
    return tilt(world.reference_XY, path_TXY)


@dataclass(frozen=True, kw_only=True, eq=False)
class SampleErrors:
    """How far from their goal the estimates of R data sets of `pairs` pairs end: each [R], KL(π̂‖goal) in nats.

    `dpo_R` and `reward_R` (a reward table, then the exact RLHF optimum for it) aim at π*; `ipo_R` is IPO against π*,
    `ipo_own_R` IPO against its own population minimiser. `predicted` is the mean that the Fisher information predicts
    for DPO when n is large. `unbounded` counts data sets on which DPO has no minimiser; they are left out of all.
    """

    pairs: int
    dpo_R: Array
    reward_R: Array
    ipo_R: Array
    ipo_own_R: Array
    predicted: float
    unbounded: int


def sample_errors(world: World, rng: np.random.Generator, *, pairs: int, repeats: int) -> SampleErrors:
    """Draw `repeats` data sets with full coverage and Bradley–Terry labels and fit each way to each of them."""
    weight_XWL = preferences.label(preferences.every_pair(world), preferences.bradley_terry(world.reward_XY))
    start_XY, best_XY = np.zeros(world.reward_XY.shape), optimal_policy(world)
    losses = (population.dpo(beta=world.beta), population.dpo(beta=1.0), population.ipo(beta=world.beta))
    ipo_goal = population.minimise(population.on_margins(losses[2], weight_XWL), start_XY)
    ipo_goal_XY = tilt(world.reference_XY, ipo_goal.logratio_XY)
    rows = []
    for _ in range(repeats):
        sampled_XWL = preferences.sample_pairs(rng, weight_XWL, pairs=pairs)
        dpo, reward, ipo = (population.minimise(population.on_margins(loss, sampled_XWL), start_XY) for loss in losses)
        if not dpo.attained:
            continue
        dpo_XY, ipo_XY = (tilt(world.reference_XY, found.logratio_XY) for found in (dpo, ipo))
        reward_XY = optimal_policy(replace(world, reward_XY=reward.logratio_XY))
        goals = ((dpo_XY, best_XY), (reward_XY, best_XY), (ipo_XY, best_XY), (ipo_XY, ipo_goal_XY))
        rows.append([world.prompt_X @ kl(policy_XY, goal_XY) for policy_XY, goal_XY in goals])
    dpo_R, reward_R, ipo_R, ipo_own_R = np.array(rows).reshape(-1, 4).T
    return SampleErrors(
        pairs=pairs,
        dpo_R=dpo_R,
        reward_R=reward_R,
        ipo_R=ipo_R,
        ipo_own_R=ipo_own_R,
        predicted=predicted_error(world, weight_XWL) / pairs,
        unbounded=repeats - len(rows),
    )


def predicted_error(world: World, weight_XWL: Array) -> float:
    """n times the mean of KL(π̂‖π*) that maximum likelihood predicts for many pairs, in nats.

    Half the trace of (Fisher information per pair)⁺ times the covariance of the responses under π*: the information is
    the Hessian of DPO's loss at its minimum, the covariance the Hessian of KL(·‖π*) in u.
    """
    best_XY, eye_YY = optimal_policy(world), np.eye(world.reward_XY.shape[1])
    problem = population.on_margins(population.dpo(beta=world.beta), weight_XWL)
    information_NN = problem.hessian(world.reward_XY / world.beta)
    spread_XYY = best_XY[:, :, None] * (eye_YY - best_XY[:, None, :]) * world.prompt_X[:, None, None]
    spread_NN = population.block_diagonal(spread_XYY)
    return float(np.trace(np.linalg.pinv(information_NN, rcond=population.FLAT, hermitian=True) @ spread_NN)) / 2
