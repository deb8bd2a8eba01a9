"""What the training tests share: random token pairs, their reference, and a way to stop a run after a step."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from pairtune.data.pack import Tokens
from pairtune.engine.reference import compute_logprobs
from pairtune.training.checkpoint import Journal

EOS = 1


def _pairs(count: int, *, seed: int = 0, responses: int = 2) -> list[Tokens]:
    """Rows of random tokens; a chosen response is made of low token ids, a rejected one of high ones."""
    chance = random.Random(seed)
    rows = []
    for i in range(count):
        prompt = (3 + i % 200, *(chance.randrange(3, 300) for _ in range(chance.randrange(1, 6))))
        ranges = ((3, 150), (150, 300))[:responses]
        rows.append(
            Tokens(
                prompt,
                tuple((*(chance.randrange(*ids) for _ in range(chance.randrange(2, 8))), EOS) for ids in ranges),
            )
        )
    return rows


@pytest.fixture(scope="session")
def token_pairs() -> Callable[..., list[Tokens]]:
    """token_pairs(count, *, seed=0, responses=2): rows whose prompts all differ."""
    return _pairs


@pytest.fixture(scope="session")
def reference_of() -> Callable[[PreTrainedModel, list[Tokens]], list[Tensor]]:
    """reference_of(model, rows): the model's own log-probabilities, before it is trained."""
    return lambda model, rows: compute_logprobs(model, rows)


@pytest.fixture(scope="session")
def weights() -> Callable[[torch.nn.Module], dict[str, Tensor]]:
    """weights(model): a copy of everything that training may change."""
    return lambda model: {name: value.detach().clone() for name, value in model.named_parameters()}


class StoppedJournal(Journal):
    """A journal that behaves as if Ctrl-C had been pressed during step `stop`."""

    def __init__(self, stage: str, folder: Path, stop: int, **others: Any) -> None:
        super().__init__(stage, folder, **others)
        self.stop = stop

    def checkpoint(self, step: int, seconds: float, tensors: Any, *, stopping: bool, **how: Any) -> None:
        super().checkpoint(step, seconds, tensors, stopping=stopping or step == self.stop, **how)


@pytest.fixture(scope="session")
def stopped_journal() -> type[StoppedJournal]:
    """stopped_journal(stage, folder, stop): raises KeyboardInterrupt after that step, its checkpoint kept."""
    return StoppedJournal
