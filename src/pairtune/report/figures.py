"""Figures from saved records: rows in, one SVG string out, the same rows always giving the same string.

Each arm keeps one colour everywhere, from a palette after Okabe and Ito that colour-blind readers can tell
apart, and its line is named at its end. In the SVG the colours are CSS variables with a fallback, so that a
page in the dark can lighten them.
"""

import math
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from pairtune.report import words
from pairtune.report.records import REFERENCE, Measured, Row, measured, read

PALETTE = ("#6e7681", "#0072b2", "#d55e00", "#009e73", "#b5589a", "#b87a00", "#3d8fc4", "#8c6d46")
"""The reference's grey, then one colour per arm in the order of the summary."""

_INK, _GRID, _PAPER = "#24292e", "#d4d7dc", "#fefefe"
_MARKERS = "osD^vPX*"
_SIZE = (4.2, 2.9)


def palette(arms: Sequence[str]) -> dict[str, int]:
    """The place of each arm's colour in PALETTE: the reference's is 0, the others follow in order."""
    trained = [arm for arm in arms if arm != REFERENCE]
    return {REFERENCE: 0} | {arm: 1 + index % (len(PALETTE) - 1) for index, arm in enumerate(trained)}


def frontier(evaluations: Sequence[Row], title: str, colours: Mapping[str, int]) -> str | None:
    """Gold reward over KL: what each arm gained for the distance it moved. None if there are no points."""
    figure = Figure(figsize=_SIZE)
    return _svg(figure, "frontier") if _draw_frontier(_axes(figure), evaluations, title, colours) else None


def learning_curve(
    evaluations: Sequence[Row],
    field: str,
    title: str,
    colours: Mapping[str, int],
    *,
    over: str,
    started: Mapping[str, float] | None = None,
) -> str | None:
    """One measure over "step" or "seconds", a line with its interval band for each arm; None without points.

    started: the seconds that an arm had already spent when its own training began, added to its times.
    """
    figure = Figure(figsize=_SIZE)
    drawn = _draw_curve(_axes(figure), evaluations, field, title, colours, over=over, started=started or {})
    return _svg(figure, f"{field}-{over}") if drawn else None


def training_curve(steps: Sequence[Row], metric: str, colour: int) -> str | None:
    """One metric of one stage over its steps: thin each step, thick the running mean.

    None where no row has a finite number under that name.
    """
    found = [(row["step"], row[metric]) for row in steps if _is_number(row.get(metric))]
    if not found:
        return None
    figure = Figure(figsize=(3.2, 2.1))
    axes = _axes(figure)
    x, y = np.array(found, dtype=np.float64).T
    span = smoothing(len(found))
    axes.plot(x, y, color=PALETTE[colour], linewidth=0.7 if span > 1 else 1.5, alpha=0.45 if span > 1 else 1)
    if span > 1:
        smooth = np.convolve(y, np.full(span, 1 / span), mode="valid")
        axes.plot(x[span - 1 :], smooth, color=PALETTE[colour], linewidth=1.7)
    axes.yaxis.set_major_formatter("{x:g}")
    _name_axes(axes, metric.replace("_", " "), "step")
    return _svg(figure, f"{words.visible(str(steps[0].get('stage')))}-{metric}")


