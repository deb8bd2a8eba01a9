"""The figures: the same string each time, nothing from outside, the numbers where they belong."""

import re
from pathlib import Path
from typing import Any

import pytest

from pairtune.report import drawing, figures
from pairtune.report.records import read

COLOURS = {"reference": 0, "dpo": 1, "ppo": 2}


def test_one_colour_for_each_arm_and_grey_for_the_reference() -> None:
    assert drawing.palette(["reference", "dpo", "ppo"]) == COLOURS
    many = drawing.palette(["reference", *(f"arm{index}" for index in range(12))])
    assert 0 not in list(many.values())[1:]


def test_a_figure_is_deterministic_and_self_contained(run_dir: Path) -> None:
    rows = read(run_dir).evaluations
    first, second = (figures.learning_curve(rows, "gold_score", "Gold reward", COLOURS, over="step") for _ in range(2))
    assert first is not None
    assert first == second
    assert not re.search(r"https?:|<!|<\?|<metadata|<image", first)
    assert "var(--arm-1, #0072b2)" in first
    for name in (">DPO<", ">PPO<", ">Gold reward<"):
        assert name in first


def test_nothing_to_draw_is_none() -> None:
    null = [{"arm": "dpo", "step": 0, "seconds": 0.0, "gold_score": None, "kl_from_reference": None}]
    for rows in ([], null):
        assert figures.frontier(rows, "Gold", COLOURS) is None
        assert figures.learning_curve(rows, "gold_score", "Gold", COLOURS, over="seconds") is None
    steps: list[dict[str, Any]] = [{"stage": "dpo", "step": 1, "loss": float("nan"), "note": "text", "ok": True}]
    for metric in ("loss", "note", "ok", "missing"):
        assert figures.training_curve(steps, metric, 1) is None


def test_a_point_without_an_interval_is_drawn_without_a_band() -> None:
    bare = {"mean": 0.5, "n": 1, "ci95": None}
    rows = [
        {"arm": "dpo", "step": step, "seconds": 1.0, "gold_score": bare, "kl_from_reference": bare} for step in (0, 1)
    ]
    assert figures.frontier(rows, "Gold", COLOURS)
    assert figures.learning_curve(rows, "gold_score", "Gold", COLOURS, over="step")


def test_ppo_starts_after_its_reward_model(summary: dict[str, Any]) -> None:
    assert figures.seconds_before(summary) == {"reference": 0.0, "dpo": 21.0, "ppo": 212.0}


def test_the_picture_for_the_readme(run_dir: Path) -> None:
    paths = [run_dir / "one.png", run_dir / "two.png"]
    for path in paths:
        figures.learning_curves_png(run_dir, path)
    one, two = (path.read_bytes() for path in paths)
    assert one.startswith(b"\x89PNG")
    assert one == two


@pytest.mark.parametrize(("count", "span"), [(1, 1), (39, 1), (40, 2), (1000, 50)])
def test_smoothing_is_one_in_twenty(count: int, span: int) -> None:
    assert figures.smoothing(count) == span
