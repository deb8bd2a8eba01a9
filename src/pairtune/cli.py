"""The command line: parse, run one command, turn what went wrong into one line. Heavy imports wait for the command."""

import argparse
import errno
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any

from pairtune import clock, commands, disk
from pairtune.configure import settings_from
from pairtune.errors import InputError, is_memory, is_panic
from pairtune.flags import Layout, Parser, add_flags, by_flag, flag, load_named, word
from pairtune.hints import suggestion
from pairtune.joining import OtherRankError, of_rank, tells
from pairtune.progress import say
from pairtune.runs import (
    CacheRun,
    CheckLossRun,
    CheckRun,
    CompareRun,
    DeriveRun,
    EvaluateRun,
    FormatsRun,
    GenerateRun,
    GradeRun,
    GrpoRun,
    ObjectivesRun,
    OnlineDpoRun,
    PpoRun,
    ReportRun,
    RewardRun,
    RlooRun,
    SampleRun,
    SftRun,
    TuneRun,
    VerifyRun,
)
from pairtune.settings_list import settings_of
from pairtune.stopping import number_of, say_stopped, stoppable

SETTINGS: dict[str, type] = {
    "compare": CompareRun,
    "sft": SftRun,
    "tune": TuneRun,
    "reward": RewardRun,
    "ppo": PpoRun,
    "rloo": RlooRun,
    "grpo": GrpoRun,
    "online-dpo": OnlineDpoRun,
    "generate": GenerateRun,
    "sample": SampleRun,
    "evaluate": EvaluateRun,
    "report": ReportRun,
    "verify": VerifyRun,
    "objectives": ObjectivesRun,
    "formats": FormatsRun,
    "check": CheckRun,
    "derive": DeriveRun,
    "check-loss": CheckLossRun,
    "grade": GradeRun,
    "cache": CacheRun,
}
HELP = {
    "compare": "train every method on the same pairs and report which one won",
    "sft": "fine-tune a model on demonstrations",
    "tune": "tune a model on preference pairs (DPO and other objectives)",
    "reward": "train a reward model on preference pairs",
    "ppo": "train a model against a reward model with PPO",
    "rloo": "the same with RLOO: several answers to a prompt",
    "grpo": "the same with GRPO: several answers to a prompt",
    "online-dpo": "the same with DPO and others on the policy's own pairs",
    "generate": "answer prompts",
    "sample": "answer prompts several times: scored pairs to tune on",
    "evaluate": "measure a tuned model on held-out pairs",
    "report": "draw the page and table of a finished comparison again",
    "verify": "whether a run's folder still is what was written",
    "objectives": "list the objectives: what each needs, its parameters, source",
    "formats": "list the shapes of data that are read, with two rows of each",
    "check": "look at data without training: what is wrong with them",
    "derive": "walk through the derivation of DPO, checked in numbers",
    "check-loss": "hold a DPO loss of your own against the theory",
    "grade": "look at your exercises of the course",
    "cache": "list what is kept between runs, or clear it",
}
# The setting of a command that may stand without its flag: `pairtune check pairs.jsonl`.
BARE = {"check": "data", "check-loss": "loss", "grade": "notebook"}
# Characters of a line that says what is wrong.
LONGEST = 2000
DESCRIPTION = """\
Preference pairs in, an aligned language model out, and an honest answer to
which method won.

to begin:
  pairtune compare                    DPO and PPO side by side, in minutes
  pairtune tune --data PAIRS.jsonl    DPO on pairs of your own
  pairtune COMMAND --help             a command's settings"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line. Exit code 0; 2 for what its user can mend, told in one line.

    130, 143 or 129 when it is stopped by Ctrl-C, SIGTERM or SIGHUP.
    """
    if argv is None:
        clock.this_process_is_one_command()
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        with stoppable():
            return _run(arguments)
    except KeyboardInterrupt as error:
        say_stopped(error)
        return 128 + number_of(error)
    except BrokenPipeError:  # the reader of the output has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OtherRankError:
        return 2
    except BaseException as error:
        line = explanation(error)
        if line is None:
            raise
        if "--debug" in arguments:
            traceback.print_exc()
        say(f"pairtune: {of_rank(line)}{_short(' '.join(line.split()))}", by_any=tells(error))
        return 2


