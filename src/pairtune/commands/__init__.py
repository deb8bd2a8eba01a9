"""The commands: each a module with `run(settings)`, imported when it is asked for, for most import much."""

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from pairtune import hub, joining, own, parallel
from pairtune.cache import cache_folder
from pairtune.errors import InputError
from pairtune.progress import say
from pairtune.runs import OnlineRun, Run, Training

# The module of a command that is not called as the command is.
MODULES = {**dict.fromkeys(("ppo", "rloo", "grpo", "online-dpo"), "online"), "check-loss": "check_loss"}

# What several ranks do together; any other command would do its work once on each.
SHARED = ("sft", "tune", "reward")


def run(command: str, settings: Any) -> Any:
    """Run a command, its libraries quiet, and return what it made.

    A path that is not there is told before anything heavy is imported. A comparison looks at its plan first: in a
    folder that holds another one, that is what has to be told.
    """
    if parallel.size() > 1 and command not in SHARED:
        raise InputError(f"`pairtune {command}` runs in one process; give it without torchrun ({_words(SHARED)} share)")
    module = f"pairtune.commands.{MODULES.get(command, command)}"
    if not isinstance(settings, Run):  # lists or proves something, and needs none of the libraries that talk
        return import_module(module).run(settings)
    parallel.check_shard(getattr(settings, "shard", ""))
    if command != "compare":
        _check_paths(settings)
    from pairtune.quiet import quiet

    with quiet(), joining.joined(), _cache():
        work = import_module(module).run
        if not isinstance(settings, Training):
            return work(settings)
        from pairtune.engine.hidden import passes_of

        with passes_of(settings.tokens_per_pass):
            return work(settings)


def _words(commands: Sequence[str]) -> str:
    return f"{', '.join(commands[:-1])} and {commands[-1]}"


@contextmanager
def _cache() -> Iterator[None]:
    """Where nothing can be kept, what a run makes for itself lies in a folder that goes with it; that is said."""
    folder, before = cache_folder(), os.environ.get("PAIRTUNE_CACHE")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        say(f'cache: "{folder}" cannot be written ({why}), so nothing is kept; set PAIRTUNE_CACHE to one that can')
    else:
        yield
        return
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as own:
        os.environ["PAIRTUNE_CACHE"] = own
        try:
            yield
        finally:
            os.environ.pop("PAIRTUNE_CACHE")
            if before is not None:
                os.environ["PAIRTUNE_CACHE"] = before


def _check_paths(settings: Any) -> None:
    for name in ("model", "reference", "reward_model"):
        source = getattr(settings, name, "")
        if name == "reward_model" and own.is_own(source):
            own.sha256(source)
        else:
            hub.check_path(source)
    asks_first = isinstance(settings, OnlineRun) and not settings.reward_model
    if settings.data and not asks_first:
        from pairtune.data.files import local_files

        local_files(settings.data)
