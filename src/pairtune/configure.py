"""From what a person gives - a preset, a YAML file, flags or keywords - to settings; an unknown name is an error.

Everything is gathered by dotted key (`ppo.steps`), the later source over the earlier, and checked once.
"""

import argparse
import dataclasses
import difflib
import math
import os
import typing
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

import yaml

from pairtune.errors import InputError
from pairtune.grid import candidates
from pairtune.objectives.mixture import Loss, loss_of
from pairtune.settings import (
    MAIN_SECTION,
    CompareRun,
    Setting,
    TuneRun,
    Values,
    is_parameters,
    parameters,
    settings_of,
)

T = TypeVar("T")
METAVARS = {str: "NAME", int: "N", float: "N", tuple[str, ...]: "NAME", tuple[float, ...]: "N", Values: "N"}
WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


def settings_from(command: type[T], given: Mapping[str, Any], *, config: str | None = None) -> T:
    """The settings of one command: its defaults, its preset, a YAML file, then `given` by dotted key; the later wins.

    Raises InputError for an unknown key (with the nearest known one), a value of the wrong type, or out of bounds.
    """
    layers = [_by_key(command, read_yaml(Path(config)), config) if config else {}, dict(given)]
    if any(setting.key == "preset" for setting in settings_of(command)):
        name = layers[1].get("preset") or layers[0].get("preset") or "quick"
        layers.insert(0, _by_key(command, read_preset(str(name)), f"preset {name}"))
    values: dict[str, Any] = {}
    for layer in layers:
        values.update(layer)
    settings = _build(command, {s.key: _checked(s, values[s.key]) for s in settings_of(command) if s.key in values})
    if isinstance(settings, TuneRun):
        loss_to_train(settings)
    if isinstance(settings, CompareRun):
        candidates(settings)
        said = {key for layer in layers[1:] for key in layer}  # the first is the preset
        every = {setting.key for setting in settings_of(command)}
        return dataclasses.replace(settings, not_given=frozenset(every - said))
    return settings


def loss_to_train(settings: TuneRun) -> Loss:
    """The run's loss, its parameters settled. Raises InputError for an objective or a parameter there is not."""
    try:
        return loss_of(settings.preference.objective, settings.preference.parameters)
    except ValueError as error:
        raise InputError(f"objective: {error}") from error


def settings_from_keywords(command: type[T], keywords: Mapping[str, Any], *, config: str | None = None) -> T:
    """The same from Python's keywords, which are the flags without their dashes (`beta`, `ppo_steps`) or dotted keys.

    Raises InputError as `settings_from`; its message names the nearest keyword.
    """
    keys = {setting.name: setting.key for setting in settings_of(command)}
    keys |= {key: key for key in keys.values()}
    unknown = next((name for name in keywords if name not in keys), None)
    if unknown is not None:
        raise InputError(f'there is no setting "{unknown}"{suggestion(unknown, keys)}')
    given = {keys[name]: value for name, value in keywords.items()}
    return settings_from(command, given, config=config)


def read_preset(name: str) -> dict[str, Any]:
    """The YAML of a shipped preset. Raises InputError if there is none of that name."""
    folder = resources.files("pairtune") / "presets"
    known = sorted(path.name.removesuffix(".yaml") for path in folder.iterdir() if path.name.endswith(".yaml"))
    if name not in known:
        raise InputError(f'there is no preset "{name}"; the presets are {", ".join(known)}')
    return typing.cast(dict[str, Any], yaml.safe_load((folder / f"{name}.yaml").read_text(encoding="utf-8")))


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file that holds a mapping. Raises InputError naming the file and, where known, the line."""
    try:
        loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f'settings file "{path}" does not exist') from error
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


def add_flags(parser: argparse.ArgumentParser, command: type) -> None:
    """A flag for every setting of the command; values stay text until `settings_from` checks them."""
    preset = _by_key(command, read_preset("quick"), "preset quick") if command is CompareRun else {}
    groups: dict[str, Any] = {}
    for setting in settings_of(command):
        section = setting.key.rpartition(".")[0]
        section = "" if section == MAIN_SECTION[command] else section
        if section not in groups:
            groups[section] = parser.add_argument_group(f"{section} settings".strip())
        default = preset.get(setting.key, setting.default)
        options: dict[str, Any] = {
            "dest": setting.key,
            "default": argparse.SUPPRESS,
            "help": f"{setting.meaning} (default {_default(default)})".replace("%", "%%"),
        }
        if setting.kind is bool:
            options["action"] = argparse.BooleanOptionalAction
        else:
            options["metavar"] = METAVARS[setting.kind]
            options["nargs"] = "+" if _takes_several(setting) else None
        groups[section].add_argument(flag(setting), **options)


def flag(setting: Setting) -> str:
    """The setting's flag: `--ppo-steps`."""
    return f"--{setting.name.replace('_', '-')}"


