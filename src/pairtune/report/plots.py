"""Drawings from saved records: rows in, one SVG string out, the same rows always giving the same string."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from pairtune.errors import InputError
from pairtune.estimate import Estimate
from pairtune.report import figures, style, words
from pairtune.report.records import REFERENCE, Row, measured, read


def frontier(evaluations: Sequence[Row], score: figures.Figure, colours: Mapping[str, int]) -> str | None:
    """The score over KL: what each arm gained for the distance it moved. None if there are no points."""
    figure = Figure(figsize=style.SIZE)
    drawn = _draw_frontier(style.new_axes(figure), evaluations, score, colours)
    return style.svg(figure, "frontier") if drawn else None


def grid(
    candidates: Mapping[str, Sequence[Row]],
    score: figures.Figure,
    colours: Mapping[str, int],
    *,
    method: str | None = None,
) -> str | None:
    """The score over KL on the validation split: a method's candidates joined in the order of their KL.

    The chosen one has a ring, the reference stands at the origin. method: its points alone, each with the value it
    was trained at, before the others' in grey. None without points.
    """
    figure = Figure(figsize=style.SIZE)
    drawn = _draw_grid(style.new_axes(figure), candidates, score, colours, method)
    return style.svg(figure, f"grid-{method or 'all'}") if drawn else None


def picture(run_dir: Path, path: Path) -> None:
    """What tells a run at a glance, as one PNG on white: its grid where it has one, else how its arms learned.

    InputError: as for records.read.
    """
    draw = grid_png if read(run_dir).summary.get("grid") else learning_curves_png
    draw(run_dir, path)


def grid_png(run_dir: Path, path: Path) -> None:
    """The grid of a run, all methods and each by itself, as one PNG on white. InputError: as for records.read."""
    run = read(run_dir)
    candidates = run.summary.get("grid") or {}
    if not candidates:
        raise InputError(f"{run_dir} has no grid: no method was trained at several values")
    rows = math.ceil((1 + len(candidates)) / 3)
    figure = Figure(figsize=(11, 3.3 * rows), layout="constrained")
    panels = figure.subplots(rows, 3, squeeze=False).flatten()
    score = figures.score(run.summary)
    for axes, method in zip(panels, [None, *candidates], strict=False):
        style.dress(axes)
        _draw_grid(axes, candidates, score, style.palette(list(run.summary["arms"])), method)
    for axes in panels[1 + len(candidates) :]:
        axes.set_axis_off()
    with style.any_script():
        figure.savefig(path, dpi=200, facecolor="white", metadata={"Software": None})


def learning_curve(
    evaluations: Sequence[Row],
    measure: figures.Figure,
    colours: Mapping[str, int],
    *,
    over: str,
    started: Mapping[str, float] | None = None,
) -> str | None:
    """One measure over "step" or "seconds", a line with its interval band for each arm; None without points.

    started: the seconds that an arm had already spent when its own training began, added to its times.
    """
    figure = Figure(figsize=style.SIZE)
    drawn = _draw_curve(style.new_axes(figure), evaluations, measure, colours, over=over, started=started or {})
    return style.svg(figure, f"{measure.key}-{over}") if drawn else None


def training_curve(steps: Sequence[Row], metric: str, colour: int) -> str | None:
    """One metric of one stage over its steps: thin each step, thick the running mean.

    None where no row has a finite number under that name.
    """
    found = [(row["step"], row[metric]) for row in steps if _is_number(row.get(metric))]
    if not found:
        return None
    figure = Figure(figsize=(3.2, 2.1))
    axes = style.new_axes(figure)
    x, y = np.array(found, dtype=np.float64).T
    span = smoothing(len(found))
    axes.plot(x, y, color=style.PALETTE[colour], linewidth=0.7 if span > 1 else 1.5, alpha=0.45 if span > 1 else 1)
    if span > 1:
        smooth = np.convolve(y, np.full(span, 1 / span), mode="valid")
        axes.plot(x[span - 1 :], smooth, color=style.PALETTE[colour], linewidth=1.7)
    axes.yaxis.set_major_formatter("{x:g}")
    style.name_axes(axes, metric.replace("_", " "), "step")
    return style.svg(figure, f"{words.visible(str(steps[0].get('stage')))}-{metric}")


def smoothing(count: int) -> int:
    """Steps in the running mean of a curve of that many steps: one in twenty."""
    return max(1, count // 20)


def learning_curves_png(run_dir: Path, path: Path) -> None:
    """The three panels that tell a run, as one PNG on white. InputError: as for records.read."""
    run = read(run_dir)
    colours = style.palette(list(run.summary["arms"]))
    figure = Figure(figsize=(11, 3.3), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    for axes in (left, middle, right):
        style.dress(axes)
    rows, score, before = run.evaluations, figures.score(run.summary), seconds_before(run.summary)
    _draw_curve(left, rows, figures.figure("heldout_accuracy"), colours, over="step", started={})
    _draw_curve(middle, rows, score, colours, over="seconds", started=before)
    _draw_frontier(right, [*rows, *run.points], score, colours)
    with style.any_script():
        figure.savefig(path, dpi=200, facecolor="white", metadata={"Software": None})


def seconds_before(summary: Row) -> dict[str, float]:
    """Per arm, the seconds of the stages listed before its own: PPO's reward model, for one."""
    before = {}
    for arm, numbers in summary["arms"].items():
        stages = list((numbers.get("seconds") or {}).items())
        own = next((index for index, (stage, _) in enumerate(stages) if stage == arm), 0)
        before[arm] = float(sum(spent for _, spent in stages[:own]))
    return before


