import ast
import dataclasses
import json
import math
import re
from collections.abc import Callable
from importlib import import_module
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from pairtune.theory import optimum, population, preferences, residuals, walkthrough
from pairtune.theory import world as worlds
from pairtune.theory.derivation import Step, derive

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "derivation.md"


@pytest.fixture(scope="module")
def steps() -> list[Step]:
    return derive(worlds=5, seed=3)


def test_every_equation_holds(steps: list[Step]) -> None:
    assert len(steps) >= 12
    assert [step.step for step in steps] == list(range(1, len(steps) + 1))
    broken = {step.step: step.residual for step in steps if not step.residual <= step.tolerance}
    assert broken == {}
    assert all(step.tolerance <= 1e-10 for step in steps)


def test_no_residual_is_the_same_expression_twice() -> None:
    assert all(step.residual > 0 for step in derive(worlds=20))


def test_a_seed_gives_the_same_residuals_and_more_worlds_never_smaller_ones(steps: list[Step]) -> None:
    assert derive(worlds=5, seed=3) == steps
    no_draws = (2, 5, 9, 16, 20)  # these steps draw nothing themselves: only other worlds can change them
    for number, other in enumerate(derive(worlds=5, seed=4), start=1):
        assert number not in no_draws or other.residual != steps[number - 1].residual
    for few, many in zip(derive(worlds=2, seed=3), steps, strict=True):
        assert few.residual <= many.residual


@pytest.mark.parametrize(("worlds", "seed"), [(0, 0), (1, -1)])
def test_impossible_settings_are_refused(worlds: int, seed: int) -> None:
    with pytest.raises(ValueError, match="at least"):
        derive(worlds=worlds, seed=seed)


def test_steps_are_json_with_just_the_promised_fields(steps: list[Step]) -> None:
    back = json.loads(json.dumps([dataclasses.asdict(step) for step in steps]))
    fields = ["step", "equation", "claim", "residual", "tolerance", "function", "test"]
    assert all(list(row) == fields for row in back)


def test_each_function_and_test_exists(steps: list[Step]) -> None:
    for step in steps:
        module, name = step.function.rsplit(".", 1)
        assert callable(getattr(import_module(module), name)), step.function
        file, test = step.test.split("::")
        tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
        assert test in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, step.test


def test_document_and_code_have_the_same_equations(steps: list[Step]) -> None:
    sections = re.split(r"^### (\d+)\. ", DOCUMENT.read_text(encoding="utf-8"), flags=re.MULTILINE)
    numbers, bodies = [int(number) for number in sections[1::2]], sections[2::2]
    assert numbers == [step.step for step in steps]
    for step, body in zip(steps, bodies, strict=True):
        assert "```math" in body, f"equation {step.step} has no formula"
        assert f"`{step.function}`" in body, f"equation {step.step} does not name {step.function}"
        assert f"`{step.test}`" in body, f"equation {step.step} does not name {step.test}"


def test_document_shows_every_figure_and_no_other() -> None:
    shown = set(re.findall(r"\]\(figures/([\w-]+\.svg)\)", DOCUMENT.read_text(encoding="utf-8")))
    script = (ROOT / "docs" / "make_derivation_figures.py").read_text(encoding="utf-8")
    assert shown == set(re.findall(r"\"([\w-]+\.svg)\"", script))
    assert all((ROOT / "docs" / "figures" / name).is_file() for name in shown)


# Planted errors: what goes wrong, where, the wrong version, and the equations that must notice.


def without_log_z(policy_XY: Any, reference_XY: Any, *, beta: float, log_partition_X: Any) -> Any:
    return beta * (np.log(policy_XY) - np.log(reference_XY))


def unnormalised(world: Any) -> Any:
    return world.reference_XY * np.exp(world.reward_XY / world.beta)


def reversed_kl(policy_XY: Any, other_XY: Any) -> Any:
    return (other_XY * np.log(other_XY / policy_XY)).sum(axis=-1)


def tilt_without_beta(world: Any) -> Any:
    return worlds.tilt(world.reference_XY, world.reward_XY)


def implicit_without_beta(policy_XY: Any, reference_XY: Any, *, beta: float) -> Any:
    return np.log(policy_XY / reference_XY)


def implicit_upside_down(policy_XY: Any, reference_XY: Any, *, beta: float) -> Any:
    return beta * np.log(reference_XY / policy_XY)


RIGHT_DPO, RIGHT_SLOPES = population.dpo, optimum.beta_slopes


def dpo_without_beta(*, beta: float) -> population.MarginLoss:
    return RIGHT_DPO(beta=1.0)


def dpo_with_the_wrong_sign(*, beta: float) -> population.MarginLoss:
    right = RIGHT_DPO(beta=beta)
    return population.MarginLoss(
        value=lambda margin: right.value(-margin),
        slope=lambda margin: -right.slope(-margin),
        curvature=lambda margin: right.curvature(-margin),
    )


def dpo_with_a_wrong_slope(*, beta: float) -> population.MarginLoss:
    return RIGHT_DPO(beta=beta)._replace(slope=lambda margin: -RIGHT_DPO(beta=beta).slope(margin))


