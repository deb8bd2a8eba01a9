"""The reward model: a scalar read at each response's last token, trained on pairs by Bradley–Terry."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from pairtune import parallel
from pairtune.data.pack import Tokens, numbers_of, pack, relative_weights
from pairtune.engine.hidden import hidden_states
from pairtune.engine.sharded import at_hand, keeping_up
from pairtune.engine.value_heads import score_rewards
from pairtune.models.heads import ScalarModel
from pairtune.objectives.reward import bradley_terry
from pairtune.settings import Reward
from pairtune.training.checkpoint import Journal
from pairtune.training.loop import fit, say_router
from pairtune.training.step import enough_for, micro_batches, optimizer_of, own_share, step_batches


def train_reward(model: ScalarModel, rows: Sequence[Tokens], settings: Reward, *, seed: int, journal: Journal) -> None:
    """Train `model` in place on (chosen, rejected) rows, each as much as it counts, by its margin where it has one."""
    weights, margins = relative_weights(rows), numbers_of(rows, "margin")

    device = model.body.device

    def scores(some: Sequence[Tokens]) -> Tensor:
        batch = pack(some).to(device)
        return at_hand(model, lambda: model.scalars(hidden_states(model.body, batch)[batch.last_S]).clone())

    def of(values: np.ndarray | None, group: Sequence[int]) -> Tensor | None:
        chosen = None if values is None else values[list(group)]
        return None if chosen is None else torch.tensor(chosen, dtype=torch.float32, device=device)

    def gradients(indices: Sequence[int]) -> dict[str, float]:
        figures, groups = {"loss": 0.0, "accuracy": 0.0}, micro_batches(rows, own_share(rows, indices), device)
        with keeping_up(model, len(groups), lambda: (scores([rows[indices[0]]]).sum() * 0.0).backward()):
            for group in groups:
                reward_S = scores([rows[i] for i in group])
                chosen_B, rejected_B = reward_S.view(-1, 2).unbind(1)
                loss_B = bradley_terry(chosen_B, rejected_B, of(margins, group))
                weight_B = of(weights, group)
                loss_B = loss_B if weight_B is None else loss_B * weight_B
                (loss_B.sum() / len(indices)).backward()
                figures["loss"] += float(loss_B.detach().sum()) / len(indices)
                wins_B = (chosen_B > rejected_B).float() + 0.5 * (chosen_B == rejected_B).float()
                figures["accuracy"] += float(wins_B.sum()) / len(indices)
        return dict(zip(figures, parallel.totals(*figures.values()), strict=True))

    enough_for(rows, settings)
    say_router(model)
    optimizer = optimizer_of(model, settings)
    batches = step_batches(len(rows), batch_size=settings.batch_size, epochs=settings.epochs, seed=seed)
    fit(gradients, optimizer, settings, rows=rows, batches=batches, journal=journal)
    optimizer.release()


def normalise(model: ScalarModel, rows: Sequence[Tokens]) -> None:
    """Shift and scale the head so that these responses (the reference's) score 0 ± 1. Rankings do not change."""
    rewards = torch.tensor([reward for row in score_rewards(model, rows) for reward in row], dtype=torch.float64)
    if not bool(rewards.isfinite().all()):
        raise FloatingPointError("the reward model's scores are not finite")
    model.normalise(mean=float(rewards.mean()), std=max(float(rewards.std()), 1e-6))
