"""From what a person gives - a preset, a YAML file, flags or keywords - to settings; an unknown name is an error.

A setting has one name everywhere: the flag's, `--ppo-steps`, with dashes or underscores, and without the first dashes
in YAML and in Python (`ppo_steps`). A file may also gather a section's settings below its name (`ppo:` and under it
`steps:`), as the presets and the plan of a comparison do. Everything is gathered by dotted key (`ppo.steps`), the later
source over the earlier, each value with what the person called it, and checked once.
"""

import dataclasses
import math
import os
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

import yaml

from pairtune.errors import InputError
from pairtune.grid import ONLINE, candidates
from pairtune.hints import near_path, nearest, suggestion
from pairtune.objectives.loss import Loss, load_own, loss_of, online_loss_of, own_names
from pairtune.runs import CompareRun, OnlineDpoRun, TuneRun
from pairtune.settings import TEXT, OnlinePreference, Values
from pairtune.settings_list import PARAMETERS, Setting, is_parameters, parameters, settings_of

T = TypeVar("T")
# Of a value in a message, so many characters are shown.
SHOWN = 40
# Bytes of a settings file: a hundred settings take four thousand, and YAML is slow to read.
LARGEST_FILE = 100_000
WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


def settings_from(command: type[T], given: Mapping[str, Any], *, config: str | None = None) -> T:
    """The settings of one command: its defaults, its preset, a YAML file, then `given`; the later wins.

    Raises InputError for an unknown name (with the nearest known one), a value of the wrong type, or out of bounds.
    """
    written = read_yaml(Path(config).expanduser()) if config else {}
    load_objectives(command, written, given)
    layers = [by_key(command, written, f"{config}: "), by_key(command, given)]
    if any(setting.key == "preset" for setting in settings_of(command)):
        named = next((layer["preset"].value for layer in reversed(layers) if "preset" in layer), "quick")
        layers.insert(0, by_key(command, read_preset(str(named)), f"preset {named}: "))
    found: dict[str, Given] = {}
    for layer in layers:
        found.update(layer)
    settings = _build(command, {s.key: _checked(s, found[s.key]) for s in settings_of(command) if s.key in found})
    if isinstance(settings, TuneRun):
        loss_to_train(settings)
    if isinstance(settings, OnlineDpoRun):
        loss_online(settings.online)
    if isinstance(settings, CompareRun):
        said = {key for layer in layers[1:] for key in layer}  # the first is the preset
        every = {setting.key for setting in settings_of(command)}
        compared = _without_absent(settings, said)
        candidates(compared)
        return typing.cast(T, dataclasses.replace(compared, not_given=frozenset(every - said)))
    return settings


def _without_absent(settings: CompareRun, said: set[str]) -> CompareRun:
    """Without a preset's values for methods that are not in the run: only a person's own are a mistake there."""
    kept = {
        name: {
            method: values
            for method, values in of.items()
            if f"preference.{name}" in said or not method or method in settings.methods
        }
        for name, of in settings.preference.parameters.items()
    }
    parameters = {name: of for name, of in kept.items() if of}
    return dataclasses.replace(settings, preference=dataclasses.replace(settings.preference, parameters=parameters))


def load_objectives(command: type, *layers: Mapping[str, Any]) -> None:
    """Load the objectives of people's own files that are named, the last layer's: their parameters are settings too."""
    asked: dict[str, Any] = {}
    for layer in layers:
        named = dict(layer)
        for inner in (layer.get("preference"), layer.get("online")):
            named |= inner if isinstance(inner, Mapping) else {}
        asked |= {_plain(str(name)).rpartition(".")[2]: value for name, value in named.items()}
    names = {s.name for s in settings_of(command) if s.group != PARAMETERS} | {"config", "debug", "help"}
    for setting in {"objective", "methods"} & names & asked.keys():
        value = asked[setting]
        words = [str(word) for word in (value if isinstance(value, list | tuple) else [value])]
        if setting == "methods":
            words = " ".join(words).replace(",", " ").split()
            if sampled := next((word for word in words if word.startswith(ONLINE) and own_names(word)), None):
                raise InputError(
                    f"methods: {sampled} is a function of your own on sampled pairs, which a comparison does not "
                    "train; `pairtune online-dpo --objective` does"
                )
        for name in dict.fromkeys(name for word in words for name in own_names(word)):
            if taken := names & load_own(name).parameters.keys():
                raise InputError(f'{name}: "{min(taken)}" is a setting already; give its parameter another name')


