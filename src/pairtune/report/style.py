"""How a figure is dressed: colours, axes, names beside what they name, and the SVG that a page can hold.

Each arm keeps one colour everywhere, from a palette after Okabe and Ito that colour-blind readers can tell
apart, and its line is named at its end. In the SVG the colours are CSS variables with a fallback, so that a
page in the dark can lighten them.
"""

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import StringIO
from itertools import combinations
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pairtune.estimate import Estimate
from pairtune.report import words
from pairtune.report.records import REFERENCE

PALETTE = ("#6e7681", "#0072b2", "#d55e00", "#009e73", "#b5589a", "#b87a00", "#3d8fc4", "#8c6d46")
"""The reference's grey, then one colour per arm in the order of the summary."""

INK, GRID = "#24292e", "#d4d7dc"
SIZE = (4.2, 2.9)
"""Inches of a figure that a phone shows in its whole width."""

_MARKERS = "osD^vPX*"
_LETTER, _HEIGHT = 5.6, 11.0
"""Points that a character of a name takes on average, and its line."""


def palette(arms: Sequence[str]) -> dict[str, int]:
    """The place of each arm's colour in PALETTE: the reference's is 0, the others follow in order."""
    trained = [arm for arm in arms if arm != REFERENCE]
    return {REFERENCE: 0} | {arm: 1 + index % (len(PALETTE) - 1) for index, arm in enumerate(trained)}


def new_axes(figure: Figure) -> Axes:
    """The one drawing area of a figure for the page."""
    figure.set_layout_engine("constrained")
    axes = figure.subplots()
    figure.patch.set_alpha(0)
    dress(axes)
    return axes