def smoothing(count: int) -> int:
    """Steps in the running mean of a curve of that many steps: one in twenty."""
    return max(1, count // 20)


def learning_curves_png(run_dir: Path, path: Path) -> None:
    """The three panels that tell a run, as one PNG on white. InputError: as for records.read."""
    run = read(run_dir)
    colours = palette(list(run.summary["arms"]))
    figure = Figure(figsize=(11, 3.3), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    for axes in (left, middle, right):
        _dress(axes)
    gold = f"{words.gold_name(run.summary)} (sd)"
    before = seconds_before(run.summary)
    rows = run.evaluations
    _draw_curve(left, rows, "heldout_accuracy", "Held-out accuracy", colours, over="step", started={})
    _draw_curve(middle, rows, "gold_score", gold, colours, over="seconds", started=before)
    _draw_frontier(right, rows, gold, colours)
    with _any_script():
        figure.savefig(path, dpi=200, facecolor="white", metadata={"Software": None})


def seconds_before(summary: Row) -> dict[str, float]:
    """Per arm, the seconds of the stages listed before its own: PPO's reward model, for one."""
    before = {}
    for arm, numbers in summary["arms"].items():
        stages = list((numbers.get("seconds") or {}).items())
        own = next((index for index, (stage, _) in enumerate(stages) if stage == arm), 0)
        before[arm] = float(sum(spent for _, spent in stages[:own]))
    return before


def _draw_frontier(axes: Axes, evaluations: Sequence[Row], title: str, colours: Mapping[str, int]) -> bool:
    ends = []
    for arm, rows in _by_arm(evaluations).items():
        both = [(measured(row.get("kl_from_reference")), measured(row.get("gold_score"))) for row in rows]
        found = [(kl, gold) for kl, gold in both if kl and gold]
        if found:
            x, y = [kl.mean for kl, _ in found], [gold.mean for _, gold in found]
            _line(axes, x, y, colours.get(arm, 0))
            for kl, gold in found:
                _cross(axes, kl, gold, colours.get(arm, 0))
            ends.append((x[-1], y[-1], arm))
    _name_axes(axes, f"{title} over KL", "KL from the reference (nats per response)")
    _label_ends(axes, ends, colours)
    return bool(ends)


def _draw_curve(
    axes: Axes,
    evaluations: Sequence[Row],
    field: str,
    title: str,
    colours: Mapping[str, int],
    *,
    over: str,
    started: Mapping[str, float],
) -> bool:
    ends = []
    for arm, rows in _by_arm(evaluations).items():
        shift = started.get(arm, 0.0) if over == "seconds" else 0.0
        found = [(row[over] + shift, value) for row in rows if (value := measured(row.get(field)))]
        if found:
            x, y = [at for at, _ in found], [value.mean for _, value in found]
            bounds = np.array([value.ci95 or (math.nan, math.nan) for _, value in found])
            shade = PALETTE[colours.get(arm, 0)]
            axes.fill_between(x, bounds[:, 0], bounds[:, 1], color=shade, alpha=0.15, linewidth=0)
            _line(axes, x, y, colours.get(arm, 0))
            ends.append((x[-1], y[-1], arm))
    _name_axes(axes, title, "training step" if over == "step" else "training seconds, earlier stages included")
    if field.endswith("accuracy"):
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    _label_ends(axes, ends, colours)
    return bool(ends)


def _by_arm(evaluations: Sequence[Row]) -> dict[str, list[Row]]:
    arms: dict[str, list[Row]] = {}
    for row in sorted(evaluations, key=lambda row: row["step"]):
        arms.setdefault(str(row.get("arm")), []).append(row)
    return arms


def _line(axes: Axes, x: Sequence[float], y: Sequence[float], colour: int) -> None:
    marker = _MARKERS[colour]
    axes.plot(x, y, color=PALETTE[colour], linewidth=1.7, marker=marker, markersize=4, markeredgewidth=0)


def _cross(axes: Axes, across: Measured, up: Measured, colour: int) -> None:
    """The two intervals of one point, where it has them."""
    faint: dict[str, Any] = {"color": PALETTE[colour], "linewidth": 0.8, "alpha": 0.45}
    if across.ci95:
        axes.plot(across.ci95, (up.mean, up.mean), **faint)
    if up.ci95:
        axes.plot((across.mean, across.mean), up.ci95, **faint)


def _label_ends(axes: Axes, ends: Sequence[tuple[float, float, str]], colours: Mapping[str, int]) -> None:
    """Name each line at its last point, pushing apart the names that would overlap."""
    low, high = axes.get_ylim()
    gap, lowest = 0.085 * (high - low), -math.inf
    for x, y, arm in sorted(ends, key=lambda end: end[1]):
        lowest = max(y, lowest + gap)
        axes.annotate(
            _short(words.arm_name(arm), 16),
            xy=(x, lowest),
            xytext=(6, 0),
            textcoords="offset points",
            verticalalignment="center",
            color=PALETTE[colours.get(arm, 0)],
            fontweight="bold",
            fontsize=9,
            parse_math=False,
            annotation_clip=False,
        )


def _axes(figure: Figure) -> Axes:
    figure.set_layout_engine("constrained")
    axes = figure.subplots()
    figure.patch.set_alpha(0)
    _dress(axes)
    return axes


def _dress(axes: Axes) -> None:
    axes.patch.set_alpha(0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(_GRID)
    axes.grid(axis="y", color=_GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(colors=_INK, length=0, labelsize=8.5)
    axes.margins(x=0.02)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_locator(MaxNLocator(5))


def _name_axes(axes: Axes, title: str, x: str) -> None:
    title, x = _short(title, 36), _short(x, 48)
    axes.set_title(title, loc="left", fontsize=10, fontweight="bold", color=_INK, parse_math=False)
    axes.set_xlabel(x, fontsize=8.5, color=_INK, parse_math=False)


def _short(text: str, longest: int) -> str:
    """On one line, with nothing hidden, and short enough to leave room for the drawing."""
    text = words.visible(" ".join(text.split()))
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


@contextmanager
def _any_script() -> Iterator[None]:
    """Names in scripts that the drawing font lacks are no reason to warn: in the SVG they stay text."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph|Matplotlib currently does not support", UserWarning)
        yield


def _svg(figure: Figure, name: str) -> str:
    """The figure as an SVG element for a page: no prolog, no metadata, and ids of its own."""
    file = StringIO()
    with _any_script(), matplotlib.rc_context({"svg.hashsalt": "pairtune", "svg.fonttype": "none"}):
        figure.savefig(file, format="svg", metadata={"Date": None})
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' xmlns(:\w+)?="[^"]*"', "", svg).replace("xlink:href", "href")
    prefix = re.sub(r"\W+", "-", name)
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}-", svg)
    for index, shade in enumerate(PALETTE):
        svg = svg.replace(shade, f"var(--arm-{index}, {shade})")
    svg = svg.replace(_INK, f"var(--ink, {_INK})").replace(_GRID, f"var(--line, {_GRID})")
    return svg.replace("<svg ", f'<svg role="img" aria-label="{prefix.replace("-", " ")}" ', 1)
