"""What a person sees while they wait: a bar with the time left on a terminal, plain lines elsewhere."""

import sys
import time
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from pairtune.rank import is_first

# Without a terminal, a stage says where it is at most this often, in seconds.
LINE_EVERY = 20.0


class Task:
    """One stage under way: `advance` it, and `note` a few figures beside it."""

    def __init__(self, name: str, total: int, done: int = 0) -> None:
        self.name, self.total, self.text = name, total, ""
        self.done = self.before = done  # what an earlier run did says nothing about the time left
        self.began = self.last_line = time.monotonic()

    def advance(self, amount: int = 1) -> None:
        """Some of the total is done."""
        self.done += amount
        now = time.monotonic()
        if now - self.last_line >= LINE_EVERY and self.done < self.total:
            self.last_line = now
            fresh = self.done - self.before
            left = f", {duration((now - self.began) / fresh * (self.total - self.done))} left" if fresh else ""
            say(f"  {self.name} {self.done}/{self.total}{left}  {self.text}".rstrip())

    def note(self, text: str) -> None:
        """Figures of the latest step, shown beside the bar."""
        self.text = text


class _Bar(Task):
    def __init__(self, name: str, total: int, done: int, bar: Progress) -> None:
        super().__init__(name, total, done)
        self.bar, self.id = bar, bar.add_task(name, total=total, completed=done, text="")

    def advance(self, amount: int = 1) -> None:
        self.bar.advance(self.id, amount)

    def note(self, text: str) -> None:
        self.bar.update(self.id, text=text)


@contextmanager
def task(name: str, total: int, done: int = 0) -> Iterator[Task]:
    """Show a stage of `total` units, `done` of them by an earlier run, until the block ends."""
    console = Console(stderr=True)
    if not console.is_terminal or total < 1 or not is_first():
        yield Task(name, total, done)
        return
    columns = (
        TextColumn("  {task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[text]}", markup=False),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        yield _Bar(name, total, done, bar)


def say(line: str, *, by_any: bool = False) -> None:
    """One plain line to the person at the terminal (stderr: stdout is for results), by the first rank or `by_any`."""
    if by_any or is_first():
        print(printable(line), file=sys.stderr, flush=True)


def printable(text: str) -> str:
    """Text from data or models with control and direction-changing characters written out, safe for a terminal."""
    return "".join(
        char if char in "\n\t" or unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Co") else f"\\u{ord(char):04x}"
        for char in text
    )


def counted(number: int, noun: str, plural: str = "") -> str:
    """1 row, 1,200 rows; `plural` where an s will not do."""
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"


def significant(value: float, digits: int = 3) -> str:
    """The number with so many significant digits, as people write it: 0.693, 1230, 5e-05."""
    return f"{float(f'{value:.{digits}g}'):.10g}"


def duration(seconds: float) -> str:
    """8 s, 2 min 05 s, 1 h 04 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
