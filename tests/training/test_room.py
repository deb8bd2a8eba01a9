"""Memory that runs out in a pass: the pass is halved, that is said, and the step is done again with the same result."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from pairtune.data.pack import Pack, Tokens
from pairtune.engine import hidden, logprob
from pairtune.engine.examples import Examples
from pairtune.errors import InputError
from pairtune.models.heads import ScalarModel
from pairtune.models.load import frozen_copy
from pairtune.objectives.loss import loss_of
from pairtune.settings import Ppo, Reward, Rloo, Sampling, Sft, Tuning
from pairtune.training.checkpoint import Journal
from pairtune.training.grouped import LeaveOneOut
from pairtune.training.online import train_online
from pairtune.training.ppo import train_ppo
from pairtune.training.preference import train_preference
from pairtune.training.reward import train_reward
from pairtune.training.sft import train_sft

SAYS = (
    "[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes."
)


class Trained:
    """Each kind of training, two steps or more, on models that are always the same."""

    def __init__(self, tiny_model: Any, pairs: Any, reference_of: Any) -> None:
        self.model, self.pairs, self.reference_of = tiny_model, pairs, reference_of

    def sft(self, journal: Journal) -> nn.Module:
        model: PreTrainedModel = self.model()
        train_sft(model, self.pairs(12, responses=1), Sft(batch_size=6), seed=1, journal=journal)
        return model

    def reward(self, journal: Journal) -> nn.Module:
        model = ScalarModel(self.model())
        train_reward(model, self.pairs(12), Reward(batch_size=6), seed=1, journal=journal)
        return model

    def mixed(self, journal: Journal) -> nn.Module:
        """Of a loss that compares a step's pairs, with averages that go from step to step."""
        model, rows = self.model(), self.pairs(12)
        examples = Examples(rows, reference=self.reference_of(model, rows))
        train_preference(model, examples, loss_of("beta-dpo+bco"), Tuning(batch_size=6), seed=1, journal=journal)
        return model

    def ppo(self, journal: Journal, *, minibatches: int = 2) -> nn.Module:
        policy: PreTrainedModel = self.model()
        value, scores = ScalarModel(self.model(seed=1)), ScalarModel(self.model(seed=2))
        prompts = [row.prompt for row in self.pairs(8)]
        settings = Ppo(steps=2, batch_size=6, minibatches=minibatches)
        drawing = Sampling(max_new_tokens=4)
        others = value, scores, frozen_copy(policy)
        train_ppo(policy, *others, prompts, settings, drawing, end_ids=[1], seed=0, journal=journal)
        return policy

    def rloo(self, journal: Journal) -> nn.Module:
        policy: PreTrainedModel = self.model()
        settings = Rloo(steps=2, batch_size=8, minibatches=1, answers_per_prompt=2)
        prompts = [row.prompt for row in self.pairs(8)]
        others = ScalarModel(self.model(seed=2)), frozen_copy(policy), prompts, settings, Sampling(max_new_tokens=4)
        train_online(policy, LeaveOneOut(policy, settings), *others, end_ids=[1], seed=0, journal=journal)
        return policy

    def ppo_of_one_minibatch(self, journal: Journal) -> nn.Module:
        """Its values are computed once for sampling and learning, with their graph."""
        return self.ppo(journal, minibatches=1)


@pytest.fixture
def trained(tiny_model: Any, token_pairs: Any, reference_of: Any) -> Trained:
    return Trained(tiny_model, token_pairs, reference_of)


@pytest.fixture
def only(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """only(tokens): from here on an allocator has no room for a pass of more, which it says once some are gathered."""

    whole, room = hidden.packed_hidden_states, [10**9]

    def limited(model: PreTrainedModel, pack: Pack) -> Tensor:
        found = whole(model, pack)
        if torch.is_grad_enabled() and len(pack.tokens_T) > room[0]:
            found.sum().backward()  # some gradients have been gathered when it ends
            raise RuntimeError(SAYS)
        return found

    def plant(most: int) -> None:
        room[0] = most

    monkeypatch.setattr(hidden, "packed_hidden_states", limited)
    monkeypatch.setattr(logprob, "packed_hidden_states", limited)
    return plant


def figures(journal: Journal) -> list[dict[str, float]]:
    return [{name: value for name, value in row.items() if isinstance(value, float)} for row in journal.rows]


@pytest.mark.parametrize(
    ("how", "room"),
    [("sft", 45), ("reward", 45), ("mixed", 45), ("ppo", 20), ("ppo_of_one_minibatch", 20), ("rloo", 40)],
)
def test_the_step_is_done_again_in_smaller_passes_with_the_same_result(
    how: str, room: int, trained: Trained, only: Callable[[int], None], capsys: pytest.CaptureFixture[str]
) -> None:
    expected, found = Journal("whole"), Journal("halved")
    before = getattr(trained, how)(expected)
    capsys.readouterr()
    only(room)
    after = getattr(trained, how)(found)
    said = [line for line in capsys.readouterr().err.splitlines() if "memory ran out" in line]
    assert 1 <= len(said) <= 3, said
    assert "the step is done again, and from here on a pass has at most" in said[0]
    for one, other in zip(figures(expected), figures(found), strict=True):
        del one["seconds"], other["seconds"]
        assert other == pytest.approx(one, rel=1e-5, abs=1e-6)
    for value, same in zip(before.parameters(), after.parameters(), strict=True):
        torch.testing.assert_close(same, value, rtol=1e-4, atol=2e-6)
    assert hidden.passes_held() == 0, "another training begins with as many tokens as ever"


def test_a_resumed_run_keeps_to_what_memory_had_room_for(
    trained: Trained,
    only: Callable[[int], None],
    stopped_journal: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    only(45)
    with pytest.raises(KeyboardInterrupt):
        trained.sft(stopped_journal("sft", tmp_path, 1))
    only(10**9)  # there is room again
    capsys.readouterr()
    held: list[int] = []
    counted = Journal.checkpoint
    monkeypatch.setattr(
        Journal, "checkpoint", lambda *given, **named: (held.append(hidden.passes_held()), counted(*given, **named))[1]
    )
    trained.sft(Journal("sft", tmp_path))
    assert held
    assert 0 < held[0] <= 45
    assert "memory ran out" not in capsys.readouterr().err


def test_a_row_that_does_not_fit_by_itself_is_one_line(trained: Trained, only: Callable[[int], None]) -> None:
    only(5)
    with pytest.raises(InputError, match=r"in a pass of one row of \d+ tokens, which cannot be parted"):
        trained.sft(Journal("sft"))
    assert hidden.passes_held() == 0


def test_another_error_is_none_of_memory(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(model: PreTrainedModel, pack: Pack) -> Tensor:
        raise ValueError("something else")

    monkeypatch.setattr(logprob, "packed_hidden_states", fails)
    with pytest.raises(Exception, match="something else"):
        trained.sft(Journal("sft"))


def test_passes_of_as_many_tokens_as_are_asked_for(token_pairs: Callable[..., list[Tokens]]) -> None:
    rows, device = token_pairs(8), torch.device("cpu")
    assert len(hidden.passes(rows, device)) == 1
    with hidden.passes_of(1):
        assert [len(group) for group in hidden.passes(rows, device)] == [1] * 8
    assert len(hidden.passes(rows, device)) == 1
