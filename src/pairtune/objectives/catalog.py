"""Every preference objective by name: its function, its own parameters, what it needs and where it comes from."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from pairtune.objectives import pairwise


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """A number that an objective takes: its default, and in one sentence what it does."""

    default: float
    meaning: str


@dataclass(frozen=True, kw_only=True)
class Objective:
    """One entry of the catalogue.

    `loss(chosen_logratio_B, rejected_logratio_B, **parameters) -> [B]`, where `parameters` are exactly the keys of
    `parameters`.
    """

    name: str
    loss: Callable[..., Tensor]
    parameters: dict[str, Parameter]
    needs_reference: bool
    source: str
    equation: str


OBJECTIVES: dict[str, Objective] = {
    entry.name: entry
    for entry in (
        Objective(
            name="dpo",
            loss=pairwise.dpo,
            parameters={
                "beta": Parameter(default=0.1, meaning="weight of KL(π‖π_ref); larger stays closer to the reference")
            },
            needs_reference=True,
            source="Rafailov et al. 2023, arXiv 2305.18290, eq. 7",
            equation="−log σ(β·(Δ_w − Δ_l))",
        ),
        Objective(
            name="ipo",
            loss=pairwise.ipo,
            parameters={
                "beta": Parameter(default=0.1, meaning="τ of the paper; the margin is regressed onto 1/(2β) nats")
            },
            needs_reference=True,
            source="Azar et al. 2023, arXiv 2310.12036, eq. 17",
            equation="(Δ_w − Δ_l − 1/(2β))²",
        ),
    )
}
