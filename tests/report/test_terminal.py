"""The terminal: 80 columns hold everything, and nothing in the records is markup or a command."""

from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from pairtune.estimate import Estimate
from pairtune.report import terminal, words


def shown(summary: dict[str, Any], width: int = 80) -> str:
    out = StringIO()
    terminal.show(summary, Console(file=out, width=width, force_terminal=True, color_system=None))
    return out.getvalue()


def test_eighty_columns_hold_everything(summary: dict[str, Any]) -> None:
    text = shown(summary)
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    for part in (
        "Reference",
        "DPO",
        "PPO",
        "0.53 to 0.71",
        "67.3 to 75.1",
        "n = 512",
        "3,183",
        "2.9×10¹⁵",
        "5.4 GB",
    ):
        assert part in text
    assert "Both beat the reference." in text


@pytest.mark.parametrize("width", [80, 100])
def test_six_arms_with_their_settings_and_what_to_watch(grid_summary: dict[str, Any], width: int) -> None:
    text = shown(grid_summary, width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    assert text.count("best of 4") == 5
    assert "beta 2" in text
    assert text.count("−0.12 to 0.28") == 1, "an interval with two signs stays on its line"
    assert "gamma" not in text, "it was the same for every candidate"
    assert text.count("66.0 to 74.0") == 5, "the interval of the own criterion, on one line"
    words_in_order = " ".join(text.split())
    place = 0
    for part in (
        "Held-out % Own % KL (nats) Cost",
        "IPO",
        "beta 0.1",
        "dpo+0.2*sft",
        "SimPO",
        "3,183 s",
        "Both beat the reference.",
        "What to watch DPO Chosen responses became less probable on 61%",
        "PPO Answers are 4.1 tokens longer",
        "31% of an answer's 3-grams",
    ):
        place = words_in_order.index(part, place)
    assert "n = 512 n = 512 n = 256 5.4 GB" in words_in_order, "the cost stands beside the figures, not under them"


def test_runs_of_earlier_versions_have_no_empty_column(summary: dict[str, Any]) -> None:
    text = shown(summary)
    for part in ("Own %", "Best of", "best of", "What to watch"):
        assert part not in text


def test_no_markup_and_no_escape_gets_through(summary: dict[str, Any]) -> None:
    hostile = "[red]x[/red] [/] \x1b[2J\u202e"
    summary["verdict"] = hostile
    summary["failed"] = {"ppo": hostile}
    summary["arms"][hostile] = summary["arms"]["dpo"] | {"parameters": {hostile: hostile}}
    summary["notices"] = [{"arm": hostile, "figure": "x", "text": hostile}, {}]
    text = shown(summary)
    assert "[red]x[/red] [/] ␛[2J‹U+202E›" in text
    assert "\x1b[2J" not in text
    assert "\u202e" not in text
    assert "PPO failed: " in text


def test_missing_numbers_are_dashes(summary: dict[str, Any]) -> None:
    known = dict.fromkeys(("gold_score", "heldout_accuracy", "kl_from_reference"))
    text = shown({"arms": {"dpo": {}, "ppo": known}})
    assert text.count("–") >= 12
    assert "No verdict yet." in text


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("plain\n\ttext é 中 👩\u200d🔬", "plain\n\ttext é 中 👩\u200d🔬"),
        ("\x00\x1b\x7f\x9b\r", "␀␛␡‹U+009B›␍"),
        ("\u202a\u200f\ufeff\u2028\U000e0041", "‹U+202A›‹U+200F›‹U+FEFF›‹U+2028›‹U+E0041›"),
    ],
)
def test_hidden_characters_become_visible(text: str, safe: str) -> None:
    assert words.visible(text) == safe


@pytest.mark.parametrize(
    ("write", "value", "text"),
    [
        (words.decimal, -0.314, "−0.31"),
        (words.decimal, 0.0012, "0.0012"),
        (words.decimal, 12345.0, "1.2×10⁴"),
        (words.decimal, -9.7e-5, "−9.7×10⁻⁵"),
        (words.decimal, 1e-12, "0.00"),
        (words.thousandths, -0.0374, "−0.037"),
        (words.thousandths, -0.0002, "0.000"),
        (words.scientific, 0, "0"),
        (words.scientific, 3.14e-7, "3.1×10⁻⁷"),
        (words.seconds, 3.21, "3.2 s"),
        (words.points, -0.072, "−7.2 points"),
        (words.arm_name, "simpo", "SimPO"),
        (words.arm_name, "dpo", "DPO"),
        (words.arm_name, "my arm", "my arm"),
        (words.parameters, {"kl_coefficient": 0.02, "beta": -1e-05}, "kl coefficient 0.02, beta −1e−05"),
        (words.parameters, None, ""),
    ],
)
def test_numbers_and_names_are_written_one_way(write: Any, value: Any, text: str) -> None:
    assert write(value) == text


def test_a_judge_is_not_called_gold(summary: dict[str, Any]) -> None:
    assert "Gold reward" in shown(summary)
    summary["gold_scorer"]["kind"] = "judge"
    summary["verdict"] = ""
    text = shown(summary)
    assert "Judge score" in text
    assert "gold" not in text.lower()


def test_an_accuracy_like_chance_is_marked(summary: dict[str, Any]) -> None:
    reference = {"mean": 0.5, "n": 512, "ci95": [0.5, 0.5]}
    summary["arms"]["reference"]["heldout_accuracy"] = reference
    text = shown(summary)
    assert "like chance" not in text.lower()
    assert "all ties" in text, "the reference"
    summary["arms"]["dpo"]["heldout_accuracy"] = {"mean": 0.535, "n": 200, "ci95": [0.465, 0.6]}
    summary["arms"]["ppo"]["heldout_accuracy"] = {"mean": 0.42, "n": 200, "ci95": [0.35, 0.49]}
    text = shown(summary)
    assert max(map(len, text.splitlines())) <= 80
    assert text.count("like chance") == 1
    assert text.count("below chance") == 1
    assert "Like chance: cannot be told from 50%." in " ".join(text.split())


@pytest.mark.parametrize("write", [words.decimal, words.tenths, words.thousandths, words.percent, words.points])
@pytest.mark.parametrize("value", [-0.0, -1e-17])
def test_a_zero_has_no_sign(write: Any, value: float) -> None:
    assert write(value) == write(0.0)
    assert "−" not in write(value)


@pytest.mark.parametrize(
    ("write", "value", "text"),
    [
        (words.percent, 0.0002, "0.02%"),
        (words.percent, -0.071, "−7.1%"),
        (words.points, 0.00041, "0.041 points"),
        (words.tenths, 1234.56, "1,234.6"),
        (words.tenths, -0.04, "0.0"),
        (words.decimal, 1234.5, "1,234.50"),
        (words.ratio, 9.83, "9.8"),
        (words.ratio, 0.123, "0.12"),
        (words.ratio, 1234.5, "1,234"),
    ],
)
def test_small_and_large_numbers(write: Any, value: float, text: str) -> None:
    assert write(value) == text


def test_an_interval_within_a_sentence() -> None:
    found = Estimate(mean=0.6, n=1200, ci95=(0.5, 0.7))
    assert words.sureness(found, words.percent) == "95% interval 50.0 to 70.0%, n = 1,200"
    assert words.sureness(found, words.points) == "95% interval 50.0 to 70.0 points, n = 1,200"
    assert words.sureness(Estimate(mean=0.6, n=3, ci95=None)) == "no interval, n = 3"
    assert words.sureness(Estimate(mean=0.6, n=3, ci95=(0.6, 0.6))) == "all alike, n = 3"