def _points(candidates: Sequence[Row]) -> list[tuple[Estimate, Estimate, Row]]:
    """KL, gold reward and the row of each candidate that has both, in the order of KL."""
    both = [(measured(row.get("kl_from_reference")), measured(row.get("gold_score")), row) for row in candidates]
    found = [(kl, gold, row) for kl, gold, row in both if kl and gold]
    return sorted(found, key=lambda point: point[0].mean)


def _means(points: Sequence[tuple[Estimate, Estimate, Row]]) -> tuple[list[float], list[float]]:
    return [kl.mean for kl, _, _ in points], [gold.mean for _, gold, _ in points]


def _fit_all(axes: Axes, points: Sequence[tuple[Estimate, Estimate]]) -> None:
    """The same limits for every figure of one grid: all points and intervals, the origin, and room for names."""
    corners = [(0.0, 0.0)]
    for kl, gold in points:
        corners += zip(kl.ci95 or (kl.mean,) * 2, gold.ci95 or (gold.mean,) * 2, strict=True)
    axes.update_datalim(corners)
    axes.margins(x=0.05, y=0.08)
    axes.autoscale_view()
    axes.autoscale(False)


def _draw_candidates(axes: Axes, found: Sequence[tuple[Estimate, Estimate, Row]], colour: int, *, faint: bool) -> None:
    x, y = _means(found)
    if faint:
        axes.plot(x, y, color=style.GRID, linewidth=1.2, marker="o", markersize=3, markeredgewidth=0, zorder=1)
        return
    style.line(axes, x, y, colour)
    for kl, gold, row in found:
        style.cross(axes, kl, gold, colour)
        if row.get("chosen"):
            ring: dict[str, Any] = {"markerfacecolor": "none", "markeredgecolor": style.INK, "markeredgewidth": 1.2}
            axes.plot(kl.mean, gold.mean, marker="o", markersize=10, **ring)