def _default(value: Any) -> str:
    return "the objective's own" if value is None else _shown(value)


def suggestion(wrong: str, known: Iterable[str]) -> str:
    """`; did you mean "..."?` with the known name nearest to a wrong one, or nothing if none is near."""
    near = difflib.get_close_matches(wrong, list(known), 1)
    return f'; did you mean "{near[0]}"?' if near else ""


def _by_key(command: type, nested: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A file's nested mapping by dotted key, every key known to the command."""
    known = [setting.key for setting in settings_of(command)]
    sections = {key.rpartition(".")[0] for key in known} - {""}
    found: dict[str, Any] = {}
    for name, value in nested.items():
        if name in sections:
            if not isinstance(value, dict):
                raise InputError(f'{where}: "{name}" is a section; write its settings below it, indented')
            found |= {f"{name}.{inner}": inner_value for inner, inner_value in value.items()}
        else:
            found[str(name)] = value
    for key in found:
        if key not in known:
            # Nearest by the last part of the name: "beta" alone, or in the wrong section, is preference.beta.
            parts = {name.rpartition(".")[2]: name for name in reversed([*known, *sections])}
            near = difflib.get_close_matches(key.rpartition(".")[2], list(parts), 1)
            hint = f'; did you mean "{parts[near[0]]}"?' if near else suggestion(key, known)
            raise InputError(f'{where}: there is no setting "{key}"{hint}')
    return found


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


def _checked(setting: Setting, value: Any) -> Any:
    """One value, converted from a flag's text if need be, of the right type and within its bounds."""
    if setting.kind == tuple[str, ...]:
        return _names(setting, value)
    if setting.kind == tuple[float, ...]:
        return tuple(_number(setting, part, float) for part in _parts(setting, value))
    if setting.kind == Values:
        return _values(setting, value)
    return _number(setting, value, setting.kind)


def _number(setting: Setting, value: Any, kind: type) -> Any:
    """One value of a plain type within the setting's bounds."""
    converted = _converted(value, kind)
    if converted is None:
        raise InputError(f"{setting.key} is {_shown(value)}; it must be {WORDS[kind]}")
    for bound, holds, words in (
        (setting.above, lambda b: converted > b, "above"),
        (setting.least, lambda b: converted >= b, "at least"),
        (setting.most, lambda b: converted <= b, "at most"),
    ):
        if bound is not None and not holds(bound):
            raise InputError(f"{setting.key} is {_shown(converted)}; it must be {words} {bound:.10g}")
    return converted


def _values(setting: Setting, value: Any) -> dict[str, tuple[float, ...]]:
    """Values to try, those of one method written METHOD=VALUE: 0.05 0.1 simpo=2."""
    found: dict[str, tuple[float, ...]] = {}
    for part in _parts(setting, value):
        method, _, number = part.rpartition("=") if isinstance(part, str) else ("", "", part)
        found[method] = (*found.get(method, ()), _number(setting, number, float))
    return found


def _names(setting: Setting, value: Any) -> tuple[str, ...]:
    """A list of names: a YAML list, or text with commas or spaces between them."""
    parts = _parts(setting, value)
    if not all(isinstance(part, str) for part in parts):
        raise InputError(f"{setting.key} is {_shown(value)}; it must be a list of names")
    return tuple(parts)


def _parts(setting: Setting, value: Any) -> list[Any]:
    """A list's elements: of a YAML list, or of text with commas or spaces between them."""
    parts = value if isinstance(value, list | tuple) else [value]
    split = [each for part in parts for each in (part.replace(",", " ").split() if isinstance(part, str) else [part])]
    if not split:
        wanted = "names" if setting.kind == tuple[str, ...] else "numbers"
        raise InputError(f"{setting.key} is empty; it must be a list of {wanted}")
    return split


def _converted(value: Any, kind: Any) -> Any:
    """`value` as `kind`, or None if it is not one; text is read as a number (YAML takes 1e-4 for text)."""
    if kind is str:
        return os.fspath(value) if isinstance(value, str | os.PathLike) else None
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


def _takes_several(setting: Setting) -> bool:
    return setting.kind == Values or typing.get_origin(setting.kind) is tuple


def _shown(value: Any) -> str:
    if isinstance(value, tuple | list):
        return " ".join(str(part) for part in value)
    return f'"{value}"' if isinstance(value, str | os.PathLike) else str(value)
