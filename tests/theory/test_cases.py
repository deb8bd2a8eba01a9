import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pairtune.theory import cases, population, preferences
from pairtune.theory.optimum import optimal_policy
from pairtune.theory.world import kl


def test_beta_sweep_falls_from_the_best_response_to_the_reference() -> None:
    world = cases.example_world()
    kl_S, reward_S = cases.beta_sweep(world, [1e-3, 0.1, 1.0, 10.0, 1e5])
    assert (np.diff(kl_S) < 0).all()
    assert (np.diff(reward_S) < 0).all()
    np.testing.assert_allclose([kl_S[0], kl_S[-1]], [-np.log(0.1), 0], atol=1e-8)
    reference_reward = (world.reference_XY * world.reward_XY).sum()
    np.testing.assert_allclose([reward_S[0], reward_S[-1]], [1.0, reference_reward], atol=1e-4)


def test_larger_beta_starts_faster_and_ends_closer() -> None:
    small, large = (cases.training_kl(cases.example_world(beta=beta), rate=1.0, steps=20_000) for beta in (0.2, 1.0))
    assert large[1] > 10 * small[1]
    assert large[-1] < small[-1] / 5
    world = cases.example_world(beta=1.0)
    np.testing.assert_allclose(large[-1], kl(optimal_policy(world), world.reference_XY)[0], rtol=1e-6)


def test_certainty_drives_dpo_away_and_leaves_ipo() -> None:
    dpo_S, ipo_S = cases.certainty_sweep([0.5, 0.9, 1 - 1e-6, 1 - 1e-9], beta=2.0)
    assert dpo_S[-1] > dpo_S[-2] > dpo_S[1] > dpo_S[0]
    margin = 1 / (2 * 2.0)
    share = 1 / (1 + np.exp(-margin))
    ceiling = share * np.log(2 * share) + (1 - share) * np.log(2 * (1 - share))
    assert ipo_S[-1] == pytest.approx(ceiling, rel=1e-6)
    with pytest.raises(ValueError, match="no minimiser"):
        cases.certainty_sweep([1.0], beta=2.0)


def test_dpo_can_raise_an_unseen_response() -> None:
    world = cases.uncovered_world()
    path_TY = cases.uncovered_path(world, rate=1.0, steps=2000)[:, 0]
    np.testing.assert_allclose(path_TY[0], world.reference_XY[0])
    best_Y = optimal_policy(world)[0]
    assert path_TY[-1, 2] > path_TY[0, 2]  # C is in no pair and has the lowest reward, yet it gains
    assert best_Y[2] < path_TY[0, 2]  # the optimum for the true reward lowers it
    assert path_TY[-1, 0] / path_TY[-1, 1] == pytest.approx(best_Y[0] / best_Y[1], rel=1e-6)


def test_a_reward_table_knows_no_more_of_an_unseen_response_than_dpo() -> None:
    world = cases.uncovered_world()
    a_and_b_YY = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    weight_XWL = preferences.bradley_terry(world.reward_XY) * a_and_b_YY
    fitted = population.minimise(population.on_margins(population.dpo(beta=1.0), weight_XWL), np.zeros((1, 3)))
    long_way_XY = optimal_policy(replace(world, reward_XY=fitted.logratio_XY))
    np.testing.assert_allclose(cases.uncovered_path(world, rate=1.0, steps=3000)[-1], long_way_XY, atol=1e-9)


def test_an_unseen_response_can_also_fall() -> None:
    favourite_first = replace(cases.uncovered_world(), reference_XY=np.array([[0.6, 0.1, 0.3]]))
    path_TY = cases.uncovered_path(favourite_first, rate=1.0, steps=2000)[:, 0]
    assert path_TY[-1, 2] < path_TY[0, 2]


def test_errors_shrink_as_one_over_the_number_of_pairs() -> None:
    world, rng = cases.example_world(), np.random.default_rng(0)
    few, many = (cases.sample_errors(world, rng, pairs=pairs, repeats=150) for pairs in (1000, 16_000))
    assert few.unbounded == many.unbounded == 0
    np.testing.assert_allclose(many.dpo_R, many.reward_R, atol=1e-12)
    for found in (few, many):
        spread = found.dpo_R.std(ddof=1) / np.sqrt(len(found.dpo_R))
        assert abs(found.dpo_R.mean() - found.predicted) < 4 * spread
    assert few.predicted == pytest.approx(16 * many.predicted)
    assert many.ipo_own_R.mean() < few.ipo_own_R.mean() / 8
    assert many.ipo_R.mean() > 20 * many.dpo_R.mean()  # IPO is heading elsewhere, and arrives there


def test_data_sets_without_a_minimiser_are_counted() -> None:
    found = cases.sample_errors(cases.example_world(), np.random.default_rng(0), pairs=6, repeats=20)
    assert found.unbounded >= 5
    assert len(found.dpo_R) == 20 - found.unbounded


def test_the_document_prints_the_sweep_that_the_code_computes() -> None:
    text = (Path(__file__).parents[2] / "docs" / "derivation.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([\d.]+) \| ([\d.]+) \| (-?[\d.]+) \|$", text, flags=re.MULTILINE)
    assert len(rows) == 6
    kl_S, reward_S = cases.beta_sweep(cases.example_world(), [float(beta) for beta, _, _ in rows])
    assert [(f"{kl:.3f}", f"{reward:.3f}") for kl, reward in zip(kl_S, reward_S, strict=True)] == [
        (printed_kl, printed_reward) for _, printed_kl, printed_reward in rows
    ]
