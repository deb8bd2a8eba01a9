import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from scipy.sparse.csgraph import connected_components

from pairtune.objectives.catalog import OBJECTIVES
from pairtune.theory import optimum, population, preferences
from pairtune.theory.world import Array, World, random_policy, random_world, tilt


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(2)


@pytest.fixture
def world(rng: np.random.Generator) -> World:
    return random_world(rng)


def labelled(world: World) -> Array:
    return preferences.label(preferences.every_pair(world), preferences.bradley_terry(world.reward_XY))


def assert_derivatives(problem: population.Problem, u_XY: Array) -> None:
    """Gradient and Hessian against central differences of the value and of the gradient."""
    step = 1e-6
    gradient_N = problem.gradient(u_XY).ravel()
    hessian_NN = problem.hessian(u_XY)
    for place in range(u_XY.size):
        nudge_XY = np.zeros(u_XY.size)
        nudge_XY[place] = step
        ahead_XY, behind_XY = (u_XY + sign * nudge_XY.reshape(u_XY.shape) for sign in (1, -1))
        difference = (problem.value(ahead_XY) - problem.value(behind_XY)) / (2 * step)
        assert gradient_N[place] == pytest.approx(difference, abs=1e-8)
        difference_N = (problem.gradient(ahead_XY) - problem.gradient(behind_XY)).ravel() / (2 * step)
        np.testing.assert_allclose(hessian_NN[place], difference_N, atol=1e-8)


def test_margin_losses_by_hand() -> None:
    margin = np.array([0.0, np.log(3)])
    np.testing.assert_allclose(population.dpo(beta=1.0).value(margin), [np.log(2), np.log(4 / 3)])
    np.testing.assert_allclose(population.dpo(beta=0.5).value(2 * margin), [np.log(2), np.log(4 / 3)])
    np.testing.assert_allclose(population.ipo(beta=0.25).value(np.array([0.0, 2.0, 3.0])), [4.0, 0.0, 1.0])
    assert population.dpo(beta=1.0).value(np.array([-1000.0]))[0] == 1000.0


def test_dpo_starts_at_ln_2(world: World) -> None:
    loss, start_XY = population.dpo(beta=0.1), np.zeros(world.reward_XY.shape)
    assert population.expected_loss(loss, start_XY, labelled(world)) == pytest.approx(np.log(2))
    np.testing.assert_allclose(loss.slope(np.zeros(1)), [-0.05])
    np.testing.assert_allclose(population.dpo(beta=0.4).slope(np.zeros(1)), [-0.2])


def test_margins_forget_row_constants(world: World) -> None:
    shifted_XY = world.reward_XY + np.array([[1.0], [-2.0], [3.0]])
    np.testing.assert_allclose(population.margins(shifted_XY), population.margins(world.reward_XY), atol=1e-14)
    np.testing.assert_array_equal(population.margins(np.array([[3.0, 1.0]])), [[[0, 2], [-2, 0]]])


def test_expected_loss_by_hand() -> None:
    weight_XWL = np.array([[[0.0, 0.75], [0.25, 0.0]]])
    found = population.expected_loss(population.dpo(beta=1.0), np.log([[3.0, 1.0]]), weight_XWL)
    assert found == pytest.approx(-0.75 * np.log(0.75) - 0.25 * np.log(0.25))


@pytest.mark.parametrize("loss", [population.dpo(beta=0.7), population.ipo(beta=0.7)], ids=["dpo", "ipo"])
def test_margin_derivatives(loss: population.MarginLoss, world: World, rng: np.random.Generator) -> None:
    assert_derivatives(population.on_margins(loss, labelled(world)), rng.normal(size=world.reward_XY.shape))


def test_rlhf_derivatives(world: World, rng: np.random.Generator) -> None:
    assert_derivatives(population.on_rlhf(world), rng.normal(size=world.reward_XY.shape))


def test_dpo_minimiser_is_closed_form(world: World) -> None:
    found = population.minimise(
        population.on_margins(population.dpo(beta=world.beta), labelled(world)), 0 * world.reward_XY
    )
    assert found.attained
    np.testing.assert_allclose(tilt(world.reference_XY, found.logratio_XY), optimum.optimal_policy(world), rtol=1e-11)


def test_rlhf_maximiser_is_closed_form(world: World, rng: np.random.Generator) -> None:
    for start_XY in (0 * world.reward_XY, 3 * rng.normal(size=world.reward_XY.shape)):
        found = population.minimise(population.on_rlhf(world), start_XY)
        assert found.attained
        np.testing.assert_allclose(
            tilt(world.reference_XY, found.logratio_XY), optimum.optimal_policy(world), atol=1e-12
        )


def test_reward_model_finds_differences(world: World) -> None:
    fitted = population.minimise(population.on_margins(population.dpo(beta=1.0), labelled(world)), 0 * world.reward_XY)
    expected_XWL = population.margins(world.reward_XY)
    np.testing.assert_allclose(population.margins(fitted.logratio_XY), expected_XWL, atol=1e-11)


def test_ipo_minimiser_is_a_tilt_by_wins(world: World, rng: np.random.Generator) -> None:
    source_XY, chance_XYY = random_policy(rng, world), preferences.bradley_terry(world.reward_XY)
    weight_XWL = preferences.label(preferences.independent_pairs(world, source_XY), chance_XYY)
    found = population.minimise(population.on_margins(population.ipo(beta=world.beta), weight_XWL), 0 * world.reward_XY)
    wins_XY = np.einsum("xyz,xz->xy", chance_XYY, source_XY)
    expected_XWL = population.margins(wins_XY) / world.beta
    np.testing.assert_allclose(population.margins(found.logratio_XY), expected_XWL, atol=1e-11)


