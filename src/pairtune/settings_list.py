"""The settings of a command as people know them: one list, from which flags, `--config` and help are made.

A section's settings are named with the section before them (`ppo_steps`, `--ppo-steps`), except those of the
command's main section, which stand alone (`beta`, `--beta`). The parameters of the objectives in the catalogue are
settings too: each objective has its own, with its own defaults.
"""

import dataclasses
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from pairtune.objectives.loss import known
from pairtune.runs import (
    CompareRun,
    EvaluateRun,
    GenerateRun,
    GrpoRun,
    Merging,
    OnlineDpoRun,
    PpoRun,
    RewardRun,
    RlooRun,
    Run,
    SampleRun,
    SftRun,
    TuneRun,
)
from pairtune.settings import NUMBER, Values

# The section of each command whose settings stand alone.
MAIN_SECTION: dict[type, str] = {
    SftRun: "sft",
    RewardRun: "reward",
    TuneRun: "preference",
    PpoRun: "ppo",
    RlooRun: "rloo",
    GrpoRun: "grpo",
    OnlineDpoRun: "online",
    GenerateRun: "sampling",
    SampleRun: "sampling",
    EvaluateRun: "evaluation",
    CompareRun: "preference",
}

# Titles of groups in the help that are no section's; within `--help` the groups stand in the order of their ranks.
COMMON, PARAMETERS, DATA = "common settings", "parameters of objectives, [of which: with which default]", "data"


@dataclass(frozen=True)
class Setting:
    """One setting of a command: where it lies (`ppo.steps`), what people call it (`ppo_steps`), its type and bounds.

    `value` is what the help calls its value; `group` the title it stands under there, in the order of `rank`. A
    parameter of objectives has no default and no bounds here: each objective has its own.
    """

    key: str
    name: str
    kind: Any
    meaning: str
    default: Any
    group: str
    rank: int
    value: str = NUMBER
    above: float | None = None
    least: float | None = None
    most: float | None = None
    choices: tuple[str, ...] = ()


def settings_of(command: type) -> list[Setting]:
    """Every setting of a command, in the order of its class."""
    return list(_settings_of(command, command, ""))


def _settings_of(command: type, section: type, prefix: str) -> Iterator[Setting]:
    for entry in dataclasses.fields(section):
        if entry.metadata.get("internal"):
            continue
        kind = _hints(section)[entry.name]
        if dataclasses.is_dataclass(kind):
            yield from _settings_of(command, typing.cast(type, kind), f"{prefix}{entry.name}.")
        elif is_parameters(kind):
            value_kind = typing.get_args(kind)[1]
            for name, meaning in parameters().items():
                key = prefix + name
                yield Setting(key, _name(command, key), value_kind, meaning, None, PARAMETERS, 1)
        else:
            key = prefix + entry.name
            given = {name: entry.metadata[name] for name in ("value", "above", "least", "most", "choices")}
            title, rank = _group(command, section, entry)
            meaning = entry.metadata["help"]
            yield Setting(key, _name(command, key), kind, meaning, entry.default, title, rank, **given)


@cache
def _hints(section: type) -> dict[str, Any]:
    """The types of a class's fields: slow to find, and asked for at every setting."""
    return typing.get_type_hints(section)


def _group(command: type, section: type, entry: "dataclasses.Field[Any]") -> tuple[str, int]:
    """The group of a setting in the help, and its rank: common ones, the main section, data, others, `Run`'s."""
    if entry.metadata["common"]:
        return COMMON, 0
    for rank, part in ((4, Merging), (5, Run)):
        if entry.name in part.__dataclass_fields__ and section is command:
            return _title(part), rank
    if section is command:
        return DATA, 3
    main = _hints(command)[MAIN_SECTION[command]]
    return _title(section), 2 if section is main else 4


def _title(section: type) -> str:
    """The first line of its docstring, as a title."""
    words = (section.__doc__ or "").partition("\n")[0].rstrip(".")
    return words if words[:2].isupper() else words[:1].lower() + words[1:]


def is_parameters(kind: Any) -> bool:
    """Whether a field of this type holds an objective's parameters."""
    return typing.get_origin(kind) is Mapping and kind != Values


def _name(command: type, key: str) -> str:
    return key.removeprefix(f"{MAIN_SECTION.get(command, '')}.").replace(".", "_")


def parameters() -> dict[str, str]:
    """Every parameter that an objective has, and its meanings, a line each, with who takes it so and the default.

    "weight of KL(π‖π_ref) [dpo, cdpo: 0.1; dpop: 0.3]" is one.
    """
    having: dict[str, dict[str, dict[float, list[str]]]] = {}
    for name, objective in known().items():
        for key, parameter in objective.parameters.items():
            takers = having.setdefault(key, {}).setdefault(parameter.meaning, {})
            takers.setdefault(parameter.default, []).append(name)
    return {key: "\n".join(f"{what} [{_takers(of)}]" for what, of in each.items()) for key, each in having.items()}


def _takers(having: Mapping[float, list[str]]) -> str:
    return "; ".join(f"{', '.join(names)}: {default:g}" for default, names in having.items())


def to_mapping(settings: Any) -> dict[str, Any]:
    """The settings as nested plain values, ready for YAML or JSON."""
    mapping: dict[str, Any] = {}
    for entry in dataclasses.fields(settings):
        if entry.metadata.get("internal"):
            continue
        value = getattr(settings, entry.name)
        if dataclasses.is_dataclass(value):
            mapping[entry.name] = to_mapping(value)
        elif isinstance(value, Mapping):
            mapping |= {name: _plain(each) for name, each in value.items()}
        else:
            mapping[entry.name] = _plain(value)
    return mapping


def _plain(value: Any) -> Any:
    """Lists for tuples; a parameter's values as they are given: 0.1, or [0.1, 0.3, "simpo=2"]."""
    if isinstance(value, Mapping):
        return _plain(tuple(f"{of}={each:.10g}" if of else each for of, values in value.items() for each in values))
    if isinstance(value, tuple):
        return value[0] if len(value) == 1 and isinstance(value[0], float) else list(value)
    return value
