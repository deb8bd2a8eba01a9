"""What is told of an arm, and that nothing is told of one on the quiet side of every threshold."""

from typing import Any

import pytest

from pairtune.comparison.notices import notices

QUIET: dict[str, Any] = {
    "chosen_fell": 0.3,
    "chosen_nats_per_token": 0.02,
    "rejected_nats_per_token": -0.1,
    "response_tokens": 12.0,
    "repetition": 0.02,
    "distinct_bigrams": 0.6,
}


def told(
    correlation: float | None = 0.1,
    *,
    noise: float = 0.0,
    width: float = 0.1,
    gained: list[float] | None = None,
    **changed: float,
) -> list[dict[str, str]]:
    """The notices of an arm that differs from a quiet one in `changed`; `noise` of answers, `width` of intervals.

    gained: the interval of its score less the reference's.
    """

    def arm(figures: dict[str, float], correlation: float | None) -> dict[str, Any]:
        means = {
            name: {"mean": value, "n": 40, "ci95": [value - width, value + width]} for name, value in figures.items()
        }
        bounds = None if correlation is None else [correlation - width, correlation + width]
        found = None if correlation is None else {"mean": correlation, "n": 40, "ci95": bounds}
        return means | {"margin_length_correlation": found}

    def values(figures: dict[str, float], noise: float) -> dict[str, list[float]]:
        swing = [noise if i % 2 else -noise for i in range(40)]
        return {name: [figures[name] + each for each in swing] for name in ("response_tokens", "repetition")}

    figures = QUIET | changed
    summary: dict[str, Any] = {"arms": {"reference": arm(QUIET, None), "dpo": arm(figures, correlation)}}
    if gained:
        measured = {"mean": sum(gained) / 2, "n": 40, "ci95": gained}
        summary["differences"] = {"dpo - reference": {"gold_score": measured}}
    return notices(summary, {"reference": values(QUIET, 0.0), "dpo": values(figures, noise)})


def test_nothing_is_told_of_a_quiet_arm() -> None:
    assert told() == []
    assert told(None) == []
    # On the quiet side of one half of a threshold that has two.
    assert told(chosen_fell=0.9, chosen_nats_per_token=-0.05) == []
    assert told(chosen_fell=0.4, chosen_nats_per_token=-0.5) == []
    # Far off on average, and within what chance does.
    assert told(response_tokens=16.0, noise=60.0) == []
    assert told(0.62, width=0.7) == []
    assert told(chosen_fell=0.83, chosen_nats_per_token=-0.31, width=0.4) == []
    assert told(distinct_bigrams=0.0) == []  # answers without a single 2-gram


@pytest.mark.parametrize(
    ("changed", "figure", "words"),
    [
        (
            {"chosen_fell": 0.83, "chosen_nats_per_token": -0.31},
            "chosen_fell",
            ["83.0%", "−0.31 nats", "of the rejected −0.10"],
        ),
        (
            {"chosen_fell": 0.83, "chosen_nats_per_token": -0.31, "rejected_nats_per_token": 0.2},
            "chosen_fell",
            ["of the rejected 0.20", "not degeneration"],
        ),
        ({"response_tokens": 18.0}, "response_tokens", ["50% longer", "18.0 tokens against 12.0"]),
        ({"response_tokens": 6.0}, "response_tokens", ["50% shorter"]),
        ({"correlation": 0.62}, "margin_length_correlation", ["0.62", "preference for longer responses"]),
        ({"correlation": -0.62}, "margin_length_correlation", ["−0.62", "preference for shorter responses"]),
        ({"repetition": 0.25}, "repetition", ["25%", "2%", "sign of degeneration"]),
        ({"distinct_bigrams": 0.2}, "distinct_bigrams", ["20%", "60%"]),
    ],
)
def test_each_threshold_is_told_in_words(changed: dict[str, float], figure: str, words: list[str]) -> None:
    (notice,) = told(**changed)
    assert (notice["arm"], notice["figure"]) == ("dpo", figure)
    for each in [*words, "told"]:
        assert each in notice["text"]


@pytest.mark.parametrize(("accuracy", "said"), [(0.7, True), (0.46, False), (0.59, False), (0.6, False), (0.3, False)])
def test_no_preference_explains_an_accuracy_that_is_none(accuracy: float, said: bool) -> None:
    """Intervals reach 0.1 to either side: that of 0.6 holds chance."""
    (notice,) = told(-0.62, heldout_accuracy=accuracy)
    assert notice["text"].endswith("preference for shorter responses.") is said
    assert "their rank correlation is −0.62" in notice["text"]


@pytest.mark.parametrize(
    ("gained", "said"), [([0.1, 0.5], True), ([-0.1, 0.5], False), ([0.0, 0.4], False), ([-0.5, -0.1], False)]
)
def test_length_explains_no_score_that_was_not_gained(gained: list[float], said: bool) -> None:
    (notice,) = told(response_tokens=18.0, gained=gained)
    assert ("gained some score" in notice["text"]) is said
    assert "50% longer" in notice["text"]
