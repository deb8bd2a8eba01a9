"""What tests/training/test_ranks.py runs on one rank and on two: every training, on a tiny model, in float32.

`python ranks.py LEFT OTHERS OUT` leaves, by the first rank, a file of each training's losses and weights in LEFT, and
in OUT those of the trainings that another number of ranks has left stopped in OTHERS.
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
from pairtune.engine.logprob import idle_pass
from pairtune.engine.self_check import check_engine
from pairtune.engine.sharded import sharded
from pairtune.evaluation.objective import measure_examples
from pairtune.models import adapters
from pairtune.models.heads import ScalarModel
from pairtune.objectives.catalog import OBJECTIVES
from pairtune.objectives.loss import loss_of
from pairtune.settings import Adapting, Reward, Sft, Tuning
from pairtune.training.checkpoint import Journal
from pairtune.training.preference import train_preference
from pairtune.training.reward import normalise, train_reward
from pairtune.training.sft import train_sft
from pairtune.training.step import optimizer_of

# Steps of 4 + 4 + 1 rows: in the last one of two ranks has nothing to do.
ROWS, HOW = 9, {"batch_size": 4, "epochs": 1, "learning_rate": 1e-3}
LABELLED = ("kto", "bco")
Model = Callable[[], PreTrainedModel]
BUDGET = 90  # tokens of a pass, so that a step takes several


def model(layers: int = 1, **how: Any) -> PreTrainedModel:
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "num_key_value_heads": 2}
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=101, num_hidden_layers=layers, max_position_embeddings=128, **sizes, **how)
    made = LlamaForCausalLM(config)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(8.0 if parameter.dim() > 1 else 1.0)
    return made.eval()


def tied() -> PreTrainedModel:
    return model(2, tie_word_embeddings=True)


def adapted(dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    policy = tied().to(dtype)
    adapters.adapt(policy, Adapting(lora=True, lora_rank=4), base="", seed=0)
    return policy


def checked(policy: PreTrainedModel, found: list[Tokens]) -> PreTrainedModel:
    """As commands do it, before anything learns."""
    check_engine(policy, found, quiet=True)
    return policy


def rows(responses: int = 2, *, numbers: bool = False) -> list[Tokens]:
    """Of unequal lengths, so that a share by number is no share by tokens."""
    chance = random.Random(3)

    def row(i: int) -> Tokens:
        prompt = (3 + i, *(chance.randrange(3, 99) for _ in range(chance.randrange(1, 12))))
        answers = [(*(chance.randrange(3, 99) for _ in range(chance.randrange(1, 25))), 1) for _ in range(responses)]
        return Tokens(prompt, tuple(answers), **({"weight": 1.0 + i % 3, "margin": i / 4} if numbers else {}))

    return [row(i) for i in range(ROWS)]


def preference(
    name: str, found: list[Tokens], labels: list[bool] | None = None, *, of: Model = model, shard: str = "never"
) -> Callable[..., PreTrainedModel]:
    def train(journal: Journal) -> PreTrainedModel:
        policy, loss = checked(of(), found), loss_of(name)
        examples, _ = prepare(policy, found, loss.needs, labels=labels, seed=0)
        with sharded(policy, shard) as learner:
            train_preference(learner, examples, loss, Tuning(**HOW), seed=0, journal=journal)
        held = measure_examples(policy, loss, examples)
        losses = [sum(held.losses)] if loss.whole_step else held.losses  # what mixes examples has no order of its own
        journal.rows += [{"loss": each} for each in losses]
        return policy

    return train


def sft(found: list[Tokens], *, of: Model = model, shard: str = "never") -> Callable[..., PreTrainedModel]:
    def train(journal: Journal) -> PreTrainedModel:
        policy = checked(of(), found)
        with sharded(policy, shard) as learner:
            train_sft(learner, found, Sft(**HOW), seed=0, journal=journal)
        return policy

    return train


def reward(found: list[Tokens], *, of: Model = model, shard: str = "never") -> Callable[..., ScalarModel]:
    def train(journal: Journal) -> ScalarModel:
        scorer = ScalarModel(checked(of(), found), seed=0)
        with sharded(scorer, shard) as learner:
            train_reward(learner, found, Reward(**HOW), seed=0, journal=journal)
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


def parted() -> dict[str, Callable[..., Any]]:
    """Trainings whose weights lie in parts on several ranks, one of each kind."""
    labels, how = [i % 3 > 0 for i in range(ROWS)], {"shard": "always" if parallel.working() > 1 else "never"}
    return {
        "parted dpo": preference("dpo", rows(), of=lambda: model(2), **how),
        "parted aot, tied": preference("aot-paired", rows(), of=tied, **how),
        "parted kto of labels": preference("kto", rows(1), labels, of=lambda: model(2), **how),
        "parted dpo of adapters": preference("dpo", rows(), of=adapted, **how),
        "parted sft, tied": sft(rows(1), of=tied, **how),
        "parted reward": reward(rows(numbers=True), of=lambda: model(2), **how),
        "parted reward of adapters": reward(rows(), of=adapted, **how),
        # in bfloat16 rows give other numbers in other packs: it is right up to that
        "parted reward of adapters in bfloat16": reward(rows(), of=lambda: adapted(torch.bfloat16), **how),
        "parted reward in bfloat16": reward(rows(), of=lambda: tied().bfloat16(), **how),
        "parted sft in bfloat16": sft(rows(1), of=lambda: tied().bfloat16(), **how),
    }


class Stopping(Journal):
    """A journal that stops a training after its second step."""

    def checkpoint(self, step: int, seconds: float, tensors: Any, *, stopping: bool, **how: Any) -> None:
        super().checkpoint(step, seconds, tensors, stopping=stopping or step == 2, **how)


def stopped() -> dict[str, Callable[..., Any]]:
    """Those of them that are stopped, and gone on with by another number of ranks."""
    return {"bco": trainings()["bco"], "parted dpo": parted()["parted dpo"]}


def main(folder: Path) -> None:
    """Every training, what it leaves in FOLDER; some stop after two steps, their checkpoints left there."""
    with joining.joined():
        for name, train in (trainings() | parted()).items():
            journal = Journal(name)
            keep(folder / f"{name}.safetensors", journal, train(journal))
        for name, train in stopped().items():
            with suppress(KeyboardInterrupt):
                train(Stopping(name, folder / "stopped" / name, every=1e9))
        save_bytes(folder / "bytes.json")


def go_on(folder: Path, out: Path) -> None:
    """Go on with what another number of ranks has left in FOLDER."""
    with joining.joined():
        for name, train in stopped().items():
            journal = Journal(name, folder / "stopped" / name, every=1e9)
            trained = train(journal)
            assert [row["step"] for row in journal.rows if "step" in row] == [1, 2, 3]
            keep(out / f"{name} went on.safetensors", journal, trained)


def save_bytes(file: Path) -> None:
    """What a rank holds of weights, gradients, masters and moments after a pass, the most of any."""
    policy = checked(model(2), rows())
    with sharded(policy, "always" if parallel.working() > 1 else "never") as learner:
        optimizer = optimizer_of(learner, Tuning())
        idle_pass(learner, rows()[0])
        tensors = [*optimizer.own, *optimizer.masters, *optimizer.means, *optimizer.squares, *optimizer.gradients]
        unlike = {value.data_ptr(): value.nbytes for value in tensors if value is not None}
        held = parallel.of_all(
            sum(unlike.values()) + sum(value.nbytes for value in policy.parameters()) * (learner is not policy)
        )
    if parallel.is_first():
        file.write_text(str(max(held)))


def keep(file: Path, journal: Journal, trained: torch.nn.Module) -> None:
    if parallel.is_first():
        figures = {  # Adam hardly sees how long a gradient is: its norm says it
            name: torch.tensor([row[key] for row in journal.rows if key in row], dtype=torch.float64)
            for name, key in (("losses", "loss"), ("norms", "gradient_norm"))
        }
        learned = {k: v.detach().clone() for k, v in trained.named_parameters() if v.requires_grad}
        save_file(figures | learned, file)


if __name__ == "__main__":
    torch.set_num_threads(1)
    hidden.TOKENS_PER_PASS["cpu"] = BUDGET
    left, goes_on, out = map(Path, sys.argv[1:])
    main(left)
    go_on(goes_on, out)
