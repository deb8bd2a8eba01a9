"""Supervised fine-tuning: the mean negative log-likelihood of the demonstrations' response tokens."""

from collections.abc import Sequence

import torch
from transformers import PreTrainedModel

from pairtune import parallel
from pairtune.data.pack import Tokens, pack, relative_weights
from pairtune.engine.logprob import idle_pass, token_logprobs
from pairtune.engine.sharded import keeping_up
from pairtune.settings import Sft
from pairtune.training.checkpoint import Journal
from pairtune.training.loop import fit, say_router
from pairtune.training.step import enough_for, micro_batches, optimizer_of, own_share, step_batches


def train_sft(model: PreTrainedModel, rows: Sequence[Tokens], settings: Sft, *, seed: int, journal: Journal) -> None:
    """Fine-tune `model` in place on rows of one response each; every token of a response counts as its row does."""
    weights = relative_weights(rows)

    def gradients(indices: Sequence[int]) -> dict[str, float]:
        tokens = sum(len(rows[i].responses[0]) * (1.0 if weights is None else weights[i]) for i in indices)
        total, groups = 0.0, micro_batches(rows, own_share(rows, indices), model.device)
        with keeping_up(model, len(groups), lambda: idle_pass(model, rows[indices[0]])):
            for group in groups:
                batch = pack([rows[i] for i in group]).to(model.device)
                logprob_R = token_logprobs(model, batch)
                if weights is not None:
                    weight_S = torch.tensor(weights[list(group)], dtype=torch.float32, device=model.device)
                    logprob_R = logprob_R * weight_S[batch.response_R]
                loss = -logprob_R.sum() / tokens
                loss.backward()
                total += float(loss.detach())
        return {"loss": parallel.totals(total)[0]}

    enough_for(rows, settings)
    say_router(model)
    optimizer = optimizer_of(model, settings)
    batches = step_batches(len(rows), batch_size=settings.batch_size, epochs=settings.epochs, seed=seed)
    fit(gradients, optimizer, settings, rows=rows, batches=batches, journal=journal)
    optimizer.release()
