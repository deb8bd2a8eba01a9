from itertools import permutations

import numpy as np

from pairtune.theory import preferences
from pairtune.theory.world import random_policy, random_world

REWARD_XY = np.log([[1.0, 2.0, 3.0]])


def test_bradley_terry_by_hand() -> None:
    expected = [[[1 / 2, 1 / 3, 1 / 4], [2 / 3, 1 / 2, 2 / 5], [3 / 4, 3 / 5, 1 / 2]]]
    np.testing.assert_allclose(preferences.bradley_terry(REWARD_XY), expected)


def test_plackett_luce_by_hand() -> None:
    np.testing.assert_allclose(preferences.plackett_luce(REWARD_XY, (2, 1, 0)), [3 / 6 * 2 / 3])
    np.testing.assert_allclose(preferences.plackett_luce(REWARD_XY, (0, 1, 2)), [1 / 6 * 2 / 5])
    total = sum(preferences.plackett_luce(REWARD_XY, ranking) for ranking in permutations(range(3)))
    np.testing.assert_allclose(total, [1.0])


def test_pair_laws_sum_to_one_and_keep_the_label() -> None:
    rng = np.random.default_rng(0)
    world = random_world(rng)
    chance_XYY = preferences.bradley_terry(world.reward_XY)
    for draw_XYY in (
        preferences.every_pair(world),
        preferences.independent_pairs(world, random_policy(rng, world)),
    ):
        weight_XWL = preferences.label(draw_XYY, chance_XYY)
        np.testing.assert_allclose(weight_XWL.sum(), 1)
        np.testing.assert_allclose(
            weight_XWL / (weight_XWL + weight_XWL.swapaxes(1, 2) + 1e-300) * 1.0, np.where(draw_XYY > 0, chance_XYY, 0)
        )
        np.testing.assert_allclose(weight_XWL.sum(axis=(1, 2)), world.prompt_X)


def test_sampled_pairs_follow_their_law() -> None:
    rng = np.random.default_rng(0)
    world = random_world(rng)
    weight_XWL = preferences.label(preferences.every_pair(world), preferences.bradley_terry(world.reward_XY))
    few_XWL = preferences.sample_pairs(rng, weight_XWL, pairs=7)
    np.testing.assert_allclose(7 * few_XWL, np.rint(7 * few_XWL))
    np.testing.assert_allclose(few_XWL.sum(), 1)
    many_XWL = preferences.sample_pairs(rng, weight_XWL, pairs=1_000_000)
    deviation_XWL = (many_XWL - weight_XWL) / np.sqrt(np.maximum(weight_XWL, 1e-12) / 1_000_000)
    assert np.abs(deviation_XWL).max() < 5
