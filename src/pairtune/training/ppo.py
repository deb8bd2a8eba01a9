"""PPO with a reward model and a KL term, after the numbered checklist in docs/ppo.md.

Four models: the policy and the value model learn, the reward model and the reference stay as they are.
Shape suffixes: B answers of one step, R their tokens end to end.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from pairtune.data.pack import Tokens, pack
from pairtune.engine.hidden import hidden_states, passes
from pairtune.engine.logprob import token_logprobs
from pairtune.engine.own_score import OwnScore
from pairtune.engine.value_heads import compute_values
from pairtune.models.heads import ScalarModel
from pairtune.objectives.policy_gradient import (
    advantages,
    clipped_policy_loss,
    clipped_value_loss,
    explained_variance,
    rewards_to_go,
    token_rewards,
    whiten,
)
from pairtune.settings import Drawing, Ppo
from pairtune.training.kl_weight import KlWeight
from pairtune.training.online import ADAM_EPS, Round, train_online
from pairtune.training.return_unit import ReturnUnit
from pairtune.training.room import within_memory
from pairtune.training.step import Optimizer, micro_batches


@dataclass(frozen=True)
class Rollout:
    """One step's answers with everything about them that stays fixed while the policy moves."""

    rows: list[Tokens]
    old: list[Tensor]  # the log-probabilities that the sampler drew with
    values: list[Tensor]  # before any update; with their graph where the update can begin with the pass that made them
    advantages: list[Tensor]
    returns: list[Tensor]  # in the values' unit


class ActorCritic:
    """PPO's part of a round: a value for every token, advantages by them, and both models' updates."""

    answers_per_prompt = 1

    def __init__(self, policy: PreTrainedModel, value: ScalarModel, settings: Ppo) -> None:
        self.policy, self.value, self.settings = policy, value, settings
        value.eval()  # no dropout, as the policy
        self.optimizers = {
            "actor.": Optimizer(policy.parameters(), eps=ADAM_EPS),
            "critic.": Optimizer(value.parameters(), eps=ADAM_EPS),
        }
        self.rates = {"actor.": settings.learning_rate, "critic.": settings.value_learning_rate}
        self.weight = KlWeight(settings.kl_coefficient, target=settings.kl_target)
        self.unit = ReturnUnit(value.head)
        self.state = self.weight.state | self.unit.state
        self.rollout: Rollout | None = None

    def begin(self, drawn: Round) -> tuple[list[Tokens], dict[str, float]]:
        """Values and advantages of the round's answers."""
        self.rollout = rollout_of(drawn, self.value, self.unit, self.settings, self.weight.now)
        values, returns = torch.cat(self.rollout.values).detach(), torch.cat(self.rollout.returns)
        return drawn.rows, {"explained_variance": explained_variance(values, returns)}

    def gradients(self, indices: Sequence[int]) -> dict[str, float]:
        """Of both losses; the values' own graph serves the first minibatch only, and only once."""
        assert self.rollout is not None
        rollout = self.rollout
        self.rollout = replace(rollout, values=[values.detach() for values in rollout.values])
        return minibatch_gradients(self.policy, self.value, rollout, indices, self.settings)

    def end(self, kl: float, answers: int) -> dict[str, float]:
        """The weight that the KL had; from here on it may be another."""
        return self.weight.end(kl, answers)


def train_ppo(
    policy: PreTrainedModel,
    value: ScalarModel,
    reward_model: ScalarModel | OwnScore,
    reference: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    settings: Ppo,
    sampling: Drawing,
    **others: Any,
) -> None:
    """Train `policy` and `value` in place; everything else is as for `train_online`."""
    method = ActorCritic(policy, value, settings)
    train_online(policy, method, reward_model, reference, prompts, settings, sampling, **others)


@torch.no_grad()
def rollout_of(drawn: Round, value: ScalarModel, unit: ReturnUnit, settings: Ppo, kl_coefficient: float) -> Rollout:
    """Take the values of a round's answers, one to a prompt, and estimate advantages."""
    rows, length_B, discount = drawn.rows, drawn.length_S, settings.discount
    old_R, reference_R = torch.cat(drawn.old), torch.cat(drawn.reference)
    reward_R = token_rewards(drawn.score_S, old_R, reference_R, length_B, kl_coefficient=kl_coefficient)
    unit.see(rewards_to_go(reward_R, length_B, discount=discount))

    def valued() -> list[Tensor]:
        one_pass = settings.minibatches == 1 and len(passes(rows, value.body.device)) == 1
        with torch.set_grad_enabled(one_pass):
            return compute_values(value, rows)

    values = within_memory(valued, rows, (), value.body.device)
    value_R = unit.to_rewards(torch.cat(values).detach())
    advantage_R, return_R = advantages(reward_R, value_R, length_B, discount=discount, gae_lambda=settings.gae_lambda)
    sizes = length_B.tolist()
    return Rollout(
        rows=rows,
        old=drawn.old,
        values=values,
        advantages=list(whiten(advantage_R).split(sizes)),
        returns=list(unit.from_rewards(return_R).split(sizes)),
    )


def minibatch_gradients(
    policy: PreTrainedModel, value: ScalarModel, rollout: Rollout, indices: Sequence[int], settings: Ppo
) -> dict[str, float]:
    """Gather the gradients of both losses, each a mean over the minibatch's tokens.

    The value model comes first: its activations are gone when the policy's are made.
    """
    device = policy.device
    tokens = sum(len(rollout.rows[i].responses[0]) for i in indices)
    names = ("policy_loss", "value_loss", "clip_fraction", "value_clip_fraction", "log_ratio_error")
    figures = dict.fromkeys(names, 0.0)
    for group in micro_batches(rollout.rows, indices, device):
        batch = pack([rollout.rows[i] for i in group]).to(device)
        old_R, old_value_R, advantage_R, return_R = (
            torch.cat([part[i] for i in group]).to(device)
            for part in (rollout.old, rollout.values, rollout.advantages, rollout.returns)
        )
        value_R = old_value_R  # where it has its graph, no update has come between: this pass has been made
        if not value_R.requires_grad:
            value_R = value.scalars(hidden_states(value.body, batch)[batch.source_R])
        value_loss = clipped_value_loss(value_R, old_value_R.detach(), return_R, clip=settings.clip_value)
        (value_loss.loss_R.sum() / tokens).backward()
        logprob_R = token_logprobs(policy, batch, temperature=settings.temperature)
        policy_loss = clipped_policy_loss(logprob_R, old_R, advantage_R, clip=settings.clip_ratio)
        (policy_loss.loss_R.sum() / tokens).backward()
        clipped = policy_loss.clipped_R, value_loss.clipped_R
        found = policy_loss.loss_R, value_loss.loss_R, *clipped, (logprob_R - old_R).abs()
        for name, figure_R in zip(names, found, strict=True):
            figures[name] += float(figure_R.detach().float().sum()) / tokens
    return figures | {"loss": figures["policy_loss"]}
