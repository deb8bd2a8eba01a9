"""The loop of every method that samples as it goes: answers, rewards, the reference, and the method's own update.

Shape suffixes: P prompts of one step, K answers to each, S all answers, R their tokens end to end.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from pairtune.data.pack import Tokens
from pairtune.engine.cost import uncounted
from pairtune.engine.own_score import OwnScore
from pairtune.engine.reference import compute_logprobs
from pairtune.engine.value_heads import score_rewards
from pairtune.models.heads import ScalarModel
from pairtune.progress import say
from pairtune.sampling.answer import Sample
from pairtune.sampling.sampler import sample, stream_seed
from pairtune.settings import Drawing, Online
from pairtune.training.checkpoint import Journal
from pairtune.training.loop import Measure, run_steps, say_router
from pairtune.training.room import within_memory
from pairtune.training.step import Optimizer, epoch_order, learning_rate

# Adam's ε wherever a policy learns from its own answers (detail 17 of docs/ppo.md).
ADAM_EPS = 1e-5
# A sampled KL this far below zero, in nats per answer, cannot be sampling noise of a policy near its reference.
NEGATIVE_KL_ALARM = -0.5
# A step's answers are too few to tell the KL by. From this share of `kl_stop` on, by them, it is measured on more.
NEAR = 0.5


@dataclass(frozen=True)
class Round:
    """One step's answers, scored, with everything about them that stays fixed while the policy moves."""

    rows: list[Tokens]  # a prompt with the K answers to it
    old: list[Tensor]  # of each row's tokens, the log-probabilities that the sampler drew with
    reference: list[Tensor]  # and the reference's
    length_S: Tensor
    score_S: Tensor  # the reward, less the penalty of an answer without an end
    figures: dict[str, float]

    def log_ratios(self) -> Tensor:
        """log π − log π_ref of each answer [S], in nats, summed over its tokens."""
        sizes = self.length_S.tolist()
        return torch.stack([part.sum() for part in (torch.cat(self.old) - torch.cat(self.reference)).split(sizes)])


class Method(Protocol):
    """What a method makes of a round, and what of it learns. The first of its optimisers is the policy's."""

    answers_per_prompt: int
    optimizers: dict[str, Optimizer]  # by the prefix that their tensors have in a checkpoint
    rates: dict[str, float]  # their peak learning rates
    state: dict[str, Tensor]  # what is remembered from step to step

    def begin(self, drawn: Round) -> tuple[list[Tokens], dict[str, float]]:
        """Take a round in. The rows that it gives to learn from, and figures of it."""

    def gradients(self, indices: Sequence[int]) -> dict[str, float]:
        """Gather the gradients of some of those rows, normalised by their number; the figures of that pass.

        Among them are "loss", and "log_ratio_error", the mean |log π − log π_old| of the tokens.
        """

    def end(self, kl: float, answers: int) -> dict[str, float]:
        """After the updates of a round with this sampled KL: figures that are of the method alone."""