def _short(line: str) -> str:
    """The line, without the middle of what a path or a name of thousands of characters makes of it."""
    return line if len(line) <= LONGEST else f"{line[: LONGEST // 2]} ... {line[-LONGEST // 2 :]}"


def explanation(error: BaseException) -> str | None:
    """What went wrong and what to do, for errors that a person can mend; None for what would be a fault of ours."""
    if isinstance(error, InputError):
        return str(error)
    if disk.is_full(error):
        return "no space is left on the disk; make room and give the same command to go on"
    if isinstance(error, FloatingPointError):
        return f"the training diverged ({error}); try a lower --learning-rate in a new --out"
    if is_memory(error):
        from pairtune import memory

        return f"the memory ran out ({memory.told()}); try a smaller model, --max-tokens or --batch-size"
    if is_panic(error):
        return (
            f"a library broke off ({error}); if it is the tokenizer's, a row or tokenizer.json is what it cannot take"
        )
    if isinstance(error, OSError) and error.filename is not None:
        if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
            return f'"{error.filename}" may not be written or read; change its rights or give another path'
        return f'"{error.filename}" cannot be used: {error.strerror}; give another path'
    return None


def _run(arguments: list[str]) -> int:
    command = next((word for word in arguments if not word.startswith("-")), "")
    if command and command not in HELP:
        raise InputError(f'there is no command "{command}"{suggestion(command, HELP) or f"; there are {_commands()}"}')
    if command:
        load_named(SETTINGS[command], arguments)
    parsed, unknown = _parser(command).parse_known_args(arguments)
    if len(unknown) == 1 and not unknown[0].startswith("-") and BARE.get(command) not in (None, *vars(parsed)):
        setattr(parsed, BARE[command], unknown.pop())
    if unknown:
        raise InputError(_about_unknown(unknown[0], command))
    values = vars(parsed)
    settings: Any = settings_from(SETTINGS[command], by_flag(SETTINGS[command], values), config=values["config"])
    return 1 if commands.run(command, settings) is False else 0


def _about_unknown(word: str, command: str) -> str:
    if not word.startswith("-"):
        return f'"{word}" is one word too many for `pairtune {command}`; put quotes around text with spaces'
    known = [flag(setting) for setting in settings_of(SETTINGS[command])]
    given = word.partition("=")[0]
    hint = suggestion(given, [*known, "--config", "--debug"])
    return f"`pairtune {command}` has no flag {given}{hint or f'; `pairtune {command} --help` lists them'}"


def _parser(asked: str) -> argparse.ArgumentParser:
    """The parser, with flags for the command that is asked for only: the others are not built."""
    parser = Parser(
        prog="pairtune",
        usage="pairtune COMMAND [options]",
        description=DESCRIPTION,
        formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(prog, max_help_position=16),
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=_version())
    commands = parser.add_subparsers(
        prog="pairtune", title="commands", dest="command", metavar="COMMAND [options]", required=True
    )
    for name, text in HELP.items():
        command = commands.add_parser(
            name,
            help=text,
            usage=f"pairtune {name}{word(SETTINGS[name])}{_bare(name)} [options]",
            description=text[0].upper() + text[1:] + ".",
            formatter_class=Layout,
            allow_abbrev=False,
            add_help=False,
        )
        if name == asked:
            add_flags(command, SETTINGS[name])
        general = command.add_argument_group("general")
        general.add_argument("-h", "--help", action="help", help="show this and exit")
        general.add_argument("--config", metavar="FILE", help="YAML file of settings; flags win over it")
        general.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def _bare(name: str) -> str:
    return f" [{BARE[name].upper()}]" if name in BARE else ""


def _commands() -> str:
    return ", ".join(HELP)


def _version() -> str:
    from importlib import metadata

    return f"pairtune {metadata.version('pairtune')}"


if __name__ == "__main__":
    sys.exit(main())
