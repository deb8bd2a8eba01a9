"""Where each objective ends in an exact world, with unlimited pairs, against its docstring's closed form."""

import itertools
from typing import Any

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.special import expit, logit

from pairtune.theory import optimum, population, preferences
from pairtune.theory.world import Array, World, log_softmax, random_world, tilt

LENGTH = np.array([[3, 1, 5, 2]])


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(4)


@pytest.fixture
def world(rng: np.random.Generator) -> World:
    """One prompt, four responses."""
    return random_world(rng, prompts=1)


@pytest.fixture
def two(rng: np.random.Generator) -> World:
    """One prompt, two responses: one margin, which can take any value."""
    return random_world(rng, prompts=1, responses=2)


def labelled(world: World, *, flipped: float = 0.0) -> Array:
    chance = preferences.bradley_terry(world.reward_XY)
    return preferences.label(preferences.every_pair(world), (1 - flipped) * chance + flipped * (1 - chance))


def minimiser(name: str, world: World, weight_XWL: Array, **others: Any) -> Array:
    """The policy with the least expected loss."""
    problem = population.catalogued(name, weight_XWL, world.reference_XY, **others)
    found = population.minimise(problem, 0 * world.reward_XY)
    assert found.attained
    return tilt(world.reference_XY, found.logratio_XY)


def logratio(world: World, policy_XY: Array) -> Array:
    return np.log(policy_XY) - np.log(world.reference_XY)


def margin(world: World, policy_XY: Array) -> float:
    ratio_XY = logratio(world, policy_XY)
    return float(ratio_XY[0, 0] - ratio_XY[0, 1])


def wins(weight_XWL: Array) -> Array:
    """The share of its pairs that each response wins."""
    won_XY, lost_XY = weight_XWL.sum(axis=2), weight_XWL.sum(axis=1)
    result: Array = won_XY / (won_XY + lost_XY)
    return result


def p_first(world: World) -> float:
    """How often the first of two responses wins."""
    return float(preferences.bradley_terry(world.reward_XY)[0, 0, 1])


def test_dpo_and_what_is_dpo_in_disguise(world: World) -> None:
    expected_XY = optimum.optimal_policy(world)
    for name, more in (
        ("dpo", {}),
        ("cdpo", {"label_smoothing": 0.0}),
        ("robust-dpo", {"label_smoothing": 0.0}),
        ("dpop", {"penalty": 0.0}),
        ("r-dpo", {"alpha": 0.0}),
        ("ld-dpo", {"alpha": 0.3, "length_XY": np.full((1, 4), 3)}),
    ):
        np.testing.assert_allclose(minimiser(name, world, labelled(world), beta=world.beta, **more), expected_XY)


def test_cdpo(two: World) -> None:
    policy_XY = minimiser("cdpo", two, labelled(two), beta=0.7, label_smoothing=0.2)
    p = p_first(two)
    assert expit(0.7 * margin(two, policy_XY)) == pytest.approx(0.8 * p + 0.2 * (1 - p))


def test_robust_dpo_undoes_the_flipping(world: World) -> None:
    noisy_XWL = labelled(world, flipped=0.2)
    policy_XY = minimiser("robust-dpo", world, noisy_XWL, beta=world.beta, label_smoothing=0.2)
    np.testing.assert_allclose(policy_XY, optimum.optimal_policy(world))
    assert not np.allclose(minimiser("dpo", world, noisy_XWL, beta=world.beta), policy_XY, atol=0.01)


def test_ipo(world: World) -> None:
    chance, source_XY = preferences.bradley_terry(world.reward_XY), world.reference_XY
    weight_XWL = preferences.label(preferences.independent_pairs(world, source_XY), chance)
    expected_XY = optimum.ipo_policy(world, chance, source_XY)
    np.testing.assert_allclose(minimiser("ipo", world, weight_XWL, beta=world.beta), expected_XY)


