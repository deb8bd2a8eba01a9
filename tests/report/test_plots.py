"""The figures: the same string each time, nothing from outside, the numbers where they belong."""

import itertools
import re
from pathlib import Path
from typing import Any

import pytest

from pairtune.errors import InputError
from pairtune.report import plots, style
from pairtune.report.figures import figure
from pairtune.report.records import read

COLOURS = {"reference": 0, "dpo": 1, "ppo": 2}
GOLD = figure("gold_score")


def test_one_colour_for_each_arm_and_grey_for_the_reference() -> None:
    assert style.palette(["reference", "dpo", "ppo"]) == COLOURS
    many = style.palette(["reference", *(f"arm{index}" for index in range(12))])
    assert 0 not in list(many.values())[1:]


def test_a_figure_is_deterministic_and_self_contained(run_dir: Path) -> None:
    rows = read(run_dir).evaluations
    first, second = (plots.learning_curve(rows, GOLD, COLOURS, over="step") for _ in range(2))
    assert first is not None
    assert first == second
    assert not re.search(r"https?:|<!|<\?|<metadata|<image", first)
    assert "var(--arm-1, #0072b2)" in first
    for name in (">DPO<", ">PPO<", ">Gold reward (sd)<"):
        assert name in first


def test_nothing_to_draw_is_none() -> None:
    null = [{"arm": "dpo", "step": 0, "seconds": 0.0, "gold_score": None, "kl_from_reference": None}]
    for rows in ([], null):
        assert plots.frontier(rows, GOLD, COLOURS) is None
        assert plots.learning_curve(rows, GOLD, COLOURS, over="seconds") is None
    steps: list[dict[str, Any]] = [{"stage": "dpo", "step": 1, "loss": float("nan"), "note": "text", "ok": True}]
    for metric in ("loss", "note", "ok", "missing"):
        assert plots.training_curve(steps, metric, 1) is None


def test_a_point_without_an_interval_is_drawn_without_a_band() -> None:
    bare = {"mean": 0.5, "n": 1, "ci95": None}
    rows = [
        {"arm": "dpo", "step": step, "seconds": 1.0, "gold_score": bare, "kl_from_reference": bare} for step in (0, 1)
    ]
    assert plots.frontier(rows, GOLD, COLOURS)
    assert plots.learning_curve(rows, GOLD, COLOURS, over="step")


def test_ppo_starts_after_its_reward_model(summary: dict[str, Any]) -> None:
    assert plots.seconds_before(summary) == {"reference": 0.0, "dpo": 21.0, "ppo": 212.0}


def texts(svg: str) -> dict[str, tuple[float, float]]:
    """Each text of a figure and where it stands; texts that appear twice by their last place."""
    found = re.findall(r'<text [^>]*?(?:translate\(([\d.]+) ([\d.]+)\)|x="([\d.]+)" y="([\d.]+)")[^>]*>([^<]*)<', svg)
    return {text: (float(x1 or x2), float(y1 or y2)) for x1, y1, x2, y2, text in found}


def test_the_grid_names_each_method_and_rings_what_was_chosen(grid_summary: dict[str, Any]) -> None:
    candidates, colours = grid_summary["grid"], style.palette(list(grid_summary["arms"]))
    drawn = plots.grid(candidates, GOLD, colours)
    assert drawn
    assert drawn == plots.grid(candidates, GOLD, colours)
    assert {"Reference", "DPO", "IPO", "dpo+0.2*sft", "SimPO", "PPO", "Gold reward (sd) over KL, every candidate"} <= {
        *texts(drawn)
    }
    unchosen = {method: [row | {"chosen": False} for row in rows] for method, rows in candidates.items()}
    without = plots.grid(unchosen, GOLD, colours)
    assert without
    rings = [svg.count("stroke: var(--ink") for svg in (drawn, without)]
    assert rings[0] > rings[1] == 0
    assert not re.search(r"https?:|<!|<\?|<metadata|<image", drawn)


def test_a_method_of_the_grid_shows_its_values_before_the_others(grid_summary: dict[str, Any]) -> None:
    candidates, colours = grid_summary["grid"], style.palette(list(grid_summary["arms"]))
    drawn = plots.grid(candidates, GOLD, colours, method="simpo")
    assert drawn
    shown = texts(drawn)
    assert {"1", "2", "4", "SimPO by beta: Gold reward (sd)"} <= set(shown)
    assert "2.5" not in shown, "a candidate that failed has no point"
    assert "1.2" in shown, "the scale of all methods: SimPO's own ends at 0.6"
    assert "var(--arm-4" in drawn
    assert "var(--arm-1" not in drawn
    assert shown["1"][0] < shown["2"][0] < shown["4"][0], "more KL is further right"
    assert plots.grid({"simpo": candidates["simpo"][2:3]}, GOLD, colours, method="simpo") is None
    assert plots.grid({"simpo": candidates["simpo"][2:3]}, GOLD, colours) is None
    assert plots.grid({}, GOLD, colours) is None


