"""PPO's wiring against a plain recomputation: what goes into an advantage, a return, a gradient; and every setting.

The formulas are in `objectives/policy_gradient.py` and have their own tests; here is how `training/ppo.py` joins them.
"""

import dataclasses
import json
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

import pairtune
from pairtune.models.heads import ScalarModel
from pairtune.models.load import frozen_copy
from pairtune.sampling.sampler import sample
from pairtune.settings import Drawing, Ppo
from pairtune.training import ppo
from pairtune.training.checkpoint import Journal
from pairtune.training.online import Round, round_of
from pairtune.training.ppo import minibatch_gradients, rollout_of, train_ppo
from pairtune.training.return_unit import ReturnUnit
from tests import by_hand

EOS = 1
PROMPTS = [(5, 6), (7,), (8, 9, 10, 11, 12), (13, 14, 15), (16, 17), (18,)]
SETTINGS = Ppo(discount=0.9, gae_lambda=0.8, missing_end_penalty=0.7, temperature=0.8, clip_ratio=0.1, clip_value=0.05)
KL_COEFFICIENT = 0.3


@dataclass
class Four:
    """Four models that all differ."""

    policy: PreTrainedModel
    value: ScalarModel
    reward_model: ScalarModel
    reference: PreTrainedModel


@pytest.fixture
def four(tiny_model: Any) -> Four:
    policy, other, body, scoring_body = (tiny_model(seed=seed, spread=5.0) for seed in range(4))
    reward_model = ScalarModel(scoring_body, seed=5).requires_grad_(False)
    reward_model.normalise(mean=0.2, std=0.7)
    return Four(policy, ScalarModel(body, seed=6), reward_model, frozen_copy(other))


@pytest.fixture
def answers(four: Four) -> list[Any]:
    drawn = sample(four.policy, PROMPTS, end_ids=[EOS], max_new_tokens=7, temperature=0.8, seed=0)
    short = [replace(drawn[0], response=(30, EOS), logprobs=drawn[0].logprobs[:2], ended=True)]
    return [*short, *drawn[1:]]  # answers of several lengths, one of which has ended


def drawn(four: Four, answers: Sequence[Any]) -> Round:
    return round_of(PROMPTS, answers, four.reward_model, four.reference, SETTINGS)


def plain_rewards(four: Four, answers: Sequence[Any]) -> list[list[float]]:
    """Per token, before scaling: −c·(log π − log π_ref), and at the last the score less the penalty."""
    result = []
    for prompt, answer in zip(PROMPTS, answers, strict=True):
        frozen = by_hand.token_logprobs(four.reference, prompt, answer.response, temperature=0.8).tolist()
        rewards = [-KL_COEFFICIENT * (old - ref) for old, ref in zip(answer.logprobs, frozen, strict=True)]
        rewards[-1] += by_hand.scalar_at_the_end(four.reward_model, prompt, answer.response)
        rewards[-1] -= 0.0 if answer.ended else 0.7
        result.append(rewards)
    return result


def plain_values(four: Four, answers: Sequence[Any]) -> list[list[float]]:
    """Of the state before each token."""
    return [
        by_hand.scalars(four.value, prompt, answer.response)[len(prompt) - 1 : -1]
        for prompt, answer in zip(PROMPTS, answers, strict=True)
    ]


def plain_advantages(four: Four, answers: Sequence[Any]) -> tuple[list[list[float]], list[list[float]]]:
    """Advantages as GAE's double sum, in rewards; returns A + V, in deviations from the mean of rewards to go."""
    rewards, values = plain_rewards(four, answers), plain_values(four, answers)
    to_go = [sum(0.9 ** (k - t) * row[k] for k in range(t, len(row))) for row in rewards for t in range(len(row))]
    mean, deviation = statistics.fmean(to_go), statistics.pstdev(to_go)
    advantages, returns = [], []
    for row, head in zip(rewards, values, strict=True):
        value = [mean + deviation * v for v in head]
        following = [*value[1:], 0.0]
        delta = [r + 0.9 * after - now for r, after, now in zip(row, following, value, strict=True)]
        advantages.append([sum((0.9 * 0.8) ** k * delta[t + k] for k in range(len(row) - t)) for t in range(len(row))])
        returns.append([(a + v - mean) / deviation for a, v in zip(advantages[-1], value, strict=True)])
    return advantages, returns


def whitened(rows: Sequence[Sequence[float]]) -> list[list[float]]:
    """To mean 0 and standard deviation 1 over all tokens of all answers together."""
    every = [value for row in rows for value in row]
    mean = sum(every) / len(every)
    deviation = math.sqrt(sum((value - mean) ** 2 for value in every) / len(every))
    return [[(value - mean) / deviation for value in row] for row in rows]


