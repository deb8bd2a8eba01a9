"""What pairtune makes of a model's folder: through its public functions, and through the engine where there is none."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

import pairtune
from pairtune.commands import generate
from pairtune.data.pack import Tokens, pack
from pairtune.engine.logprob import token_logprobs
from pairtune.engine.path import paths_of
from pairtune.engine.self_check import check_engine, failing_in_a_line
from pairtune.engine.value_heads import score_rewards
from pairtune.models.heads import HEAD_FILE, ScalarModel, load_scalar_model
from pairtune.models.load import load_model
from pairtune.models.machine import choose_machine
from pairtune.stages import preference
from tests.survey.material import tokenizer
from tests.survey.plain import Row


def opened(folder: Path, rows: Sequence[Row], *, dtype: str) -> PreTrainedModel:
    """The folder's model as a command has it when it begins to train: loaded, and checked on the rows."""
    model = load_model(str(folder), choose_machine(dtype))
    check_engine(model, tokens(rows))
    return model


def path_of(model: PreTrainedModel) -> str:
    """The engine's path for this model: packed, padded or alone."""
    return str(paths_of(model).engine)


def tokens(rows: Sequence[Row]) -> list[Tokens]:
    """The rows as the engine takes them."""
    return [Tokens(row.prompt, row.responses) for row in rows]


def logprobs(model: PreTrainedModel, rows: Sequence[Row]) -> Tensor:
    """log π of every response token of rows that go through the model together, differentiable."""
    return token_logprobs(model, pack(tokens(rows)))


def gradients(model: PreTrainedModel, rows: Sequence[Row], weights: Tensor) -> dict[str, Tensor]:
    """Of Σ weight · log π over all response tokens, with respect to every parameter that it reaches."""
    model.zero_grad(set_to_none=True)
    with failing_in_a_line("trained"):
        (weights * logprobs(model, rows)).sum().backward()
    found = {name: p.grad.float() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    return found


@dataclass(frozen=True)
class Rewards:
    """A scalar head on a model's body: its numbers, the rewards of all responses, and those of its folder read again.

    `folder` is where it was saved, with a head beside it where transformers has no class for it (`beside`).
    """

    weight_E: Tensor
    bias: Tensor
    found: Tensor
    again: Tensor
    folder: Path
    beside: bool


def rewards(model: PreTrainedModel, rows: Sequence[Row], *, dtype: str, scratch: Path) -> Rewards:
    """A fresh head's rewards, saved and read again."""
    scalar = ScalarModel(model, seed=1)
    scalar.normalise(mean=0.5, std=0.5)
    scalar.save(scratch, tokenizer())
    again, _ = load_scalar_model(str(scratch), choose_machine(dtype))
    weight_E, bias = scalar.head.weight.detach()[0], scalar.head.bias.detach()[0]
    return Rewards(
        weight_E, bias, _scores(scalar, rows), _scores(again, rows), scratch, (scratch / HEAD_FILE).is_file()
    )


def _scores(model: ScalarModel, rows: Sequence[Row]) -> Tensor:
    return torch.tensor([reward for row in score_rewards(model, tokens(rows)) for reward in row])


@dataclass(frozen=True)
class Answer:
    """What `pairtune generate` wrote to a prompt, and the log-probabilities that it says the tokens were drawn with."""

    prompt: tuple[int, ...]
    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]


def answers(folder: Path, prompts: Sequence[str], *, dtype: str, temperature: float, scratch: Path) -> list[Answer]:
    """`pairtune generate` on a file of prompts, answered side by side."""
    scratch.mkdir()
    data = scratch / "prompts.jsonl"
    data.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts), encoding="utf-8")
    with recorded(generate, "sample") as calls:
        pairtune.generate(
            model=str(folder),
            data=str(data),
            dtype=dtype,
            seed=3,
            out=str(scratch / "answers.jsonl"),
            max_new_tokens=10,
            temperature=temperature,
        )
    ((_, given), _, samples) = calls[0]
    return [
        Answer(tuple(prompt), sample.response, sample.logprobs)
        for prompt, sample in zip(given, samples, strict=True)
    ]  # fmt: skip


@dataclass(frozen=True)
class Tuned:
    """What `pairtune tune` left: the folder, the rows it trained on, and the learning rate of each step."""

    folder: Path
    rows: list[Row]
    rates: list[float]


def tuned(folder: Path, pairs: Sequence[dict[str, str]], *, dtype: str, scratch: Path, **settings: Any) -> Tuned:
    """`pairtune tune` on a file of pairs."""
    scratch.mkdir()
    data, out = scratch / "pairs.jsonl", scratch / "tuned"
    data.write_text("".join(json.dumps(pair) + "\n" for pair in pairs), encoding="utf-8")
    with recorded(preference, "train_preference") as calls:
        pairtune.tune(model=str(folder), data=str(data), out=str(out), dtype=dtype, **settings)
    examples = calls[0][0][1]
    steps = [json.loads(line) for line in (out / "records.jsonl").read_text(encoding="utf-8").splitlines()]
    rates = [step["learning_rate"] for step in steps if "learning_rate" in step]
    return Tuned(out, [Row(tuple(row.prompt), tuple(map(tuple, row.responses))) for row in examples.rows], rates)


@contextmanager
def recorded(module: Any, name: str) -> Iterator[list[tuple[tuple[Any, ...], dict[str, Any], Any]]]:
    """Inside, every call of the module's function is noted: positional arguments, keywords, result."""
    calls: list[tuple[tuple[Any, ...], dict[str, Any], Any]] = []
    real = getattr(module, name)

    def noting(*args: Any, **kwargs: Any) -> Any:
        result = real(*args, **kwargs)
        calls.append((args, kwargs, result))
        return result

    setattr(module, name, noting)
    try:
        yield calls
    finally:
        setattr(module, name, real)
