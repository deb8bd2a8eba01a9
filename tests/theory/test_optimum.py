from dataclasses import replace

import numpy as np
import pytest

from pairtune.theory import optimum
from pairtune.theory.world import World, expectation, kl, objective, random_policy, random_world

# exp(r/β) is 3 and 1 over a fair reference, so π* is (3/4, 1/4) and Z is 2.
WORLD = World(
    prompt_X=np.ones(1),
    reference_XY=np.array([[0.5, 0.5]]),
    reward_XY=np.array([[0.5 * np.log(3), 0.0]]),
    beta=0.5,
)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(1)


def test_optimal_policy_by_hand() -> None:
    np.testing.assert_allclose(optimum.optimal_policy(WORLD), [[0.75, 0.25]])
    np.testing.assert_allclose(optimum.log_partition(WORLD), [np.log(2)])


def test_optimal_policy_survives_a_tiny_beta() -> None:
    np.testing.assert_allclose(optimum.optimal_policy(replace(WORLD, beta=1e-4)), [[1.0, 0.0]])


def test_shaped_reward_by_hand() -> None:
    policy_XY = np.array([[0.8, 0.2]])
    expected = [[0.5 * np.log(3) - 0.5 * np.log(1.6), -0.5 * np.log(0.4)]]
    np.testing.assert_allclose(optimum.shaped_reward(WORLD, policy_XY), expected)
    np.testing.assert_allclose(expectation(policy_XY, optimum.advantage(WORLD, policy_XY)), 0, atol=1e-15)


def test_no_policy_beats_the_optimum(rng: np.random.Generator) -> None:
    world = random_world(rng)
    best_X = objective(world, optimum.optimal_policy(world))
    for _ in range(200):
        policy_XY = random_policy(rng, world)
        assert (objective(world, policy_XY) < best_X).all()
        np.testing.assert_allclose(best_X - objective(world, policy_XY), optimum.gap(world, policy_XY), atol=1e-12)
    certain_XY = np.eye(4)[[0, 1, 2]]
    np.testing.assert_allclose(best_X - objective(world, certain_XY), optimum.gap(world, certain_XY), atol=1e-12)


def test_reward_is_read_back(rng: np.random.Generator) -> None:
    hand_XY = optimum.reward_from_optimum(
        np.array([[0.75, 0.25]]), WORLD.reference_XY, beta=0.5, log_partition_X=np.log([2.0])
    )
    np.testing.assert_allclose(hand_XY, WORLD.reward_XY, atol=1e-15)
    np.testing.assert_allclose(
        optimum.implicit_reward(np.array([[0.75, 0.25]]), WORLD.reference_XY, beta=0.5),
        [[0.5 * np.log(1.5), 0.5 * np.log(0.5)]],
    )


def test_equivalent_rewards_share_one_optimum(rng: np.random.Generator) -> None:
    world = random_world(rng)
    shifted = replace(world, reward_XY=world.reward_XY + np.array([[-3.0], [0.5], [10.0]]))
    np.testing.assert_allclose(optimum.optimal_policy(shifted), optimum.optimal_policy(world), rtol=1e-12)
    np.testing.assert_allclose(optimum.canonical_reward(shifted), optimum.canonical_reward(world), atol=1e-12)


def test_canonical_reward_has_partition_one(rng: np.random.Generator) -> None:
    world = random_world(rng)
    own = replace(world, reward_XY=optimum.canonical_reward(world))
    np.testing.assert_allclose(optimum.log_partition(own), 0, atol=1e-14)
    offset_XY = world.reward_XY - own.reward_XY
    np.testing.assert_allclose(offset_XY, np.broadcast_to(offset_XY[:, :1], offset_XY.shape))


def test_ppo_surrogate_clips_by_hand() -> None:
    old_XY, new_XY = np.array([[0.5, 0.5]]), np.array([[0.7, 0.3]])  # ratios 1.4 and 0.6, clipped to 1.2 and 0.8
    up = optimum.ppo_surrogate(new_XY, old_XY, np.array([[1.0, -1.0]]), clip=0.2)
    down = optimum.ppo_surrogate(new_XY, old_XY, np.array([[-1.0, 1.0]]), clip=0.2)
    np.testing.assert_allclose(up, [0.5 * (1.2 - 0.8)])  # both moves are good, so neither earns beyond the clip
    np.testing.assert_allclose(down, [0.5 * (-1.4 + 0.6)])  # both moves are bad, so both are charged in full


def test_larger_beta_stays_closer(rng: np.random.Generator) -> None:
    world = random_world(rng)
    at = [optimum.optimal_policy(replace(world, beta=beta)) for beta in (0.1, 0.3, 1.0, 3.0, 10.0)]
    divergence_SX = np.array([kl(policy_XY, world.reference_XY) for policy_XY in at])
    reward_SX = np.array([expectation(policy_XY, world.reward_XY) for policy_XY in at])
    assert (np.diff(divergence_SX, axis=0) < 0).all()
    assert (np.diff(reward_SX, axis=0) < 0).all()
    kl_slope_X, reward_slope_X = optimum.beta_slopes(WORLD)
    variance = 0.75 * 0.25 * (0.5 * np.log(3)) ** 2
    np.testing.assert_allclose([kl_slope_X[0], reward_slope_X[0]], [-variance / 0.125, -variance / 0.25])


def test_ipo_policy_by_hand() -> None:
    certain_XYY = np.array([[[0.5, 1.0], [0.0, 0.5]]])
    policy_XY = optimum.ipo_policy(WORLD, certain_XYY, np.array([[0.5, 0.5]]))
    np.testing.assert_allclose(np.log(policy_XY[0, 0] / policy_XY[0, 1]), (0.75 - 0.25) / 0.5)  # that is 1/(2β)
