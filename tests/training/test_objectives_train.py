"""SFT, the reward model and DPO: they train, and they train what the slow way would."""

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from pairtune.data.pack import Tokens
from pairtune.engine import hidden, naive
from pairtune.engine.examples import Examples
from pairtune.engine.value_heads import score_rewards
from pairtune.models.heads import ScalarModel
from pairtune.objectives.loss import loss_of
from pairtune.settings import Reward, Sft, Tuning
from pairtune.training.checkpoint import Journal
from pairtune.training.preference import train_preference
from pairtune.training.reward import normalise, train_reward
from pairtune.training.sft import train_sft
from pairtune.training.step import Optimizer, learning_rate, step_batches

Pairs = Callable[..., list[Tokens]]
Reference = Callable[[PreTrainedModel, list[Tokens]], list[Tensor]]
Trainer = Callable[[Any, list[Tokens], Any, Journal], None]


def tune(
    model: PreTrainedModel, rows: list[Tokens], reference: list[Tensor], journal: Journal, **settings: Any
) -> None:
    examples = Examples(rows, reference=reference)
    train_preference(model, examples, loss_of("dpo"), Tuning(**settings), seed=0, journal=journal)


def test_sft_lowers_its_loss(tiny_model: Any, token_pairs: Pairs) -> None:
    journal = Journal("sft")
    settings = Sft(epochs=6, batch_size=8, learning_rate=5e-3)
    train_sft(tiny_model(spread=1.0), token_pairs(16, responses=1), settings, seed=0, journal=journal)
    losses = [row["loss"] for row in journal.rows]
    assert losses[0] == pytest.approx(math.log(300), rel=0.05)  # a fresh model knows nothing of 300 tokens
    assert losses[-1] < losses[0] - 1


def test_the_reward_model_learns_and_reads_the_chosen_side_as_better(tiny_model: Any, token_pairs: Pairs) -> None:
    journal = Journal("reward")
    model = ScalarModel(tiny_model())
    rows = token_pairs(32)
    train_reward(model, rows, Reward(epochs=5, batch_size=8, learning_rate=3e-3), seed=0, journal=journal)
    assert journal.rows[-1]["loss"] < 0.5 * journal.rows[0]["loss"]
    assert all(chosen > rejected for chosen, rejected in score_rewards(model, rows))
    assert journal.rows[-1]["accuracy"] == 1


def test_normalised_rewards_have_mean_0_and_std_1_and_keep_their_order(tiny_model: Any, token_pairs: Pairs) -> None:
    model, rows = ScalarModel(tiny_model()), token_pairs(20)
    before = torch.tensor(score_rewards(model, rows)).flatten()
    for _ in range(2):  # normalising what is normalised changes nothing
        normalise(model, rows)
        after = torch.tensor(score_rewards(model, rows)).flatten()
        assert after.mean().item() == pytest.approx(0, abs=1e-5)
        assert after.std().item() == pytest.approx(1, abs=1e-5)
    assert torch.equal(before.argsort(), after.argsort())


def test_dpos_first_loss_is_ln_2(tiny_model: Any, token_pairs: Pairs, reference_of: Reference) -> None:
    model, rows, journal = tiny_model(), token_pairs(12), Journal("dpo")
    tune(model, rows, reference_of(model, rows), journal, batch_size=4, epochs=1)
    assert journal.rows[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert journal.rows[0]["margin"] == pytest.approx(0, abs=1e-5)


def test_the_first_20_losses_are_those_of_a_plain_padded_two_pass_loop(
    tiny_model: Any, token_pairs: Pairs, reference_of: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(hidden.TOKENS_PER_PASS, "cpu", 60)  # several passes a step
    model, rows, journal = tiny_model(), token_pairs(26), Journal("dpo")
    plain, frozen = copy.deepcopy(model), copy.deepcopy(model)
    settings = Tuning(batch_size=8, epochs=5, learning_rate=3e-4)
    examples = Examples(rows, reference=reference_of(model, rows))
    train_preference(model, examples, loss_of("dpo", {"beta": 0.1}), settings, seed=7, journal=journal)

    adam = torch.optim.AdamW(plain.parameters(), weight_decay=0.0)
    batches = step_batches(len(rows), batch_size=8, epochs=5, seed=7)
    losses = []
    for number, indices in enumerate(batches, 1):
        some = [rows[i] for i in indices]
        with torch.no_grad():
            frozen_chosen, frozen_rejected = naive.pair_logprobs(frozen, some)
        chosen, rejected = naive.pair_logprobs(plain, some)
        loss = -torch.nn.functional.logsigmoid(0.1 * ((chosen - frozen_chosen) - (rejected - frozen_rejected))).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(plain.parameters(), settings.max_gradient_norm)
        how = {"peak": 3e-4, "warmup": settings.warmup}
        adam.param_groups[0]["lr"] = learning_rate(number, len(batches), **how, schedule="linear")
        adam.step()
        adam.zero_grad()
        losses.append(loss.item())
    assert len(losses) == 20
    assert [row["loss"] for row in journal.rows] == pytest.approx(losses, rel=1e-4)
    assert losses[-1] < 0.9 * losses[0]


def sft_gradients(model: Any, rows: list[Tokens], _: Any, journal: Journal) -> None:
    one = [Tokens(row.prompt, row.responses[:1]) for row in rows]
    train_sft(model, one, Sft(batch_size=len(rows)), seed=0, journal=journal)


def reward_gradients(model: Any, rows: list[Tokens], _: Any, journal: Journal) -> None:
    train_reward(ScalarModel(model), rows, Reward(batch_size=len(rows)), seed=0, journal=journal)


def preference_gradients(model: Any, rows: list[Tokens], reference: list[Tensor], journal: Journal) -> None:
    tune(model, rows, reference, journal, batch_size=len(rows))


@pytest.mark.parametrize("train", [sft_gradients, reward_gradients, preference_gradients])
def test_micro_batches_give_the_gradient_of_one_big_pack(
    train: Trainer,
    tiny_model: Any,
    token_pairs: Pairs,
    reference_of: Reference,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Normalised by the step's true counts: a mean of the groups' means would weigh a short last group too much."""
    rows = token_pairs(11)
    gathered: list[list[Tensor]] = []
    losses = []

    def keep(optimizer: Optimizer, **_: float) -> float:
        gathered.append([g.clone() for g in optimizer.gradients if g is not None])
        optimizer.gradients = [None] * len(optimizer.gradients)
        return 0.0

    monkeypatch.setattr(Optimizer, "step", keep)
    for budget in (100_000, 45):
        monkeypatch.setitem(hidden.TOKENS_PER_PASS, "cpu", budget)
        model, journal = tiny_model(), Journal("")
        train(model, rows, reference_of(model, rows), journal)
        losses.append(journal.rows[0]["loss"])
    whole, parts = (torch.cat([g.flatten() for g in gradients]).double() for gradients in gathered)
    assert ((whole - parts).norm() / whole.norm()).item() < 1e-6
    assert losses[1] == pytest.approx(losses[0], rel=1e-6)
