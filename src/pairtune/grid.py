"""What a comparison trains: each method at every combination of the values given for its parameters."""

import dataclasses
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from pairtune.errors import InputError
from pairtune.objectives.loss import Loss, loss_of, online_loss_of, short
from pairtune.report.words import best_of, varied
from pairtune.runs import CompareRun, OnlineRun, PpoRun
from pairtune.settings import Grpo, Online, OnlinePreference, Ppo, Rloo, Values

# The methods that need a reward model and have settings of their own, and how one is called that samples its pairs.
GRADIENTS = ("ppo", "rloo", "grpo")
ONLINE = "online-"
# To one prompt, of best-of-n.
MOST_ANSWERS = 1024


@dataclass(frozen=True)
class BestOf:
    """No training: of so many answers of the reference the one that the reward model scores highest."""

    answers: int


How = Loss | Online | BestOf


@dataclass(frozen=True)
class Candidate:
    """One method at one setting of its parameters: a loss, how sampled answers are learned from, or chosen among.

    `name` is the method's own where nothing is to be chosen, else it tells the candidates apart: dpo@beta=0.1.
    """

    method: str
    name: str
    how: How

    @property
    def parameters(self) -> dict[str, float]:
        """Every parameter and its value; of a policy gradient, the one that a comparison may vary."""
        if isinstance(self.how, BestOf):
            return {}
        if isinstance(self.how, Ppo | Rloo | Grpo):
            return {"kl_coefficient": self.how.kl_coefficient}
        found: dict[str, dict[str, float]] = {}
        for term in loss_in(self.how).terms:
            for key, value in term.parameters.items():
                found.setdefault(key, {})[term.objective.name] = value
        # Terms of a sum may have defaults of their own: simpo.beta beside dpo.beta.
        named = [
            {key: min(of.values())} if len(set(of.values())) == 1 else {f"{name}.{key}": of[name] for name in of}
            for key, of in found.items()
        ]
        return {key: value for each in named for key, value in each.items()}


def samples(method: str) -> bool:
    """Whether a method learns from answers that it samples, and so needs something that scores them."""
    return method in GRADIENTS or method.startswith(ONLINE)


def rewarded(method: str) -> bool:
    """Whether a method needs a reward model."""
    return samples(method) or best_of(method) > 0


def loss_in(how: How) -> Loss:
    """The loss of a method that has one: on given pairs, or on pairs that are sampled."""
    if isinstance(how, OnlinePreference):
        return online_loss_of(how.objective, how.parameters)
    assert isinstance(how, Loss)
    return how


def loss_called(method: str, given: Mapping[str, float] | None = None) -> Loss:
    """The loss of a method with a loss, by the method's name."""
    others = [*GRADIENTS, f"{ONLINE}dpo", "best-of-4"]
    if method.startswith(ONLINE):
        return online_loss_of(method.removeprefix(ONLINE), given, others=others)
    return loss_of(method, given, others=others)


def check_groups(settings: OnlineRun | CompareRun) -> None:
    """Raises InputError if a step's answers are no whole number of prompts with as many answers each."""
    if isinstance(settings, PpoRun) or (
        isinstance(settings, CompareRun) and not any(samples(each) for each in settings.methods if each != "ppo")
    ):
        return
    parts = (getattr(settings, name, None) for name in ("rloo", "grpo", "online"))
    part = next(each for each in parts if each is not None)
    size, each = part.batch_size, part.answers_per_prompt
    if size % each:
        name = "online_batch_size" if isinstance(settings, CompareRun) else "batch_size"
        raise InputError(
            f"{name} is {size} answers in a step, which is no multiple of the {each} answers to a prompt; give "
            f"{max(size - size % each, each)} or {size + each - size % each}"
        )


