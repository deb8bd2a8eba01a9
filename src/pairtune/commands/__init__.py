"""The commands: each a module with `run(settings)`, imported when it is asked for, for most import much."""

from importlib import import_module
from typing import Any

from pairtune import hub
from pairtune.errors import InputError

# What a command cannot do without and has no default for.
NEEDED = {
    "sft": ("data",),
    "reward": ("data",),
    "tune": ("data",),
    "ppo": ("reward_model", "data"),
    "evaluate": ("data",),
}


def run(command: str, settings: Any) -> Any:
    """Run a command, its libraries quiet, and return what it made.

    What is missing, and a path that is not there, is told before anything heavy is imported. A comparison looks at its
    plan first: in a folder that holds another one, that is what has to be told.
    """
    if command != "compare":
        _check(settings, NEEDED.get(command, ()))
    from pairtune.quiet import quiet

    with quiet():
        return import_module(f"pairtune.commands.{command}").run(settings)


def _check(settings: Any, needed: tuple[str, ...]) -> None:
    for name in needed:
        if not getattr(settings, name):
            raise InputError(f"{name} is missing; give --{name.replace('_', '-')}")
    for name in ("model", "reference", "reward_model"):
        hub.check_path(getattr(settings, name, ""))
    if settings.data:
        from pairtune.data.sources import local_file

        local_file(settings.data)
