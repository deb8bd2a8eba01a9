"""Writes docs/objectives.md from the catalogue, and draws what each loss pushes: docs/figures/objectives.svg."""

from pathlib import Path

import matplotlib
import numpy as np
import torch

matplotlib.use("Agg")
from matplotlib import pyplot as plt

from pairtune.objectives.catalog import OBJECTIVES
from pairtune.objectives.listing import as_page
from pairtune.objectives.objective import OF_ROWS, Objective
from pairtune.objectives.quantities import quantities

DOCS = Path(__file__).parent
CHOSEN, REJECTED, GREY = "#0072B2", "#D55E00", "#777777"
# Responses as long as each other whose tokens the reference gives e^-1.5; the policy's differ by the margin.
TOKENS, REFERENCE = 20, -1.5
MARGIN_M = np.linspace(-40, 40, 161)
COLUMNS = 4


def pushes(objective: Objective, margin: float) -> tuple[float, float]:
    """How fast the loss falls for a nat more of the chosen response, and rises for one of the rejected, at a margin.

    Half of the margin is the chosen response's gain, half the rejected one's loss, spread evenly over the tokens.
    """
    length_S, label_S = torch.tensor([TOKENS, TOKENS]), torch.tensor([True, False])
    gain_R = torch.tensor([margin, -margin], dtype=torch.float64).repeat_interleave(TOKENS) / 2 / TOKENS
    reference_R = torch.full((2 * TOKENS,), REFERENCE, dtype=torch.float64)
    logprob_R = (reference_R + gain_R).requires_grad_()
    tokens = {"logprob": logprob_R, "reference": reference_R, "collision": torch.full_like(reference_R, 0.4)}
    numbers = {"kl_baseline": 0.0, "past_logratio": 0.0, "past_margin": 0.0, "mean_length": float(TOKENS)}
    given = quantities(
        objective.arguments,
        tokens,
        length_S,
        label_S,
        {
            **{name: torch.tensor(value, dtype=torch.float64) for name, value in numbers.items()},
            OF_ROWS: torch.zeros(1),
        },
    )
    parameters = {name: parameter.default for name, parameter in objective.parameters.items()}
    objective.loss(*given.values(), **parameters).sum().backward()
    assert logprob_R.grad is not None
    chosen, rejected = logprob_R.grad.split(TOKENS)
    return -float(chosen.mean()), float(rejected.mean())


def draw(path: Path) -> None:
    """A panel for each objective: its two pushes over the margin, at its own defaults."""
    rows = -(-len(OBJECTIVES) // COLUMNS)
    style = {"svg.hashsalt": "pairtune", "font.family": "DejaVu Sans", "font.size": 8, "figure.facecolor": "white"}
    with plt.rc_context(style):
        figure, panels = plt.subplots(rows, COLUMNS, figsize=(11, 1.75 * rows), sharex=True, layout="constrained")
        for axes in panels.flat[len(OBJECTIVES) :]:
            axes.axis("off")
        for axes, objective in zip(panels.flat, OBJECTIVES.values(), strict=False):
            push_M2 = np.array([pushes(objective, margin) for margin in MARGIN_M])
            axes.axhline(0, color=GREY, linewidth=0.6)
            axes.axvline(0, color=GREY, linewidth=0.6, linestyle=":")
            axes.plot(MARGIN_M, push_M2[:, 0], color=CHOSEN, linewidth=1.6)
            axes.plot(MARGIN_M, push_M2[:, 1], color=REJECTED, linewidth=1.6, linestyle="--")
            axes.set_title(objective.name, fontsize=9, fontweight="bold", loc="left", pad=3)
            axes.spines[["top", "right"]].set_visible(False)
            axes.tick_params(labelbottom=True)
        figure.supxlabel("margin Δ_w − Δ_l, nats")
        figure.suptitle(
            "push up on the chosen (solid) and down on the rejected response (dashed), per nat", fontsize=10
        )
        figure.savefig(path, metadata={"Date": None})
        plt.close(figure)


if __name__ == "__main__":
    (DOCS / "objectives.md").write_text(as_page(), encoding="utf-8")
    draw(DOCS / "figures" / "objectives.svg")