def losers_first(reward_XY: Any) -> Any:
    return 1 / (1 + np.exp(reward_XY[:, :, None] - reward_XY[:, None, :]))


def worst_first(reward_XY: Any, ranking_K: Any) -> Any:
    return RIGHT_RANKING(reward_XY, ranking_K[::-1])


RIGHT_RANKING = preferences.plackett_luce


def more_beta_more_deviation(world: Any) -> Any:
    return tuple(-slope_X for slope_X in RIGHT_SLOPES(world))


def ipo_of_the_reward(world: Any, preference_XYY: Any, source_XY: Any) -> Any:
    return optimum.optimal_policy(world)


def old_over_new(policy_XY: Any, old_XY: Any, advantage_XY: Any, *, clip: float) -> Any:
    return (old_XY * (old_XY / policy_XY) * advantage_XY).sum(axis=-1)


PLANTS: list[tuple[Any, str, Callable[..., Any], set[int]]] = [
    (optimum, "reward_from_optimum", without_log_z, {5}),
    (optimum, "canonical_reward", lambda world: world.reward_XY, {9}),
    (optimum, "optimal_policy", unnormalised, {2, 4, 15, 18}),
    (worlds, "kl", reversed_kl, {1, 3, 17, 20}),
    (optimum, "kl", reversed_kl, {3}),
    (optimum, "optimal_policy", tilt_without_beta, {2, 3, 4, 5, 9, 10, 15, 17, 18}),
    (optimum, "implicit_reward", implicit_without_beta, {1, 2, 5, 9, 11, 12, 13}),
    (optimum, "implicit_reward", implicit_upside_down, {1, 2, 5, 9, 11, 12, 13}),
    (population, "dpo", dpo_without_beta, {11, 12, 13, 14, 15, 18, 19, 21}),
    (population, "dpo", dpo_with_the_wrong_sign, {11, 12, 13, 14, 15, 16, 18, 21}),
    (population, "dpo", dpo_with_a_wrong_slope, {13, 15, 16}),
    (preferences, "bradley_terry", losers_first, {6, 7, 10, 15, 16}),
    (preferences, "plackett_luce", worst_first, {7}),
    (optimum, "beta_slopes", more_beta_more_deviation, {20}),
    (optimum, "ipo_policy", ipo_of_the_reward, {22}),
    (optimum, "ppo_surrogate", old_over_new, {17}),
    (population, "margins", lambda score_XY: score_XY[:, :, None] + score_XY[:, None, :], {10, 12, 15, 16, 23}),
    (optimum, "gap", lambda world, policy_XY: kl_to_best(world, policy_XY), {3}),
]


def kl_to_best(world: Any, policy_XY: Any) -> Any:
    return worlds.kl(policy_XY, optimum.optimal_policy(world))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # a wrong formula may overflow on its way to a wrong number
@pytest.mark.parametrize(
    ("module", "name", "wrong", "noticed"), PLANTS, ids=[f"{name}-{wrong.__name__}" for _, name, wrong, _ in PLANTS]
)
def test_planted_errors_are_caught(
    module: Any, name: str, wrong: Callable[..., Any], noticed: set[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, name, wrong)
    broken = {step.step for step in derive(worlds=2) if not step.holds}
    assert noticed <= broken, f"not noticed by {sorted(noticed - broken)}; noticed by {sorted(broken)}"


def test_every_equation_notices_some_planted_error() -> None:
    watched = set().union(*(noticed for *_, noticed in PLANTS))
    assert watched >= {step.step for step in derive(worlds=1)} - {8}  # 8 compares two worlds: see below


def test_equivalent_rewards_notice_an_optimum_that_depends_on_the_level(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optimum, "optimal_policy", lambda world: worlds.softmax(world.reward_XY**2))
    assert not next(step for step in derive(worlds=1) if step.step == 8).holds


def test_a_residual_that_is_not_a_number_does_not_hold(steps: list[Step]) -> None:
    assert math.isnan(residuals.worst(0.0, math.nan, 1.0))
    assert not dataclasses.replace(steps[0], residual=math.nan).holds


@pytest.mark.parametrize("width", [80, 120])
def test_walkthrough_reads_at_any_width(steps: list[Step], width: int) -> None:
    out = StringIO()
    walkthrough.show(steps, Console(file=out, width=width))
    text = out.getvalue()
    for step in steps:
        assert step.function in text
        assert step.test in text
        assert step.claim.split()[-1] in text
    assert all(title in text for title in walkthrough.CHAPTERS.values())
    assert f"All {len(steps)} equations hold." in text


def test_walkthrough_says_which_equation_failed(steps: list[Step]) -> None:
    out = StringIO()
    walkthrough.show([steps[0], dataclasses.replace(steps[1], residual=0.5)], Console(file=out, width=80))
    assert "residual 5.0e-01 > 1e-10" in out.getvalue()
    assert "Not every equation holds: see 2." in out.getvalue()
