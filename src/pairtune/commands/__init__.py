"""The commands: each a module with `run(settings)`, imported when it is asked for, for most import much."""

from importlib import import_module
from typing import Any

from pairtune import hub, own
from pairtune.settings import PpoRun, Run


def run(command: str, settings: Any) -> Any:
    """Run a command, its libraries quiet, and return what it made.

    A path that is not there is told before anything heavy is imported. A comparison looks at its plan first: in a
    folder that holds another one, that is what has to be told.
    """
    if not isinstance(settings, Run):  # lists or proves something, and needs none of the libraries that talk
        return import_module(f"pairtune.commands.{command}").run(settings)
    if command != "compare":
        _check_paths(settings)
    from pairtune.quiet import quiet

    with quiet():
        return import_module(f"pairtune.commands.{command}").run(settings)


def _check_paths(settings: Any) -> None:
    for name in ("model", "reference", "reward_model"):
        source = getattr(settings, name, "")
        if name == "reward_model" and own.is_own(source):
            own.sha256(source)
        else:
            hub.check_path(source)
    asks_first = isinstance(settings, PpoRun) and not settings.reward_model
    if settings.data and not asks_first:
        from pairtune.data.files import local_files

        local_files(settings.data)
