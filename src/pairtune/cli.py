"""The command line: parse, run one command, turn what went wrong into one line. Heavy imports wait for the command."""

import argparse
import errno
import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from pairtune.errors import InputError
from pairtune.progress import say
from pairtune.settings import (
    CompareRun,
    EvaluateRun,
    GenerateRun,
    PpoRun,
    RewardRun,
    SftRun,
    TuneRun,
    add_flags,
    settings_from,
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
    "tune": "tune a model on preference pairs (DPO)",
    "reward": "train a reward model on preference pairs",
    "ppo": "train a model against a reward model with PPO",
    "generate": "answer prompts",
    "evaluate": "measure a tuned model on held-out pairs",
    "derive": "walk through the derivation of DPO, each step checked in numbers",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line. Exit code 0; 2 for input that cannot be used; 130 when interrupted."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    parsed = vars(_parser(arguments).parse_args(arguments))
    command, debug, config = parsed.pop("command"), parsed.pop("debug"), parsed.pop("config", None)
    try:
        if command == "derive":
            return _derive(**parsed)
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        return _run(command, settings_from(SETTINGS[command], parsed, config=config))
    except InputError as error:
        return _fail(str(error), debug)
    except KeyboardInterrupt:
        say("stopped; the same command goes on from here")
        return 130
    except OSError as error:
        if error.errno == errno.ENOSPC:
            return _fail("no space is left on the disk; make room and give the same command to go on", debug)
        if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
            return _fail(
                f'"{error.filename}" may not be written or read; give another --out or change its rights', debug
            )
        raise
    except BrokenPipeError:
        return 0


def _fail(line: str, debug: bool) -> int:
    if debug:
        raise
    say(f"pairtune: {line}")
    return 2


def _parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    """The parser, with flags for the command that is asked for only: the others are not built."""
    parser = argparse.ArgumentParser(
        prog="pairtune",
        description="Preference pairs in, an aligned language model out, and an honest answer to which method won.",
        epilog="`pairtune COMMAND --help` lists a command's settings.",
    )
    parser.add_argument("--version", action="version", version=_version())
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, text in HELP.items():
        command = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".", allow_abbrev=False)
        command.add_argument("--debug", action="store_true", help="show the traceback of an error")
        if name == "derive":
            command.add_argument("--json", action="store_true", help="print the steps as JSON")
            command.add_argument(
                "--seed", type=int, default=0, metavar="N", help="seed of the random worlds (default 0)"
            )
            command.add_argument("--worlds", type=int, default=20, metavar="N", help="random worlds (default 20)")
            continue
        command.add_argument("--config", metavar="FILE", help="YAML file of settings; flags win over it")
        if name in arguments:
            add_flags(command, SETTINGS[name])
    return parser


def _run(command: str, settings: Any) -> int:
    """Import what the command needs and run it."""
    _quieten()
    from pairtune import commands

    runners: dict[str, Callable[[Any], Any]] = {
        "compare": commands.run_compare,
        "sft": commands.run_sft,
        "reward": commands.run_reward,
        "tune": commands.run_tune,
        "ppo": commands.run_ppo,
        "generate": commands.run_generate,
        "evaluate": commands.run_evaluate,
    }
    runners[command](settings)
    return 0


def _derive(*, json: bool, seed: int, worlds: int) -> int:
    from rich.console import Console

    from pairtune.theory.derivation import derive
    from pairtune.theory.walkthrough import show

    if worlds < 1:
        raise InputError(f"worlds is {worlds}; it must be at least 1")
    steps = derive(worlds=worlds, seed=seed)
    if json:
        print(_as_json(steps))
    else:
        show(steps, Console())
    return 0 if all(step.residual <= step.tolerance for step in steps) else 1


def _as_json(steps: Sequence[Any]) -> str:
    from dataclasses import asdict

    return json.dumps([asdict(step) for step in steps], indent=2, ensure_ascii=False)


def _quieten() -> None:
    """Libraries keep their progress bars and advice to themselves; pairtune says what matters."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    import warnings

    warnings.filterwarnings("ignore", module=r"transformers|torch|datasets|huggingface_hub")
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()


def _version() -> str:
    from importlib import metadata

    return f"pairtune {metadata.version('pairtune')}"


if __name__ == "__main__":
    sys.exit(main())
