"""PPO with a reward model and a KL term, after the numbered checklist in docs/ppo.md.

Four models: the policy and the value model learn, the reward model and the reference stay as they are.
Shape suffixes: B answers of one step, R their tokens end to end.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from pairtune.data.pack import Tokens, pack
from pairtune.engine.cost import uncounted
from pairtune.engine.hidden import hidden_states, passes
from pairtune.engine.logprob import token_logprobs
from pairtune.engine.own_score import OwnScore
from pairtune.engine.reference import compute_logprobs
from pairtune.engine.value_heads import compute_values, score_rewards
from pairtune.models.heads import ScalarModel
from pairtune.objectives.policy_gradient import (
    adapted_kl_coefficient,
    advantages,
    clipped_policy_loss,
    clipped_value_loss,
    scale,
    token_rewards,
    whiten,
)
from pairtune.progress import say
from pairtune.sampling.answer import Sample
from pairtune.sampling.sampler import sample, stream_seed
from pairtune.settings import Drawing, Ppo
from pairtune.training.checkpoint import Journal
from pairtune.training.loop import Measure, run_steps, say_router
from pairtune.training.room import within_memory
from pairtune.training.step import Optimizer, epoch_order, learning_rate, micro_batches

# Adam's ε in PPO (detail 17 of docs/ppo.md).
ADAM_EPS = 1e-5
# A sampled KL this far below zero, in nats per answer, cannot be sampling noise of a policy near its reference.
NEGATIVE_KL_ALARM = -0.5
# A step's answers are too few to tell the KL by. From this share of `kl_stop` on, by them, it is measured on more.
NEAR = 0.5


@dataclass(frozen=True)
class Rollout:
    """One step's answers with everything about them that stays fixed while the policy moves."""

    rows: list[Tokens]
    ended: list[bool]
    old: list[Tensor]  # the log-probabilities that the sampler drew with
    values: list[Tensor]  # before any update; with their graph where the update can begin with the pass that made them
    advantages: list[Tensor]
    returns: list[Tensor]
    figures: dict[str, float]


def train_ppo(
    policy: PreTrainedModel,
    value: ScalarModel,
    reward_model: ScalarModel | OwnScore,
    reference: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    settings: Ppo,
    sampling: Drawing,
    *,
    end_ids: Sequence[int],
    seed: int,
    journal: Journal,
    measure: Measure | None = None,
    distance: Callable[[], float] | None = None,
) -> None:
    """Train `policy` (and `value`) in place on answers to `prompts`. `reward_model` must be normalised.

    distance(): the policy's KL from the reference, for `kl_stop`: training ends at the step nearest to that, which is
    where half of a mean step's way more would lead beyond.
    """
    for model in (policy, value, reward_model, reference):
        if isinstance(model, nn.Module):
            model.eval()  # no dropout: the policy that is updated is the one that was sampled
    say_router(policy)
    actor = Optimizer(policy.parameters(), eps=ADAM_EPS)
    critic = Optimizer(value.parameters(), eps=ADAM_EPS)
    weight = torch.tensor(settings.kl_coefficient, dtype=torch.float64)  # of the KL reward; moves if there is a target

    def work(step: int) -> dict[str, float]:
        asked = step_prompts(prompts, settings.batch_size, step=step, seed=seed)
        answers = sample(
            policy,
            asked,
            end_ids=end_ids,
            max_new_tokens=sampling.max_new_tokens,
            temperature=settings.temperature,
            seed=stream_seed(seed, "ppo", step),
            batch_size=sampling.batch_size,
        )
        coefficient = float(weight)
        rollout = rollout_of(asked, answers, value, reward_model, reference, settings, coefficient)
        figures = rollout.figures | update(policy, value, actor, critic, rollout, settings, step=step, seed=seed)
        kl = figures["kl"]
        if kl < NEGATIVE_KL_ALARM:
            say(f"  step {step}: the sampled KL is {kl:.2f} nats; it should not be below 0")
        if settings.kl_target > 0:
            weight.fill_(adapted_kl_coefficient(coefficient, kl, target=settings.kl_target, answers=len(answers)))
        return figures | {"kl_coefficient": coefficient}

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
        {"actor.": actor, "critic.": critic},
        {"kl_coefficient": weight},
        journal=journal,
        note=lambda figures: f"reward {figures['reward']:.3f}  kl {figures['kl']:.2f}",
        measure=measure,
        ended=ended if settings.kl_stop > 0 else None,
    )
    actor.release()
    critic.release()


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
def rollout_of(
    prompts: Sequence[Sequence[int]],
    answers: Sequence[Sample],
    value: ScalarModel,
    reward_model: ScalarModel | OwnScore,
    reference: PreTrainedModel,
    settings: Ppo,
    kl_coefficient: float,
) -> Rollout:
    """Score the answers, take the reference's log-probabilities and the values, and estimate advantages."""
    rows = [Tokens(tuple(prompt), (answer.response,)) for prompt, answer in zip(prompts, answers, strict=True)]
    ended_B = torch.tensor([answer.ended for answer in answers])
    reward_B = torch.tensor([rewards[0] for rewards in score_rewards(reward_model, rows)])
    score_B = reward_B - settings.missing_end_penalty * (~ended_B).float()
    old = [torch.tensor(answer.logprobs) for answer in answers]
    reference_R = torch.cat(compute_logprobs(reference, rows, temperature=settings.temperature))

    def valued(_: bool) -> list[Tensor]:
        one_pass = settings.minibatches == 1 and len(passes(rows, reference.device)) == 1
        with torch.set_grad_enabled(one_pass):
            return compute_values(value, rows)

    values = within_memory(valued, rows, (), reference.device)
    lengths_B = torch.tensor([len(answer.response) for answer in answers])
    old_R, value_R = torch.cat(old), torch.cat(values).detach()
    reward_R = token_rewards(score_B, old_R, reference_R, lengths_B, kl_coefficient=kl_coefficient)
    reward_R = scale(reward_R)
    advantage_R, return_R = advantages(
        reward_R, value_R, lengths_B, discount=settings.discount, gae_lambda=settings.gae_lambda
    )
    sizes = lengths_B.tolist()
    kl_B = torch.stack([part.sum() for part in (old_R - reference_R).split(sizes)])
    several = len(rows) > 1  # one answer does not spread
    return Rollout(
        rows=rows,
        ended=ended_B.tolist(),
        old=old,
        values=values,
        advantages=list(whiten(advantage_R).split(sizes)),
        returns=list(return_R.split(sizes)),
        figures={
            "reward": float(reward_B.mean()),
            "reward_sd": float(reward_B.std()) if several else 0.0,
            "kl": float(kl_B.mean()),
            "kl_sd": float(kl_B.std()) if several else 0.0,
            "ended": float(ended_B.float().mean()),
            "response_tokens": float(lengths_B.float().mean()),
            "entropy": float(-old_R.mean()),
        },
    )


