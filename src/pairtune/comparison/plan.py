"""What a comparison will do, written down before it does anything, and the folder it may do it in."""

import itertools
import json
import platform
import shutil
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from pairtune import disk, manifest
from pairtune.configure import read_yaml
from pairtune.errors import InputError
from pairtune.grid import candidates, check_groups, samples
from pairtune.models.machine import Machine, describe_machine
from pairtune.progress import say
from pairtune.report.words import best_of
from pairtune.runs import CompareRun
from pairtune.settings_list import to_mapping
from pairtune.stages.stage import flat

# What makes a plan another plan, and not the same one with a setting changed.
IDENTITY = ("preset", "model", "data")
# The folder of the run's stages that leave a model, and of all others.
MODELS, STAGES = "models", "stages"
# The models that are no candidate's.
SHARED_MODELS = ("reference", "reward", "judge")
# Bytes of checkpoints for each parameter that learns: its float32 master and two moments, in two that stay and a third.
CHECKPOINT_BYTES = 3 * 12


def run_folder(settings: CompareRun) -> Path:
    """The folder that the run may have, or has: the one asked for, else runs/<preset>, -2, -3, ... whichever is free.

    Raises InputError if the one asked for holds another plan or something else. Nothing is written.
    """
    if len(set(settings.methods)) < len(settings.methods):
        raise InputError("methods: a method is named twice")
    learning = {samples(each) for each in settings.methods if not best_of(each)}
    if settings.match_kl and "match_kl" not in settings.not_given and len(learning) < 2:
        raise InputError("match_kl: it needs ppo or another method that samples, and a preference method")
    check_groups(settings)
    if settings.judge and settings.data == "reviews":
        raise InputError("judge: the built-in task has its gold scorer; give --judge with a file of pairs")
    if settings.prompt_format != "auto" and settings.data == "reviews":
        raise InputError("prompt_format: the built-in task's answers go on from text; give it with a file of pairs")
    if settings.out:
        if trouble := _why_not(Path(settings.out), settings):
            raise InputError(f"out: {trouble}")
        return Path(settings.out)
    names = (f"runs/{settings.preset}{f'-{i}' if i > 1 else ''}" for i in itertools.count(1))
    return next(Path(name) for name in names if not _why_not(Path(name), settings))


def open_run(settings: CompareRun) -> Path:
    """The run's folder, with plan.yaml in it. Raises InputError as `run_folder`."""
    out, plan = run_folder(settings), to_mapping(settings)
    if not settings.out:
        say(f"out: {out}")
    if _was_begun(out):
        _say_changes(read_yaml(out / "plan.yaml"), plan)
        _say_what_is_left(out, settings)
    out.mkdir(parents=True, exist_ok=True)
    disk.sweep(out)
    (out / manifest.RESULT).unlink(missing_ok=True)  # its own files are written anew
    disk.write(out / "plan.yaml", yaml.safe_dump(plan, sort_keys=False, allow_unicode=True))
    return out


def _was_begun(out: Path) -> bool:
    """Whether anything was done under the plan that lies there; if not, a typing error may be mended."""
    return (out / "plan.yaml").is_file() and ((out / STAGES).is_dir() or (out / MODELS).is_dir())


def _why_not(out: Path, settings: CompareRun) -> str:
    """Why a folder cannot be this run's; nothing if it can."""
    if out.exists() and not out.is_dir():
        return f'"{out}" is a file; give a folder'
    if any((out / STAGES).glob("*/key")):
        return f'"{out}" holds a run of an earlier version of pairtune; give another --out, or remove it'
    if _was_begun(out):
        before, now = read_yaml(out / "plan.yaml"), to_mapping(settings)
        other = [f"{name} {before.get(name)}" for name in IDENTITY if before.get(name) != now[name]]
        return f'"{out}" holds another plan ({", ".join(other)}); give another --out, or remove it' if other else ""
    if out.is_dir() and not disk.holds_nothing(out) and not (out / "plan.yaml").is_file():
        return f'"{out}" is not empty and holds no plan of pairtune; give an empty or a new folder'
    return ""


def _say_changes(before: dict[str, Any], now: dict[str, Any]) -> None:
    old, new = flat(before), flat(now)
    names = [name for name in old | new if name != "out" and old.get(name) != new.get(name)]
    changed = [f"{name} {old.get(name, 'not given')} -> {new.get(name, 'not given')}" for name in names]
    if changed:
        say(f"plan: changed {', '.join(changed)}; what depends on it is done again")


def _say_what_is_left(out: Path, settings: CompareRun) -> None:
    """Candidates of an earlier plan keep their models, for they may be asked for again; they look like this run's."""
    asked = {candidate.name for several in candidates(settings).values() for candidate in several}
    left = sorted(path.name for path in (out / MODELS).glob("*") if path.name not in {*asked, *SHARED_MODELS})
    if left:
        say(f"plan: no longer asked for, and no part of summary and report: {', '.join(left)} in {out / MODELS}")


def check_disk(out: Path, parameters: float, *, value_bytes: int, models: int, learning: int) -> None:
    """Raises InputError if the disk clearly has no room for what a run is still to write.

    That is `models` of so many parameters, of so many bytes each, and the checkpoint of as many as are `learning` at
    once.
    """
    free, need = shutil.disk_usage(out).free, parameters * (models * value_bytes + learning * CHECKPOINT_BYTES)
    if free < need:
        raise InputError(
            f'out: the disk of "{out}" has {free / 1e9:.1f} GB free and this run needs about {need / 1e9:.1f} GB; '
            "make room and give the same command, which goes on from here, or give another --out"
        )


def write_environment(out: Path, settings: CompareRun, machine: Machine, hashes: dict[str, str]) -> None:
    """environment.json: versions, machine, hashes of data and weights, every candidate with all its parameters."""
    packages = ("pairtune", "torch", "transformers", "tokenizers", "safetensors", "numpy", "scipy", "scikit-learn")
    facts = {
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in packages},
        "machine": describe_machine() | {"computes": str(machine)},
        "hashes": hashes,
        "seed": settings.seed,
        "candidates": {
            candidate.name: candidate.parameters for several in candidates(settings).values() for candidate in several
        },
    }
    disk.write(out / "environment.json", json.dumps(facts, indent=2) + "\n")


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