def loss_to_train(settings: TuneRun) -> Loss:
    """The run's loss, its parameters settled. Raises InputError for an objective or a parameter there is not."""
    try:
        return loss_of(settings.preference.objective, settings.preference.parameters)
    except ValueError as error:
        raise InputError(f"objective: {error}") from error


def loss_online(settings: OnlinePreference) -> Loss:
    """The same of pairs that are sampled. Raises InputError also for an objective that asks for more than they have."""
    try:
        return online_loss_of(settings.objective, settings.parameters)
    except ValueError as error:
        raise InputError(f"objective: {error}") from error


def settings_from_keywords(command: type[T], keywords: Mapping[str, Any], *, config: str | None = None) -> T:
    """The same from Python's keywords: the flags without their dashes (`beta`, `ppo_steps`)."""
    return settings_from(command, keywords, config=config)


def read_preset(name: str) -> dict[str, Any]:
    """The YAML of a shipped preset. Raises InputError if there is none of that name."""
    folder = resources.files("pairtune") / "presets"
    known = sorted(path.name.removesuffix(".yaml") for path in folder.iterdir() if path.name.endswith(".yaml"))
    if name not in known:
        raise InputError(f'there is no preset "{name}"; the presets are {", ".join(known)}')
    return typing.cast(dict[str, Any], yaml.safe_load((folder / f"{name}.yaml").read_text(encoding="utf-8")))


class _Loader(yaml.SafeLoader):
    """Plain values only; without aliases, of which a few lines can stand for billions of values."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.composer.ComposerError(
                None, None, "it refers to another of its values (*name); write that out", self.peek_event().start_mark
            )
        return super().compose_node(parent, index)


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file that holds a mapping. Raises InputError naming the file and, where known, the line."""
    try:
        if path.exists() and not path.is_file():
            raise InputError(f'settings file "{path}" is no ordinary file; give a YAML file')
        if path.exists() and path.stat().st_size > LARGEST_FILE:
            raise InputError(f'settings file "{path}" is larger than {LARGEST_FILE:,} bytes; is it one of settings?')
        loaded = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except FileNotFoundError as error:
        raise InputError(f'settings file "{path}" does not exist{near_path(path)}') from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f'settings file "{path}" cannot be read: {error}') from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}" if mark else ""
        raise InputError(f'settings file "{path}"{line} is not YAML: {getattr(error, "problem", error)}') from error
    if loaded is None:
        return {}
    if not isinstance(loaded, dict):
        raise InputError(f'settings file "{path}" must hold "name: value" lines')
    return loaded


@dataclass(frozen=True)
class Given:
    """A value as a person gave it, and what they call it: --beta, beta, run.yaml: ppo.steps."""

    called: str
    value: Any


def by_key(command: type, named: Mapping[str, Any], where: str = "") -> dict[str, Given]:
    """What is given by dotted key, every name known to the command and no setting given twice."""
    settings = settings_of(command)
    keys = {setting.name: setting.key for setting in settings} | {setting.key: setting.key for setting in settings}
    sections = {setting.key.rpartition(".")[0] for setting in settings} - {""}
    found: dict[str, Given] = {}
    for name, value in _flat(named, sections, where):
        key = keys.get(_plain(name))
        if key is None:
            raise InputError(f'{where}there is no setting "{name}"{_hint(name, list(keys.items()), sections)}')
        if key in found:
            raise InputError(f'{found[key].called} and "{name}" are one setting; give it once')
        found[key] = Given(f"{where}{name}", value)
    return found


def _flat(named: Mapping[str, Any], sections: set[str], where: str) -> Iterator[tuple[str, Any]]:
    """Names and values, those of a section (`ppo:`) under their dotted names."""
    for name, value in named.items():
        section = _plain(str(name))
        if section not in sections:
            yield str(name), value
        elif isinstance(value, Mapping):
            yield from ((f"{section}.{inner}", each) for inner, each in value.items())
        else:
            raise InputError(f'{where}"{name}" is a section; write its settings below it, indented')


def _plain(name: str) -> str:
    return name.strip("-").replace("-", "_")


def _hint(name: str, keys: list[tuple[str, str]], sections: set[str]) -> str:
    """The nearest name: of the same section if it was given in one, else the one that stands alone."""
    section, _, inner = name.rpartition(".")
    beside = {key.rpartition(".")[2] for _, key in keys if key.rpartition(".")[0] == section} if section else set()
    if near := nearest(inner, sorted(beside)):
        return f'; did you mean "{section}.{near}"?'
    return suggestion(inner, [*(own for own, _ in keys if "." not in own), *sorted(sections)])


