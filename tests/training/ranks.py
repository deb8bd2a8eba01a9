"""What tests/training/test_ranks.py runs on one rank and on two: every training, on a tiny model, in float32.

`python ranks.py LEFT OTHERS OUT` leaves, by the first rank, a file of each training's losses and weights in LEFT, and
in OUT those of the training that another number of ranks has left stopped in OTHERS.
"""

import random
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from pairtune import joining, parallel
from pairtune.data.pack import Tokens
from pairtune.engine import hidden
from pairtune.engine.examples import prepare
from pairtune.evaluation.objective import measure_examples
from pairtune.models.heads import ScalarModel
from pairtune.objectives.catalog import OBJECTIVES
from pairtune.objectives.loss import loss_of
from pairtune.settings import Reward, Sft, Tuning
from pairtune.training.checkpoint import Journal
from pairtune.training.preference import train_preference
from pairtune.training.reward import normalise, train_reward
from pairtune.training.sft import train_sft

# Steps of 4 + 4 + 1 rows: in the last one of two ranks has nothing to do.
ROWS, HOW = 9, {"batch_size": 4, "epochs": 1, "learning_rate": 1e-3}
LABELLED = ("kto", "bco")
BUDGET = 90  # tokens of a pass, so that a step takes several


def model() -> PreTrainedModel:
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "num_key_value_heads": 2}
    torch.manual_seed(0)
    made = LlamaForCausalLM(LlamaConfig(vocab_size=100, num_hidden_layers=1, max_position_embeddings=128, **sizes))
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(8.0 if parameter.dim() > 1 else 1.0)
    return made.eval()


def rows(responses: int = 2, *, numbers: bool = False) -> list[Tokens]:
    """Of unequal lengths, so that a share by number is no share by tokens."""
    chance = random.Random(3)

    def row(i: int) -> Tokens:
        prompt = (3 + i, *(chance.randrange(3, 99) for _ in range(chance.randrange(1, 12))))
        answers = [(*(chance.randrange(3, 99) for _ in range(chance.randrange(1, 25))), 1) for _ in range(responses)]
        return Tokens(prompt, tuple(answers), **({"weight": 1.0 + i % 3, "margin": i / 4} if numbers else {}))

    return [row(i) for i in range(ROWS)]


def preference(name: str, found: list[Tokens], labels: list[bool] | None = None) -> Callable[..., PreTrainedModel]:
    def train(journal: Journal) -> PreTrainedModel:
        policy, loss = model(), loss_of(name)
        examples, _ = prepare(policy, found, loss.needs, labels=labels, seed=0)
        train_preference(policy, examples, loss, Tuning(**HOW), seed=0, journal=journal)
        held = measure_examples(policy, loss, examples)
        losses = [sum(held.losses)] if loss.whole_step else held.losses  # what mixes examples has no order of its own
        journal.rows += [{"loss": each} for each in losses]
        return policy

    return train


def sft(found: list[Tokens]) -> Callable[..., PreTrainedModel]:
    def train(journal: Journal) -> PreTrainedModel:
        policy = model()
        train_sft(policy, found, Sft(**HOW), seed=0, journal=journal)
        return policy

    return train


def reward(found: list[Tokens]) -> Callable[..., ScalarModel]:
    def train(journal: Journal) -> ScalarModel:
        scorer = ScalarModel(model(), seed=0)
        train_reward(scorer, found, Reward(**HOW), seed=0, journal=journal)
        normalise(scorer, found)
        return scorer

    return train


def trainings() -> dict[str, Callable[..., Any]]:
    plain = {
        name: preference(name, rows(numbers="row_margin_B" in entry.arguments)) for name, entry in OBJECTIVES.items()
    }
    labels = [i % 3 > 0 for i in range(ROWS)]
    return {
        **plain,
        **{f"{name} of labels": preference(name, rows(1), labels) for name in LABELLED},
        "a sum": preference("kto+simpo+0.5*aot-unpaired", rows()),
        "weighted dpo": preference("dpo", rows(numbers=True)),
        "weighted kto": preference("kto", rows(numbers=True)),
        "sft": sft(rows(1)),
        "weighted sft": sft(rows(1, numbers=True)),
        "reward": reward(rows(numbers=True)),
    }


class Stopping(Journal):
    """A journal that stops a training after its second step."""

    def checkpoint(self, step: int, seconds: float, tensors: dict[str, torch.Tensor], *, stopping: bool) -> None:
        super().checkpoint(step, seconds, tensors, stopping=stopping or step == 2)


def main(folder: Path) -> None:
    """Every training, what it leaves in FOLDER; the last one stops after two steps, its checkpoint left there."""
    with joining.joined():
        for name, train in trainings().items():
            journal = Journal(name)
            keep(folder / f"{name}.safetensors", journal, train(journal))
        with suppress(KeyboardInterrupt):
            preference("bco", rows())(Stopping("bco", folder / "stopped", every=1e9))


def go_on(folder: Path, out: Path) -> None:
    """Go on with what another number of ranks has left in FOLDER."""
    with joining.joined():
        journal = Journal("bco", folder / "stopped", every=1e9)
        trained = preference("bco", rows())(journal)
        assert [row["step"] for row in journal.rows if "step" in row] == [1, 2, 3]
        keep(out, journal, trained)


def keep(file: Path, journal: Journal, trained: torch.nn.Module) -> None:
    if parallel.is_first():
        losses = torch.tensor([row["loss"] for row in journal.rows], dtype=torch.float64)
        save_file({"losses": losses, **{k: v.detach().clone() for k, v in trained.named_parameters()}}, file)


if __name__ == "__main__":
    torch.set_num_threads(1)
    hidden.TOKENS_PER_PASS["cpu"] = BUDGET
    left, goes_on, out = map(Path, sys.argv[1:])
    main(left)
    go_on(goes_on, out)
