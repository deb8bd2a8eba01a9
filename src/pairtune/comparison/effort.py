"""What a method asks of its user: code to read, settings to tune, models in memory."""

import ast
import dataclasses
import functools
import inspect
import io
import sys
import textwrap
import tokenize
from collections.abc import Callable, Collection
from types import FunctionType, ModuleType
from typing import Any

from pairtune.engine.examples import prepare
from pairtune.engine.logprob import logprobs_and_collisions
from pairtune.engine.mismatched import kl_baseline, mismatched_rows
from pairtune.engine.reference import reference_logprobs
from pairtune.grid import GRADIENTS, loss_called, samples
from pairtune.objectives.loss import loss_of
from pairtune.report.words import best_of
from pairtune.settings import Grpo, OnlinePreference, Ppo, Reward, Rloo, Tuning
from pairtune.stages.best_of import best_of as drawing
from pairtune.stages.online import online
from pairtune.stages.preference import tune
from pairtune.stages.reward import reward
from pairtune.stages.sft import sft
from pairtune.training.first_loss import check_first_loss
from pairtune.training.grouped import GroupRelative, LeaveOneOut
from pairtune.training.online_pairs import OnlinePairs
from pairtune.training.ppo import ActorCritic

Source = Callable[..., Any]  # a function or a class
# What runs in preference tuning only for an objective with such a need.
ONLY_FOR: dict[str, tuple[Source, ...]] = {
    "reference": (reference_logprobs, check_first_loss),
    "mismatched": (mismatched_rows, kl_baseline),
    "collision": (logprobs_and_collisions,),
}


@dataclasses.dataclass(frozen=True)
class Effort:
    """What one arm needs beyond what fine-tuning on demonstrations needs."""

    models_in_memory: int
    settings_to_tune: list[str]
    lines_of_code: int


def effort(method: str, *, lora: bool = False) -> Effort:
    """Of a method by name. The reference pass of preference tuning is over before training starts: one model.

    Methods that sample hold the reward model and the reference beside the policy, and PPO its value model; best of n
    the reference and the reward model.
    lora: adapters learn, and all these are one base with as many sets of them.
    """
    if samples(method):
        section, (kind, _) = "ppo" if method == "ppo" else "online", _method(method)
        own = [name for name in _fields(kind) if name not in ("objective", "parameters")]
        names = [f"reward.{name}" for name in _fields(Reward)] + [f"{section}.{name}" for name in own]
        names += [f"preference.{name}" for name in _parameters(method)]
        return Effort(1 if lora else 4 if method == "ppo" else 3, names, sum(map(code_lines, sources(method))))
    if best_of(method):
        names = [f"reward.{name}" for name in _fields(Reward)] + ["n"]
        return Effort(1 if lora else 2, names, sum(map(code_lines, sources(method))))
    names = _fields(Tuning)
    names += _parameters(method)
    return Effort(1, [f"preference.{name}" for name in names], sum(map(code_lines, sources(method))))


def _method(method: str) -> tuple[type, type]:
    """Of a method that samples: its settings, and what makes an update of its answers."""
    own = {"ppo": (Ppo, ActorCritic), "rloo": (Rloo, LeaveOneOut), "grpo": (Grpo, GroupRelative)}
    return own.get(method, (OnlinePreference, OnlinePairs))


def _parameters(method: str) -> list[str]:
    """Those of the method's objectives, each once."""
    terms = () if method in GRADIENTS else loss_called(method).terms
    return list(dict.fromkeys(name for term in terms for name in term.parameters))


def sources(method: str) -> set[Source]:
    """The functions and classes that a method's stages reach and fine-tuning on demonstrations does not."""
    if samples(method):
        losses = () if method in GRADIENTS else [term.objective.loss for term in loss_called(method).terms]
        return reached(reward, online, _method(method)[1], *losses) - reached(sft)
    if best_of(method):
        return reached(reward, drawing) - reached(sft)
    loss = loss_of(method)
    idle = {inspect.unwrap(each) for need, several in ONLY_FOR.items() if need not in loss.needs for each in several}
    return reached(prepare, tune, *(term.objective.loss for term in loss.terms), idle=idle) - reached(sft)


def reached(*roots: Source, idle: Collection[Source] = ()) -> set[Source]:
    """These functions, all of pairtune's functions and classes that they name, all that those name, and so on."""
    found: set[Source] = set()
    ahead = [inspect.unwrap(root) for root in roots]
    while ahead:
        source = ahead.pop()
        if source not in found and source not in idle:
            found.add(source)
            ahead += _named(source)
    return found


@functools.cache
def _named(source: Source) -> list[Source]:
    """What a function or a class names of pairtune's: in its module, as a part of a module, or in a table of either."""
    home = vars(sys.modules[source.__module__])
    values: list[Any] = []
    for node in ast.walk(ast.parse(_text(source))):
        if isinstance(node, ast.Name):
            value = home.get(node.id)
            values += value.values() if isinstance(value, dict) else [value]
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            module = home.get(node.value.id)
            values += [getattr(module, node.attr, None)] if isinstance(module, ModuleType) else []
    plain = [inspect.unwrap(value) for value in values if isinstance(value, FunctionType | type)]
    return [each for each in plain if each.__module__.startswith("pairtune.")]


@functools.cache
def _text(source: Source) -> str:
    return textwrap.dedent(inspect.getsource(source))


def code_lines(source: Source) -> int:
    """Lines that hold code: not blank, not a comment, not a docstring."""
    text = _text(source)
    skipped: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            skipped.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    empty = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
    used: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in empty:
            used.update(range(token.start[0], token.end[0] + 1))
    return len(used - skipped)


def _fields(kind: type) -> list[str]:
    return [field.name for field in dataclasses.fields(kind)]
