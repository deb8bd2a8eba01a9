"""What a run directory holds, read once and checked as it is read.

Only summary.json must be there. The others may be missing, as they are when a run stopped early.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pairtune.errors import InputError
from pairtune.estimate import Estimate

Row = Mapping[str, Any]

REFERENCE = "reference"


@dataclass(frozen=True, kw_only=True)
class Run:
    """The saved records of one comparison."""

    name: str
    summary: Row
    steps: list[Row]
    evaluations: list[Row]
    points: list[Row]
    samples: list[Row]
    plan: str | None
    environment: Row | None


def read(run_dir: Path) -> Run:
    """Read a run directory. InputError: one line that names the file, the line and what is wrong."""
    if not run_dir.is_dir():
        raise InputError(f"{run_dir} is not a run directory")
    summary = _read_mapping(run_dir / "summary.json")
    if summary is None:
        raise InputError(f"{run_dir} holds no summary.json: the run has not finished, or this is not a run")
    if not isinstance(summary.get("arms"), dict) or not all(isinstance(a, dict) for a in summary["arms"].values()):
        raise InputError(f'{run_dir / "summary.json"}: "arms" must map the name of each arm to its numbers')
    _check_optional(summary, where=str(run_dir / "summary.json"))
    records = _read_rows(run_dir / "records.jsonl", {"step": int, "seconds": float})
    return Run(
        name=run_dir.resolve().name,
        summary=summary,
        steps=[row for row in records if row.get("kind") == "step"],
        evaluations=[row for row in records if row.get("kind") == "evaluation"],
        points=[row for row in records if row.get("kind") == "point"],
        samples=_read_rows(
            run_dir / "samples.jsonl", {"prompt_index": int, "prompt": str, "arm": str, "response": str}
        ),
        plan=_read_text(run_dir / "plan.yaml"),
        environment=_read_mapping(run_dir / "environment.json"),
    )


def _check_optional(summary: Row, *, where: str) -> None:
    """What later versions added, where it is there at all. InputError: it has another shape."""
    if not all(isinstance(arm.get("parameters") or {}, dict) for arm in summary["arms"].values()):
        raise InputError(f'{where}: "parameters" of an arm must map names to values')
    grid = summary.get("grid") or {}
    lists = list(grid.values()) if isinstance(grid, dict) else [None]
    rows = [row for rows in lists for row in (rows if isinstance(rows, list) else [None])]
    if not all(isinstance(row, dict) and isinstance(row.get("parameters"), dict) for row in rows):
        raise InputError(f'{where}: "grid" must map each method to a list of candidates, each with its "parameters"')
    notices = summary.get("notices") or []
    if not isinstance(notices, list) or not all(isinstance(row, dict) for row in notices):
        raise InputError(f'{where}: "notices" must be a list of notices, each with its "arm" and "text"')


def measured(saved: Any) -> Estimate | None:
    """A saved {"mean", "n", "ci95"} or null; None where the mean is no number. InputError: anything else."""
    if saved is None:
        return None
    try:
        found = Estimate.from_json(saved)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise InputError(f"{saved!r} should be a mean with its n and ci95, or null") from error
    return found if math.isfinite(found.mean) else None


def _read_text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error


def _read_mapping(path: Path) -> Row | None:
    text = _read_text(path)
    return None if text is None else _parse(text, where=str(path))


def _read_rows(path: Path, fields: Mapping[str, type]) -> list[Row]:
    """The rows of a JSONL file, each holding the fields with their types; [] if there is no file."""
    rows = []
    # Not splitlines(): JSON strings may hold U+2028, which is no end of line here.
    for number, line in enumerate((_read_text(path) or "").split("\n"), start=1):
        if line.strip():
            where = f"{path}:{number}"
            row = _parse(line, where=where)
            for field, wanted in fields.items():
                allowed = (int, float) if wanted is float else wanted
                if not isinstance(row.get(field), allowed):
                    raise InputError(f'{where}: "{field}" must be {_SAID[wanted]}')
            rows.append(row)
    return rows


_SAID = {int: "a whole number", float: "a number", str: "text"}


def _parse(text: str, *, where: str) -> Row:
    try:
        parsed = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"{where} is not JSON: {error.msg} at column {error.colno}") from error
    except RecursionError as error:
        raise InputError(f"{where} is nested too deeply") from error
    if not isinstance(parsed, dict):
        raise InputError(f"{where} must hold a JSON object")
    return parsed
