"""Draw the figures of docs/derivation.md: `python docs/make_derivation_figures.py [folder]`. Needs no torch.

Every number is computed in a world small enough to enumerate, by `pairtune.theory.cases`. The same machine draws the
same bytes each time.
"""

import sys
from dataclasses import replace
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pairtune.theory import cases
from pairtune.theory.optimum import optimal_policy
from pairtune.theory.world import kl

BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#555555"
STYLE = {
    "svg.hashsalt": "pairtune",
    "font.family": "DejaVu Sans",
    "font.size": 12,
    "axes.titlesize": 12,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "lines.linewidth": 2,
    "figure.facecolor": "white",
}


def beta_sweep() -> Figure:
    """KL and reward of the optimum over β, and KL while training with three values of β."""
    world, beta_S = cases.example_world(), np.geomspace(0.02, 20, 121)
    kl_S, reward_S = cases.beta_sweep(world, beta_S.tolist())
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(13, 4), layout="constrained")
    for axes, value_S, title in ((left, kl_S, "KL(π*‖π_ref), nats"), (middle, reward_S, "expected reward of π*")):
        axes.semilogx(beta_S, value_S, color=BLUE)
        axes.set(title=title, xlabel="β")
    low = float((world.reference_XY * world.reward_XY).sum())
    middle.axhline(low, color=GREY, linestyle=":", linewidth=1.5)
    middle.text(0.02, low, "reference", color=GREY, va="bottom")
    for beta, color in ((0.1, BLUE), (0.3, GREEN), (1.0, ORANGE)):
        setting = replace(world, beta=beta)
        kl_T = cases.training_kl(setting, rate=1.0, steps=30_000)
        right.loglog(np.arange(1, len(kl_T)), kl_T[1:], color=color, label=f"β = {beta:g}")
        right.axhline(kl(optimal_policy(setting), world.reference_XY)[0], color=color, linestyle=":", linewidth=1.5)
    right.set(title="KL(π‖π_ref) while training, nats", xlabel="gradient steps on the exact DPO loss")
    right.legend(loc="lower right")
    return figure


def certain_labels() -> Figure:
    """KL from the reference of DPO's and IPO's minimiser as labels become certain."""
    doubt_S = np.geomspace(0.5, 1e-9, 80)
    figure, axes = plt.subplots(figsize=(7.5, 4.4), layout="constrained")
    for beta, line in ((0.5, "-"), (2.0, "--")):
        dpo_S, ipo_S = cases.certainty_sweep((1 - doubt_S).tolist(), beta=beta)
        axes.semilogx(doubt_S, dpo_S, color=ORANGE, linestyle=line, label=f"DPO, β = {beta:g}")
        axes.semilogx(doubt_S, ipo_S, color=BLUE, linestyle=line, label=f"IPO, β = {beta:g}")
    axes.axhline(np.log(2), color=GREY, linestyle=":", linewidth=1.5)
    axes.text(0.4, np.log(2) + 0.01, "rejected response has probability 0: ln 2", color=GREY)
    axes.invert_xaxis()
    axes.set(ylim=(-0.02, 0.78), xlabel="1 − p: the chance that a label is the other way round")
    axes.set_title("KL(π‖π_ref) of the minimiser, nats")
    axes.legend(loc="center right", bbox_to_anchor=(1.0, 0.45))
    return figure


def uncovered() -> Figure:
    """The policy while DPO trains on pairs that never show response C."""
    world = cases.uncovered_world()
    path_TY = cases.uncovered_path(world, rate=1.0, steps=150)[:, 0]
    best_Y = optimal_policy(world)[0]
    figure, axes = plt.subplots(figsize=(7.5, 4.4), layout="constrained")
    names = ("A: reward 1", "B: reward 0", "C: reward −2, in no pair")
    for response, (name, color) in enumerate(zip(names, (BLUE, GREEN, ORANGE), strict=True)):
        axes.plot(path_TY[:, response], color=color, label=name)
        axes.axhline(best_Y[response], color=color, linestyle=":", linewidth=1.5)
    axes.set(xlabel="gradient steps on the exact DPO loss", ylim=(0, 0.8))
    axes.set_title("Probability of each response (dotted: π*)")
    axes.legend(loc="upper right")
    return figure


def sample_size() -> Figure:
    """How far the estimates are from their goal, over the number of pairs."""
    world, rng = cases.example_world(), np.random.default_rng(0)
    pairs_S = [200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000]
    found_S = [cases.sample_errors(world, rng, pairs=pairs, repeats=200) for pairs in pairs_S]
    figure, axes = plt.subplots(figsize=(7.5, 4.8), layout="constrained")
    axes.loglog(pairs_S, [found.predicted for found in found_S], color=GREY, linestyle=":", label="predicted for DPO")
    draw_means(axes, pairs_S, [found.dpo_R for found in found_S], color=BLUE, marker="o", label="DPO, from π*")
    reward_RS = [found.reward_R for found in found_S]
    draw_means(axes, pairs_S, reward_RS, color=ORANGE, marker="x", label="reward model + exact RL, from π*")
    draw_means(axes, pairs_S, [found.ipo_R for found in found_S], color=GREEN, marker="s", label="IPO, from π*")
    own_RS = [found.ipo_own_R for found in found_S]
    draw_means(axes, pairs_S, own_RS, color=GREEN, marker="^", label="IPO, from its own goal")
    axes.set(xlabel="pairs", title="KL(π̂‖goal), nats: mean of 200 data sets, 95% interval")
    axes.legend(loc="lower left", fontsize=11)
    left_out = sum(found.unbounded for found in found_S)
    print(f"sample sizes: {left_out} of {200 * len(found_S)} data sets have no DPO minimiser and are left out")
    return figure


def draw_means(
    axes: Axes, pairs_S: list[int], error_RS: list[np.ndarray], *, color: str, marker: str, label: str
) -> None:
    """The mean of each set of errors with its 95% interval (1.96 standard errors)."""
    mean_S = [error_R.mean() for error_R in error_RS]
    half_S = [1.96 * error_R.std(ddof=1) / np.sqrt(len(error_R)) for error_R in error_RS]
    face = "none" if marker != "x" else color
    axes.errorbar(
        pairs_S, mean_S, yerr=half_S, color=color, marker=marker, markerfacecolor=face, markersize=8,
        linestyle="none", capsize=3, linewidth=1.2, label=label,
    )  # fmt: skip


FIGURES = {
    "beta-sweep.svg": beta_sweep,
    "certain-labels.svg": certain_labels,
    "uncovered.svg": uncovered,
    "sample-size.svg": sample_size,
}


def main(folder: Path) -> None:
    """Write every figure as SVG into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with plt.rc_context(STYLE):
        for name, draw in FIGURES.items():
            figure = draw()
            figure.savefig(folder / name, metadata={"Date": None})
            plt.close(figure)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "figures")
