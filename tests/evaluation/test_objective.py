"""Held-out losses and verdicts as an objective sees them, each worked out pair by pair from the model's own forward."""

import math
from typing import Any

import pytest
import torch

from pairtune.data.pack import Tokens
from pairtune.engine import hidden
from pairtune.engine.examples import Examples
from pairtune.evaluation.objective import measure_examples
from pairtune.objectives.loss import loss_of
from tests import by_hand

ROWS = [
    Tokens((5, 6, 7), ((8, 9, 1), (10, 1))),
    Tokens((11,), ((12, 13, 14, 1), (15, 1))),
    Tokens((5, 6), ((7, 1), (20, 21, 22, 23, 1))),
    Tokens((30, 31, 32, 33), ((34,), (35, 36, 1))),
    Tokens((40,), ((41, 42, 43, 44, 45, 1), (46, 1))),
]


@pytest.fixture
def policy(tiny_model: Any) -> Any:
    return tiny_model(seed=1, spread=3.0)


@pytest.fixture
def examples(tiny_model: Any) -> Any:
    reference = tiny_model(seed=2, spread=3.0)
    values = [
        torch.cat([by_hand.token_logprobs(reference, row.prompt, y) for y in row.responses]).float() for row in ROWS
    ]
    return Examples(ROWS, reference=values)


def ratios_by_hand(policy: Any, tiny_model: Any) -> Any:
    reference = tiny_model(seed=2, spread=3.0)
    return [[by_hand.log_ratio(policy, reference, row.prompt, y) for y in row.responses] for row in ROWS]


@pytest.mark.parametrize("budget", [4096, 10])
def test_losses_and_log_ratios_stand_in_the_order_of_the_pairs(
    policy: Any, examples: Any, tiny_model: Any, monkeypatch: pytest.MonkeyPatch, budget: Any
) -> None:
    """Also where they were computed in several passes, in whose order lengths decide."""
    monkeypatch.setitem(hidden.TOKENS_PER_PASS, "cpu", budget)
    expected = ratios_by_hand(policy, tiny_model)
    found = measure_examples(policy, loss_of("dpo", {"beta": 0.3}), examples)
    assert found.losses == pytest.approx([math.log1p(math.exp(-0.3 * (w - r))) for w, r in expected], abs=1e-4)
    for ours, plain in zip(found.log_ratios, expected, strict=True):
        assert ours == pytest.approx(plain, abs=1e-4)
    assert found.own_wins == [1.0 if w > r else 0.0 for w, r in expected]
    assert 0 < sum(found.own_wins) < len(ROWS), "an exchanged verdict would show"


def test_what_looks_at_the_step_has_its_pairs_losses_in_their_order_too(
    policy: Any, examples: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beta-DPO's losses are of single pairs: their change in training is paired by prompt."""
    loss = loss_of("beta-dpo")
    expected = measure_examples(policy, loss, examples).losses
    monkeypatch.setitem(hidden.TOKENS_PER_PASS, "cpu", 10)
    found = measure_examples(policy, loss, examples)
    assert found.losses == pytest.approx(expected, abs=1e-4)
    assert found.own_wins is not None
    margins = [w - r for w, r in found.log_ratios or []]
    assert sorted(range(5), key=margins.__getitem__) == sorted(range(5), key=lambda i: -expected[i]), (
        "falls in the margin"
    )


def test_without_a_reference_there_are_no_log_ratios(policy: Any) -> None:
    found = measure_examples(policy, loss_of("simpo", {"beta": 2.0, "gamma": 0.5}), Examples(ROWS))
    means = [[float(by_hand.token_logprobs(policy, row.prompt, y).mean()) for y in row.responses] for row in ROWS]
    assert found.log_ratios is None
    assert found.losses == pytest.approx([math.log1p(math.exp(-(2.0 * (w - r) - 0.5))) for w, r in means], abs=1e-4)
    assert found.own_wins == [1.0 if w > r else 0.0 for w, r in means]


def test_an_objectives_own_verdict_is_its_own(policy: Any) -> None:
    """Imitation is right where the chosen response is likelier than the rejected one, whatever the reference says."""
    found = measure_examples(policy, loss_of("sft"), Examples(ROWS))
    sums = [[float(by_hand.token_logprobs(policy, row.prompt, y).sum()) for y in row.responses] for row in ROWS]
    mean = sum(len(row.responses[0]) for row in ROWS) / len(ROWS)
    assert found.losses == pytest.approx([-w / mean for w, _ in sums], abs=1e-4)
    assert found.own_wins == [1.0 if w > r else 0.0 for w, r in sums]


def test_a_loss_that_cannot_tell_is_half_right(policy: Any, examples: Any) -> None:
    same = [Tokens(row.prompt, (row.responses[0], row.responses[0])) for row in ROWS]
    frozen = [values[: len(row.responses[0])].repeat(2) for row, values in zip(ROWS, examples.reference, strict=True)]
    found = measure_examples(policy, loss_of("dpo"), Examples(same, reference=frozen))
    assert found.own_wins == [0.5] * len(ROWS)
    assert found.losses == pytest.approx([math.log(2)] * len(ROWS))


def test_single_responses_have_losses_and_no_verdict(policy: Any, examples: Any, tiny_model: Any) -> None:
    """KTO: desirable 1 − σ(β(Δ − z)), undesirable 1 − σ(β(z − Δ)), z the mean log-ratio of mismatched responses."""
    expected = ratios_by_hand(policy, tiny_model)
    rows = [Tokens(row.prompt, (row.responses[i % 2],)) for i, row in enumerate(ROWS)]
    sizes = [[len(y) for y in row.responses] for row in ROWS]
    frozen = [v.split(s)[i % 2] for i, (v, s) in enumerate(zip(examples.reference, sizes, strict=True))]
    labels = [i % 2 == 0 for i in range(len(rows))]
    mismatched = [Tokens(row.prompt, rows[i - 1].responses) for i, row in enumerate(rows)]
    reference = tiny_model(seed=2, spread=3.0)
    of_mismatched = [by_hand.token_logprobs(reference, row.prompt, row.responses[0]).float() for row in mismatched]
    found = measure_examples(
        policy, loss_of("kto", {"beta": 0.2}), Examples(rows, labels, frozen, mismatched, of_mismatched)
    )
    z = max(0.0, sum(by_hand.log_ratio(policy, reference, r.prompt, r.responses[0]) for r in mismatched) / len(rows))
    for i, (loss, label) in enumerate(zip(found.losses, labels, strict=True)):
        gain = 0.2 * (expected[i][i % 2] - z) * (1 if label else -1)
        assert loss == pytest.approx(1 - 1 / (1 + math.exp(-gain)), abs=1e-4)
    assert found.own_wins is None
    for i, (ratio,) in enumerate(found.log_ratios):
        assert ratio == pytest.approx(expected[i][i % 2], abs=1e-4)


def test_a_loss_of_all_pairs_at_once_has_the_margins_verdict(
    policy: Any, examples: Any, tiny_model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = ratios_by_hand(policy, tiny_model)
    for budget in (4096, 10):
        monkeypatch.setitem(hidden.TOKENS_PER_PASS, "cpu", budget)
        found = measure_examples(policy, loss_of("aot-paired"), examples)
        assert found.own_wins == [1.0 if w > r else 0.0 for w, r in expected]
        for ours, plain in zip(found.log_ratios, expected, strict=True):
            assert ours == pytest.approx(plain, abs=1e-4)
