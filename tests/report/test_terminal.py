"""The terminal: 80 columns hold everything, and nothing in the records is markup or a command."""

from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from pairtune.report import terminal, words


def shown(summary: dict[str, Any]) -> str:
    out = StringIO()
    terminal.show(summary, Console(file=out, width=80, force_terminal=True, color_system=None))
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


def test_no_markup_and_no_escape_gets_through(summary: dict[str, Any]) -> None:
    hostile = "[red]x[/red] [/] \x1b[2J\u202e"
    summary["verdict"] = hostile
    summary["failed"] = {"ppo": hostile}
    summary["arms"][hostile] = summary["arms"]["dpo"]
    text = shown(summary)
    assert "[red]x[/red] [/] ␛[2J‹U+202E›" in text
    assert "\x1b[2J" not in text
    assert "\u202e" not in text
    assert "PPO failed: " in text


def test_missing_numbers_are_dashes(summary: dict[str, Any]) -> None:
    text = shown({"arms": {"dpo": {}, "ppo": {"gold_score": None}}})
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
        (words.scientific, 0, "0"),
        (words.scientific, 3.14e-7, "3.1×10⁻⁷"),
        (words.seconds, 3.21, "3.2 s"),
        (words.points, -0.072, "−7.2 pt"),
        (words.arm_name, "simpo", "SimPO"),
        (words.arm_name, "dpo", "DPO"),
        (words.arm_name, "my arm", "my arm"),
    ],
)
def test_numbers_and_names_are_written_one_way(write: Any, value: Any, text: str) -> None:
    assert write(value) == text