def candidates(settings: CompareRun) -> dict[str, list[Candidate]]:
    """The candidates of each method, in the order of the values given.

    A value meant for no method in particular goes to every method that has the parameter and no values of its own.
    Raises InputError for a method that is not known, a parameter that it does not have, or a value out of bounds.
    """
    try:
        asked = {short(method): method for method in settings.methods}
        if len(asked) < len(set(settings.methods)):
            raise ValueError(f"two of {', '.join(settings.methods)} have one name; results are told apart by it")
        known = {
            method: loss_called(name)
            for method, name in asked.items()
            if method not in GRADIENTS and not best_of(method)
        }
        has = {method: [key for term in loss.terms for key in term.parameters] for method, loss in known.items()}
        given = {
            key: {short(method): values for method, values in of.items()}
            for key, of in settings.preference.parameters.items()
        }
        _check_names(given, has)
        found = {}
        for method in asked:
            if method in GRADIENTS:
                found[method] = _of_gradient(method, settings)
            elif answers := best_of(method):
                found[method] = [Candidate(method, method, _best_of(method, answers))]
            else:
                values = {key: given[key].get(method) or given[key].get("") for key in given if key in has[method]}
                tried = {key: each for key, each in values.items() if each}
                found[method] = _at_each(method, tried, partial(_with_loss, asked[method], settings))
            names = [candidate.name for candidate in found[method]]
            if len(set(names)) < len(names):
                raise ValueError(f"a parameter of {method} has a value twice")
        return found
    except ValueError as error:
        raise InputError(f"methods: {error}") from error


def chooses(found: Mapping[str, list[Candidate]]) -> bool:
    """Whether any method has several candidates, of which one is to be chosen."""
    return any(len(several) > 1 for several in found.values())


def _with_loss(method: str, settings: CompareRun, parameters: dict[str, float]) -> Loss | Online:
    if not method.startswith(ONLINE):
        return loss_called(method, parameters)
    loss_called(method, parameters)  # a value out of bounds is told of here
    fixed = _fixed(settings.online, OnlinePreference)
    return OnlinePreference(**fixed | {"objective": method.removeprefix(ONLINE), "parameters": parameters})


def _best_of(method: str, answers: int) -> BestOf:
    if method != f"best-of-{answers}" or not 2 <= answers <= MOST_ANSWERS:
        raise ValueError(f"{method}: the best is taken of 2 to {MOST_ANSWERS:,} answers, as in best-of-4")
    return BestOf(answers)


def _fixed(section: Any, kind: type) -> dict[str, Any]:
    """What a comparison's section says of the settings of one of its methods."""
    names = [each.name for each in dataclasses.fields(kind)]
    return {name: getattr(section, name) for name in names if hasattr(section, name)}


def _of_gradient(method: str, settings: CompareRun) -> list[Candidate]:
    section: Any = settings.ppo if method == "ppo" else settings.online
    kinds: dict[str, type[Ppo | Rloo | Grpo]] = {"ppo": Ppo, "rloo": Rloo, "grpo": Grpo}
    kind = kinds[method]
    fixed = _fixed(section, kind)
    values = {"kl_coefficient": section.kl_coefficient}
    return _at_each(method, values, lambda parameters: kind(**(fixed | parameters)))


def _at_each(
    method: str, values: Mapping[str, tuple[float, ...]], make: Callable[[dict[str, float]], How]
) -> list[Candidate]:
    """A method at every combination of the values, named by what tells them apart."""
    combinations = [dict(zip(values, each, strict=True)) for each in itertools.product(*values.values())]
    names = varied(combinations)
    return [
        Candidate(method, "@".join([method, *(f"{name}={each[name]:.10g}" for name in names)]), make(each))
        for each in combinations
    ]


def _shown(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:.10g}" for value in values)


def _check_names(given: Mapping[str, Values], has: Mapping[str, list[str]]) -> None:
    """Every value is tried by some method: none is meant for an absent method, or for no method."""
    for key, values in given.items():
        if not any(key in names for names in has.values()):
            known = "; ".join(f"{name} has {', '.join(names) or 'none'}" for name, names in has.items())
            raise ValueError(
                f'no method has a parameter "{key}": {known or "ppo, rloo and grpo have their own settings"}'
            )
        for method in values:
            if method and key not in has.get(method, []):
                raise ValueError(f'{key} has values for "{method}", which is no method of this run that has it')
        takers = [method for method, names in has.items() if key in names]
        if "" in values and all(method in values for method in takers):
            raise ValueError(f"{key}: {', '.join(takers)} has values of its own; {_shown(values[''])} is for no method")
