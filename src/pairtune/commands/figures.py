"""Figures in words and in a table: what was measured, how sure it is, and whether chance alone would have done it."""

from collections.abc import Mapping

from rich import box
from rich.table import Table
from rich.text import Text

from pairtune.evaluation.statistics import Estimate, changed, is_bounded, told_from_chance
from pairtune.progress import counted, printable, say, significant

# Each figure that a table may show: its title, and whether it is a share.
TITLES = {
    "heldout_accuracy": ("held-out accuracy", True),
    "chosen_nats_per_token": ("chosen: nats per token from the reference", False),
    "chosen_fell": ("chosen responses that became less probable", True),
    "kl_from_reference": ("KL from the reference, nats per response", False),
    "response_tokens": ("tokens per answer", False),
    "repetition": ("repeated 3-grams within an answer", True),
    "distinct_bigrams": ("distinct 2-grams of all answers", True),
    "reward_model_score": ("reward model's score", False),
}


def say_share(title: str, share: Estimate, noun: str) -> None:
    """held-out accuracy: 57.1% (95% interval 40.0% to 71.4%, n = 35); cannot be told from chance (50%) with 35 pairs"""
    say(f"{title}: {share.mean:.1%} ({sureness(share)}){beside_chance(share, noun)}")


def sureness(figure: Estimate, *, share: bool = True) -> str:
    """The interval and n in words. Values that all agree, or that have one prompt, have no interval to tell."""
    if not is_bounded(figure):
        return f"no interval, n = {figure.n}"
    low, high = figure.ci95
    if low == high:
        return f"no interval, all alike, n = {figure.n}"
    return f"95% interval {_shown(low, share=share)} to {_shown(high, share=share)}, n = {figure.n}"


def beside_chance(share: Estimate, noun: str) -> str:
    """What is to be said of a share of pairs (or of comparisons) that are right, where a coin would have 50%."""
    if not told_from_chance(share):
        return f"; cannot be told from chance (50%) with {counted(share.n, noun)}"
    return "; worse than chance (50%)" if share.mean < 0.5 else ""


def say_change(before: Estimate, difference: Estimate) -> None:
    """Whether a share has changed by training, where it did not begin at chance."""
    said = f"  before: {before.mean:.1%}; "
    if not changed(difference):
        say(f"{said}whether training changed it cannot be told with {counted(difference.n, 'pair')}")
        return
    low, high = difference.ci95
    way = "higher" if difference.mean > 0 else "lower"
    say(f"{said}{way} by {abs(difference.mean):.1%} ({_shown(low)} to {_shown(high)})")


def table(title: str, figures: Mapping[str, Estimate]) -> Table:
    """The figures, three digits each, with their intervals and numbers of values."""
    made = Table(
        title=Text(printable(title)), title_justify="left", box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False
    )
    made.add_column("Figure")
    for name in ("Value", "95% interval", "n"):
        made.add_column(name, justify="right")
    for name, figure in figures.items():
        words, share = TITLES[name]
        low, high = (_shown(bound, share=share) for bound in figure.ci95) if is_bounded(figure) else ("", "")
        interval = f"{low} to {high}" if is_bounded(figure) else "none"
        made.add_row(words, _shown(figure.mean, share=share), interval, f"{figure.n:,}")
    return made


def _shown(value: float, *, share: bool = True) -> str:
    return f"{significant(100 * value)}%" if share else significant(value)
