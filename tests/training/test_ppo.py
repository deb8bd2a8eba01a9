"""PPO, one test for each numbered detail of docs/ppo.md, and a policy that learns what it is rewarded for."""

import copy
import importlib
import inspect
import math
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

import pairtune
from pairtune.data.pack import Tokens
from pairtune.engine import hidden, naive
from pairtune.engine.value_heads import score_rewards
from pairtune.models.heads import ScalarModel
from pairtune.models.load import frozen_copy
from pairtune.objectives.policy_gradient import (
    adapted_kl_coefficient,
    advantages,
    clipped_policy_loss,
    clipped_value_loss,
    rewards_to_go,
    token_rewards,
)
from pairtune.sampling.sampler import Sample, sample
from pairtune.settings import Ppo, Sampling
from pairtune.training import online, ppo
from pairtune.training.checkpoint import Journal
from pairtune.training.online import round_of, step_prompts, update
from pairtune.training.ppo import ActorCritic, compute_values, minibatch_gradients, rollout_of, train_ppo
from pairtune.training.return_unit import ReturnUnit
from pairtune.training.reward import normalise
from pairtune.training.step import Optimizer

DOCS = Path(__file__).parents[2] / "docs" / "ppo.md"
EOS = 1
PROMPTS = [(5, 6), (7,), (8, 9, 10, 11, 12), (13, 14, 15), (16, 17), (18,), (19, 20, 21, 22), (23, 24)]


@dataclass
class Four:
    """The four models of PPO, all different, and what the loop does with them."""

    policy: PreTrainedModel
    value: ScalarModel
    reward_model: ScalarModel
    reference: PreTrainedModel

    def answers(self, *, temperature: float = 1.0, seed: int = 0, max_new_tokens: int = 6) -> list[Sample]:
        return sample(
            self.policy,
            PROMPTS,
            end_ids=[EOS],
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            seed=seed,
        )

    def rollout(self, answers: Sequence[Sample], settings: Ppo | None = None, coefficient: float = 0.1) -> ppo.Rollout:
        unit = ReturnUnit(self.value.head)
        return rollout_of(self.drawn(answers, settings), self.value, unit, settings or Ppo(), coefficient)

    def drawn(self, answers: Sequence[Sample], settings: Ppo | None = None) -> online.Round:
        return round_of(PROMPTS, answers, self.reward_model, self.reference, settings or Ppo())

    def train(
        self,
        settings: Ppo,
        *,
        journal: Journal | None = None,
        max_new_tokens: int = 6,
        distance: Callable[[], float] | None = None,
    ) -> list[dict[str, Any]]:
        journal = journal or Journal("ppo")
        train_ppo(
            self.policy,
            self.value,
            self.reward_model,
            self.reference,
            PROMPTS,
            settings,
            Sampling(max_new_tokens=max_new_tokens),
            end_ids=[EOS],
            seed=0,
            journal=journal,
            distance=distance,
        )
        return journal.rows


@pytest.fixture
def build(tiny_model: Any) -> Callable[..., Four]:
    """build(architecture="llama", **overrides): four models; the reference is not the policy unless `same`."""

    def make(architecture: str = "llama", *, same: bool = False, **overrides: Any) -> Four:
        policy, other, body, scoring_body = (tiny_model(architecture, seed=seed, **overrides) for seed in range(4))
        reference = frozen_copy(policy if same else other)
        return Four(policy, ScalarModel(body), ScalarModel(scoring_body).requires_grad_(False), reference)

    return make


@pytest.fixture
def four(build: Callable[..., Four]) -> Four:
    return build()


# ---- the details of docs/ppo.md, in its order --------------------------------------------------------------------


def test_01_pad_is_not_eos(four: Four) -> None:
    """The end of text is an answer's token like any other: drawn, scored, and given an advantage of its own."""
    answers = four.answers(max_new_tokens=400)
    ended = [answer for answer in answers if answer.ended]
    assert len(ended) >= 2
    assert all(answer.response[-1] == EOS and EOS not in answer.response[:-1] for answer in ended)
    assert all(len(answer.logprobs) == len(answer.response) for answer in answers)
    rollout = four.rollout(answers)
    assert [len(a) for a in rollout.advantages] == [len(answer.response) for answer in answers]
    # Only the end of text is worth something here: its gradient is what raises or lowers the chance to stop.
    row = answers.index(ended[0])
    only_end = [torch.zeros_like(a) for a in rollout.advantages]
    only_end[row][-1] = 1.0
    minibatch_gradients(four.policy, four.value, replace(rollout, advantages=only_end), [row], Ppo())
    gradient = four.policy.get_output_embeddings().weight.grad
    assert gradient is not None
    assert gradient[EOS].norm() > 0.1 * gradient.norm()
    # What a model calls its PAD changes nothing: padding is masked by place, never by token id.
    four.policy.config.pad_token_id = EOS
    assert four.answers(max_new_tokens=400) == answers


