"""The settings of a command as flags, and the help that a person reads of them."""

import argparse
import dataclasses
import textwrap
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from pairtune.configure import by_key, load_objectives, read_preset, read_yaml
from pairtune.errors import InputError
from pairtune.runs import CompareRun
from pairtune.settings import WORD, Values
from pairtune.settings_list import Setting, settings_of


class Parser(argparse.ArgumentParser):
    """A parser whose complaints are one line, like everybody else's here."""

    def error(self, message: str) -> NoReturn:
        """Raises InputError."""
        raise InputError(f"{message}; `{self.prog} --help` lists what there is")


class Layout(argparse.HelpFormatter):
    """Help whose lines stay lines: of a parameter that means several things, each begins one and hangs below it."""

    def _split_lines(self, text: str, width: int) -> list[str]:
        lines = text.splitlines()
        hanging = "  " if len(lines) > 1 else ""
        return [
            part
            for line in lines
            for part in textwrap.wrap(line, width, subsequent_indent=hanging, break_on_hyphens=False)
        ]


def add_flags(parser: argparse.ArgumentParser, command: type) -> None:
    """A flag for every setting of the command, those that people use first; values stay text until they are checked."""
    settings = settings_of(command)
    if command is CompareRun:
        preset = by_key(command, read_preset("quick"))
        settings = [dataclasses.replace(s, default=preset[s.key].value) if s.key in preset else s for s in settings]
    groups: dict[str, Any] = {}
    for setting in sorted(settings, key=lambda setting: setting.rank):
        if setting.group not in groups:
            groups[setting.group] = parser.add_argument_group(setting.group)
        options: dict[str, Any] = {"dest": setting.key, "default": argparse.SUPPRESS, "help": _help(setting)}
        if setting.kind is bool:
            options["action"] = argparse.BooleanOptionalAction
        else:
            options["metavar"] = setting.value
            options["nargs"] = "+" if _takes_several(setting) else None
        if setting.value == WORD:
            del options["dest"], options["default"]
            groups[setting.group].add_argument(setting.key, **options)
        else:
            groups[setting.group].add_argument(flag(setting), **options)


def load_named(command: type, arguments: Sequence[str]) -> None:
    """Load what people's own files are asked for, before there are flags: theirs are among them."""
    parser = Parser(add_help=False, allow_abbrev=False)
    for setting in settings_of(command):
        if setting.name in ("objective", "methods"):
            parser.add_argument(flag(setting), dest=setting.key, nargs="*")
    parser.add_argument("--config", nargs="?")
    named = vars(parser.parse_known_args(arguments)[0])
    config = named.pop("config")
    written = read_yaml(Path(config).expanduser()) if config else {}
    load_objectives(command, written, {key: value for key, value in named.items() if value})


def flag(setting: Setting) -> str:
    """The setting's flag: `--ppo-steps`."""
    return f"--{setting.name.replace('_', '-')}"


def word(command: type) -> str:
    """What stands without a flag behind the command's name: " DIR", or nothing."""
    return f" {WORD}" if any(setting.value == WORD for setting in settings_of(command)) else ""


def by_flag(command: type, parsed: Mapping[str, Any]) -> dict[str, Any]:
    """What a parser found, by the flags that were typed."""
    return {flag(setting): parsed[setting.key] for setting in settings_of(command) if setting.key in parsed}


def _help(setting: Setting) -> str:
    """Its meaning, and its default where it has one to show."""
    told = setting.default not in (None, "", ()) and setting.kind is not bool
    return f"{setting.meaning}{f' (default: {_default(setting.default)})' if told else ''}".replace("%", "%%")


def _default(value: Any) -> str:
    if isinstance(value, tuple | list):
        return " ".join(map(_default, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _takes_several(setting: Setting) -> bool:
    return setting.kind == Values or typing.get_origin(setting.kind) is tuple