def _build(kind: type[T], values: Mapping[str, Any], prefix: str = "") -> T:
    """A settings object from checked values by dotted key."""
    made: dict[str, Any] = {}
    hints = typing.get_type_hints(kind)
    for entry in dataclasses.fields(typing.cast(Any, kind)):
        key = prefix + entry.name
        if dataclasses.is_dataclass(hints[entry.name]):
            made[entry.name] = _build(hints[entry.name], values, f"{key}.")
        elif is_parameters(hints[entry.name]):
            made[entry.name] = {name: values[prefix + name] for name in parameters() if prefix + name in values}
        elif key in values:
            made[entry.name] = values[key]
    return kind(**made)


def _checked(setting: Setting, given: Given) -> Any:
    """One value, converted from a flag's text if need be, of the right type and within its bounds."""
    if setting.kind == tuple[str, ...]:
        return _names(setting, given)
    if setting.kind == tuple[float, ...]:
        return tuple(_number(setting, given, part, float) for part in _parts(setting, given))
    if setting.kind == Values:
        return _values(setting, given)
    return _number(setting, given, given.value, setting.kind)


def _number(setting: Setting, given: Given, value: Any, kind: type) -> Any:
    """One value of a plain type within the setting's bounds."""
    converted = _converted(value, kind)
    if converted is None:
        raise InputError(f"{given.called} is {_shown(value)}; it must be {WORDS[kind]}")
    if setting.value == TEXT and any("\ud800" <= letter <= "\udfff" for letter in converted):
        raise InputError(f"{given.called} is {_shown(value)}; it must be text in UTF-8")
    if setting.choices and converted not in setting.choices:
        raise InputError(f"{given.called} is {_shown(value)}; it must be one of {', '.join(setting.choices)}")
    for bound, holds, words in (
        (setting.above, lambda b: converted > b, "above"),
        (setting.least, lambda b: converted >= b, "at least"),
        (setting.most, lambda b: converted <= b, "at most"),
    ):
        if bound is not None and not holds(bound):
            told = _shown(converted if kind is float else value)
            raise InputError(f"{given.called} is {told}; it must be {words} {bound:,.10g}")
    return converted


def _values(setting: Setting, given: Given) -> dict[str, tuple[float, ...]]:
    """Values to try, those of one method written METHOD=VALUE: 0.05 0.1 simpo=2."""
    found: dict[str, tuple[float, ...]] = {}
    for part in _parts(setting, given):
        method, _, number = part.rpartition("=") if isinstance(part, str) else ("", "", part)
        found[method] = (*found.get(method, ()), _number(setting, given, number, float))
    return found


def _names(setting: Setting, given: Given) -> tuple[str, ...]:
    """A list of names: a YAML list, or text with commas or spaces between them."""
    parts = _parts(setting, given)
    if not all(isinstance(part, str) for part in parts):
        raise InputError(f"{given.called} is {_shown(given.value)}; it must be a list of names")
    return tuple(parts)


def _parts(setting: Setting, given: Given) -> list[Any]:
    """A list's elements: of a YAML list, or of text with commas or spaces between them."""
    value = given.value
    parts = value if isinstance(value, list | tuple) else [value]
    split = [each for part in parts for each in (part.replace(",", " ").split() if isinstance(part, str) else [part])]
    if not split and setting.default != ():
        wanted = "names" if setting.kind == tuple[str, ...] else "numbers"
        raise InputError(f"{given.called} is empty; it must be a list of {wanted}")
    return split


def _converted(value: Any, kind: Any) -> Any:
    """`value` as `kind`, or None if it is not one; text is read as a number (YAML takes 1e-4 for text)."""
    if kind is str:
        text = os.fspath(value) if isinstance(value, str | os.PathLike) else None
        return text if isinstance(text, str) and "\0" not in text else None
    if kind is bool:
        return value if isinstance(value, bool) else None
    if isinstance(value, bool):
        return None
    if kind is int and isinstance(value, int):
        return value
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    if not math.isfinite(number):
        return None
    if kind is int:
        return int(number) if number.is_integer() else None
    return number


def _shown(value: Any) -> str:
    """A value for a message, shortened."""
    if isinstance(value, tuple | list):
        return " ".join(map(_shown, value))
    if value is None:
        return "empty"
    try:
        text = str(value)
    except ValueError:  # an integer of more digits than Python writes out
        text = "a number of thousands of digits"
    text = text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
    return f'"{text}"' if isinstance(value, str | os.PathLike) else text
