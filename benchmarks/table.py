"""The rows as people read them: a table on the terminal, and the same table in docs/performance.md."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.results import BenchmarkError, Row, Spread

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "performance.md"
BEGIN, END = "<!-- benchmarks: begin -->", "<!-- benchmarks: end -->"
Rows = Mapping[str, Sequence[Row]]

# How many times better each row is meant to be, at least; or what else is meant.
AIMS: dict[tuple[str, str], float | str] = {
    ("dpo", "trl-best"): 10.0,
    ("dpo", "trl-default"): 15.0,
    ("dpo", "naive"): 4.5,
    ("dpo", "gemm-share"): 0.6,
    ("dpo", "memory"): 2.5,
    ("lora", "trl"): 5.0,
    ("lora", "memory-trl"): 2.0,
    ("lora", "full"): 1.3,
    ("lora", "memory-full"): 1.67,
    ("reward", "trl"): 4.0,
    ("sampling", "generate-64"): 2.5,
    ("sampling", "generate-256"): 2.5,
    ("ppo", "trl"): 3.0,
    ("startup", "help"): "ours at most 0.5",
    ("scale", "cost-10000"): 0.9,
    ("scale", "cost-50000"): 0.9,
    ("scale", "memory-10000"): 0.9,
    ("scale", "memory-50000"): 0.9,
}
HEADINGS = ("benchmark", "unit", "ours", "peer", "times better", "aim")


def show(rows: Rows, console: Console) -> None:
    """Print the table and the settings of both sides."""
    table = Table(*HEADINGS, title="median (lowest to highest)", title_justify="left")
    for line in _lines(rows):
        table.add_row(*line)
    console.print(table)
    for setting in _settings(rows):
        console.print(setting, markup=False, highlight=False)


def write(rows: Rows, machine: str, document: Path = DOCUMENT) -> None:
    """Put the table between the document's two markers; nothing else of it changes.

    Raises BenchmarkError if the markers are not there, once each and in order.
    """
    text = document.read_text(encoding="utf-8")
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise BenchmarkError(f"{document.name} needs the lines {BEGIN} and {END}, once each; put them back")
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    lines = [" | ".join(HEADINGS), "|".join("---" for _ in HEADINGS), *(" | ".join(line) for line in _lines(rows))]
    table = "\n".join(f"| {line} |" for line in lines)
    settings = "\n".join(f"- {line}" for line in _settings(rows))
    document.write_text(f"{before}{BEGIN}\n{machine}\n\n{table}\n\n{settings}\n{END}{after}", encoding="utf-8")


def _lines(rows: Rows) -> Iterator[tuple[str, ...]]:
    for benchmark, group in rows.items():
        for row in group:
            aim = AIMS.get((benchmark, row.name))
            peer = _spread(row.peer) if row.peer else "–"
            wanted = f"at least {aim:g}" if isinstance(aim, float) else aim or "–"
            yield f"{benchmark} {row.name}", row.unit, _spread(row.ours), peer, _spread(row.ratio), wanted


def _spread(spread: Spread) -> str:
    middle, low, high = (f"{value:.3g}" for value in (spread.median, spread.min, spread.max))
    return middle if low == high else f"{middle} ({low} to {high})"


def _settings(rows: Rows) -> Iterator[str]:
    """Each row's settings, those that a benchmark's rows share said once."""
    for benchmark, group in rows.items():
        said: set[tuple[str, str]] = set()
        for row in group:
            parts = [f"{name}: {text}" for name, text in row.settings.items() if (name, text) not in said]
            said |= set(row.settings.items())
            versions = f" ({row.peer_version})" if row.peer_version else ""
            if parts:
                yield f"{benchmark} {row.name}{versions}. " + ". ".join(parts)
