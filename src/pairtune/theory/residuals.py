"""The two routes to each equation, and how far apart they end.

Every function takes a world and a random generator and returns one residual: the largest |a − b|, divided by the
largest |b| where that is above 1 (so it is absolute for small quantities and relative for large ones). The routes
differ in what is in question: a closed form meets an optimiser, a derivative a complex step, a likelihood a product
of shares.

Shape suffixes: X, prompts; Y, responses; W and L, chosen and rejected response.
"""

from collections.abc import Callable
from dataclasses import replace
from itertools import permutations

import numpy as np
from scipy.special import expit, logit

from pairtune.theory import optimum, population, preferences
from pairtune.theory import world as worlds
from pairtune.theory.world import Array, World

Rng = np.random.Generator
STEP = 1e-30  # of a complex step: nothing is subtracted, so it may be this small


def distance(found: Array, expected: Array) -> float:
    """The largest |found − expected|, divided by the largest |expected| where that is above 1. NaN stays NaN."""
    return float(np.max(np.abs(found - expected)) / max(1.0, float(np.max(np.abs(expected)))))


def worst(*residuals: float) -> float:
    """The largest residual of several; unlike `max`, it keeps a NaN."""
    return float(np.max(residuals))


def slope(function: Callable[[Array], Array], point_XY: Array) -> Array:
    """The gradient [X, Y] of a scalar function by a complex step: Im f(u + ih·e)/h, exact to rounding."""
    gradient_XY = np.empty(point_XY.shape)
    for index in np.ndindex(*point_XY.shape):
        nudged_XY = point_XY.astype(complex)
        nudged_XY[index] += 1j * STEP
        gradient_XY[index] = complex(function(nudged_XY)).imag / STEP
    return gradient_XY


def labelled(world: World) -> Array:
    """The pair law [X, W, L] of full coverage with Bradley–Terry labels."""
    return preferences.label(preferences.every_pair(world), preferences.bradley_terry(world.reward_XY))


def minimiser(loss: population.MarginLoss, weight_XWL: Array) -> Array:
    """u [X, Y] where the minimisation of a margin loss ends, started from zero."""
    return population.minimise(population.on_margins(loss, weight_XWL), np.zeros(weight_XWL.shape[:2])).logratio_XY


def best_policy(world: World) -> Array:
    """The maximiser of the KL-constrained objective [X, Y], found without its closed form."""
    found = population.minimise(population.on_rlhf(world), np.zeros(world.reward_XY.shape))
    return worlds.tilt(world.reference_XY, found.logratio_XY)


def long_way(world: World, weight_XWL: Array) -> Array:
    """Fit a reward table to the pairs, then maximise the objective for it. Returns a policy [X, Y]."""
    return best_policy(replace(world, reward_XY=minimiser(population.dpo(beta=1.0), weight_XWL)))


# The objective and its best policy


def objective(world: World, rng: Rng) -> float:
    policy_XY = worlds.random_policy(rng, world)
    shaped_X = worlds.expectation(policy_XY, optimum.shaped_reward(world, policy_XY))
    return distance(worlds.objective(world, policy_XY), shaped_X)


def optimal_policy(world: World, rng: Rng) -> float:
    policy_XY = optimum.optimal_policy(world)
    log_z_X = np.log((world.reference_XY * np.exp(world.reward_XY / world.beta)).sum(axis=1))
    level_XY = np.broadcast_to(world.beta * log_z_X[:, None], policy_XY.shape)
    total = distance(policy_XY.sum(axis=1), np.ones(len(policy_XY)))
    return worst(total, distance(optimum.shaped_reward(world, policy_XY), level_XY))


def gap(world: World, rng: Rng) -> float:
    policy_XY = worlds.random_policy(rng, world)
    best_X = worlds.objective(world, optimum.optimal_policy(world))
    return distance(best_X - worlds.objective(world, policy_XY), optimum.gap(world, policy_XY))


def numerical_optimum(world: World, rng: Rng) -> float:
    return distance(best_policy(world), optimum.optimal_policy(world))


def reward_from_optimum(world: World, rng: Rng) -> float:
    recovered_XY = optimum.reward_from_optimum(
        optimum.optimal_policy(world),
        world.reference_XY,
        beta=world.beta,
        log_partition_X=optimum.log_partition(world),
    )
    return distance(recovered_XY, world.reward_XY)


# Rewards and preferences


def bradley_terry(world: World, rng: Rng) -> float:
    strength_XY = np.exp(world.reward_XY)
    share_XYY = strength_XY[:, :, None] / (strength_XY[:, :, None] + strength_XY[:, None, :])
    return distance(preferences.bradley_terry(world.reward_XY), share_XYY)