def test_02_positions_are_right_under_left_padding(architecture: str, build: Callable[..., Four]) -> None:
    four = build(architecture)
    answers = four.answers()
    expected = naive.response_logprobs(four.policy, PROMPTS, [answer.response for answer in answers])
    for answer, logprobs in zip(answers, expected, strict=True):
        assert list(answer.logprobs) == pytest.approx(logprobs.tolist(), abs=1e-4)


def test_03_dropout_is_off_everywhere(build: Callable[..., Four]) -> None:
    four = build("gpt2", same=True)  # published with dropout of 0.1
    for model in (four.policy, four.value, four.reward_model, four.reference):
        model.train()
    rows = four.train(Ppo(steps=2, batch_size=8))
    assert not any(m.training for model in vars(four).values() for m in model.modules())
    assert rows[0]["first_ratio_error"] < 1e-5
    assert rows[0]["kl"] == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_04_the_temperature_is_in_every_log_probability(four: Four, temperature: float) -> None:
    settings = Ppo(temperature=temperature)
    answers = four.answers(temperature=temperature)
    rollout = four.rollout(answers, settings)

    def tempered(model: PreTrainedModel, prompt: Sequence[int], response: Sequence[int]) -> Tensor:
        logits = model(torch.tensor([[*prompt, *response]])).logits[0, len(prompt) - 1 : -1]
        return (logits / temperature).log_softmax(-1)[torch.arange(len(response)), torch.tensor(response)]

    kl = 0.0
    with torch.no_grad():
        for prompt, answer, old in zip(PROMPTS, answers, rollout.old, strict=True):
            own = tempered(four.policy, prompt, answer.response)
            assert old.tolist() == pytest.approx(own.tolist(), abs=1e-4)
            kl += float((own - tempered(four.reference, prompt, answer.response)).sum()) / len(PROMPTS)
    assert four.drawn(answers, settings).figures["kl"] == pytest.approx(kl, abs=1e-3)
    figures = minibatch_gradients(four.policy, four.value, rollout, range(8), settings)
    assert figures["log_ratio_error"] < 1e-5


def test_05_sampling_is_pure(tiny_model: Any) -> None:
    """Every token has its own probability, the rarest and the end of text at once among them."""
    model = tiny_model(vocab_size=24, spread=8.0)
    drawn = sample(model, [(5, 6)] * 20_000, end_ids=[EOS], max_new_tokens=1, seed=0, batch_size=2000)
    counts = torch.bincount(torch.tensor([answer.response[0] for answer in drawn]), minlength=24)
    expected = model(torch.tensor([[5, 6]])).logits[0, -1].double().softmax(-1).detach()
    error = (expected * (1 - expected) / len(drawn)).sqrt()
    assert ((counts / len(drawn) - expected).abs() < 5 * error + 1e-9).all()
    assert counts[EOS] > 0  # no forced length
    rare = expected < 0.01
    assert counts[rare].sum().item() == pytest.approx(len(drawn) * expected[rare].sum().item(), rel=0.2)


def test_06_the_score_comes_once_at_the_last_token() -> None:
    lengths, score = torch.tensor([3, 1, 2]), torch.tensor([2.0, -1.0, 0.5])
    policy, reference = torch.tensor([-1.0, -2, -3, -4, -5, -6]), torch.tensor([-1.5, -2, -2, -4, -5, -7])
    rewards = token_rewards(score, policy, reference, lengths, kl_coefficient=0.1)
    assert rewards.tolist() == pytest.approx([-0.05, 0, 0.1 + 2, -1, 0, -0.1 + 0.5])


