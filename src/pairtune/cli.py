"""The command line: parse, run one command, turn what went wrong into one line. Heavy imports wait for the command."""

import argparse
import errno
import json
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from pairtune import clock, commands, disk
from pairtune.configure import add_flags, by_flag, flag, settings_from
from pairtune.errors import InputError
from pairtune.hints import suggestion
from pairtune.progress import counted, printable, say
from pairtune.settings import (
    LARGEST_SEED,
    CompareRun,
    EvaluateRun,
    GenerateRun,
    PpoRun,
    RewardRun,
    SftRun,
    TuneRun,
    settings_of,
)

SETTINGS: dict[str, type] = {
    "compare": CompareRun,
    "sft": SftRun,
    "reward": RewardRun,
    "tune": TuneRun,
    "ppo": PpoRun,
    "generate": GenerateRun,
    "evaluate": EvaluateRun,
}
HELP = {
    "compare": "train every method on the same pairs and report which one won",
    "sft": "fine-tune a model on demonstrations",
    "tune": "tune a model on preference pairs (DPO and the other objectives)",
    "reward": "train a reward model on preference pairs",
    "ppo": "train a model against a reward model with PPO",
    "generate": "answer prompts",
    "evaluate": "measure a tuned model on held-out pairs",
    "report": "draw the page and the table of a finished comparison again, from its records",
    "cache": "list the converted models and reference log-probabilities that are kept, or clear them",
    "objectives": "list the preference objectives: what each needs, its parameters, its source",
    "derive": "walk through the derivation of DPO, each step checked in numbers",
}


# Random worlds that a derivation may be checked in; more would take hours.
MOST_WORLDS = 100_000


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line. Exit code 0; 2 for what its user can mend, told in one line; 130 when interrupted."""
    if argv is None:
        clock.this_process_is_one_command()
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        return _run(arguments)
    except KeyboardInterrupt:
        say("stopped; the same command goes on from here")
        return 130
    except BrokenPipeError:  # whoever read the output has gone; nothing is left to say to them
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        line = explanation(error)
        if line is None:
            raise
        if "--debug" in arguments:
            traceback.print_exc()
        say(f"pairtune: {' '.join(line.split())}")
        return 2


def explanation(error: Exception) -> str | None:
    """What went wrong and what to do, for errors that a person can mend; None for what would be a fault of ours."""
    if isinstance(error, InputError):
        return str(error)
    if disk.is_full(error):
        return "no space is left on the disk; make room and give the same command to go on"
    if isinstance(error, FloatingPointError):
        return f"the training diverged ({error}); try a lower --learning-rate in a new --out"
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return "the memory ran out; try a smaller model, --max-tokens or --batch-size"
    if isinstance(error, OSError) and error.filename is not None:
        if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
            return f'"{error.filename}" may not be written or read; change its rights or give another path'
        return f'"{error.filename}" cannot be used: {error.strerror}; give another path'
    return None


class _Parser(argparse.ArgumentParser):
    """A parser whose complaints are one line, like everybody else's here."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; `{self.prog} --help` lists what there is")


def _run(arguments: list[str]) -> int:
    command = next((word for word in arguments if not word.startswith("-")), "")
    if command and command not in HELP:
        raise InputError(f'there is no command "{command}"{suggestion(command, HELP) or f"; there are {_commands()}"}')
    parsed, unknown = _parser(command).parse_known_args(arguments)
    if unknown:
        raise InputError(_about_unknown(unknown[0], command))
    values = vars(parsed)
    del values["command"], values["debug"]
    if command in PLAIN:
        return PLAIN[command](**values)
    config = values.pop("config")
    settings: Any = settings_from(SETTINGS[command], by_flag(SETTINGS[command], values), config=config)
    commands.run(command, settings)
    return 0


def _about_unknown(word: str, command: str) -> str:
    if not word.startswith("-"):
        return f'"{word}" is one word too many for `pairtune {command}`; put quotes around text with spaces'
    known = (
        [flag(setting) for setting in settings_of(SETTINGS[command])] if command in SETTINGS else PLAIN_FLAGS[command]
    )
    given = word.partition("=")[0]
    hint = suggestion(given, [*known, "--config", "--debug"])
    return f"`pairtune {command}` has no flag {given}{hint or f'; `pairtune {command} --help` lists them'}"