def plackett_luce(world: World, rng: Rng) -> float:
    prompts, responses = world.reward_XY.shape
    above_XYY = np.zeros((prompts, responses, responses))
    for ranking in permutations(range(responses)):
        chance_X = preferences.plackett_luce(world.reward_XY, ranking)
        for place, first in enumerate(ranking):
            above_XYY[:, first, list(ranking[place + 1 :])] += chance_X[:, None]
    pair_XYY = preferences.bradley_terry(world.reward_XY) * (1 - np.eye(responses))
    return distance(above_XYY, pair_XYY)


def equivalent_rewards(world: World, rng: Rng) -> float:
    shifted = replace(world, reward_XY=world.reward_XY + rng.normal(size=(len(world.prompt_X), 1)))
    same_labels = distance(preferences.bradley_terry(shifted.reward_XY), preferences.bradley_terry(world.reward_XY))
    same_policy = distance(best_policy(shifted), optimum.optimal_policy(world))
    return worst(same_labels, same_policy)


def canonical_reward(world: World, rng: Rng) -> float:
    reward_XY = optimum.canonical_reward(world)
    own_XY = optimum.implicit_reward(optimum.optimal_policy(world), world.reference_XY, beta=world.beta)
    z_X = (world.reference_XY * np.exp(reward_XY / world.beta)).sum(axis=1)
    return worst(distance(own_XY, reward_XY), distance(z_X, np.ones(len(z_X))))


def partition_cancels(world: World, rng: Rng) -> float:
    logratio_XY = np.log(optimum.optimal_policy(world) / world.reference_XY)
    own_XYY = expit(world.beta * population.margins(logratio_XY))
    return distance(own_XYY, preferences.bradley_terry(world.reward_XY))


# The loss


def likelihood(world: World, rng: Rng) -> float:
    policy_XY = worlds.random_policy(rng, world)
    reward_XY = optimum.implicit_reward(policy_XY, world.reference_XY, beta=world.beta)
    weight_XWL = preferences.sample_pairs(rng, labelled(world), pairs=50)
    chance_B = np.repeat(preferences.bradley_terry(reward_XY), np.rint(50 * weight_XWL).astype(int).ravel())
    logratio_XY = np.log(policy_XY / world.reference_XY)
    loss = population.expected_loss(population.dpo(beta=world.beta), logratio_XY, weight_XWL)
    return distance(50 * loss, -np.log(chance_B.prod()))


def excess_loss(world: World, rng: Rng) -> float:
    policy_XY, best_XY = worlds.random_policy(rng, world), optimum.optimal_policy(world)
    loss, weight_XWL = population.dpo(beta=world.beta), labelled(world)
    excess = population.expected_loss(loss, np.log(policy_XY / world.reference_XY), weight_XWL)
    excess = excess - population.expected_loss(loss, np.log(best_XY / world.reference_XY), weight_XWL)
    own_XYY = expit(population.margins(optimum.implicit_reward(policy_XY, world.reference_XY, beta=world.beta)))
    true_XYY = preferences.bradley_terry(world.reward_XY)
    coins_XYY = worlds.kl(np.stack([true_XYY, 1 - true_XYY], -1), np.stack([own_XYY, 1 - own_XYY], -1))
    return distance(excess, (preferences.every_pair(world) * coins_XYY).sum())


def gradient(world: World, rng: Rng) -> float:
    u_XY, weight_XWL = rng.normal(size=world.reward_XY.shape), labelled(world)
    loss = population.dpo(beta=world.beta)

    def through_softmax(nudged_XY: Array) -> Array:
        logratio_XY = np.log(worlds.tilt(world.reference_XY, nudged_XY) / world.reference_XY)
        return population.expected_loss(loss, logratio_XY, weight_XWL)

    policy_XY = worlds.tilt(world.reference_XY, u_XY)
    reward_XY = optimum.implicit_reward(policy_XY, world.reference_XY, beta=world.beta)
    score_XYY = np.eye(u_XY.shape[1]) - policy_XY[:, None, :]  # ∇ log π(y|x) with respect to the logits of x
    pull_XWL = weight_XWL * expit(reward_XY[:, None, :] - reward_XY[:, :, None])
    apart_XWLY = score_XYY[:, :, None, :] - score_XYY[:, None, :, :]
    paper_XY = -world.beta * (pull_XWL[..., None] * apart_XWLY).sum(axis=(1, 2))
    exact_XY = slope(through_softmax, u_XY)
    used_XY = population.on_margins(loss, weight_XWL).gradient(u_XY)
    return worst(distance(paper_XY, exact_XY), distance(used_XY, exact_XY))


def first_step(world: World, rng: Rng) -> float:
    weight_XWL, start_XY = labelled(world), np.zeros(world.reward_XY.shape)
    loss = population.dpo(beta=world.beta)
    first = population.expected_loss(loss, start_XY, weight_XWL)
    gradient_XY = slope(lambda u_XY: population.expected_loss(loss, u_XY, weight_XWL), start_XY)
    won_XY, lost_XY = weight_XWL.sum(axis=2), weight_XWL.sum(axis=1)
    return worst(distance(first, np.log(2.0)), distance(gradient_XY, -world.beta / 2 * (won_XY - lost_XY)))