def scores_given(four: Four, answers: Sequence[Sample], settings: Ppo, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    given: list[float] = []

    def watched(score_B: Tensor, *others: Tensor, **settings: float) -> Tensor:
        given.extend(score_B.tolist())
        return token_rewards(score_B, *others, **settings)

    with monkeypatch.context() as patched:
        patched.setattr(ppo, "token_rewards", watched)
        four.rollout(answers, settings)
    return given


def test_07_an_answer_without_end_of_text_pays(four: Four, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [replace(a, ended=i % 2 == 0) for i, a in enumerate(four.answers())]
    plain = scores_given(four, answers, Ppo(missing_end_penalty=0), monkeypatch)
    paid = scores_given(four, answers, Ppo(missing_end_penalty=1.5), monkeypatch)
    assert [a - b for a, b in zip(plain, paid, strict=True)] == pytest.approx([0, 1.5] * 4, abs=1e-6)


def test_08_rewards_are_normalised_on_the_references_answers(four: Four, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        Tokens(prompt, (answer.response,)) for seed in range(4) for prompt, answer in zip(
            PROMPTS, Four(four.reference, *list(vars(four).values())[1:]).answers(seed=seed), strict=True
        )
    ]  # fmt: skip
    normalise(four.reward_model, rows)
    rewards = torch.tensor(score_rewards(four.reward_model, rows))
    assert rewards.mean().item() == pytest.approx(0, abs=1e-5)
    assert rewards.std().item() == pytest.approx(1, abs=1e-5)
    answers = four.answers()
    given = scores_given(four, answers, Ppo(missing_end_penalty=0), monkeypatch)
    own = score_rewards(four.reward_model, [Tokens(p, (a.response,)) for p, a in zip(PROMPTS, answers, strict=True)])
    assert given == pytest.approx([score[0] for score in own])  # what PPO is paid in are those units


def test_09_the_reward_is_read_at_the_last_real_token(architecture: str, build: Callable[..., Four]) -> None:
    model = build(architecture).reward_model
    rows = [Tokens(prompt, ((30 + i, 31, 32)[: 1 + i % 3],)) for i, prompt in enumerate(PROMPTS)]
    found = [score[0] for score in score_rewards(model, rows)]
    alone = []
    for row in rows:
        tokens = torch.tensor([[*row.prompt, *row.responses[0]]])
        hidden = model.body.base_model(tokens, use_cache=False).last_hidden_state[0, -1]
        alone.append(float(hidden @ model.head.weight[0] + model.head.bias))
    assert found == pytest.approx(alone, abs=1e-4)


def test_10_a_scalar_head_starts_small(tiny_model: Any) -> None:
    body = tiny_model()
    weights = torch.cat([ScalarModel(body, seed=seed).head.weight.flatten() for seed in range(100)])
    assert weights.std().item() == pytest.approx(1 / math.sqrt(32 + 1), rel=0.05)
    assert weights.mean().item() == pytest.approx(0, abs=0.01)
    assert ScalarModel(body).head.bias.item() == 0
    assert torch.equal(ScalarModel(body, seed=3).head.weight, ScalarModel(body, seed=3).head.weight)


def test_11_the_value_model_starts_as_the_reward_model(
    tmp_path: Path, tiny_folder: Any, tiny_model: Any, tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = ScalarModel(tiny_model(seed=5), seed=5)
    model.normalise(mean=0.7, std=2.0)
    model.save(tmp_path / "reward", tiny_tokenizer())
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "The film"}\n')
    seen: list[Any] = []

    def stop(*models: Any, **_: Any) -> None:
        seen.extend(models)
        raise KeyboardInterrupt

    monkeypatch.setattr("pairtune.stages.online.train_online", stop)
    with pytest.raises(KeyboardInterrupt):
        pairtune.ppo(
            model=tiny_folder(tmp_path),
            reward_model=tmp_path / "reward",
            data=tmp_path / "prompts.jsonl",
            out=tmp_path / "out",
            dtype="float32",
        )
    _, method, reward_model, *_ = seen
    value = method.value
    assert value is not reward_model
    assert torch.equal(value.head.weight, model.head.weight)
    assert value.head.bias.item() == pytest.approx(-0.35)
    assert all(torch.equal(a, b) for a, b in zip(value.parameters(), reward_model.parameters(), strict=True))
    assert value.head.weight.requires_grad
    assert not any(parameter.requires_grad for parameter in reward_model.parameters())


def test_12_the_kl_reward_is_per_token_and_its_weight_fixed_or_adaptive(build: Callable[..., Four]) -> None:
    fixed = build().train(Ppo(steps=3, batch_size=4, kl_coefficient=0.03))
    assert [row["kl_coefficient"] for row in fixed] == [0.03] * 3
    # The reference is another model: the KL is far above the target, so the weight rises, by the clipped error.
    rising = build().train(Ppo(steps=3, batch_size=4, kl_coefficient=0.03, kl_target=0.01))
    up = 1 + 0.2 * 4 / 10_000
    assert [row["kl_coefficient"] for row in rising] == pytest.approx([0.03, 0.03 * up, 0.03 * up**2], rel=1e-9)
    assert adapted_kl_coefficient(0.1, 5.0, target=10.0, answers=100) == pytest.approx(0.1 * (1 - 0.002))
    assert adapted_kl_coefficient(0.1, 11.0, target=10.0, answers=100) == pytest.approx(0.1 * (1 + 0.1 * 0.01))


def test_12_training_may_end_at_a_kl(build: Callable[..., Four]) -> None:
    """At the step whose KL is nearest, by the way of a mean step; measured where the step's own answers are near."""
    settings = Ppo(steps=8, batch_size=8, learning_rate=1e-2, warmup=0.0, kl_coefficient=0.0, kl_stop=1.0)
    ended, short, measured = build(same=True), build(same=True), iter([0.5, 0.79, 0.91, 2.0])
    rows = ended.train(settings, distance=lambda: next(measured))
    first = next(step for step, row in enumerate(rows, 1) if row["kl"] >= 0.5)
    assert first > 1
    assert len(rows) == first + 2  # 0.79 and half of a mean step more is below 1, 0.91 and that is not
    assert next(measured) == 2.0
    short.train(replace(settings, steps=len(rows), kl_stop=0.0))
    assert all(torch.equal(a, b) for a, b in zip(ended.policy.parameters(), short.policy.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(ended.value.parameters(), short.value.parameters(), strict=True))


def test_13_advantages_are_gae() -> None:
    rewards, values = torch.tensor([1.0, 0.0, 2.0, -1.0, 3.0]), torch.tensor([0.5, 1.0, -0.5, 2.0, 0.0])
    lengths = torch.tensor([3, 2])
    found, returns = advantages(rewards, values, lengths, discount=0.9, gae_lambda=0.8)
    expected = []
    for start, end in ((0, 3), (3, 5)):
        for t in range(start, end):
            total = 0.0
            for later in range(t, end):
                following = float(values[later + 1]) if later + 1 < end else 0.0
                delta = float(rewards[later]) + 0.9 * following - float(values[later])
                total += (0.9 * 0.8) ** (later - t) * delta
            expected.append(total)
    assert found.tolist() == pytest.approx(expected)
    assert returns.tolist() == pytest.approx((found + values).tolist())
    assert (Ppo().discount, Ppo().gae_lambda) == (1.0, 0.95)


def test_14_values_have_the_unit_of_returns_and_length_is_not_paid_for(four: Four) -> None:
    lengths = torch.tensor([2, 6])
    rewards = token_rewards(torch.ones(2), torch.zeros(8), torch.zeros(8), lengths, kl_coefficient=0.1)
    assert rewards_to_go(rewards, lengths, discount=1.0).tolist() == [1.0] * 8  # equal scores, whatever the length
    drawn, found = four.drawn(four.answers()), []
    for size in (1.0, 50.0):  # the same task, its rewards in another unit and with another zero
        unit = ReturnUnit(four.value.head)
        scored = replace(drawn, score_S=size * drawn.score_S + size - 1)
        found.append((unit, rollout_of(scored, four.value, unit, Ppo(), 0.0)))
    (one, first), (other, second) = found
    assert other.deviation == pytest.approx(50 * one.deviation, rel=1e-4)
    assert other.mean == pytest.approx(50 * one.mean + 49, rel=1e-4)
    for mine, theirs in zip(first.returns + first.advantages, second.returns + second.advantages, strict=True):
        assert mine.tolist() == pytest.approx(theirs.tolist(), abs=1e-3)


def test_15_advantages_are_whitened_over_real_tokens_only(four: Four) -> None:
    rollout = four.rollout(four.answers())
    together = torch.cat(rollout.advantages)
    assert len(together) == sum(len(row.responses[0]) for row in rollout.rows)
    assert together.mean().item() == pytest.approx(0, abs=1e-5)
    assert together.std(unbiased=False).item() == pytest.approx(1, abs=1e-4)


def test_16_ratio_and_value_are_clipped_at_0_2() -> None:
    assert (Ppo().clip_ratio, Ppo().clip_value) == (0.2, 0.2)
    ratio, advantage = torch.tensor([1.5, 1.5, 0.5, 0.5, 1.1]), torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0])
    policy = clipped_policy_loss(ratio.log(), torch.zeros(5), advantage, clip=0.2)
    assert policy.loss_R.tolist() == pytest.approx([-1.2, 1.5, -0.5, 0.8, -1.1])
    assert policy.clipped_R.tolist() == [True, False, False, True, False]
    value = clipped_value_loss(torch.tensor([2.0, 0.1]), torch.zeros(2), torch.tensor([3.0, 1.0]), clip=0.2)
    assert value.loss_R.tolist() == pytest.approx([0.5 * 2.8**2, 0.5 * 0.9**2])
    assert value.clipped_R.tolist() == [True, False]


def test_17_adams_epsilon_is_1e_5(four: Four, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Optimizer] = []

    class Watched(Optimizer):
        def __init__(self, *arguments: Any, **named: Any) -> None:
            super().__init__(*arguments, **named)
            made.append(self)

    monkeypatch.setattr(ppo, "Optimizer", Watched)
    four.train(Ppo(steps=1, batch_size=4))
    assert [optimizer.eps for optimizer in made] == [1e-5, 1e-5]


def test_18_the_first_minibatchs_ratio_is_1(architecture: str, build: Callable[..., Four]) -> None:
    rows = build(architecture).train(Ppo(steps=2, batch_size=8, learning_rate=1e-3))
    assert all(row["first_ratio_error"] < 1e-5 for row in rows)
    assert all(row["log_ratio_error"] > 1e-3 for row in rows)  # later minibatches have moved


def test_19_a_negative_sampled_kl_raises_an_alarm(
    four: Four, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    four.train(Ppo(steps=1, batch_size=8))
    assert "the sampled KL" not in capsys.readouterr().err

    def shifted(*arguments: Any, **named: Any) -> list[Sample]:
        """A sampler whose log-probabilities are not those of its policy."""
        drawn = sample(*arguments, **named)
        return [replace(a, logprobs=tuple(x - 9 for x in a.logprobs)) for a in drawn]

    monkeypatch.setattr(online, "sample", shifted)
    rows = four.train(Ppo(steps=1, batch_size=8))
    said = capsys.readouterr().err
    assert rows[0]["kl"] < online.NEGATIVE_KL_ALARM
    assert "step 1: the sampled KL is" in said
    assert "it should not be below 0" in said


# ---- the whole ----------------------------------------------------------------------------------------------------


def test_the_list_in_the_docs_and_the_tests_here_are_in_step() -> None:
    text = DOCS.read_text(encoding="utf-8")
    details = re.findall(r"^## (\d+)\. .+?(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    bodies = re.split(r"^## \d+\. ", text, flags=re.MULTILINE)[1:]
    assert [int(number) for number in details] == list(range(1, len(details) + 1))
    here = [name for name, _ in inspect.getmembers(sys.modules[__name__], inspect.isfunction)]
    wanted = []
    for number, body in enumerate(bodies, 1):
        for part in ("*What.*", "*Why.*", "*Source.*", "*Code.*", "*Test.*"):
            assert part in body, f"detail {number} lacks {part}"
        tests = re.findall(r"`tests/training/test_ppo\.py::(test_\w+)`", body)
        assert [name for name in tests if name.startswith(f"test_{number:02d}_")], f"detail {number} names no test"
        wanted += tests
        for module, name in re.findall(r"`(pairtune\.[\w.]+):(\w+)`", body):
            assert hasattr(importlib.import_module(module), name), f"detail {number}: {module}:{name} is not there"
    assert sorted(wanted) == sorted(name for name in here if re.match(r"test_\d\d_", name))
    assert "ADAM_EPS" in text  # the constant that refers back to this list by number
    assert re.search(r"detail 17 of docs/ppo\.md", inspect.getsource(online))


def test_a_policy_learns_what_it_is_paid_for(build: Callable[..., Four], monkeypatch: pytest.MonkeyPatch) -> None:
    """One token id is worth a point wherever it stands: its share of the answers rises from a twentieth to most."""
    four, favourite = build(same=True, vocab_size=30, spread=1.0), 7

    def paid(_: ScalarModel, rows: Sequence[Tokens]) -> list[list[float]]:
        return [[sum(token == favourite for token in row.responses[0]) / 2] for row in rows]

    monkeypatch.setattr(online, "score_rewards", paid)
    settings = Ppo(
        steps=30, batch_size=32, learning_rate=3e-3, value_learning_rate=3e-3, kl_coefficient=0.01, warmup=0.0
    )
    rows = four.train(settings)

    def share(model: PreTrainedModel) -> float:
        drawn = sample(model, PROMPTS * 20, end_ids=[EOS], max_new_tokens=6, seed=9)
        tokens = [token for answer in drawn for token in answer.response]
        return tokens.count(favourite) / len(tokens)

    assert share(four.reference) < 0.1
    assert share(four.policy) > 0.5
    assert rows[-1]["reward"] > rows[0]["reward"] + 1
    assert rows[-1]["kl"] > 1


def test_values_are_those_of_the_states_in_which_tokens_are_chosen(four: Four) -> None:
    rows = [Tokens(prompt, ((30, 31, 32),)) for prompt in PROMPTS]
    for row, values in zip(rows, compute_values(four.value, rows), strict=True):
        tokens = torch.tensor([[*row.prompt, *row.responses[0]]])
        states = four.value.body.base_model(tokens, use_cache=False).last_hidden_state[0]
        expected = four.value.scalars(states[len(row.prompt) - 1 : -1])
        assert values.tolist() == pytest.approx(expected.tolist(), abs=1e-4)


def test_every_prompt_comes_once_a_round_across_steps() -> None:
    asked = [prompt for step in range(1, 5) for prompt in step_prompts(PROMPTS, 6, step=step, seed=0)]
    assert all(sorted(asked[at : at + 8]) == sorted(PROMPTS) for at in (0, 8, 16))
    assert step_prompts(PROMPTS, 6, step=3, seed=0) == asked[12:18]


def test_a_minibatch_weighs_every_token_alike(four: Four, monkeypatch: pytest.MonkeyPatch) -> None:
    rollout, gradients = four.rollout(four.answers()), []
    for budget in (10_000, 12):
        monkeypatch.setitem(hidden.TOKENS_PER_PASS, "cpu", budget)
        policy, value = copy.deepcopy(four.policy), copy.deepcopy(four.value)
        minibatch_gradients(policy, value, rollout, range(8), Ppo())
        parts = [p.grad.flatten() for m in (policy, value) for p in m.parameters() if p.grad is not None]
        gradients.append(torch.cat(parts).double())
    assert ((gradients[0] - gradients[1]).norm() / gradients[0].norm()).item() < 1e-6


def test_one_minibatch_in_one_pass_begins_with_the_pass_that_made_the_values(
    four: Four, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, gradients = Ppo(minibatches=1), []
    rollout = four.rollout(four.answers(), settings)
    assert all(values.requires_grad for values in rollout.values)
    for values in (rollout.values, [values.detach() for values in rollout.values]):
        four.value.zero_grad()
        minibatch_gradients(four.policy, four.value, replace(rollout, values=values), range(7, -1, -1), settings)
        gradients.append(torch.cat([p.grad.flatten() for p in four.value.parameters() if p.grad is not None]))
    assert ((gradients[0] - gradients[1]).norm() / gradients[1].norm()).item() < 1e-6
    assert not any(values.requires_grad for values in four.rollout(four.answers(), Ppo(minibatches=2)).values)
    monkeypatch.setitem(hidden.TOKENS_PER_PASS, "cpu", 12)
    assert not any(values.requires_grad for values in four.rollout(four.answers(), settings).values)


def test_more_minibatches_than_answers_leave_none_empty(four: Four) -> None:
    settings = Ppo(minibatches=20, epochs=1)
    method = ActorCritic(four.policy, four.value, settings)
    rows, _ = method.begin(four.drawn(four.answers()))
    figures = update(method, rows, settings, torch.device("cpu"), step=1, seed=0)
    assert all(math.isfinite(figure) for figure in figures.values())
    assert [optimizer.steps for optimizer in method.optimizers.values()] == [8, 8]