def test_certain_labels_separate_dpo_from_ipo(world: World) -> None:
    certain_XYY = np.heaviside(population.margins(world.reward_XY), 0.5)
    weight_XWL = preferences.label(preferences.every_pair(world), certain_XYY)
    runaway, finite = (
        population.minimise(population.on_margins(loss, weight_XWL), 0 * world.reward_XY)
        for loss in (population.dpo(beta=5.0), population.ipo(beta=5.0))
    )
    assert not runaway.attained
    assert runaway.gradient < 1e-10  # a small gradient alone would have called this a minimum
    assert population.margins(runaway.logratio_XY).max() > 5
    assert finite.attained
    assert np.abs(population.margins(finite.logratio_XY)).max() <= 1 / 5.0


def test_attained_is_right_on_random_data(rng: np.random.Generator) -> None:
    """DPO has a minimum just when, within each linked group, wins lead from any response to any other (Ford 1957)."""
    seen = set()
    for _ in range(60):
        world = random_world(rng)
        weight_XWL = preferences.sample_pairs(rng, labelled(world), pairs=int(rng.integers(3, 200)))
        beta = float(np.exp(rng.uniform(np.log(0.02), np.log(10))))
        found = population.minimise(population.on_margins(population.dpo(beta=beta), weight_XWL), 0 * world.reward_XY)
        groups = [
            (
                connected_components(won_YY, directed=True, connection="strong")[0],
                connected_components(won_YY, directed=False)[0],
            )
            for won_YY in weight_XWL > 0
        ]
        assert found.attained == all(strong == weak for strong, weak in groups)
        seen.add(found.attained)
    assert seen == {True, False}


def test_what_no_pair_constrains_stays_at_the_start(world: World) -> None:
    seen_XYY = preferences.every_pair(world)
    seen_XYY[:, -1, :] = seen_XYY[:, :, -1] = 0
    weight_XWL = preferences.label(seen_XYY / seen_XYY.sum(), preferences.bradley_terry(world.reward_XY))
    found = population.minimise(population.on_margins(population.dpo(beta=world.beta), weight_XWL), 0 * world.reward_XY)
    assert found.attained
    np.testing.assert_allclose(found.logratio_XY[:, -1], 0, atol=1e-12)


@pytest.mark.parametrize("name", ["dpo", "ipo"])
def test_catalogue_and_theory_agree(name: str, world: World, rng: np.random.Generator) -> None:
    u_XY, weight_XWL = rng.normal(size=world.reward_XY.shape), labelled(world)
    torch_side = population.catalogued(name, weight_XWL, world.reference_XY, beta=0.3)
    numpy_side = population.on_margins(getattr(population, name)(beta=0.3), weight_XWL)
    assert torch_side.value(u_XY) == pytest.approx(numpy_side.value(u_XY), rel=1e-13)
    np.testing.assert_allclose(torch_side.gradient(u_XY), numpy_side.gradient(u_XY), atol=1e-14)
    np.testing.assert_allclose(torch_side.hessian(u_XY), numpy_side.hessian(u_XY), atol=1e-14)


def test_catalogued_dpo_minimiser_is_closed_form(world: World) -> None:
    problem = population.catalogued("dpo", labelled(world), world.reference_XY, beta=world.beta)
    found = population.minimise(problem, 0 * world.reward_XY)
    assert found.attained
    np.testing.assert_allclose(tilt(world.reference_XY, found.logratio_XY), optimum.optimal_policy(world), atol=1e-12)


def test_catalogued_ipo_minimiser_is_closed_form(world: World, rng: np.random.Generator) -> None:
    source_XY, chance_XYY = random_policy(rng, world), preferences.bradley_terry(world.reward_XY)
    weight_XWL = preferences.label(preferences.independent_pairs(world, source_XY), chance_XYY)
    problem = population.catalogued("ipo", weight_XWL, world.reference_XY, beta=world.beta)
    found = population.minimise(problem, 0 * world.reward_XY)
    expected_XY = optimum.ipo_policy(world, chance_XYY, source_XY)
    np.testing.assert_allclose(tilt(world.reference_XY, found.logratio_XY), expected_XY, atol=1e-12)


# Not for Newton: two that have kinks, one whose weight has no gradient, those that mix the pairs of a step.
SMOOTH = [name for name, entry in OBJECTIVES.items() if not entry.whole_step and name not in ("hinge", "slic", "wpo")]


@pytest.mark.parametrize("name", SMOOTH)
def test_every_catalogued_objective_can_be_minimised(name: str, world: World, rng: np.random.Generator) -> None:
    world = replace(world, prompt_X=np.ones(1), reference_XY=world.reference_XY[:1], reward_XY=world.reward_XY[:1])
    problem = population.catalogued(name, labelled(world), world.reference_XY)
    found = population.minimise(problem, 0 * world.reward_XY)
    assert np.isfinite(found.logratio_XY).all()
    for scale in (1e-3, 1e-1, 1.0):
        nearby_XY = found.logratio_XY + scale * rng.normal(size=world.reward_XY.shape)
        assert problem.value(nearby_XY) >= found.value - 1e-12 * abs(found.value)


def test_unknown_objectives_and_parameters_are_refused(world: World) -> None:
    with pytest.raises(ValueError, match='there is no objective "dpp"; did you mean "dpop"'):
        population.catalogued("dpp", labelled(world), world.reference_XY)
    with pytest.raises(ValueError, match='dpo has no parameter "gamma"; its parameters are beta'):
        population.catalogued("dpo", labelled(world), world.reference_XY, gamma=1.0)


def test_the_derivation_does_not_import_torch() -> None:
    code = (
        "import sys; from pairtune.theory import walkthrough, cases; from pairtune.theory.derivation import derive; "
        "derive(worlds=1); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