def dpo_minimiser(world: World, rng: Rng) -> float:
    u_XY = minimiser(population.dpo(beta=world.beta), labelled(world))
    return distance(worlds.tilt(world.reference_XY, u_XY), optimum.optimal_policy(world))


# The long way round: a reward model, then PPO


def reward_model(world: World, rng: Rng) -> float:
    fitted_XY = minimiser(population.dpo(beta=1.0), labelled(world))
    return distance(population.margins(fitted_XY), population.margins(world.reward_XY))


def ppo_gradient(world: World, rng: Rng) -> float:
    u_XY = rng.normal(size=world.reward_XY.shape)
    old_XY = worlds.tilt(world.reference_XY, u_XY)
    advantage_XY = optimum.advantage(world, old_XY)

    def surrogate(nudged_XY: Array) -> Array:
        new_XY = worlds.tilt(world.reference_XY, nudged_XY)
        result: Array = world.prompt_X @ optimum.ppo_surrogate(new_XY, old_XY, advantage_XY, clip=0.2)
        return result

    def exact(nudged_XY: Array) -> Array:
        result: Array = world.prompt_X @ worlds.objective(world, worlds.tilt(world.reference_XY, nudged_XY))
        return result

    at_best = distance(optimum.advantage(world, optimum.optimal_policy(world)), np.zeros_like(u_XY))
    return worst(distance(slope(surrogate, u_XY), slope(exact, u_XY)), at_best)


def three_ways(world: World, rng: Rng) -> float:
    weight_XWL = labelled(world)
    long_way_XY = long_way(world, weight_XWL)
    direct_XY = worlds.tilt(world.reference_XY, minimiser(population.dpo(beta=world.beta), weight_XWL))
    return worst(distance(long_way_XY, optimum.optimal_policy(world)), distance(direct_XY, long_way_XY))


def finite_data(world: World, rng: Rng) -> float:
    different_XWL = labelled(world) > 0
    counts_XWL = 200 * preferences.sample_pairs(rng, labelled(world), pairs=200) + different_XWL
    weight_XWL = counts_XWL / counts_XWL.sum()
    direct_XY = worlds.tilt(world.reference_XY, minimiser(population.dpo(beta=world.beta), weight_XWL))
    return distance(direct_XY, long_way(world, weight_XWL))


# What β does, and where the equivalence ends


def beta_slopes(world: World, rng: Rng) -> float:
    policy_XY = worlds.tilt(world.reference_XY, world.reward_XY / (world.beta + 1j * STEP))
    kl_slope_X = worlds.kl(policy_XY, world.reference_XY).imag / STEP
    reward_slope_X = worlds.expectation(policy_XY, world.reward_XY).imag / STEP
    expected_kl_X, expected_reward_X = optimum.beta_slopes(world)
    return worst(distance(kl_slope_X, expected_kl_X), distance(reward_slope_X, expected_reward_X))


def certain_labels(world: World, rng: Rng) -> float:
    chance = float(rng.uniform(0.5, 0.999))
    weight_XWL = np.array([[[0.0, chance], [1 - chance, 0.0]]])
    dpo_margin = population.margins(minimiser(population.dpo(beta=world.beta), weight_XWL))[0, 0, 1]
    ipo_margin = population.margins(minimiser(population.ipo(beta=world.beta), weight_XWL))[0, 0, 1]
    expected_ipo = (chance - 0.5) / world.beta
    return worst(distance(dpo_margin, logit(chance) / world.beta), distance(ipo_margin, np.array(expected_ipo)))


def ipo_minimiser(world: World, rng: Rng) -> float:
    source_XY = worlds.random_policy(rng, world)
    certain_XYY = np.heaviside(population.margins(world.reward_XY), 0.5)
    weight_XWL = preferences.label(preferences.independent_pairs(world, source_XY), certain_XYY)
    found_XY = worlds.tilt(world.reference_XY, minimiser(population.ipo(beta=world.beta), weight_XWL))
    return distance(found_XY, optimum.ipo_policy(world, certain_XYY, source_XY))


def uncovered(world: World, rng: Rng) -> float:
    seen_XYY = preferences.every_pair(world)
    seen_XYY[:, -1, :] = seen_XYY[:, :, -1] = 0
    weight_XWL = preferences.label(seen_XYY / seen_XYY.sum(), preferences.bradley_terry(world.reward_XY))
    loss, u_XY = population.dpo(beta=world.beta), rng.normal(size=world.reward_XY.shape)
    moved_XY = u_XY.copy()
    moved_XY[:, -1] += rng.uniform(-5, 5, size=len(u_XY))
    one, other = (
        population.expected_loss(loss, np.log(worlds.tilt(world.reference_XY, x) / world.reference_XY), weight_XWL)
        for x in (u_XY, moved_XY)
    )
    return distance(one, other)
