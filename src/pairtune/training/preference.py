"""Preference tuning: any pairwise objective of the catalogue on the policy's log-ratios to the reference."""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from pairtune.data.pack import Tokens, pack
from pairtune.engine.logprob import token_logprobs
from pairtune.objectives.catalog import OBJECTIVES
from pairtune.settings import Preference
from pairtune.training.checkpoint import Journal
from pairtune.training.loop import Measure, fit
from pairtune.training.step import Optimizer, micro_batches


def train_preference(
    model: PreTrainedModel,
    rows: Sequence[Tokens],
    reference: Sequence[Tensor],
    settings: Preference,
    *,
    seed: int,
    journal: Journal,
    measure: Measure | None = None,
    measurements: int = 0,
) -> None:
    """Tune `model` in place on (chosen, rejected) rows.

    `reference[i]` holds the frozen reference's log-probabilities of row i's response tokens, in nats, end to end.
    """
    objective = OBJECTIVES[settings.objective]

    def gradients(indices: Sequence[int]) -> dict[str, float]:
        figures = {"loss": 0.0, "accuracy": 0.0, "margin": 0.0, "chosen_logratio": 0.0, "rejected_logratio": 0.0}
        for group in micro_batches(rows, indices, model.device):
            batch = pack([rows[i] for i in group]).to(model.device)
            reference_R = torch.cat([reference[i] for i in group]).to(model.device)
            logratio_S = batch.sums(token_logprobs(model, batch) - reference_R)
            chosen_B, rejected_B = logratio_S.view(-1, 2).unbind(1)
            loss_B = objective.loss(chosen_B, rejected_B, beta=settings.beta)
            (loss_B.sum() / len(indices)).backward()
            margin_B = (chosen_B - rejected_B).detach()
            for name, value_B in (
                ("loss", loss_B),
                ("accuracy", (margin_B > 0).float() + 0.5 * (margin_B == 0).float()),
                ("margin", margin_B),
                ("chosen_logratio", chosen_B),
                ("rejected_logratio", rejected_B),
            ):
                figures[name] += float(value_B.detach().sum()) / len(indices)
        return figures

    optimizer = Optimizer(model.parameters(), weight_decay=settings.weight_decay)
    fit(
        gradients,
        optimizer,
        settings,
        examples=len(rows),
        epochs=settings.epochs,
        seed=seed,
        journal=journal,
        measure=measure,
        measurements=measurements,
    )
    optimizer.release()
