import numpy as np
import pytest

from pairtune.theory.world import World, expectation, kl, log_softmax, objective, random_policy, random_world, tilt

HALVES = np.array([[0.5, 0.5]])
COIN = np.array([[0.75, 0.25]])


def world(**changes: object) -> World:
    parts = {"prompt_X": np.ones(1), "reference_XY": HALVES, "reward_XY": np.array([[2.0, 0.0]]), "beta": 0.5}
    return World(**(parts | changes))  # type: ignore[arg-type]


def test_sums_by_hand() -> None:
    np.testing.assert_allclose(expectation(COIN, np.array([[2.0, 0.0]])), [1.5])
    np.testing.assert_allclose(kl(COIN, HALVES), [0.75 * np.log(1.5) + 0.25 * np.log(0.5)])
    np.testing.assert_allclose(objective(world(), COIN), 1.5 - 0.5 * kl(COIN, HALVES))


def test_kl_is_not_symmetric_and_takes_zero_probabilities() -> None:
    assert kl(COIN, HALVES)[0] != pytest.approx(kl(HALVES, COIN)[0], abs=1e-3)
    np.testing.assert_allclose(kl(np.array([[1.0, 0.0]]), HALVES), [np.log(2)])


def test_log_softmax_does_not_overflow() -> None:
    np.testing.assert_allclose(log_softmax(np.array([[1e4, 0.0]])), [[0.0, -1e4]])


def test_tilt_ignores_a_constant_per_prompt() -> None:
    rng = np.random.default_rng(0)
    made = random_world(rng)
    u_XY = rng.normal(size=made.reward_XY.shape)
    np.testing.assert_allclose(tilt(made.reference_XY, 0 * u_XY), made.reference_XY)
    np.testing.assert_allclose(tilt(made.reference_XY, u_XY + 3), tilt(made.reference_XY, u_XY))


def test_random_worlds_follow_the_seed_and_have_full_support() -> None:
    one, other = (random_world(np.random.default_rng(4), prompts=2, responses=5) for _ in range(2))
    np.testing.assert_array_equal(one.reward_XY, other.reward_XY)
    assert one.reward_XY.shape == (2, 5)
    assert 0.2 <= one.beta <= 2.0
    policy_XY = random_policy(np.random.default_rng(0), one)
    assert (policy_XY > 0).all()
    np.testing.assert_allclose(policy_XY.sum(axis=1), 1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"beta": 0.0}, "beta must be a positive number"),
        ({"beta": float("nan")}, "beta must be a positive number"),
        ({"reward_XY": np.array([[np.inf, 0.0]])}, "rewards must be finite"),
        ({"reference_XY": np.array([[1.0, 0.0]])}, "full support"),
        ({"reference_XY": np.array([[0.7, 0.7]])}, "sum to 1"),
        ({"reference_XY": np.full((1, 3), 1 / 3)}, "same shape"),
        ({"prompt_X": np.full(2, 0.5)}, "one number for each row"),
        ({"prompt_X": np.full(1, 0.5)}, "sum to 1"),
    ],
)
def test_a_world_that_cannot_be_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        world(**changes)
