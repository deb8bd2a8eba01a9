"""RLOO and GRPO: a policy gradient without a value model, an answer held against the others to its prompt.

Shape suffixes: P prompts of one step, K answers to each, S all answers, R their tokens end to end.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from transformers import PreTrainedModel

from pairtune.data.pack import Tokens, pack
from pairtune.engine.logprob import token_logprobs
from pairtune.engine.reference import compute_logprobs
from pairtune.objectives.policy_gradient import (
    clipped_policy_loss,
    group_relative,
    kl_of_tokens,
    leave_one_out,
    told_apart,
)
from pairtune.progress import say
from pairtune.settings import Grpo, PolicyGradient, Rloo
from pairtune.training.kl_weight import KlWeight
from pairtune.training.online import ADAM_EPS, Round
from pairtune.training.step import Optimizer, micro_batches


class Silence:
    """Counts the prompts whose answers all have one reward: they say nothing of which answer is better."""

    def __init__(self) -> None:
        self.said = False

    def share(self, score_PK: Tensor) -> dict[str, float]:
        """Their share among the round's prompts, for its record. Of a round of nothing else it is said, once."""
        found = float((~told_apart(score_PK)).float().mean())
        if found == 1 and not self.said:
            say("  all answers to each prompt have equal rewards: the reward tells nothing apart in this step")
            self.said = True
        return {"no_signal": found}


class Grouped:
    """What RLOO and GRPO share: the policy alone learns, from all answers to the prompts of a minibatch."""

    def __init__(
        self, policy: PreTrainedModel, settings: PolicyGradient, *, answers_per_prompt: int, kl_coefficient: float
    ) -> None:
        self.policy, self.answers_per_prompt = policy, answers_per_prompt
        self.temperature, self.clip = settings.temperature, settings.clip_ratio
        self.optimizers = {"": Optimizer(policy.parameters(), eps=ADAM_EPS)}
        self.rates = {"": settings.learning_rate}
        self.weight, self.silence = KlWeight(kl_coefficient, target=settings.kl_target), Silence()
        self.state = self.weight.state
        self.drawn: Round | None = None
        self.advantage_PK = torch.empty(0)

    def begin(self, drawn: Round) -> tuple[list[Tokens], dict[str, float]]:
        """Advantages of the round's answers; a row is a prompt with all of them."""
        self.drawn, size = drawn, (len(drawn.rows), self.answers_per_prompt)
        self.advantage_PK = self.advantages(drawn, size)
        return drawn.rows, self.silence.share(drawn.score_S.view(size))

    def gradients(self, indices: Sequence[int]) -> dict[str, float]:
        """Of the mean loss over the minibatch's answers."""
        assert self.drawn is not None
        rows, device = self.drawn.rows, self.policy.device
        answers = len(indices) * self.answers_per_prompt
        tokens = sum(len(response) for i in indices for response in rows[i].responses)
        figures = dict.fromkeys(("loss", "clip_fraction", "log_ratio_error"), 0.0)
        ratios = 0
        for group in micro_batches(rows, indices, device):
            batch = pack([rows[i] for i in group]).to(device)
            old_R, reference_R = (
                torch.cat([part[i] for i in group]).to(device) for part in (self.drawn.old, self.drawn.reference)
            )
            logprob_R = token_logprobs(self.policy, batch, temperature=self.temperature)
            advantage_S = self.advantage_PK[group].flatten().to(device)
            loss_S, clipped = self.losses(logprob_R, old_R, reference_R, advantage_S, batch.lengths())
            (loss_S.sum() / answers).backward()
            figures["loss"] += float(loss_S.detach().sum()) / answers
            figures["clip_fraction"] += float(clipped.sum())
            ratios += len(clipped)
            figures["log_ratio_error"] += float((logprob_R.detach() - old_R).abs().sum()) / tokens
        figures["clip_fraction"] /= ratios
        return figures

    def end(self, kl: float, answers: int) -> dict[str, float]:
        """The weight that the KL had; from here on it may be another."""
        return self.weight.end(kl, answers)

    def advantages(self, drawn: Round, size: tuple[int, int]) -> Tensor:
        """Of every answer: [P, K]."""
        raise NotImplementedError

    def losses(
        self, logprob_R: Tensor, old_R: Tensor, reference_R: Tensor, advantage_S: Tensor, length_S: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The loss of every answer [S], and which of its ratios were clipped."""
        raise NotImplementedError


class LeaveOneOut(Grouped):
    """RLOO: the KL is in an answer's reward, and an answer is one action: its ratio is that of the whole of it."""

    def __init__(self, policy: PreTrainedModel, settings: Rloo) -> None:
        each, weight = settings.answers_per_prompt, settings.kl_coefficient
        super().__init__(policy, settings, answers_per_prompt=each, kl_coefficient=weight)

    def begin(self, drawn: Round) -> tuple[list[Tokens], dict[str, float]]:
        """With the engine's own log-probabilities for the sampler's: the sum over an answer gathers the rounding."""
        old = compute_logprobs(self.policy, drawn.rows, temperature=self.temperature)
        return super().begin(replace(drawn, old=old))

    def advantages(self, drawn: Round, size: tuple[int, int]) -> Tensor:
        """Of rewards less the weighted log-ratio to the reference."""
        return leave_one_out((drawn.score_S - self.weight.now * drawn.log_ratios()).view(size))

    def losses(
        self, logprob_R: Tensor, old_R: Tensor, reference_R: Tensor, advantage_S: Tensor, length_S: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Clipped by the ratio of whole answers."""
        logprob_S, old_S = sums(logprob_R, length_S), sums(old_R, length_S)
        return clipped_policy_loss(logprob_S, old_S, advantage_S, clip=self.clip)


class GroupRelative(Grouped):
    """GRPO: the KL is in the loss, and every token is an action with its answer's advantage."""

    def __init__(self, policy: PreTrainedModel, settings: Grpo) -> None:
        each, weight = settings.answers_per_prompt, settings.kl_coefficient
        super().__init__(policy, settings, answers_per_prompt=each, kl_coefficient=weight)
        self.by_deviation = settings.normalise in ("both", "deviation")
        self.by_length = settings.normalise in ("both", "length")

    def advantages(self, drawn: Round, size: tuple[int, int]) -> Tensor:
        """Of the rewards alone."""
        return group_relative(drawn.score_S.view(size), by_deviation=self.by_deviation)

    def losses(
        self, logprob_R: Tensor, old_R: Tensor, reference_R: Tensor, advantage_S: Tensor, length_S: Tensor
    ) -> tuple[Tensor, Tensor]:
        """A mean over each answer's tokens, or their sum."""
        advantage_R = advantage_S.repeat_interleave(length_S)
        loss_R, clipped_R = clipped_policy_loss(logprob_R, old_R, advantage_R, clip=self.clip)
        loss_S = sums(loss_R + self.weight.now * kl_of_tokens(logprob_R, reference_R), length_S)
        return (loss_S / length_S if self.by_length else loss_S), clipped_R


def sums(value_R: Tensor, length_S: Tensor) -> Tensor:
    """Over each answer's tokens: [S]."""
    answer_R = torch.repeat_interleave(length_S)
    return value_R.new_zeros(len(length_S)).index_add(0, answer_R, value_R)
