"""The same numbers for a terminal of 80 columns: a table of the arms, then the verdict and what to watch."""

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pairtune.report import figures, words
from pairtune.report.figures import Figure
from pairtune.report.records import REFERENCE, measured


def show(summary: Mapping[str, Any], console: Console) -> None:
    """Print the arms, each mean with its n and 95% interval, the verdict and the notices; nothing in them is markup."""
    failed = summary.get("failed") or {}
    arms = {arm: numbers for arm, numbers in summary["arms"].items() if arm not in failed}
    measures = [each for each in figures.of_run(summary) if each.heading]
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    # What stands under an arm's name wraps before any interval does: four of those and the cost take 68 columns.
    table.add_column("Arm", overflow="fold", min_width=9, max_width=max(12, console.width - 68))
    for title in (*(each.heading for each in measures), "Cost"):
        table.add_column(title, justify="right", overflow="fold")
    for arm, numbers in arms.items():
        table.add_row(_named(summary, arm), *(_measured(numbers, each) for each in measures), _cost(arm, numbers))
    console.print(table)
    accuracies = [measured(arm.get(each.key)) for each in measures if each.accuracy for arm in arms.values()]
    small = [
        "Small figures: 95% interval and n.",
        *(each.footnote for each in measures if each.footnote),
        *["Like chance: cannot be told from 50%."] * ("like chance" in map(words.against_chance, accuracies)),
        *["Best of: by validation score."] * bool(summary.get("grid")),
        "Cost: training time, FLOPs, peak memory.",
    ]
    took = words.whole_run(summary)
    console.print(Text(" ".join([*small, *[f"Whole run: {took}."] * bool(took)]), style="dim"))
    for arm, reason in failed.items():
        console.print(Text.assemble((f"{words.arm_name(arm)} failed: ", "bold red"), words.visible(str(reason))))
    console.print()
    console.print(Text(words.visible(str(summary.get("verdict") or "No verdict yet."))))
    if summary.get("notices"):
        _watch(summary["notices"], console)


def _watch(notices: list[Mapping[str, Any]], console: Console) -> None:
    console.print(Text("\nWhat to watch", style="bold"))
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(overflow="fold")
    grid.add_column(overflow="fold")
    before = None
    for notice in notices:
        arm = words.arm_name(str(notice.get("arm")))
        grid.add_row(Text("" if arm == before else arm, style="bold"), Text(words.visible(str(notice.get("text", "")))))
        before = arm
    console.print(grid)


def _named(summary: Mapping[str, Any], arm: str) -> Text:
    """The arm's name, and under it its settings; of a grid, those that were chosen, and out of how many."""
    settings = summary["arms"][arm].get("parameters") or {}
    if tried := (summary.get("grid") or {}).get(arm):
        settings = {name: settings.get(name) for name in words.varied([row["parameters"] for row in tried])}
    under = (words.parameters(settings), words.choice(summary, arm))
    return Text(words.arm_name(arm), style="bold").append(
        "".join(f"\n{text}" for text in under if text), style="not bold dim"
    )


def _measured(numbers: Mapping[str, Any], figure: Figure) -> Text:
    found = measured(numbers.get(figure.key))
    if not found:
        return Text(words.NOTHING)

    def bare(value: float) -> str:  # its unit stands in the heading
        return figure.show(value).removesuffix("%")

    # Where all values agree the interval has no width, and says nothing that n does not.
    bounds = f"\n{words.interval(found, bare)}" if found.ci95 and found.ci95[0] < found.ci95[1] else ""
    text = Text(bare(found.mean)).append(f"{bounds}\nn = {words.whole(found.n)}", style="dim")
    standing = words.against_chance(found) if figure.accuracy else ""
    return text.append(f"\n{standing}") if standing else text


def _cost(arm: str, numbers: Mapping[str, Any]) -> Text:
    """Seconds, FLOPs and memory under one another: each with its unit, so that one narrow column holds them."""
    seconds = sum((numbers.get("seconds") or {}).values())
    if arm == REFERENCE and not seconds:
        return Text(words.NOTHING)
    spent = (
        (seconds, words.seconds),
        (numbers.get("flops"), words.scientific),
        (numbers.get("peak_memory_bytes"), words.gigabytes),
    )
    return Text("\n".join(write(value) if value else words.NOTHING for value, write in spent))