def test_advantages_are_whitened_over_all_answers_and_returns_are_not(four: Four, answers: list[Any]) -> None:
    assert len({len(answer.response) for answer in answers}) > 1
    assert len({answer.ended for answer in answers}) == 2
    rollout = rollout_of(drawn(four, answers), four.value, ReturnUnit(four.value.head), SETTINGS, KL_COEFFICIENT)
    advantages, returns = plain_advantages(four, answers)
    for found, expected in zip(rollout.advantages, whitened(advantages), strict=True):
        assert found.tolist() == pytest.approx(expected, abs=1e-3)
    for found, expected in zip(rollout.returns, returns, strict=True):
        assert found.tolist() == pytest.approx(expected, abs=1e-3)
    for found, expected in zip(rollout.values, plain_values(four, answers), strict=True):
        assert found.tolist() == pytest.approx(expected, abs=1e-4)
    # The planted faults are far from it: each answer by itself, and returns out of whitened advantages.
    alone = [value for row in advantages for value in whitened([row])[0]]
    together = [value for row in whitened(advantages) for value in row]
    assert max(abs(a - b) for a, b in zip(alone, together, strict=True)) > 0.1
    mixed = [a + v for row, values in zip(whitened(advantages), plain_values(four, answers), strict=True)
             for a, v in zip(row, values, strict=True)]  # fmt: skip
    assert max(abs(a - b) for a, b in zip(mixed, [r for row in returns for r in row], strict=True)) > 0.1


def test_the_figures_of_a_step(four: Four, answers: list[Any]) -> None:
    figures = drawn(four, answers).figures
    lengths = [len(answer.response) for answer in answers]
    pairs = list(zip(PROMPTS, answers, strict=True))
    scores = [by_hand.scalar_at_the_end(four.reward_model, prompt, answer.response) for prompt, answer in pairs]
    kls = [
        sum(answer.logprobs)
        - float(by_hand.token_logprobs(four.reference, prompt, answer.response, temperature=0.8).sum())
        for prompt, answer in pairs
    ]
    assert figures == pytest.approx(
        {
            "reward": sum(scores) / len(scores),
            "reward_sd": statistics.stdev(scores),
            "kl": sum(kls) / len(answers),
            "kl_sd": statistics.stdev(kls),
            "ended": sum(answer.ended for answer in answers) / len(answers),
            "response_tokens": sum(lengths) / len(lengths),
            "entropy": -sum(x for answer in answers for x in answer.logprobs) / sum(lengths),
        },
        abs=1e-3,
    )
    assert sum(kls) > 1


