"""Figures in words and in a table: what was measured, how sure it is, and whether chance alone would have done it."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from pairtune.estimate import Estimate
from pairtune.evaluation.statistics import enough_to_tell, of_moments
from pairtune.progress import counted, printable, say
from pairtune.report import words
from pairtune.report.figures import figure

# What is told in place of held-out accuracy where a model was trained on what it is measured on, and how much that is.
TRAINED, NOT_HELD_OUT = "prompts_trained_on", "accuracy"
_OWN = {
    NOT_HELD_OUT: replace(figure("heldout_accuracy"), key=NOT_HELD_OUT, title="Accuracy, not held out"),
    TRAINED: replace(figure("heldout_accuracy"), key=TRAINED, title="Prompts trained on"),
}
# A share that a data set should be large enough to tell from chance.
WORTH_TELLING = 0.6


def say_share(title: str, share: Estimate, noun: str) -> None:
    """held-out accuracy: 57.1% (95% interval 39.4 to 73.7%, n = 35); cannot be told from chance (50%) with ..."""
    sureness = words.sureness(share, words.percent)
    say(f"{title}: {words.percent(share.mean)} ({sureness}){beside_chance(share, noun)}")


def beside_chance(share: Estimate, noun: str) -> str:
    """What is to be said of a share of pairs (or of comparisons) that are right, where a coin would have 50%."""
    if share.against_chance == "level":
        return f"; cannot be told from chance (50%) with {counted(share.n, noun)}{_needed(share)}"
    return "; worse than chance (50%)" if share.against_chance == "below" else ""


def _needed(share: Estimate) -> str:
    """How many it would take: for a share that is worth telling, or for this one where there are enough for that."""
    needed = enough_to_tell(WORTH_TELLING)
    if share.n < needed:
        return f": {WORTH_TELLING:.0%} would be with {_about(needed)}"
    if abs(share.mean - 0.5) < 0.01:
        return ""
    return f": {words.percent(share.mean)} would be with {_about(max(enough_to_tell(share.mean), share.n + 1))}"


def _about(count: int) -> str:
    """Two digits: it is advice."""
    return f"about {float(f'{count:.2g}'):,.0f}"


def say_change(before: Estimate, difference: Estimate) -> None:
    """Whether a share has changed by training, where it did not begin at chance."""
    said = f"  before: {words.percent(before.mean)}; "
    if not difference.is_detectable:
        say(f"{said}whether training changed it cannot be told with {counted(difference.n, 'pair')}")
        return
    way, moved = ("higher", difference) if difference.mean > 0 else ("lower", difference.negated())
    say(f"{said}{way} by {words.points(moved.mean)} ({words.interval(moved, words.points)})")


def say_online(rows: Sequence[Mapping[str, Any]], *, answers: int, alone: bool) -> None:
    """What the answers of the last step score, beside those of the first, which the reference wrote; and their KL.

    rows: the records, of so many answers a step. alone: whether each is to a prompt of its own; else there are no
    intervals, for answers to one prompt are not independent.
    """

    def told(row: Mapping[str, Any], name: str) -> str:
        found = _of_step(row, name, answers=answers, alone=alone)
        return f"{words.decimal(found.mean)} ({words.sureness(found)})"

    if len(rows) > 1:
        score, kl, (first, *_, last) = figure("reward_model_score"), figure("kl_from_reference"), rows
        say(
            f"{score.name}, of the answers sampled: {told(first, 'reward')} in the first step, by the reference "
            f"itself; {told(last, 'reward')} in the last"
        )
        say(f"{kl.name}: {told(last, 'kl')} in the last step; 0 before training")


def _of_step(row: Mapping[str, Any], name: str, *, answers: int, alone: bool) -> Estimate:
    deviation = row.get(f"{name}_sd")
    if deviation is None or not alone:
        return Estimate(mean=row[name], n=answers, ci95=None)
    return of_moments(row[name], deviation, answers)


def table(title: str, measured: Mapping[str, Estimate]) -> Table:
    """The figures with their intervals and numbers of values."""
    made = Table(
        title=Text(printable(title)), title_justify="left", box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False
    )
    made.add_column("Figure")
    for name in ("Value", "95% interval", "n"):
        made.add_column(name, justify="right")
    for key, found in measured.items():
        entry = _OWN.get(key) or figure(key)
        interval = words.interval(found, entry.show) if found.ci95 else "none"
        made.add_row(entry.name, entry.show(found.mean), interval, words.whole(found.n))
    return made