@pytest.mark.parametrize("name", ["hinge", "slic"])
def test_hinges_end_at_their_kink(name: str, two: World) -> None:
    """Expected loss at a margin of 1/β, or a gap of δ, towards the more frequent label, and beside it."""
    own = {"beta": 0.5} if name == "hinge" else {"delta": 2.0, "sft_weight": 0.0}
    problem = population.catalogued(name, labelled(two), two.reference_XY, **own)
    start_XY = np.zeros((1, 2)) if name == "hinge" else -np.log(two.reference_XY)  # from equal probabilities
    better = np.sign(two.reward_XY[0, 0] - two.reward_XY[0, 1])
    here, below, above = (problem.value(start_XY + np.array([[better * gap, 0.0]])) for gap in (2.0, 1.99, 2.01))
    assert here < min(below, above)


def test_exo(two: World) -> None:
    policy_XY = minimiser("exo", two, labelled(two), beta=0.7, label_smoothing=0.05)
    assert 0.7 * margin(two, policy_XY) == pytest.approx((2 * p_first(two) - 1) * np.log(0.95 / 0.05))


def test_sppo(two: World) -> None:
    """A reference under which log-ratios of ±a leave the probabilities' sum at 1."""
    a = (2 * p_first(two) - 1) / (2 * 0.4)
    first = (1 - np.exp(-a)) / (np.exp(a) - np.exp(-a))
    world = World(prompt_X=np.ones(1), reference_XY=np.array([[first, 1 - first]]), reward_XY=two.reward_XY, beta=1.0)
    policy_XY = minimiser("sppo", world, labelled(world), beta=0.4)
    np.testing.assert_allclose(logratio(world, policy_XY), [[a, -a]], atol=1e-9)


def test_nca_ends_at_the_distribution_of_winners(world: World) -> None:
    chance = preferences.bradley_terry(world.reward_XY)
    weight_XWL = preferences.label(preferences.independent_pairs(world, world.reference_XY), chance)
    np.testing.assert_allclose(minimiser("nca", world, weight_XWL, beta=1.0), weight_XWL.sum(axis=2))


def test_bco(world: World) -> None:
    weight_XWL, beta = labelled(world), 0.6
    odds_XY = logit(wins(weight_XWL)) / beta
    shift = -float(np.log((world.reference_XY * np.exp(odds_XY)).sum()))
    policy_XY = minimiser("bco", world, weight_XWL, beta=beta, past_logratio=shift)
    np.testing.assert_allclose(policy_XY, tilt(world.reference_XY, odds_XY))
    np.testing.assert_allclose(logratio(world, policy_XY), odds_XY + shift, atol=1e-9)


@pytest.mark.parametrize(
    ("name", "own", "slope"),
    [
        ("fdpo-forward-kl", {}, lambda u: -1 / u),
        ("fdpo-js", {}, lambda u: np.log(2 * u / (1 + u))),
        ("fdpo-alpha", {"alpha": 0.4}, lambda u: (1 - u**-0.4) / 0.4),
        ("fdpo-alpha", {"alpha": 1.0}, lambda u: -1 / u),
    ],
)
def test_f_dpo_hides_the_reward_in_the_divergences_slope(name: str, own: Any, slope: Any, world: World) -> None:
    beta = 3.0  # so large that the bounded slope of Jensen-Shannon reaches every difference of rewards
    policy_XY = minimiser(name, world, labelled(world), beta=beta, **own)
    hidden_XY = beta * slope(policy_XY / world.reference_XY)
    found, expected = population.margins(hidden_XY), population.margins(world.reward_XY)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_dpo_norm(world: World) -> None:
    policy_XY = minimiser("dpo-norm", world, labelled(world), beta=2.0, length_XY=LENGTH)
    mean_XY = logratio(world, policy_XY) / LENGTH
    np.testing.assert_allclose(population.margins(2.0 * mean_XY), population.margins(world.reward_XY), atol=1e-9)


def test_r_dpo_takes_the_price_of_tokens_from_the_reward(world: World) -> None:
    own = {"beta": world.beta, "alpha": 0.15}
    policy_XY = minimiser("r-dpo", world, labelled(world), length_XY=LENGTH, **own)
    np.testing.assert_allclose(policy_XY, tilt(world.reference_XY, (world.reward_XY - 0.15 * LENGTH) / world.beta))