def plain_losses(
    four: Four, answers: Sequence[Any], rollout: ppo.Rollout, indices: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Both losses of a minibatch, from the models' own forward: means over its tokens."""
    policy_loss, value_loss, tokens = torch.zeros(()), torch.zeros(()), 0
    for i in indices:
        prompt, response = PROMPTS[i], answers[i].response
        ids = torch.tensor([[*prompt, *response]])
        logits = four.policy(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1] / 0.8
        logprob = logits.log_softmax(-1)[torch.arange(len(response)), torch.tensor(response)]
        ratio = (logprob - rollout.old[i]).exp()
        gain = torch.minimum(ratio * rollout.advantages[i], ratio.clamp(0.9, 1.1) * rollout.advantages[i])
        policy_loss = policy_loss - gain.sum()
        states = four.value.body.base_model(input_ids=ids, use_cache=False).last_hidden_state[0, len(prompt) - 1 : -1]
        value = four.value.scalars(states)
        near = rollout.values[i] + (value - rollout.values[i]).clamp(-0.05, 0.05)
        worse = torch.maximum((value - rollout.returns[i]) ** 2, (near - rollout.returns[i]) ** 2)
        value_loss = value_loss + worse.sum() / 2
        tokens += len(response)
    return policy_loss / tokens, value_loss / tokens  # type: ignore[return-value]


def test_a_minibatchs_gradients(four: Four, answers: list[Any]) -> None:
    """Away from the models that sampled and scored, so that ratios, clips and values all take part."""
    rollout = rollout_of(drawn(four, answers), four.value, ReturnUnit(four.value.head), SETTINGS, KL_COEFFICIENT)
    rollout = replace(rollout, values=[values.detach() for values in rollout.values])
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in (*four.policy.parameters(), *four.value.parameters()):
            parameter += 0.02 * parameter.abs().mean() * torch.randn(parameter.shape, generator=generator)
    indices = [4, 0, 2, 5]
    figures = minibatch_gradients(four.policy, four.value, rollout, indices, SETTINGS)
    models = (four.policy, four.value)
    found = [[None if p.grad is None else p.grad.clone() for p in model.parameters()] for model in models]
    for model in models:
        model.zero_grad()
    losses = plain_losses(four, answers, rollout, indices)
    assert figures["policy_loss"] == pytest.approx(losses[0].item(), abs=1e-4)
    assert figures["value_loss"] == pytest.approx(losses[1].item(), abs=1e-4)
    assert 0 < figures["clip_fraction"] < 1
    for learner, loss, gradients in zip(models, losses, found, strict=True):
        loss.backward()
        pairs = [(a, p.grad) for a, p in zip(gradients, learner.parameters(), strict=True) if p.grad is not None]
        assert pairs
        ours, plain = (torch.cat([each.flatten() for each in side]).double() for side in zip(*pairs, strict=True))
        assert float((ours - plain).norm() / plain.norm()) < 1e-4


# ---- every setting does something ---------------------------------------------------------------------------------

BASE = Ppo(steps=3, batch_size=4, learning_rate=1e-3, value_learning_rate=1e-3, minibatches=2, epochs=2, warmup=0.9)
OTHER: dict[str, Any] = {
    "steps": 2,
    "batch_size": 5,
    "minibatches": 1,
    "epochs": 1,
    "learning_rate": 2e-3,
    "value_learning_rate": 2e-3,
    "warmup": 0.0,
    "max_gradient_norm": 1e-4,
    "kl_target": 0.5,
    "kl_stop": 1e-3,  # the reference is another model
    "discount": 0.5,
    "gae_lambda": 0.1,
    "clip_ratio": 1e-4,
    "clip_value": 1e-4,
    "missing_end_penalty": 3.0,
    "temperature": 0.5,
    "kl_coefficient": 0.9,
}


def outcome(four: Four, settings: Ppo, drawing: Drawing) -> list[Any]:
    """What training leaves: the records but for seconds, and the weights of both models that learn."""
    journal = Journal("ppo")
    train_ppo(
        four.policy, four.value, four.reward_model, four.reference, PROMPTS, settings, drawing, end_ids=[EOS], seed=0,
        journal=journal, distance=lambda: 1.0,
    )  # fmt: skip
    rows = [{k: v for k, v in row.items() if k != "seconds"} for row in journal.rows]
    return [json.dumps(rows), *(p.detach().clone() for m in (four.policy, four.value) for p in m.parameters())]


@pytest.fixture
def fresh(tiny_model: Any) -> Callable[[], Four]:
    def build() -> Four:
        policy, other, body, scoring_body = (tiny_model(seed=seed, spread=5.0) for seed in range(4))
        scoring_model = ScalarModel(scoring_body, seed=5).requires_grad_(False)
        return Four(policy, ScalarModel(body, seed=6), scoring_model, frozen_copy(other))

    return build


def same(first: list[Any], second: list[Any]) -> bool:
    """To the bit."""
    return first[0] == second[0] and all(torch.equal(a, b) for a, b in zip(first[1:], second[1:], strict=True))


def test_the_list_of_settings_is_whole() -> None:
    assert set(OTHER) == {field.name for field in dataclasses.fields(Ppo)}
    assert {field.name for field in dataclasses.fields(Drawing)} == {"max_new_tokens", "batch_size"}


def test_every_setting_changes_what_comes_out(fresh: Callable[[], Four]) -> None:
    """A setting that does nothing is an answer to nobody's question: `--ppo-...` must reach the training."""
    base, drawing = outcome(fresh(), BASE, Drawing(max_new_tokens=5)), Drawing(max_new_tokens=5)
    assert same(base, outcome(fresh(), BASE, drawing)), "or the test would see noise"
    others = {name: outcome(fresh(), replace(BASE, **{name: value}), drawing) for name, value in OTHER.items()}
    assert [name for name, other in others.items() if same(base, other)] == []


def test_the_longest_answer_is_the_setting_and_the_sampling_batch_is_memory_alone(fresh: Callable[[], Four]) -> None:
    base = outcome(fresh(), BASE, Drawing(max_new_tokens=5))
    assert not same(base, outcome(fresh(), BASE, Drawing(max_new_tokens=3)))
    small = outcome(fresh(), BASE, Drawing(max_new_tokens=5, batch_size=2))
    for one, other in zip(json.loads(base[0]), json.loads(small[0]), strict=True):
        assert one == pytest.approx(other, abs=1e-3)


def test_a_temperature_that_would_do_nothing_is_no_setting_of_the_command(tmp_path: Path) -> None:
    """PPO samples at `--temperature`; `--sampling-temperature` was taken and never looked at."""
    with pytest.raises(pairtune.InputError, match='no setting "sampling_temperature"'):
        pairtune.ppo(data=tmp_path / "x.jsonl", reward_model=tmp_path, sampling_temperature=0.5)
