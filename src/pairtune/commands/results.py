"""Where commands leave what they make: the folder of their one stage, or a file."""

import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from pairtune import disk, manifest, own, parallel
from pairtune.data.files import data_hash
from pairtune.data.pack import Tokens
from pairtune.data.sources import asked_of
from pairtune.engine.kernels import round_into
from pairtune.errors import InputError
from pairtune.estimate import Estimate
from pairtune.evaluation.diagnostics import fell, per_token
from pairtune.evaluation.heldout import accuracy, margins
from pairtune.evaluation.statistics import estimate
from pairtune.hashes import model_hash
from pairtune.holding import lock, taken
from pairtune.models import adapters
from pairtune.models.load import Tokenizer, resolve, save_model
from pairtune.progress import duration, say
from pairtune.runs import Merging
from pairtune.settings_list import to_mapping
from pairtune.stages.stage import Done, Stage, flat
from pairtune.training.checkpoint import SETTINGS, bound_to, forget_checkpoint

# The folder of the folders that commands make when none is asked for.
RUNS = Path("runs")
# The whole model beside its adapters.
MERGED = "merged"
# Settings on which no result rests.
NO_PART = ("out", "checkpoint_every", "resume_anyway", "shard")
# Settings named in a message.
SHOWN_SETTINGS = 4


def check_out(out: str) -> None:
    """Before anything is read or loaded: raises InputError if the folder that is asked for cannot be a result's."""
    folder = Path(out)
    if not out or not folder.exists():
        return
    if not folder.is_dir():
        raise InputError(f'out: "{folder}" is a file; give a folder')
    if disk.holds_nothing(folder):
        return
    if not (folder / SETTINGS).is_file() and not manifest.read(folder) and not bound_to(folder):
        raise InputError(
            f'out: "{folder}" is not empty and holds something else; give another --out, or none: a free name in '
            f"{RUNS} is then found"
        )
    if _is_finished(folder) and not manifest.damage(folder):
        forget_checkpoint(folder)  # where a kill came before that
        raise InputError(
            f'out: "{folder}" holds a finished result; give another --out, or none (a free name in {RUNS} is then '
            "found), or remove it"
        )


def is_done(settings: Any, command: str) -> bool:
    """Whether the folder that is asked for holds the finished result of just this run, which is said then.

    Raises InputError if it cannot be a result's.
    """
    return parallel.from_first(lambda: _is_done(settings, command))


def _is_done(settings: Any, command: str) -> bool:
    folder = Path(settings.out)
    if settings.out and settings.data and _is_finished(folder) and not manifest.damage(folder):
        found = manifest.read(folder)
        if found and found.get("key") == Stage(folder, _rests_on(settings, command)).key:
            forget_checkpoint(folder)  # where a kill came before that
            say(f'out: "{folder}" holds the finished result of this very run; nothing is left to do')
            return True
    check_out(settings.out)
    return False


def _is_finished(folder: Path) -> bool:
    return (folder / manifest.RESULT).is_file()


@contextmanager
def stage_of(settings: Any, command: str) -> Iterator[Stage]:
    """The command's stage, its folder this run's alone until the block ends.

    Without --out, the folder is the newest unfinished one of the same command, settings, data and model, or else the
    first free name of runs/tune, runs/tune-2, ...; which it is, is said. A folder in which nothing was written is not
    left behind. Raises InputError if the one that is asked for holds something else.
    """
    if parallel.is_first():
        check_out(settings.out)
    rests_on = _rests_on(settings, command)
    parallel.check_same(flat(Stage(Path(), rests_on).settings), "settings, data or model")
    if not parallel.is_first():
        yield Stage(Path(parallel.from_first(str)), rests_on)
        return
    missing: list[Path] = []
    wanted = [Path(settings.out)] if settings.out else _without_asking(rests_on, command)
    for folder in wanted:
        missing = [path for path in (folder, *folder.parents) if not path.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        if (descriptor := lock(folder)) is not None:
            break
    else:
        raise taken(Path(settings.out))
    try:
        disk.sweep(folder)
        stage = Stage(folder, rests_on)
        if not settings.out:
            same = ", an unfinished run of the same settings, data and model, which is resumed"
            say(f"out: {folder}{same if stage.begun else ''}")
        known = manifest.read(folder)
        if not known or known.get("key") != stage.key:
            if settings.resume_anyway:
                stage = stage.going_on()
            else:
                _refuse_another(stage)
        stage.finished()  # whose files are damaged (check_out has refused any other): told of, and made again
        parallel.from_first(lambda: str(stage.folder))
        yield stage
    finally:
        os.close(descriptor)
        for path in missing:
            with suppress(OSError):  # it is not empty: then it is the result
                path.rmdir()


def _without_asking(rests_on: Mapping[str, Any], command: str) -> Iterator[Path]:
    """The folders to try when none is asked for."""
    name = re.compile(rf"{command}(-\d+)?\Z")
    stages = [Stage(path, rests_on) for path in RUNS.glob(f"{command}*") if name.match(path.name)]
    unfinished = [stage for stage in stages if stage.begun and not _is_finished(stage.folder)]
    unfinished.sort(key=lambda stage: (stage.folder / SETTINGS).stat().st_mtime, reverse=True)
    yield from (stage.folder for stage in unfinished if not stage.changed())
    for number in count(1):
        folder = RUNS / (command if number == 1 else f"{command}-{number}")
        if not folder.exists() or (folder.is_dir() and disk.holds_nothing(folder)):
            yield folder


def _refuse_another(stage: Stage) -> None:
    """Raises InputError if other work lies in the stage's folder."""
    if names := stage.changed():
        shown = ", ".join(names[:SHOWN_SETTINGS]) + (", ..." if len(names) > SHOWN_SETTINGS else "")
        raise InputError(
            f'out: "{stage.folder}" holds an unfinished run of other settings, data or model ({shown}); give another '
            "--out, or none, or remove it; --resume-anyway goes on with it"
        )


def _rests_on(settings: Any, command: str) -> dict[str, Any]:
    """What the result rests on; where it lies is no part of it."""
    sources = {name: getattr(settings, name) for name in ("model", "reward_model") if hasattr(settings, name)}
    asked = {name: value for name, value in to_mapping(settings).items() if name not in NO_PART}
    hashes = {
        name: model_hash(resolve(source)) for name, source in sources.items() if source and not own.is_own(source)
    }
    hashes |= {"data": data_hash(settings.data, asked_of(settings)), **own.hashes(asked)}
    return {"command": command, **asked, "hashes": hashes}


def of_adapters(settings: Merging, model: PreTrainedModel, tokenizer: Tokenizer, folder: Path) -> dict[str, str]:
    """The whole model beside its adapters, if it is asked for; what the result is to say of their base.

    The model is then no longer adapted.
    """
    if not settings.lora:
        return {}
    if settings.merge:
        whole = adapters.fold(model, round_into)
        if parallel.is_first():
            save_model(whole, tokenizer, folder / MERGED)
        say(f"merged: {folder / MERGED}, the whole model, adapters added into its weights")
    return base_facts(settings)


def base_facts(settings: Any) -> dict[str, str]:
    """What a result with adapters says of the model that they belong to."""
    return {"base_sha256": model_hash(resolve(settings.model))} if settings.lora else {}


def say_done(done: Done) -> None:
    """Say what it took, and where it is."""
    cost = done.cost
    say(f"done in {duration(cost.seconds)}, peak memory {cost.peak_memory_bytes / 1e9:.1f} GB: {done.folder}")


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