def dress(axes: Axes) -> None:
    """Light lines across, nothing around."""
    axes.patch.set_alpha(0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(GRID)
    axes.grid(axis="y", color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(colors=INK, length=0, labelsize=8.5)
    axes.margins(x=0.02)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_locator(MaxNLocator(5))


def name_axes(axes: Axes, title: str, x: str, *, note: str = "") -> None:
    """The title says what goes up; it and the name of the x axis may hold any text. A note stands on a line below."""
    title, x = short(title, 42), "\n".join(filter(None, (short(x, 48), note)))
    axes.set_title(title, loc="left", fontsize=10, fontweight="bold", color=INK, parse_math=False)
    axes.set_xlabel(x, fontsize=8.5, color=INK, parse_math=False)


def line(axes: Axes, x: Sequence[float], y: Sequence[float], colour: int) -> None:
    """An arm's points, joined, with the marker of its colour."""
    marker = _MARKERS[colour]
    axes.plot(x, y, color=PALETTE[colour], linewidth=1.7, marker=marker, markersize=4, markeredgewidth=0)


def cross(axes: Axes, across: Estimate, up: Estimate, colour: int) -> None:
    """The two intervals of one point, where it has them."""
    faint: dict[str, Any] = {"color": PALETTE[colour], "linewidth": 0.8, "alpha": 0.45}
    if across.ci95:
        axes.plot(across.ci95, (up.mean, up.mean), **faint)
    if up.ci95:
        axes.plot((across.mean, across.mean), up.ci95, **faint)


def label_ends(axes: Axes, ends: Sequence[tuple[float, float, str]], colours: Mapping[str, int]) -> None:
    """Name each arm right of the end of its line, pushing apart, up and down, the names that would overlap."""
    ends = sorted(ends, key=lambda end: (end[1], end[0]))
    names = [short(words.arm_name(arm), 16) for _, _, arm in ends]
    places = [_in_points(axes, x, y) for x, y, _ in ends]
    heights = [up for _, up in places]
    for _ in range(50):
        for low, high in combinations(range(len(ends)), 2):
            left = min(low, high, key=lambda index: places[index])
            beside = abs(places[high][0] - places[low][0]) > len(names[left]) * _LETTER
            missing = _HEIGHT - (heights[high] - heights[low])
            if missing > 0 and not beside:
                heights[high] += missing / 2
                heights[low] -= missing / 2
    for (x, y, arm), name, (_, up), height in zip(ends, names, places, heights, strict=True):
        write(axes, name, (x, y), (6, height - up), PALETTE[colours.get(arm, 0)], align="left")


_AROUND = (
    *((9, 0, "left"), (0, 12, "center"), (0, -12, "center"), (-9, 0, "right")),
    *((8, 8, "left"), (-8, 8, "right"), (8, -8, "left"), (-8, -8, "right")),
)


def label_points(
    axes: Axes,
    points: Sequence[tuple[float, float, str, str]],
    lines: Sequence[tuple[Sequence[float], Sequence[float]]],
) -> None:
    """A text (x, y, text, colour) beside each point: off other texts, else off other points, else off lines."""
    corners = [_in_points(axes, x, y) for xs, ys in lines for x, y in zip(xs, ys, strict=True)]
    between = [
        place for xs, ys in lines for place in _along([_in_points(axes, *at) for at in zip(xs, ys, strict=True)])
    ]
    taken: list[_Box] = []
    for x, y, text, shade in points:
        text, at = short(text, 16), _in_points(axes, x, y)
        others = [_around(corner) for corner in corners if corner != at]
        boxes = [_beside(at, offset, align, len(text) * _LETTER) for *offset, align in _AROUND]
        hidden = [(_count(box, taken), _count(box, others), _count(box, between)) for box in boxes]
        best = hidden.index(min(hidden))
        taken.append(boxes[best])
        across, up, align = _AROUND[best]
        write(axes, text, (x, y), (across, up), shade, align=align)


_Box = tuple[float, float, float, float]
"""Left, low, right and high, in points."""


def _along(corners: Sequence[tuple[float, float]]) -> list[_Box]:
    """Small boxes along a line."""
    shares = np.linspace(0, len(corners) - 1, 20 * len(corners))
    x, y = (np.interp(shares, range(len(corners)), of) for of in zip(*corners, strict=True))
    return [_around((float(left), float(up)), 0.5) for left, up in zip(x, y, strict=True)]


def _around(at: tuple[float, float], reach: float = 7.0) -> _Box:
    return at[0] - reach, at[1] - reach, at[0] + reach, at[1] + reach


def _beside(at: tuple[float, float], offset: Sequence[float], align: str, width: float) -> _Box:
    left = at[0] + offset[0] - {"left": 0.0, "center": width / 2, "right": width}[align]
    middle = at[1] + offset[1]
    return left, middle - _HEIGHT / 2, left + width, middle + _HEIGHT / 2


def _count(box: _Box, others: Sequence[_Box]) -> int:
    return sum(box[0] < other[2] and other[0] < box[2] and box[1] < other[3] and other[1] < box[3] for other in others)


def _in_points(axes: Axes, x: float, y: float) -> tuple[float, float]:
    """Where a value will stand, in points from the axes' corner; near enough before the layout is final."""
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    place = axes.get_position()
    figure = axes.get_figure(root=True)
    assert figure is not None
    width, height = (72 * inches for inches in figure.get_size_inches() * (place.width, place.height))
    return float((x - left) / (right - left) * width), float((y - low) / (high - low) * height)


def write(
    axes: Axes, text: str, at: tuple[float, float], offset: tuple[float, float], shade: str, *, align: str
) -> None:
    """A bold word at a distance (in points) from a place on the axes."""
    axes.annotate(
        text,
        xy=at,
        xytext=offset,
        textcoords="offset points",
        horizontalalignment=align,
        verticalalignment="center",
        color=shade,
        fontweight="bold",
        fontsize=9,
        parse_math=False,
        annotation_clip=False,
    )


def short(text: str, longest: int) -> str:
    """On one line, with nothing hidden, and short enough to leave room for the drawing."""
    text = words.visible(" ".join(text.split()))
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


@contextmanager
def any_script() -> Iterator[None]:
    """Names in scripts that the drawing font lacks are no reason to warn: in the SVG they stay text."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph|Matplotlib currently does not support", UserWarning)
        yield


def svg(figure: Figure, name: str) -> str:
    """The figure as an SVG element for a page: no prolog, no metadata, and ids of its own."""
    file = StringIO()
    with any_script(), matplotlib.rc_context({"svg.hashsalt": "pairtune", "svg.fonttype": "none"}):
        figure.savefig(file, format="svg", metadata={"Date": None})
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' xmlns(:\w+)?="[^"]*"', "", svg).replace("xlink:href", "href")
    prefix = re.sub(r"\W+", "-", name)
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}-", svg)
    for index, shade in enumerate(PALETTE):
        svg = svg.replace(shade, f"var(--arm-{index}, {shade})")
    svg = svg.replace(INK, f"var(--ink, {INK})").replace(GRID, f"var(--line, {GRID})")
    return svg.replace("<svg ", f'<svg role="img" aria-label="{prefix.replace("-", " ")}" ', 1)
