"""What a method asks of its user: code to read, settings to tune, models in memory."""

import ast
import dataclasses
import inspect
import io
import tokenize
from collections.abc import Callable
from types import ModuleType
from typing import Any

from pairtune.engine import examples, reference, unrelated
from pairtune.models import heads
from pairtune.objectives import policy_gradient
from pairtune.objectives import reward as reward_objective
from pairtune.objectives.mixture import loss_of
from pairtune.sampling import sampler
from pairtune.settings import Ppo, Reward, Tuning
from pairtune.training import ppo, preference
from pairtune.training import reward as reward_training


@dataclasses.dataclass(frozen=True)
class Effort:
    """What one arm needs beyond what every arm shares."""

    models_in_memory: int
    settings_to_tune: list[str]
    lines_of_code: int


def effort(method: str) -> Effort:
    """Of a method by name. The reference pass of preference tuning is over before training starts: one model."""
    if method == "ppo":
        modules = (ppo, policy_gradient, sampler, reward_training, reward_objective, heads)
        names = [f"reward.{name}" for name in _fields(Reward)] + [f"ppo.{name}" for name in _fields(Ppo)]
        return Effort(4, names, sum(code_lines(module) for module in modules))
    loss = loss_of(method)
    names = _fields(Tuning)
    names += dict.fromkeys(name for term in loss.terms for name in term.parameters)
    needed = {preference: True, examples: True, reference: loss.needs_reference}
    needed |= {unrelated: "kl_baseline" in loss.arguments}
    lines = sum(code_lines(module) for module, is_needed in needed.items() if is_needed)
    lines += sum(code_lines(term.objective.loss) for term in loss.terms)
    return Effort(1, [f"preference.{name}" for name in names], lines)


def code_lines(source: ModuleType | Callable[..., Any]) -> int:
    """Lines that hold code: not blank, not a comment, not a docstring."""
    text = inspect.getsource(source)
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
