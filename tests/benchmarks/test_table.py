"""The table goes between its two marks, and nothing else of the document changes."""

from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from benchmarks import table
from benchmarks.results import BenchmarkError, versus

SETTINGS = {"data": "16 pairs", "peer": "bf16=True"}
ROWS = {
    "dpo": [
        versus("trl-best", "pairs/s", [5.0, 4.0], [0.5, 0.5], peer_version="trl 1", settings=SETTINGS),
        versus("memory", "GB", [2.0], [5.0], peer_version="trl 1", settings=SETTINGS, less_is_better=True),
    ]
}


def document(tmp_path: Path, text: Any) -> Any:
    path = tmp_path / "performance.md"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_rest_of_the_document_stays(tmp_path: Path) -> None:
    path = document(tmp_path, f"# Notes\n\n{table.BEGIN}\nold\n{table.END}\n\nby hand | kept\n")
    table.write(ROWS, "2 cores", path)
    table.write(ROWS, "2 cores", path)  # over its own table too
    text = path.read_text(encoding="utf-8")
    assert text.startswith(f"# Notes\n\n{table.BEGIN}\n2 cores\n")
    assert text.endswith(f"{table.END}\n\nby hand | kept\n")
    assert "old" not in text
    assert text.count("dpo trl-best | pairs/s | 4.5 (4 to 5) | 0.5 | 9 (8 to 10) | at least 10 |") == 1


@pytest.mark.parametrize("marks", ["", table.BEGIN, f"{table.END}\n{table.BEGIN}", f"{table.BEGIN}{table.END}" * 2])
def test_marks_that_are_not_there_once_in_order_are_an_error(tmp_path: Path, marks: Any) -> None:
    path = document(tmp_path, f"kept {marks}")
    with pytest.raises(BenchmarkError, match="put them back"):
        table.write(ROWS, "2 cores", path)
    assert path.read_text(encoding="utf-8") == f"kept {marks}"


def test_the_real_document_has_the_marks(tmp_path: Path) -> None:
    path = document(tmp_path, table.DOCUMENT.read_text(encoding="utf-8"))
    table.write(ROWS, "2 cores", path)
    assert "2 cores" in path.read_text(encoding="utf-8")


def test_terminal_shows_both_sides_and_says_shared_settings_once() -> None:
    out = StringIO()
    table.show(ROWS, Console(file=out, width=160))
    shown = out.getvalue()
    assert "2.5" in shown  # memory: 5 GB against 2
    assert shown.count("data: 16 pairs. peer: bf16=True") == 1