def _parser(asked: str) -> argparse.ArgumentParser:
    """The parser, with flags for the command that is asked for only: the others are not built."""
    parser = _Parser(
        prog="pairtune",
        description="Preference pairs in, an aligned language model out, and an honest answer to which method won.",
        epilog="`pairtune COMMAND --help` lists a command's settings.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=_version())
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, text in HELP.items():
        command = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".", allow_abbrev=False)
        command.add_argument("--debug", action="store_true", help="show the traceback of an error")
        if name == "objectives":
            command.add_argument("--json", action="store_true", help="print them as JSON")
            continue
        if name == "derive":
            command.add_argument("--json", action="store_true", help="print the steps as JSON")
            command.add_argument(
                "--seed", type=whole_number, default=0, metavar="N", help="seed of the random worlds (default 0)"
            )
            command.add_argument(
                "--worlds", type=whole_number, default=20, metavar="N", help="random worlds (default 20)"
            )
            continue
        if name == "report":
            command.add_argument("folder", metavar="DIR", help="folder that `pairtune compare` left")
            command.add_argument("--figure", default="", metavar="FILE", help="PNG file for a picture of the run")
            continue
        if name == "cache":
            command.add_argument("--clear", action="store_true", help="remove them")
            continue
        command.add_argument("--config", metavar="FILE", help="YAML file of settings; flags win over it")
        if name == asked:
            add_flags(command, SETTINGS[name])
    return parser


def _derive(*, json: bool, seed: int, worlds: int) -> int:
    from rich.console import Console

    from pairtune.theory.derivation import derive
    from pairtune.theory.walkthrough import show

    for name, value, least, most in (("worlds", worlds, 1, MOST_WORLDS), ("seed", seed, 0, LARGEST_SEED)):
        if not least <= value <= most:
            bound = f"at least {least}" if value < least else f"at most {most:,}"
            raise InputError(f"{name} is {value:.10g}; it must be {bound}")
    steps = derive(worlds=worlds, seed=seed)
    if json:
        print(_as_json(steps))
    else:
        show(steps, Console())
        say("next: `pairtune compare` trains DPO and PPO side by side")
    return 0 if all(step.residual <= step.tolerance for step in steps) else 1


def whole_number(text: str) -> int:
    """A whole number in any spelling: 20, 20.0, 2e1."""
    number = float(text)
    if not number.is_integer():
        raise ValueError(text)
    return int(number)


def _report(*, folder: str, figure: str) -> int:
    from pairtune.commands import report

    report.run(folder, figure=figure)
    return 0


def _cache(*, clear: bool) -> int:
    from pairtune.cache import cache_folder, entries, megabytes, remove

    found = entries()
    for entry in found:
        if clear:
            remove(entry)
        print(printable(f"{'removed ' if clear else ''}{entry}"))
    total = f"{counted(len(found), 'entry', 'entries')}, {megabytes(sum(entry.size for entry in found))}"
    hint = "" if clear or not found else "; `pairtune cache --clear` removes them"
    print(printable(f"{'removed ' if clear else ''}{total} in {cache_folder()}{hint}"))
    return 0


def _objectives(*, json: bool) -> int:
    from pairtune.objectives import listing

    print(listing.as_json() if json else listing.as_text())
    if not json:
        say("next: `pairtune tune --objective NAME --data FILE`, with the parameters as flags")
    return 0


def _as_json(steps: Sequence[Any]) -> str:
    from dataclasses import asdict

    return json.dumps([asdict(step) for step in steps], indent=2, ensure_ascii=False)


# Commands without settings, and their flags.
PLAIN: dict[str, Callable[..., int]] = {
    "report": _report,
    "cache": _cache,
    "objectives": _objectives,
    "derive": _derive,
}
PLAIN_FLAGS = {
    "report": ["--figure"],
    "cache": ["--clear"],
    "objectives": ["--json"],
    "derive": ["--json", "--seed", "--worlds"],
}


def _commands() -> str:
    return ", ".join(HELP)


def _version() -> str:
    from importlib import metadata

    return f"pairtune {metadata.version('pairtune')}"


if __name__ == "__main__":
    sys.exit(main())
