"""What commands leave behind: a folder with settings and figures, or a file."""

import fcntl
import json
import os
import re
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

from pairtune import disk, own
from pairtune.comparison.plan import data_hash, flat, model_hash
from pairtune.data.pack import Tokens
from pairtune.engine.cost import Cost
from pairtune.errors import InputError
from pairtune.estimate import Estimate
from pairtune.evaluation.diagnostics import fell, per_token
from pairtune.evaluation.heldout import accuracy, margins
from pairtune.evaluation.statistics import estimate
from pairtune.progress import duration, say
from pairtune.settings import to_mapping
from pairtune.training.checkpoint import forget_checkpoint

# What a result's folder was made with: the settings, and hashes of the data and the models.
SETTINGS_FILE = "settings.json"
RESULT_FILE = "result.json"
# The folder of the folders that commands make when none is asked for.
RUNS = Path("runs")
# Settings named in a message.
SHOWN_SETTINGS = 4


def check_out(out: str) -> None:
    """Before anything is read or loaded: raises InputError if the folder that is asked for cannot be a result's."""
    folder = Path(out)
    if not out or not folder.exists():
        return
    if not folder.is_dir():
        raise InputError(f'out: "{folder}" is a file; give a folder')
    if not any(folder.iterdir()):
        return
    if not (folder / SETTINGS_FILE).is_file():
        raise InputError(
            f'out: "{folder}" is not empty and holds something else; give another --out, or none: a free name in '
            f"{RUNS} is then found"
        )
    if (folder / RESULT_FILE).is_file():
        raise InputError(
            f'out: "{folder}" holds a finished result; give another --out, or none (a free name in {RUNS} is then '
            "found), or remove it"
        )


@contextmanager
def result_folder(settings: Any, command: str) -> Iterator[Path]:
    """The result's folder, this run's alone until the block ends.

    Without --out: the newest unfinished one of the same command, settings, data and model, or else the first free name
    of runs/tune, runs/tune-2, ...; which it is, is said. A folder in which nothing was written is not left behind.
    """
    check_out(settings.out)
    missing: list[Path] = []
    wanted = [Path(settings.out)] if settings.out else _without_asking(settings, command)
    for folder in wanted:
        missing = [path for path in (folder, *folder.parents) if not path.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        if (lock := _lock(folder)) is not None:
            break
    else:
        raise InputError(f'out: another run is writing to "{settings.out}"; wait for its end, or give another --out')
    try:
        if not settings.out:
            same = ", an unfinished run of the same settings, data and model, which is gone on with"
            say(f"out: {folder}{same if (folder / SETTINGS_FILE).is_file() else ''}")
        yield folder
    finally:
        os.close(lock)
        for path in missing:
            with suppress(OSError):  # it is not empty: then it is the result
                path.rmdir()


def _without_asking(settings: Any, command: str) -> Iterator[Path]:
    """The folders to try when none is asked for."""
    name = re.compile(rf"{command}(-\d+)?\Z")
    here = [path for path in RUNS.glob(f"{command}*") if name.match(path.name)]
    unfinished = [path for path in here if (path / SETTINGS_FILE).is_file() and not (path / RESULT_FILE).is_file()]
    if unfinished:
        plan = _plan(settings, command)
        unfinished.sort(key=lambda path: (path / SETTINGS_FILE).stat().st_mtime, reverse=True)
        yield from (path for path in unfinished if not _differences(path, plan))
    for number in count(1):
        folder = RUNS / (command if number == 1 else f"{command}-{number}")
        if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
            yield folder


def _lock(folder: Path) -> int | None:
    """An open folder that no other run can lock until it is closed; None if another run has it."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except OSError:  # a file system without locks
        pass
    return descriptor


def begin(folder: Path, settings: Any, command: str) -> None:
    """Write down what is done. A folder with an unfinished run of the same command on the same content is gone on with.

    Raises InputError if it is of something else.
    """
    plan, path = _plan(settings, command), folder / SETTINGS_FILE
    if path.is_file() and (names := _differences(folder, plan)):
        shown = ", ".join(names[:SHOWN_SETTINGS]) + (", ..." if len(names) > SHOWN_SETTINGS else "")
        raise InputError(
            f'out: "{folder}" holds an unfinished run of other settings, data or model ({shown}); give another --out, '
            "or none, or remove it"
        )
    disk.write(path, json.dumps(plan, indent=2, sort_keys=True))


def _plan(settings: Any, command: str) -> dict[str, Any]:
    """What the result depends on; where it lies is no part of it."""
    sources = {name: getattr(settings, name) for name in ("model", "reward_model") if hasattr(settings, name)}
    hashes = {name: model_hash(source) for name, source in sources.items()} | {"data": data_hash(settings.data)}
    plan = _placeless(to_mapping(settings))
    return {"command": command, **plan, "hashes": hashes | own.hashes(plan)}


def _placeless(mapping: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in mapping.items() if name != "out"}


def _differences(folder: Path, plan: dict[str, Any]) -> list[str]:
    """The settings in which the run in this folder differs from the plan."""
    try:
        before = json.loads((folder / SETTINGS_FILE).read_text(encoding="utf-8"))
        old, new = flat(_placeless(before)), flat(plan)
    except (OSError, ValueError, AttributeError):
        return [f"its {SETTINGS_FILE} cannot be read"]
    return [name for name in old | new if old.get(name) != new.get(name)]


def result_file(out: str) -> Path | None:
    """The file for the result, if one was asked for. Raises InputError if it cannot be one."""
    if out and Path(out).is_dir():
        raise InputError(f'out: "{out}" is a folder; give a file')
    return Path(out) if out else None


def write(path: Path, text: str) -> None:
    """A result that is one file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    disk.write(path, text)


def finish(out: Path, facts: dict[str, Any], cost: Cost) -> Path:
    """Write result.json, forget the checkpoint, and say where it is. Returns the folder."""
    disk.write(out / RESULT_FILE, json.dumps(facts | {"cost": cost.to_json()}, indent=2) + "\n")
    forget_checkpoint(out)
    say(f"done in {duration(cost.seconds)}, peak memory {cost.peak_memory_bytes / 1e9:.1f} GB: {out}")
    return out


def say_next(*words: str, why: str = "") -> None:
    """The command that usually comes next, as it would be typed; words in capitals are to be filled in."""
    say(f"next: pairtune {shlex.join(words)}{f'   # {why}' if why else ''}")


def of_pairs(log_ratios: Sequence[Sequence[float]], rows: Sequence[Tokens]) -> dict[str, Estimate]:
    """Held-out accuracy, and what became of the chosen responses on the way."""
    prompts = [row.prompt for row in rows]
    return {
        "heldout_accuracy": accuracy(margins(log_ratios), rows),
        "chosen_nats_per_token": estimate(per_token(log_ratios, rows, 0), prompts),
        "chosen_fell": estimate(fell(log_ratios), prompts),
    }
