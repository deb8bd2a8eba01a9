"""What commands leave behind: a folder with settings and figures, or a file."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pairtune import disk
from pairtune.comparison.plan import data_hash, model_hash
from pairtune.data.pack import Tokens
from pairtune.engine.cost import Cost
from pairtune.errors import InputError
from pairtune.evaluation.heldout import accuracy, margins
from pairtune.evaluation.statistics import Estimate, estimate
from pairtune.evaluation.watch import fell, per_token
from pairtune.progress import duration, say
from pairtune.settings import to_mapping
from pairtune.training.checkpoint import forget_checkpoint

# What a result's folder was made with: the settings, and hashes of the data and the models.
SETTINGS_FILE = "settings.json"


def result_folder(out: str, command: str) -> Path:
    """The result's folder, before anything is read or loaded. Raises InputError if it cannot be one."""
    folder = Path(out or f"runs/{command}")
    if folder.exists() and not folder.is_dir():
        raise InputError(f'out: "{folder}" is a file; give a folder')
    if folder.is_dir() and any(folder.iterdir()):
        if not (folder / SETTINGS_FILE).is_file():
            raise InputError(f'out: "{folder}" is not empty and holds something else; give another --out')
        if (folder / "result.json").is_file():
            raise InputError(f'out: "{folder}" holds a finished result; give another --out, or remove it')
    return folder


def begin(folder: Path, settings: Any, command: str) -> None:
    """Make the folder. One that holds an unfinished run of the same command on the same content is gone on with."""
    sources = {name: getattr(settings, name) for name in ("model", "reward_model") if hasattr(settings, name)}
    hashes = {name: model_hash(source) for name, source in sources.items()} | {"data": data_hash(settings.data)}
    plan = json.dumps({"command": command, **to_mapping(settings), "hashes": hashes}, indent=2, sort_keys=True)
    path = folder / SETTINGS_FILE
    if path.is_file() and path.read_text(encoding="utf-8") != plan:
        raise InputError(
            f'out: "{folder}" holds an unfinished run of other settings, data or model; give another --out'
        )
    folder.mkdir(parents=True, exist_ok=True)
    disk.write(path, plan)


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
    """Write result.json, forget the checkpoint, and say how it went. Returns the folder."""
    disk.write(out / "result.json", json.dumps(facts | {"cost": cost.to_json()}, indent=2) + "\n")
    forget_checkpoint(out)
    shares = {"heldout_accuracy": "held-out accuracy", "heldout_own_accuracy": "by the objective's own criterion"}
    for name, words in shares.items():
        if name in facts:
            found = Estimate.from_json(facts[name])
            low, high = found.ci95
            say(f"{words}: {found.mean:.1%} (95% interval {low:.1%} to {high:.1%}, n = {found.n})")
    say(f"done in {duration(cost.seconds)}, peak memory {cost.peak_memory_bytes / 1e9:.1f} GB: {out}")
    return out


def of_pairs(log_ratios: Sequence[Sequence[float]], rows: Sequence[Tokens]) -> dict[str, Estimate]:
    """Held-out accuracy, and what became of the chosen responses on the way."""
    prompts = [row.prompt for row in rows]
    return {
        "heldout_accuracy": accuracy(margins(log_ratios), rows),
        "chosen_nats_per_token": estimate(per_token(log_ratios, rows, 0), prompts),
        "chosen_fell": estimate(fell(log_ratios), prompts),
    }