def update(
    policy: PreTrainedModel,
    value: ScalarModel,
    actor: Optimizer,
    critic: Optimizer,
    rollout: Rollout,
    settings: Ppo,
    *,
    step: int,
    seed: int,
) -> dict[str, float]:
    """Several passes of clipped updates over one step's answers. Returns the means over all minibatches.

    `first_ratio_error` is the mean |log ratio| of the very first minibatch, before any update: how far the sampler's
    log-probabilities are from the engine's. It is 0 but for rounding.
    """
    totals: dict[str, float] = {}
    first_error = 0.0
    count = 0
    for epoch in range(settings.epochs):
        order = epoch_order(len(rollout.rows), seed=seed * 7919 + step, epoch=epoch)
        for part in range(settings.minibatches):
            indices = order[part :: settings.minibatches]
            if not indices:
                continue
            # Values that are to be computed again have lost their graph.
            graphless = replace(rollout, values=[values.detach() for values in rollout.values])

            def gather(
                again: bool, indices: Sequence[int] = indices, first: Rollout = rollout, other: Rollout = graphless
            ) -> dict[str, float]:
                return minibatch_gradients(policy, value, other if again else first, indices, settings)

            asked = [rollout.rows[i] for i in indices]
            figures = within_memory(gather, asked, [actor, critic], policy.device)
            if count == 0:
                first_error = figures["log_ratio_error"]
            rollout = graphless
            rates = [
                learning_rate(step, settings.steps, peak=peak, warmup=settings.warmup, schedule="constant")
                for peak in (settings.learning_rate, settings.value_learning_rate)
            ]
            figures["gradient_norm"] = actor.step(learning_rate=rates[0], max_gradient_norm=settings.max_gradient_norm)
            critic.step(learning_rate=rates[1], max_gradient_norm=settings.max_gradient_norm)
            count += 1
            for name, figure in figures.items():
                totals[name] = totals.get(name, 0.0) + figure
    means = {name: total / count for name, total in totals.items()}
    means["loss"] = means["policy_loss"]
    means["first_ratio_error"] = first_error
    return means


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
    return figures
