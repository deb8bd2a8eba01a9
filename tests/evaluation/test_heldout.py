"""Held-out figures of pairs against the model's own forward: whose probability is taken from whose, and summed how."""

from typing import Any

import pytest

from pairtune.data.pack import Tokens
from pairtune.engine import hidden
from pairtune.engine.reference import compute_logprobs
from pairtune.evaluation.heldout import accuracy, log_ratios, margins, reward_margins, wins
from pairtune.models.heads import ScalarModel
from tests import by_hand

ROWS = [
    Tokens((5, 6, 7), ((8, 9, 1), (10, 1))),
    Tokens((11,), ((12, 13, 14, 1), (15, 1))),
    Tokens((5, 6), ((7, 1), (20, 21, 22, 23, 1))),
    Tokens((30, 31, 32, 33), ((34,), (35, 36, 1))),
]


@pytest.fixture
def policy(tiny_model: Any) -> Any:
    return tiny_model(seed=1)


@pytest.fixture
def reference(tiny_model: Any) -> Any:
    return tiny_model(seed=2)


@pytest.mark.parametrize("budget", [2048, 8])
def test_log_ratios_are_the_policys_less_the_references(
    policy: Any, reference: Any, monkeypatch: pytest.MonkeyPatch, budget: Any
) -> None:
    monkeypatch.setitem(hidden.TOKENS_PER_PASS, "cpu", budget)
    frozen = compute_logprobs(reference, ROWS)
    found = log_ratios(policy, ROWS, frozen)
    expected = [[by_hand.log_ratio(policy, reference, row.prompt, y) for y in row.responses] for row in ROWS]
    for ours, plain in zip(found, expected, strict=True):
        assert ours == pytest.approx(plain, abs=1e-4)
    assert all(abs(ratio) > 0.01 for row in expected for ratio in row), "a sign would show"


def test_an_untouched_policy_has_log_ratios_of_zero(policy: Any) -> None:
    found = log_ratios(policy, ROWS, compute_logprobs(policy, ROWS))
    assert [ratio for row in found for ratio in row] == pytest.approx([0.0] * 8, abs=1e-5)


def test_a_margin_is_what_the_chosen_gained_less_what_the_rejected_gained() -> None:
    assert margins([[3.0, 1.0], [-2.0, -2.5], [0.5, 4.0]]) == [2.0, 0.5, -3.5]


def test_a_reward_margin_is_the_chosen_responses_reward_less_the_rejected_ones(tiny_model: Any) -> None:
    model = ScalarModel(tiny_model(seed=3), seed=4)
    model.normalise(mean=0.3, std=2.0)
    expected = [
        by_hand.scalar_at_the_end(model, row.prompt, row.responses[0])
        - by_hand.scalar_at_the_end(model, row.prompt, row.responses[1])
        for row in ROWS
    ]
    assert reward_margins(model, ROWS) == pytest.approx(expected, abs=1e-4)


def test_a_tie_counts_half_and_no_number_counts_nothing() -> None:
    assert wins([2.0, 0.0, -0.0, -1e-30, 1e-30, float("nan")]) == [1.0, 0.5, 0.5, 0.0, 1.0, 0.0]


def test_the_accuracy_is_the_mean_of_wins_and_its_interval_counts_prompts_not_pairs() -> None:
    rows = [
        Tokens((5,), ((6,), (7,))),
        Tokens((5,), ((8,), (9,))),
        Tokens((6,), ((6,), (7,))),
        Tokens((7,), ((6,), (7,))),
    ]
    found = accuracy([1.0, 2.0, -1.0, 0.0], rows)
    assert found.mean == pytest.approx((1 + 1 + 0 + 0.5) / 4)
    same = accuracy([1.0, -1.0] * 20, [Tokens((5,), ((i,), (7,))) for i in range(40)])
    other = accuracy([1.0, -1.0] * 20, [Tokens((i,), ((6,), (7,))) for i in range(40)])
    assert same.ci95 != other.ci95, "forty pairs of one prompt are one prompt"
