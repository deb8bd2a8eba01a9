"""What tests write into the folder they run in; relative names keep messages short enough to be written out."""

import json
from pathlib import Path
from typing import Any


def write(*rows: Any, name: str = "d.jsonl") -> str:
    """A JSONL file of these rows, each an object or its line as text; its name."""
    lines = (row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows)
    Path(name).write_bytes("".join(f"{line}\n" for line in lines).encode("utf-8"))
    return name
