"""The plain padded loop that results and speed are compared with: the oracle, `engine/naive.py`, as a trainer."""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from pairtune.data.pack import Tokens
from pairtune.engine import naive
from pairtune.objectives.loss import loss_of
from pairtune.objectives.pairwise import dpo
from pairtune.settings import Preference
from pairtune.training.checkpoint import Journal
from pairtune.training.loop import fit
from pairtune.training.step import Optimizer, step_batches


def train_plain(
    model: PreTrainedModel, reference: PreTrainedModel, rows: Sequence[Tokens], settings: Preference, *,
    journal: Journal,
) -> None:  # fmt: skip
    """`naive.py` as a trainer: the same order, schedule and optimiser as `train_preference`, seed 0."""
    (parameters,) = (term.parameters for term in loss_of("dpo", settings.parameters).terms)

    def gradients(indices: Sequence[int]) -> dict[str, float]:
        batch = [rows[i] for i in indices]
        with torch.no_grad():
            before = naive.pair_logprobs(reference, batch)
        after = naive.pair_logprobs(model, batch)
        chosen_B, rejected_B = (new - old for new, old in zip(after, before, strict=True))
        loss: Tensor = dpo(chosen_B, rejected_B, **parameters).mean()
        loss.backward()
        return {"loss": float(loss.detach())}

    optimizer = Optimizer(model.parameters(), weight_decay=settings.weight_decay)
    batches = step_batches(len(rows), batch_size=settings.batch_size, epochs=settings.epochs, seed=0)
    fit(gradients, optimizer, settings, rows=rows, batches=batches, journal=journal)
    optimizer.release()
