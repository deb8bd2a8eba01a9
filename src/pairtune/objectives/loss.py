"""The loss that is trained: one objective, or a weighted sum of several, with its parameters settled.

A single objective is a sum of one, so there is one case only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pairtune import own
from pairtune.hints import nearest
from pairtune.objectives.catalog import OBJECTIVES
from pairtune.objectives.objective import WEIGHTS, Objective
from pairtune.objectives.own import objective_of

if TYPE_CHECKING:
    from torch import Tensor

_TERM = re.compile(r"(?:(\d+\.?\d*|\.\d+)\*)?([A-Za-z][\w-]*|[^*]+:\w+)\Z")
# The objectives of people's own files that were asked for, by name and by short name.
OWN: dict[str, Objective] = {}


@dataclass(frozen=True)
class Term:
    """One objective of a loss, its weight, and a value for each of its parameters."""

    weight: float
    objective: Objective
    parameters: Mapping[str, float]


@dataclass(frozen=True)
class Loss:
    """Σ weight·objective: called with the tensors that `arguments` names, it returns [B]."""

    terms: tuple[Term, ...]

    @cached_property
    def arguments(self) -> tuple[str, ...]:
        """Every tensor that any term takes, once."""
        return tuple(dict.fromkeys(name for term in self.terms for name in term.objective.arguments))

    @property
    def needs(self) -> frozenset[str]:
        """What any term needs besides log π, as `Objective.needs` has it."""
        return frozenset().union(*(term.objective.needs for term in self.terms))

    @property
    def whole_step(self) -> bool:
        """Whether any term mixes the examples of a step."""
        return any(term.objective.whole_step for term in self.terms)

    @property
    def takes_labels(self) -> bool:
        """Whether single responses with labels are enough for every term."""
        return all(term.objective.unpaired for term in self.terms)

    def __call__(self, quantities: Mapping[str, Tensor], *, paired: bool = True) -> Tensor:
        """One loss per pair [B]; per response where the data are single ones (`paired` False)."""
        first, *rest = self.weighted(quantities, paired=paired).values()
        return sum(rest, first)

    def weighted(self, quantities: Mapping[str, Tensor], *, paired: bool = True) -> dict[str, Tensor]:
        """Each term of the sum [B], its weight included, by what it is called in the sum: "dpo", "0.2*sft"."""
        found = {}
        for term in self.terms:
            given: dict[str, Any] = dict(term.parameters)
            if term.objective.weighs and WEIGHTS in quantities:
                given[WEIGHTS] = quantities[WEIGHTS]
            loss = term.objective.loss(*(quantities[name] for name in term.objective.arguments), **given)
            if paired and term.objective.unpaired:
                loss = loss.view(-1, 2).mean(1)
            name = term.objective.name
            found[name if term.weight == 1 else f"{term.weight:g}*{name}"] = term.weight * loss
        return found

    def to_json(self) -> dict[str, dict[str, Any]]:
        """Each objective's weight and parameters, by its name; of a person's own function also its hash."""
        return {
            term.objective.name: {"weight": term.weight, **term.parameters}
            | ({"sha256": term.objective.sha256} if term.objective.own else {})
            for term in self.terms
        }


def loss_of(name: str, given: Mapping[str, float] | None = None, *, others: Iterable[str] = ()) -> Loss:
    """The loss called `name`: an objective of the catalogue, or a sum such as "dpo+0.2*sft".

    A parameter goes to each objective of the sum that has it; those not given have the objective's own default.
    `others` are names that may have been meant. Raises ValueError, one line, for an unknown objective, one named twice,
    a parameter that none has or one out of bounds.
    """
    given = given or {}
    parts = [_TERM.match(part.strip()) for part in name.split("+")]
    named = [(float(part[1] or 1), find(part[2], others)) for part in parts if part]
    if len(named) < len(parts):
        raise ValueError(f'"{name}" is no objective and no sum such as dpo+0.2*sft')
    if not all(weight for weight, _ in named):
        raise ValueError(f'"{name}" has an objective of weight 0, by which nothing is trained; leave it out')
    objectives = [objective for _, objective in named]
    if len({objective.name for objective in objectives}) < len(objectives):
        raise ValueError(f'"{name}" names an objective twice; add up its weights')
    for key, value in given.items():
        _check(key, value, name, objectives)
    return Loss(tuple(Term(weight, objective, _settled(objective, given)) for weight, objective in named))


# What is known of a pair that was just sampled.
OF_PAIRS = {"chosen_logratio_B", "rejected_logratio_B"}


def online_loss_of(name: str, given: Mapping[str, float] | None = None, *, others: Iterable[str] = ()) -> Loss:
    """The same for pairs that are sampled from the policy as it trains. Raises ValueError if it needs more of them."""
    loss = loss_of(name, given, others=others)
    for term in loss.terms:
        if more := sorted(set(term.objective.arguments) - OF_PAIRS):
            able = [each.name for each in OBJECTIVES.values() if set(each.arguments) <= OF_PAIRS]
            raise ValueError(
                f"{term.objective.name} needs more of a pair than its log-ratios ({more[0]}), and of sampled pairs no "
                f"more is known; give one of {', '.join(able)}"
            )
    return loss


def find(name: str, others: Iterable[str] = ()) -> Objective:
    """One objective, of the catalogue or of a person's own file.

    Raises ValueError with the nearest name, or all of them if none is near; InputError of a file that cannot be used.
    """
    if name in OBJECTIVES or name in OWN:
        return OBJECTIVES.get(name) or OWN[name]
    if own.is_own(name):
        return load_own(name)
    near = nearest(name, [*others, *OBJECTIVES])
    hint = f'did you mean "{near}"?' if near else f"the catalogue has {', '.join(OBJECTIVES)}"
    raise ValueError(f'there is no objective "{name}"; {hint}')


def load_own(name: str) -> Objective:
    """An objective of a person's own file as it now is; from then on `find` knows it, by its short name too."""
    if name not in OWN or OWN[name].sha256 != own.sha256(name):
        OWN[name] = objective_of(name)
    OWN[own.short(name)] = OWN[name]
    return OWN[name]


def own_names(name: str) -> list[str]:
    """The terms of a sum that are functions of a person's own."""
    terms = [_TERM.match(part.strip()) for part in name.split("+")]
    return [term[2] for term in terms if term and own.is_own(term[2])]


def short(name: str) -> str:
    """A sum, its own functions without the folders of their files: what its result is called."""
    for each in own_names(name):
        name = name.replace(each, own.short(each))
    return name


def known() -> dict[str, Objective]:
    """Every objective there is, by its name: the catalogue's, and those of people's own files that were asked for."""
    return OBJECTIVES | {objective.name: objective for objective in OWN.values()}


def _settled(objective: Objective, given: Mapping[str, float]) -> dict[str, float]:
    return {key: given.get(key, parameter.default) for key, parameter in objective.parameters.items()}


def _check(key: str, value: float, name: str, objectives: Iterable[Objective]) -> None:
    known = {each: parameter for objective in objectives for each, parameter in objective.parameters.items()}
    if key not in known:
        has = f"its parameters are {', '.join(known)}" if known else "it has none"
        raise ValueError(f'{name} has no parameter "{key}"; {has}')
    for objective in objectives:
        trouble = objective.parameters[key].trouble(value) if key in objective.parameters else None
        if trouble:
            raise ValueError(f"{key} is {value:g}; for {objective.name} it must be {trouble}")