def train_online(
    policy: PreTrainedModel,
    method: Method,
    reward_model: ScalarModel | OwnScore,
    reference: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    settings: Online,
    sampling: Drawing,
    *,
    end_ids: Sequence[int],
    seed: int,
    journal: Journal,
    measure: Measure | None = None,
    distance: Callable[[], float] | None = None,
) -> None:
    """Train `policy` in place on answers to `prompts` by `method`. `reward_model` must be normalised.

    distance(): the policy's KL from the reference, for `kl_stop`: training ends at the step nearest to that, which is
    where half of a mean step's way more would lead beyond.
    """
    for model in (policy, reward_model, reference):
        if isinstance(model, nn.Module):
            model.eval()  # no dropout: the policy that is updated is the one that was sampled
    say_router(policy)
    each = method.answers_per_prompt

    def work(step: int) -> dict[str, float]:
        asked = step_prompts(prompts, settings.batch_size // each, step=step, seed=seed)
        answers = sample(
            policy,
            [prompt for prompt in asked for _ in range(each)],  # equal prompts are read once
            end_ids=end_ids,
            max_new_tokens=sampling.max_new_tokens,
            temperature=settings.temperature,
            seed=stream_seed(seed, "ppo", step),
            batch_size=sampling.batch_size,
        )
        drawn = round_of(asked, answers, reward_model, reference, settings)
        rows, told = method.begin(drawn)
        figures = drawn.figures | told | update(method, rows, settings, policy.device, step=step, seed=seed)
        kl = figures["kl"]
        if kl < NEGATIVE_KL_ALARM:
            say(f"  step {step}: the sampled KL is {kl:.2f} nats; it should not be below 0")
        return figures | method.end(kl, len(answers))

    def ended(step: int, figures: Mapping[str, float]) -> bool:
        if distance is None or figures["kl"] < NEAR * settings.kl_stop:
            return False
        with uncounted():
            kl = distance()
        over = kl + 0.5 * kl / step >= settings.kl_stop
        if over:
            say(f"  ended after step {step}: the KL is {kl:.2f}, to end at {settings.kl_stop:.2f}")
        return over

    run_steps(
        settings.steps,
        work,
        method.optimizers,
        method.state,
        journal=journal,
        note=lambda figures: f"reward {figures['reward']:.3f}  kl {figures['kl']:.2f}",
        measure=measure,
        ended=ended if settings.kl_stop > 0 else None,
    )
    for optimizer in method.optimizers.values():
        optimizer.release()


def step_prompts(prompts: Sequence[Sequence[int]], count: int, *, step: int, seed: int) -> list[Sequence[int]]:
    """The prompts of one step: the next `count` of an endless shuffled round, the same whenever it is asked for."""
    first = (step - 1) * count
    chosen = []
    orders: dict[int, list[int]] = {}
    for place in range(first, first + count):
        epoch, at = divmod(place, len(prompts))
        if epoch not in orders:
            orders[epoch] = epoch_order(len(prompts), seed=seed, epoch=epoch)
        chosen.append(prompts[orders[epoch][at]])
    return chosen


@torch.no_grad()
def round_of(
    prompts: Sequence[Sequence[int]],
    answers: Sequence[Sample],
    reward_model: ScalarModel | OwnScore,
    reference: PreTrainedModel,
    settings: Online,
) -> Round:
    """Score the answers, those to one prompt following each other, and take the reference's log-probabilities."""
    each = len(answers) // len(prompts)
    groups = [answers[i * each : (i + 1) * each] for i in range(len(prompts))]
    rows = [
        Tokens(tuple(prompt), tuple(answer.response for answer in group))
        for prompt, group in zip(prompts, groups, strict=True)
    ]
    ended_S = torch.tensor([answer.ended for answer in answers])
    reward_S = torch.tensor([reward for rewards in score_rewards(reward_model, rows) for reward in rewards])
    drawn = Round(
        rows=rows,
        old=[torch.tensor([value for answer in group for value in answer.logprobs]) for group in groups],
        reference=compute_logprobs(reference, rows, temperature=settings.temperature),
        length_S=torch.tensor([len(answer.response) for answer in answers]),
        score_S=reward_S - settings.missing_end_penalty * (~ended_S).float(),
        figures={},
    )
    kl_S, several = drawn.log_ratios(), len(answers) > 1  # one answer does not spread
    drawn.figures.update(
        reward=float(reward_S.mean()),
        reward_sd=float(reward_S.std()) if several else 0.0,
        kl=float(kl_S.mean()),
        kl_sd=float(kl_S.std()) if several else 0.0,
        ended=float(ended_S.float().mean()),
        response_tokens=float(drawn.length_S.float().mean()),
        entropy=float(-torch.cat(drawn.old).mean()),
    )
    return drawn


def update(
    method: Method, rows: Sequence[Tokens], settings: Online, device: torch.device, *, step: int, seed: int
) -> dict[str, float]:
    """Several passes of updates over one step's rows. Returns the means over all minibatches.

    `first_ratio_error` is the mean |log ratio| of the very first minibatch, before any update: how far the sampler's
    log-probabilities are from the engine's. It is 0 but for rounding. Without rows nothing is updated.
    """
    totals = {"loss": 0.0, "gradient_norm": 0.0, "log_ratio_error": 0.0}
    first_error = 0.0
    count = 0
    for epoch in range(settings.epochs):
        order = epoch_order(len(rows), seed=seed * 7919 + step, epoch=epoch)
        for part in range(settings.minibatches):
            indices = order[part :: settings.minibatches]
            if not indices:
                continue
            figures = within_memory(
                partial(method.gradients, indices), [rows[i] for i in indices], method.optimizers.values(), device
            )
            first_error = first_error if count else figures["log_ratio_error"]
            norms = []
            for name, optimizer in method.optimizers.items():
                given = {"peak": method.rates[name], "warmup": settings.warmup}
                rate = learning_rate(step, settings.steps, **given, schedule="constant")
                norms.append(optimizer.step(learning_rate=rate, max_gradient_norm=settings.max_gradient_norm))
            count += 1
            for name, figure in (figures | {"gradient_norm": norms[0]}).items():
                totals[name] = totals.get(name, 0.0) + figure
    return {name: total / max(count, 1) for name, total in totals.items()} | {"first_ratio_error": first_error}