def _draw_grid(
    axes: Axes,
    candidates: Mapping[str, Sequence[Row]],
    score: figures.Figure,
    colours: Mapping[str, int],
    method: str | None,
) -> bool:
    points = {each: _points(rows) for each, rows in candidates.items()}
    if not points.get(method) if method else not any(points.values()):
        return False
    _fit_all(axes, [(kl, gold) for found in points.values() for kl, gold, _ in found])
    axes.plot(0, 0, color=style.PALETTE[0], marker="o", markersize=5, markeredgewidth=0)
    for each, found in points.items():
        _draw_candidates(axes, found, colours.get(each, 0), faint=method not in (None, each))
    labels = [(0.0, 0.0, words.arm_name(REFERENCE), style.PALETTE[0])]
    title = f"{score.axis} over KL, every candidate"
    if method is None:
        for each, found in points.items():
            for kl, gold, _ in found[-1:]:
                labels.append((kl.mean, gold.mean, words.arm_name(each), style.PALETTE[colours.get(each, 0)]))
    else:
        names = words.varied([row["parameters"] for row in candidates[method]])
        for kl, gold, row in points[method]:
            value = ", ".join(words.setting(row["parameters"].get(name)) for name in names)
            labels.append((kl.mean, gold.mean, value, style.PALETTE[colours.get(method, 0)]))
        by = style.short(", ".join(name.replace("_", " ") for name in names), 16)
        title = f"{style.short(words.arm_name(method), 16)} by {by}: {score.axis}"
    lines = [_means(found) for each, found in points.items() if found and method in (None, each)]
    style.label_points(axes, labels, lines)
    style.name_axes(axes, title, figures.figure("kl_from_reference").axis)
    return True


def _draw_frontier(axes: Axes, evaluations: Sequence[Row], score: figures.Figure, colours: Mapping[str, int]) -> bool:
    ends = []
    for arm, rows in _by_arm(evaluations).items():
        both = [(measured(row.get("kl_from_reference")), measured(row.get(score.key))) for row in rows]
        found = [(kl, gold) for kl, gold in both if kl and gold]
        if found:
            x, y = [kl.mean for kl, _ in found], [gold.mean for _, gold in found]
            style.line(axes, x, y, colours.get(arm, 0))
            for kl, gold in found:
                style.cross(axes, kl, gold, colours.get(arm, 0))
            ends.append((x[-1], y[-1], arm))
    across = figures.figure("kl_from_reference").axis
    style.name_axes(axes, f"{score.axis} over KL", across, note=_counted(evaluations, score.key))
    style.label_ends(axes, ends, colours)
    return bool(ends)


def _draw_curve(
    axes: Axes,
    evaluations: Sequence[Row],
    measure: figures.Figure,
    colours: Mapping[str, int],
    *,
    over: str,
    started: Mapping[str, float],
) -> bool:
    ends = []
    arms = _by_arm(evaluations)
    for arm, rows in arms.items():
        shift = started.get(arm, 0.0) if over == "seconds" else 0.0
        found = [(row[over] + shift, value) for row in rows if (value := measured(row.get(measure.key)))]
        if found:
            x, y = [at for at, _ in found], [value.mean for _, value in found]
            bounds = np.array([value.ci95 or (math.nan, math.nan) for _, value in found])
            shade = style.PALETTE[colours.get(arm, 0)]
            axes.fill_between(x, bounds[:, 0], bounds[:, 1], color=shade, alpha=min(0.15, 0.4 / len(arms)), linewidth=0)
            style.line(axes, x, y, colours.get(arm, 0))
            ends.append((x[-1], y[-1], arm))
    if over == "step":
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    across = "training step" if over == "step" else "training seconds, earlier stages included"
    style.name_axes(axes, measure.axis, across, note=_counted(evaluations, measure.key))
    if measure.show is words.percent:
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    style.label_ends(axes, ends, colours)
    return bool(ends)


def _counted(evaluations: Sequence[Row], field: str) -> str:
    """How many values the points are means of: those at the ends of the lines, and those between."""
    lines = [[value.n for row in rows if (value := measured(row.get(field)))] for rows in _by_arm(evaluations).values()]
    ends = _range([n for line in lines if line for n in (line[0], line[-1])])
    between = _range([n for line in lines for n in line[1:-1]])
    return f"n = {ends}" if between in ("", ends) else f"n = {ends} at both ends, {between} between"


def _range(counts: Sequence[int]) -> str:
    low, high = min(counts, default=0), max(counts, default=0)
    return "" if not counts else f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _by_arm(evaluations: Sequence[Row]) -> dict[str, list[Row]]:
    arms: dict[str, list[Row]] = {}
    for row in sorted(evaluations, key=lambda row: row["step"]):
        arms.setdefault(str(row.get("arm")), []).append(row)
    return arms


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
