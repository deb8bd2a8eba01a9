"""A row's weight is how often it counts: 2 is the row standing there twice, and a constant is no weight at all."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pairtune.data.pack import Tokens
from pairtune.data.token_rows import store_tokens
from pairtune.engine import hidden
from pairtune.engine.examples import prepare
from pairtune.engine.mismatched import kl_baseline
from pairtune.engine.reference import compute_logprobs
from pairtune.errors import InputError
from pairtune.models.heads import ScalarModel
from pairtune.objectives.catalog import OBJECTIVES
from pairtune.objectives.loss import loss_of
from pairtune.settings import Reward, Sft, Tuning
from pairtune.training.checkpoint import Journal
from pairtune.training.preference import train_preference
from pairtune.training.reward import train_reward
from pairtune.training.sft import train_sft

Pairs = Callable[..., list[Tokens]]
# What is estimated from responses to other prompts depends on which prompts stand beside each other, and so on copies.
OTHERS = [name for name, entry in OBJECTIVES.items() if "mismatched" in entry.needs]
MIXING = [name for name, entry in OBJECTIVES.items() if entry.whole_step]
ALONE = [name for name in OBJECTIVES if name not in (*OTHERS, *MIXING)]
COUNTS = (1, 3, 1, 2, 1)


def weighted(rows: Sequence[Tokens], scale: float = 1.0) -> list[Tokens]:
    return [replace(row, weight=scale * count) for row, count in zip(rows, COUNTS, strict=True)]


def repeated(rows: Sequence[Tokens]) -> list[Tokens]:
    return [row for row, count in zip(rows, COUNTS, strict=True) for _ in range(count)]


@pytest.fixture
def several_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(hidden.TOKENS_PER_PASS, "cpu", 40)


def stepped(model: nn.Module, train: Callable[[Journal], None]) -> tuple[float, Tensor]:
    """The first recorded loss, and how far the weights moved in two steps."""
    journal, before = Journal("step"), flat(model)
    train(journal)
    return journal.rows[0]["loss"], flat(model) - before


def flat(model: nn.Module) -> Tensor:
    return torch.cat([value.detach().flatten() for value in model.parameters()])


def assert_same_way(one: Tensor, other: Tensor) -> None:
    """Adam makes a whole step of a gradient that is rounding only, so single weights say nothing."""
    assert float((one - other).norm()) < 2e-3 * float(one.norm())


def tuned(tiny_model: Any, name: str, rows: Sequence[Tokens], labels: list[bool] | None = None) -> tuple[float, Tensor]:
    model, loss = tiny_model(), loss_of(name)
    examples, _ = prepare(model, rows, loss.needs, labels=labels, seed=0)
    settings = Tuning(batch_size=len(rows), epochs=2, learning_rate=1e-3)
    return stepped(model, lambda journal: train_preference(model, examples, loss, settings, seed=0, journal=journal))


@pytest.mark.parametrize("name", ["dpo", "dpo+0.2*sft", "bco", *MIXING])
@pytest.mark.usefixtures("several_passes")
def test_two_is_twice_in_several_passes(name: str, tiny_model: Any, token_pairs: Pairs) -> None:
    test_two_is_twice_for_every_objective(name, tiny_model, token_pairs)


@pytest.mark.parametrize("name", [*ALONE, *MIXING, "dpo+0.2*sft", "ipo+0.5*bco", "dpo+0.5*aot-paired"])
def test_two_is_twice_for_every_objective(name: str, tiny_model: Any, token_pairs: Pairs) -> None:
    rows = token_pairs(len(COUNTS))
    loss, after = tuned(tiny_model, name, weighted(rows, 0.7))
    twice, after_twice = tuned(tiny_model, name, repeated(rows))
    _, after_plain = tuned(tiny_model, name, rows)
    assert loss == pytest.approx(twice, rel=1e-5)
    assert_same_way(after, after_twice)
    assert float((after - after_plain).norm()) > 0.01 * float(after.norm())


@pytest.mark.parametrize("name", [name for name in ALONE if OBJECTIVES[name].unpaired])
def test_two_is_twice_for_labels(name: str, tiny_model: Any, token_pairs: Pairs) -> None:
    rows = token_pairs(len(COUNTS), responses=1)
    labels = [True, False, True, False, True]
    loss, after = tuned(tiny_model, name, weighted(rows), labels)
    many = [label for label, count in zip(labels, COUNTS, strict=True) for _ in range(count)]
    twice, after_twice = tuned(tiny_model, name, repeated(rows), many)
    assert loss == pytest.approx(twice, rel=1e-5)
    assert_same_way(after, after_twice)


@pytest.mark.parametrize("name", ["dpo", "kto", "dpo+0.2*sft", *MIXING[:1]])
def test_a_constant_is_no_weight_to_the_bit(name: str, tiny_model: Any, token_pairs: Pairs) -> None:
    rows = token_pairs(5)
    loss, after = tuned(tiny_model, name, [replace(row, weight=0.3) for row in rows])
    plain, after_plain = tuned(tiny_model, name, rows)
    assert loss == plain
    assert torch.equal(after, after_plain)


@pytest.mark.usefixtures("inside")
def test_ones_own_loss_of_a_whole_step_refuses_weights(tiny_model: Any, token_pairs: Pairs) -> None:
    body = "return -(chosen_logratio_N - rejected_logratio_N.mean()).sigmoid().log()"
    Path("mine.py").write_text(f"def mine(chosen_logratio_N, rejected_logratio_N):\n    {body}\n", encoding="utf-8")
    with pytest.raises(
        InputError, match=r"have weights, and mine.py:mine compares the pairs of a step with each other"
    ):
        tuned(tiny_model, "mine.py:mine", weighted(token_pairs(5)))


@pytest.mark.parametrize("name", ["aot-paired", "aot-unpaired"])
def test_transport_of_weighted_rows_is_that_of_rows_as_often_as_they_weigh(name: str) -> None:
    """Sorted and matched copy by copy; ties, weights that are no whole numbers, and gradients too."""
    rng, counts = np.random.default_rng(3), [1, 3, 1, 2, 5]
    sides = [torch.tensor(rng.normal(size=5).round(1), requires_grad=True) for _ in OBJECTIVES[name].arguments]
    gaps = sides if len(sides) == 2 else [sides[0] - sides[1], sides[2] - sides[3]]
    copies = [torch.tensor(np.repeat(gap.detach().numpy(), counts)).sort().values for gap in gaps]
    by_hand = float(torch.log1p(torch.exp(-0.5 * (copies[0] - copies[1]))).mean())
    for scale in (1.0, 0.37):
        weight_N = scale * torch.tensor(counts, dtype=torch.float32)
        loss_N = OBJECTIVES[name].loss(*sides, weight_N, beta=0.5, label_smoothing=0.0)
        assert float((weight_N * loss_N.detach()).sum() / weight_N.sum()) == pytest.approx(by_hand, rel=1e-6)
    weight_N = torch.tensor(counts, dtype=torch.float64)

    def total(*given: Tensor) -> Tensor:
        return (weight_N * OBJECTIVES[name].loss(*given, weight_N, beta=0.5, label_smoothing=0.1)).sum()

    apart = [torch.tensor(rng.normal(size=5), requires_grad=True, dtype=torch.float64) for _ in sides]
    assert torch.autograd.gradcheck(total, apart)


def test_the_kl_baseline_is_a_weighted_mean(tiny_model: Any, token_pairs: Pairs) -> None:
    rows, model, frozen = token_pairs(5), tiny_model(seed=1), compute_logprobs(tiny_model(), token_pairs(5))
    own = compute_logprobs(model, rows)
    sums = np.array([float((mine - theirs).sum()) for mine, theirs in zip(own, frozen, strict=True)])
    for sign in (1, -1):  # it is no less than 0
        reference = [mine - sign * (mine - theirs) for mine, theirs in zip(own, frozen, strict=True)]
        expected = max(0.0, sign * float((np.array(COUNTS) * sums).sum()) / (2 * sum(COUNTS)))
        found = kl_baseline(model, rows, reference, range(5), weights=np.array(COUNTS, dtype=float))
        assert float(found) == pytest.approx(expected, rel=1e-5)


@pytest.mark.usefixtures("several_passes")
def test_two_is_twice_for_imitation(tiny_model: Any, token_pairs: Pairs) -> None:
    def trained(rows: Sequence[Tokens]) -> tuple[float, Tensor]:
        model, settings = tiny_model(), Sft(batch_size=len(rows), epochs=2, learning_rate=1e-3)
        return stepped(model, lambda journal: train_sft(model, rows, settings, seed=0, journal=journal))

    rows = token_pairs(len(COUNTS), responses=1)
    loss, after = trained(weighted(rows))
    twice, after_twice = trained(repeated(rows))
    assert loss == pytest.approx(twice, rel=1e-5)
    assert loss != pytest.approx(trained(rows)[0], rel=1e-4)
    assert_same_way(after, after_twice)


def rewarded(tiny_model: Any, rows: Sequence[Tokens]) -> tuple[float, Tensor]:
    model, settings = ScalarModel(tiny_model()), Reward(batch_size=len(rows), epochs=2, learning_rate=1e-3)
    return stepped(model, lambda journal: train_reward(model, rows, settings, seed=0, journal=journal))


@pytest.mark.usefixtures("several_passes")
def test_two_is_twice_for_reward_models(tiny_model: Any, token_pairs: Pairs) -> None:
    rows = token_pairs(len(COUNTS))
    loss, after = rewarded(tiny_model, weighted(rows))
    twice, after_twice = rewarded(tiny_model, repeated(rows))
    assert loss == pytest.approx(twice, rel=1e-5)
    assert loss != pytest.approx(rewarded(tiny_model, rows)[0], rel=1e-4)
    assert_same_way(after, after_twice)


def test_a_reward_model_takes_margins_from_differences(tiny_model: Any, token_pairs: Pairs) -> None:
    margins = [0.5, -1.0, 2.0, 0.0, 3.0]
    rows = [replace(row, margin=margin) for row, margin in zip(token_pairs(5), margins, strict=True)]
    model = ScalarModel(tiny_model()).double()
    losses = []
    for row, margin in zip(rows, margins, strict=True):
        rewards = []
        for response in row.responses:
            states = model.body.base_model(input_ids=torch.tensor([[*row.prompt, *response]])).last_hidden_state
            rewards.append((states[0, -1] @ model.head.weight[0] + model.head.bias[0]).detach())
        losses.append(torch.log1p(torch.exp(-(rewards[0] - rewards[1] - margin))))
    assert rewarded(tiny_model, rows)[0] == pytest.approx(float(torch.stack(losses).mean()), rel=1e-4)
    assert rewarded(tiny_model, token_pairs(5))[0] != pytest.approx(float(torch.stack(losses).mean()), rel=1e-2)


def test_rows_on_disk_keep_their_numbers(token_pairs: Pairs) -> None:
    rows = [replace(row, margin=float(i)) for i, row in enumerate(weighted(token_pairs(5)))]
    stored = store_tokens(rows)
    assert stored == rows
    taken = stored.take(np.array([3, 1]))
    assert [(row.weight, row.margin) for row in taken] == [(2.0, 3.0), (3.0, 1.0)]
    assert [row.weight for row in stored[1:4]] == [3.0, 1.0, 2.0]
    with pytest.raises(ValueError, match="some rows have a margin"):
        store_tokens([rows[0], replace(rows[1], margin=None)])