def test_a_grid_of_two_settings_names_what_varies() -> None:
    ends = {"gold_score": {"mean": 0.5, "n": 9, "ci95": None}, "kl_from_reference": {"mean": 1.0, "n": 9, "ci95": None}}
    rows = [{"arm": "x", "parameters": {"beta": 2.0, "gamma": g, "tau": 1.0 + g}} | ends for g in (0.5, 1.5)]
    drawn = plots.grid({"simpo": rows}, GOLD, {"simpo": 1}, method="simpo")
    assert drawn
    assert {"0.5, 1.5", "1.5, 2.5", "SimPO by gamma, tau: Gold reward (sd)"} <= set(texts(drawn))


@pytest.mark.parametrize("field", ["chosen_nats_per_token", "response_tokens", "gold_score"])
def test_five_names_at_one_place_stand_apart(field: str) -> None:
    arms = ["dpo", "ipo", "kto", "simpo", "dpo+0.2*sft"]
    value = {"mean": -0.02, "n": 9, "ci95": [-0.03, -0.01]}
    rows = [{"arm": arm, "step": step, "seconds": 1.0, field: value} for arm in arms for step in (0, 8)]
    drawn = plots.learning_curve(rows, figure(field), style.palette(arms), over="step")
    assert drawn
    shown = texts(drawn)
    heights = sorted(shown[name][1] for name in ("DPO", "IPO", "KTO", "SimPO", "dpo+0.2*sft"))
    assert min(above - below for below, above in itertools.pairwise(heights)) > 9


def test_values_at_one_place_do_not_hide_each_other() -> None:
    near = {"gold_score": {"mean": 0.5, "n": 9, "ci95": None}}
    rows = [
        {"arm": "x", "parameters": {"beta": beta}, "kl_from_reference": {"mean": 5 + beta, "n": 9, "ci95": None}} | near
        for beta in (0.1, 0.2, 0.3, 0.4)
    ]
    drawn = plots.grid({"dpo": rows}, GOLD, {"dpo": 1}, method="dpo")
    assert drawn
    shown = [texts(drawn)[value] for value in ("0.1", "0.2", "0.3", "0.4")]
    for one, other in itertools.combinations(shown, 2):
        assert abs(one[0] - other[0]) > 14 or abs(one[1] - other[1]) > 9


@pytest.mark.parametrize(("draw", "folder"), [("learning_curves_png", "run_dir"), ("grid_png", "grid_dir")])
def test_the_pictures_for_the_docs(draw: str, folder: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    paths = [tmp_path / "one.png", tmp_path / "two.png"]
    for path in paths:
        getattr(plots, draw)(request.getfixturevalue(folder), path)
    one, two = (path.read_bytes() for path in paths)
    assert one.startswith(b"\x89PNG")
    assert one == two


def test_a_run_without_a_grid_has_no_picture_of_it(run_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no grid: no method was trained at several values"):
        plots.grid_png(run_dir, tmp_path / "grid.png")


@pytest.mark.parametrize(("count", "span"), [(1, 1), (39, 1), (40, 2), (1000, 50)])
def test_smoothing_is_one_in_twenty(count: int, span: int) -> None:
    assert plots.smoothing(count) == span


def test_a_curve_says_of_how_many_values_its_points_are_means() -> None:
    def row(step: int, n: int, arm: str = "dpo") -> dict[str, Any]:
        value = {"mean": 0.5, "n": n, "ci95": None}
        return {"arm": arm, "step": step, "seconds": 1.0, "gold_score": value, "kl_from_reference": value}

    def note(*rows: dict[str, Any]) -> set[str]:
        drawn = [
            plots.learning_curve(rows, GOLD, COLOURS, over="step"),
            plots.frontier(rows, GOLD, COLOURS),
        ]
        return {text for svg in drawn if svg for text in re.findall(r">(n = [^<]*)<", svg)}

    assert note(row(0, 200), row(4, 48), row(8, 48), row(12, 200)) == {"n = 200 at both ends, 48 between"}
    assert note(row(0, 200), row(12, 200)) == {"n = 200"}
    assert note(row(0, 200), row(6, 200), row(12, 200)) == {"n = 200"}
    others = [row(0, 1200, "ppo"), row(6, 40, "ppo"), row(9, 1200, "ppo")]
    assert note(row(0, 1200), row(4, 48), row(12, 1200), *others) == {"n = 1,200 at both ends, 40 to 48 between"}
