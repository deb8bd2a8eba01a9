"""What a comparison trains: each method at every combination of the values given for its parameters."""

import dataclasses
import itertools
from collections.abc import Mapping
from dataclasses import dataclass

from pairtune.errors import InputError
from pairtune.objectives.mixture import Loss, loss_of
from pairtune.settings import CompareRun, Ppo, PpoBase


@dataclass(frozen=True)
class Candidate:
    """One method at one setting of its parameters: a loss, or PPO.

    `name` is the method's own where nothing is to be chosen, else it tells the candidates apart: dpo@beta=0.1.
    """

    method: str
    name: str
    how: Loss | Ppo

    @property
    def parameters(self) -> dict[str, float]:
        """Every parameter and its value; of PPO, the one that a comparison may vary."""
        if isinstance(self.how, Ppo):
            return {"kl_coefficient": self.how.kl_coefficient}
        return {key: value for term in self.how.terms for key, value in term.parameters.items()}


def candidates(settings: CompareRun) -> dict[str, list[Candidate]]:
    """The candidates of each method, in the order of the values given.

    A value meant for no method in particular goes to every method that has the parameter and no values of its own.
    Raises InputError for a method that is not known, a parameter that it does not have, or a value out of bounds.
    """
    try:
        known = {method: loss_of(method, others=["ppo"]) for method in settings.methods if method != "ppo"}
        has = {method: [key for term in loss.terms for key in term.parameters] for method, loss in known.items()}
        _check_names(settings, has)
        found = {}
        for method in settings.methods:
            if method == "ppo":
                found[method] = _of_ppo(settings)
            else:
                given = settings.preference.parameters
                values = {key: given[key].get(method) or given[key].get("") for key in given if key in has[method]}
                found[method] = _of_loss(method, {key: each for key, each in values.items() if each})
        return found
    except ValueError as error:
        raise InputError(f"methods: {error}") from error


def _of_loss(method: str, values: Mapping[str, tuple[float, ...]]) -> list[Candidate]:
    varied = [key for key, each in values.items() if len(each) > 1]
    made = []
    for combination in itertools.product(*values.values()):
        parameters = dict(zip(values, combination, strict=True))
        made.append(
            Candidate(method, _name(method, {key: parameters[key] for key in varied}), loss_of(method, parameters))
        )
    return made


def _of_ppo(settings: CompareRun) -> list[Candidate]:
    fixed = {each.name: getattr(settings.ppo, each.name) for each in dataclasses.fields(PpoBase)}
    weights = settings.ppo.kl_coefficient
    if len(set(weights)) < len(weights):
        raise ValueError("ppo.kl_coefficient names a value twice")
    return [
        Candidate("ppo", _name("ppo", {"kl_coefficient": weight} if len(weights) > 1 else {}), how)
        for weight in weights
        for how in [Ppo(**fixed, kl_coefficient=weight)]
    ]


def _name(method: str, varied: Mapping[str, float]) -> str:
    return "@".join([method, *(f"{key}={value:.10g}" for key, value in varied.items())])


def _check_names(settings: CompareRun, has: Mapping[str, list[str]]) -> None:
    """Every parameter is some method's, and every method that values are meant for has it."""
    for key, values in settings.preference.parameters.items():
        if not any(key in names for names in has.values()):
            known = "; ".join(f"{name} has {', '.join(names) or 'none'}" for name, names in has.items())
            raise ValueError(f'no method has a parameter "{key}": {known or "ppo has its own settings"}')
        for method, each in values.items():
            if method and key not in has.get(method, []):
                raise ValueError(f'{key} has values for "{method}", which is no method of this run that has it')
            if len(set(each)) < len(each):
                raise ValueError(f"{key} names a value twice")
