"""The same numbers for a terminal of 80 columns: a table of the arms, then the verdict."""

from collections.abc import Callable, Mapping
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pairtune.report import words
from pairtune.report.records import REFERENCE, measured

_MEASURES: tuple[tuple[str, str, Callable[[float], str]], ...] = (
    ("gold_score", "Gold reward", words.decimal),
    ("heldout_accuracy", "Held-out %", lambda share: f"{100 * share:.1f}"),
    ("kl_from_reference", "KL (nats)", words.decimal),
)


def show(summary: Mapping[str, Any], console: Console) -> None:
    """Print the arms, each mean with its n and 95% interval, and the verdict; nothing in them is markup."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    table.add_column("Arm", overflow="fold", min_width=9)
    for _, title, _ in _MEASURES:
        table.add_column(title, justify="right", overflow="fold")
    for title in ("Seconds", "FLOPs", "Memory"):
        table.add_column(title, justify="right", overflow="fold")
    failed = summary.get("failed") or {}
    for arm, numbers in summary["arms"].items():
        if arm not in failed:
            table.add_row(*_cells(arm, numbers))
    console.print(table)
    console.print(Text("Small figures: 95% interval and n. KL is sampled, per response.", style="dim"))
    for arm, reason in failed.items():
        console.print(Text.assemble((f"{words.arm_name(arm)} failed: ", "bold red"), words.visible(str(reason))))
    console.print()
    console.print(Text(words.visible(str(summary.get("verdict") or "No verdict yet."))))


def _cells(arm: str, numbers: Mapping[str, Any]) -> list[Text]:
    cells = [Text(words.arm_name(arm), style="bold")]
    for field, _, write in _MEASURES:
        found = measured(numbers.get(field))
        cell = Text(words.NOTHING)
        if found:
            bounds = f"\n{words.interval(found, write)}" if found.ci95 else ""
            cell = Text(write(found.mean)).append(f"{bounds}\nn = {words.whole(found.n)}", style="dim")
        cells.append(cell)
    spent = arm != REFERENCE or any((numbers.get("seconds") or {}).values())
    for value, write in (
        (sum((numbers.get("seconds") or {}).values()), words.whole),
        (numbers.get("flops"), words.scientific),
        (numbers.get("peak_memory_bytes"), words.gigabytes),
    ):
        cells.append(Text(write(value) if spent and value else words.NOTHING))
    return cells