def test_wpo_rests_where_dpo_ends(world: World) -> None:
    problem = population.catalogued("wpo", labelled(world), world.reference_XY, beta=world.beta)
    optimal_XY = world.reward_XY / world.beta
    assert np.abs(problem.gradient(optimal_XY)).max() < 1e-15
    assert np.abs(problem.gradient(optimal_XY + np.array([[0.1, 0, 0, 0]]))).max() > 1e-6


@pytest.mark.parametrize("gamma", [0.0, 0.8])
def test_simpo(gamma: float, two: World) -> None:
    policy_XY = minimiser("simpo", two, labelled(two), beta=1.5, gamma=gamma)
    z, p = 1.5 * float(np.log(policy_XY[0, 0] / policy_XY[0, 1])), p_first(two)
    assert p * expit(gamma - z) == pytest.approx((1 - p) * expit(gamma + z), rel=1e-8)
    assert abs(z) > abs(logit(p)) or gamma == 0


def test_cpo_without_imitation_has_a_uniform_reference(world: World) -> None:
    policy_XY = minimiser("cpo", world, labelled(world), beta=world.beta, sft_weight=0.0)
    np.testing.assert_allclose(np.log(policy_XY), log_softmax(world.reward_XY / world.beta), atol=1e-9)


@pytest.mark.parametrize(
    ("name", "own"),
    [("sft", {}), ("unlikelihood", {"alpha": 0.0}), ("orpo", {"odds_weight": 0.0}), ("rpo", {"alpha": 0.0})],
)
def test_imitation_ends_at_the_distribution_of_the_chosen(name: str, own: Any, world: World) -> None:
    weight_XWL = labelled(world)
    np.testing.assert_allclose(minimiser(name, world, weight_XWL, **own), weight_XWL.sum(axis=2), rtol=1e-6)


@pytest.mark.parametrize("name", ["apo-zero", "kto"])
def test_what_is_said_to_have_no_minimiser_runs_away(name: str, two: World) -> None:
    problem = population.catalogued(name, labelled(two), two.reference_XY)
    better = np.array([[1.0, 0.0]]) if two.reward_XY[0, 0] > two.reward_XY[0, 1] else np.array([[0.0, 1.0]])
    values = [problem.value(far * better) for far in (0, 1, 10, 50, 100)]
    assert all(later < earlier for earlier, later in itertools.pairwise(values))


@pytest.mark.parametrize(("beta", "finite"), [(0.1, False), (3.0, True)])
def test_apo_down_has_a_finite_minimiser_for_large_beta_only(beta: float, finite: bool) -> None:
    weight_XWL = np.array([[[0.0, 0.95], [0.05, 0.0]]])
    problem = population.catalogued("apo-down", weight_XWL, np.array([[0.5, 0.5]]), beta=beta)
    near, far = (problem.value(np.array([[u, 0.0]])) for u in (1.0, 60.0))
    assert (near < far) == finite


def test_certain_labels_leave_dpo_none(two: World) -> None:
    weight_XWL = np.array([[[0.0, 1.0], [0.0, 0.0]]])
    for name, bounded in (("dpo", False), ("cdpo", True), ("ipo", True), ("exo", True), ("sppo", True)):
        problem = population.catalogued(name, weight_XWL, two.reference_XY)
        assert population.minimise(problem, np.zeros((1, 2))).attained == bounded, name


def test_mixed_steps_are_refused(world: World) -> None:
    for name in ("beta-dpo", "aot-paired", "dpo+aot-unpaired"):
        with pytest.raises(ValueError, match="mixes the pairs of a step"):
            population.catalogued(name, labelled(world), world.reference_XY)


def test_dpo_norm_s_constant_exists(world: World) -> None:
    """The closed form of its docstring is a policy for exactly one constant."""
    mean_XY = world.reward_XY / 2.0

    def excess(c: float) -> float:
        return float((world.reference_XY * np.exp(LENGTH * (mean_XY + c))).sum() - 1)

    constant = brentq(excess, -10, 10)
    expected_XY = world.reference_XY * np.exp(LENGTH * (mean_XY + constant))
    policy_XY = minimiser("dpo-norm", world, labelled(world), beta=2.0, length_XY=LENGTH)
    np.testing.assert_allclose(policy_XY, expected_XY, atol=1e-9)
