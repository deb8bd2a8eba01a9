"""The rows that were left out, in a file beside the result: which file, which line, why."""

import json
from collections.abc import Iterable
from pathlib import Path

from pairtune import disk
from pairtune.data.schema import Skipped

FILE = "left-out.jsonl"


def write_left_out(folder: Path, skipped: Iterable[Skipped]) -> None:
    """One JSON object a row; no file where no row was left out."""
    rows = [{"file": skip.file, "line": skip.number, "reason": skip.reason} for skip in skipped]
    if rows:
        disk.write(folder / FILE, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
