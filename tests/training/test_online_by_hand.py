"""RLOO, GRPO and online preference tuning against a plain recomputation, padded and with no code of ours.

First the gradients of a minibatch away from the policy that sampled, then the whole of a first step, Adam's too; going
on after a stop; what every setting changes; and what a reward that says nothing does.
"""

import copy
import dataclasses
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from pairtune.engine import hidden
from pairtune.models.heads import ScalarModel
from pairtune.models.load import frozen_copy
from pairtune.objectives.loss import online_loss_of
from pairtune.sampling import static
from pairtune.sampling.answer import Sample
from pairtune.sampling.sampler import sample
from pairtune.settings import Drawing, Grpo, Online, OnlinePreference, Rloo
from pairtune.training import online
from pairtune.training.checkpoint import Journal
from pairtune.training.grouped import GroupRelative, LeaveOneOut
from pairtune.training.online import Method, round_of, train_online
from pairtune.training.online_pairs import OnlinePairs
from tests import by_hand

EOS, EACH, TEMPERATURE, PENALTY, WEIGHT, CLIP = 1, 3, 0.8, 0.7, 0.3, 0.1
PROMPTS = [(5, 6), (7,), (8, 9, 10, 11, 12), (13, 14, 15)]
SHARED: dict[str, Any] = {
    "answers_per_prompt": EACH, "temperature": TEMPERATURE, "missing_end_penalty": PENALTY, "batch_size": 12,
    "steps": 1, "epochs": 1, "minibatches": 1, "warmup": 0.0, "learning_rate": 1e-3,
}  # fmt: skip
GRADIENT: dict[str, Any] = SHARED | {"kl_coefficient": WEIGHT, "clip_ratio": CLIP}
METHODS: dict[str, Online] = {
    "rloo": Rloo(**GRADIENT),
    "grpo": Grpo(**GRADIENT),
    "dr-grpo": Grpo(**GRADIENT, normalise="none"),
    "grpo-length": Grpo(**GRADIENT, normalise="length"),
    "grpo-deviation": Grpo(**GRADIENT, normalise="deviation"),
    "online-dpo": OnlinePreference(**SHARED, parameters={"beta": WEIGHT}),
    "online-ipo": OnlinePreference(**SHARED, objective="ipo", parameters={"beta": WEIGHT}),
}


@dataclasses.dataclass
class Three:
    """The policy, and a reward model and a reference that differ from it."""

    policy: PreTrainedModel
    reward_model: ScalarModel
    reference: PreTrainedModel

    def method(self, how: Online) -> Method:
        if isinstance(how, Rloo):
            return LeaveOneOut(self.policy, how)
        if isinstance(how, Grpo):
            return GroupRelative(self.policy, how)
        assert isinstance(how, OnlinePreference)
        return OnlinePairs(self.policy, online_loss_of(how.objective, how.parameters), how)

    def train(self, how: Online, journal: Journal, *, drawing: Drawing | None = None) -> list[dict[str, Any]]:
        arguments = self.policy, self.method(how), self.reward_model, self.reference, PROMPTS, how
        drawing = drawing or Drawing(max_new_tokens=6)
        train_online(*arguments, drawing, end_ids=[EOS], seed=0, journal=journal, distance=lambda: 1.0)
        return [{name: value for name, value in row.items() if name != "seconds"} for row in journal.rows]


@pytest.fixture
def build(tiny_model: Any) -> Callable[[], Three]:
    def make(dtype: torch.dtype = torch.float32) -> Three:
        policy, other, scoring = (tiny_model(seed=seed, spread=5.0).to(dtype) for seed in range(3))
        return Three(policy, ScalarModel(scoring, seed=5).requires_grad_(False), frozen_copy(other))

    return make


def draw(policy: PreTrainedModel) -> list[Sample]:
    asked = [prompt for prompt in PROMPTS for _ in range(EACH)]
    drawn = sample(policy, asked, end_ids=[EOS], max_new_tokens=6, temperature=TEMPERATURE, seed=0)
    logprobs = by_hand.token_logprobs(policy, PROMPTS[0], (30, EOS), temperature=TEMPERATURE).tolist()
    return [Sample((30, EOS), tuple(logprobs), True), *drawn[1:]]  # answers of several lengths, one of which has ended


def padded_logprobs(policy: PreTrainedModel, answers: Sequence[Sample]) -> list[Tensor]:
    """log π of every answer's tokens, with their graph: one padded batch, each answer with its own prompt before it."""
    texts = [[*PROMPTS[i // EACH], *answer.response] for i, answer in enumerate(answers)]
    longest = max(map(len, texts))
    ids = torch.tensor([text + [0] * (longest - len(text)) for text in texts])
    mask = torch.tensor([[1] * len(text) + [0] * (longest - len(text)) for text in texts])
    logprobs = (policy(input_ids=ids, attention_mask=mask).logits / TEMPERATURE).log_softmax(-1)
    found = []
    for i, answer in enumerate(answers):
        begin = len(PROMPTS[i // EACH]) - 1
        found.append(torch.stack([logprobs[i, begin + t, token] for t, token in enumerate(answer.response)]))
    return found


def plain_loss(name: str, three: Three, answers: Sequence[Sample]) -> Tensor:
    """The method's loss over all prompts, answer by answer."""
    own = padded_logprobs(three.policy, answers)
    frozen, scores = [], []
    for i, answer in enumerate(answers):
        prompt = PROMPTS[i // EACH]
        frozen.append(by_hand.token_logprobs(three.reference, prompt, answer.response, temperature=TEMPERATURE).float())
        scores.append(by_hand.scalar_at_the_end(three.reward_model, prompt, answer.response))
        scores[-1] -= 0.0 if answer.ended else PENALTY
    old = [torch.tensor(answer.logprobs) for answer in answers]
    total = torch.zeros(())
    for first in range(0, len(answers), EACH):
        group = range(first, first + EACH)
        if name.startswith("online"):
            best, worst = max(group, key=lambda i: scores[i]), min(group, key=lambda i: scores[i])
            margin = (own[best] - frozen[best]).sum() - (own[worst] - frozen[worst]).sum()
            ipo = (margin - 1 / (2 * WEIGHT)) ** 2
            total = total + (ipo if name == "online-ipo" else torch.log1p(torch.exp(-WEIGHT * margin)))
            continue
        reward = {
            i: scores[i] - WEIGHT * float((old[i] - frozen[i]).sum()) if name == "rloo" else scores[i] for i in group
        }
        mean = sum(reward.values()) / EACH
        deviation = math.sqrt(sum((value - mean) ** 2 for value in reward.values()) / (EACH - 1))
        for i in group:
            if name == "rloo":
                advantage = reward[i] - (sum(reward.values()) - reward[i]) / (EACH - 1)
                ratio = (own[i].sum() - old[i].sum()).exp()
                total = total - torch.minimum(ratio * advantage, ratio.clamp(1 - CLIP, 1 + CLIP) * advantage)
                continue
            advantage = (reward[i] - mean) / (deviation if name in ("grpo", "grpo-deviation") else 1)
            ratio = (own[i] - old[i]).exp()
            gain = torch.minimum(ratio * advantage, ratio.clamp(1 - CLIP, 1 + CLIP) * advantage)
            away = frozen[i] - own[i]
            tokens = -gain + WEIGHT * (away.exp() - away - 1)
            total = total + (tokens.mean() if name in ("grpo", "grpo-length") else tokens.sum())
    return total / (len(PROMPTS) if name.startswith("online") else len(answers))


def flat(gradients: Sequence[Tensor | None]) -> Tensor:
    return torch.cat([each.flatten() for each in gradients if each is not None]).double()


def gradients_of(model: PreTrainedModel) -> Tensor:
    found = flat([p.grad for p in model.parameters()])
    model.zero_grad()
    return found


@pytest.mark.parametrize("name", list(METHODS))
@pytest.mark.parametrize("moved", [False, True], ids=["where it sampled", "away from there"])
def test_a_minibatchs_gradients(name: str, moved: bool, build: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    three, how = build(), METHODS[name]
    answers = draw(three.policy)
    drawn = round_of(PROMPTS, answers, three.reward_model, three.reference, how)
    monkeypatch.setattr(online.Optimizer, "_gather", lambda *_: lambda parameter: None)  # the gradients stay to be seen
    method = three.method(how)
    taken, told = method.begin(drawn)
    examples = len(taken)
    assert (examples, told["no_signal"]) == (len(PROMPTS), 0)
    if moved:
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in three.policy.parameters():
                parameter += 0.02 * parameter.abs().mean() * torch.randn(parameter.shape, generator=generator)
    expected = plain_loss(name, three, answers)
    expected.backward()
    plain = gradients_of(three.policy)
    for budget in (10_000, 30):  # in one pass, and in several
        monkeypatch.setitem(hidden.TOKENS_PER_PASS, "cpu", budget)
        figures = method.gradients([2, 0, 3, 1])
        assert figures["loss"] == pytest.approx(float(expected.detach()), abs=1e-4, rel=1e-4)
        found = gradients_of(three.policy)
        assert float((found - plain).norm() / plain.norm()) < 1e-4
    if not name.startswith("online"):
        assert (figures["clip_fraction"] > 0) is moved
    assert (figures["log_ratio_error"] > 1e-3) is moved


@pytest.mark.parametrize("name", list(METHODS))
def test_a_whole_first_step(name: str, build: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """From sampling to the weights: the plain gradient, clipped to norm 1, and Adam's first step with it."""
    three, plain, seen = build(), build(), list[list[Sample]]()

    def noting(*arguments: Any, **named: Any) -> list[Sample]:
        asked = arguments[1]
        assert [tuple(prompt) for prompt in asked] == [p for p in asked[::EACH] for _ in range(EACH)]
        order = {tuple(prompt): place for place, prompt in enumerate(asked[::EACH])}
        drawn = sample(*arguments, **named)
        seen.append([drawn[order[p] * EACH + k] for p in PROMPTS for k in range(EACH)])  # in the order of PROMPTS
        return drawn

    monkeypatch.setattr(online, "sample", noting)
    (row,) = three.train(METHODS[name], Journal(name))
    (answers,) = seen
    loss = plain_loss(name, plain, answers)
    loss.backward()
    assert row["loss"] == pytest.approx(float(loss.detach()), abs=1e-4, rel=1e-4)
    assert row["first_ratio_error"] < 1e-5
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in plain.policy.parameters()]
    norm = math.sqrt(sum(float((gradient.double() ** 2).sum()) for gradient in gradients))
    assert row["gradient_norm"] == pytest.approx(norm, rel=1e-4)
    for before, gradient, after in zip(plain.policy.parameters(), gradients, three.policy.parameters(), strict=True):
        clipped = gradient * min(1.0, 1 / norm)
        expected = -1e-3 * clipped / (clipped.abs() + 1e-5)  # Adam's first step: mean and square are of one gradient
        moved = after.detach() - before.detach()
        assert float((moved - expected).norm()) <= 2e-3 * float(expected.norm()) + 1e-7


def test_a_prompt_is_read_once_for_all_its_answers(build: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    three, packs = build(), list[list[Any]]()
    original = static.decoder_for

    def watching(*arguments: Any) -> Any:
        decoder = original(*arguments)
        begin = decoder.begin

        def begun(prompts: Any) -> Any:
            packs.append(list(prompts))
            found = begin(prompts)
            assert len(decoder.slot_T) == sum(len(prompt) for prompt in set(map(tuple, prompts)))
            return found

        monkeypatch.setattr(decoder, "begin", begun)
        return decoder

    three.train(METHODS["rloo"], Journal("rloo"))  # the sampler's check is over
    monkeypatch.setattr("pairtune.sampling.packed.decoder_for", watching)
    three.train(METHODS["rloo"], Journal("rloo"))
    assert [len(prompts) for prompts in packs] == [len(PROMPTS) * EACH]


@pytest.mark.parametrize(
    ("name", "dtype"), [("rloo", torch.bfloat16), ("grpo", torch.float32), ("online-dpo", torch.float32)]
)
def test_a_run_gone_on_with_is_the_run_never_stopped_to_the_bit(
    name: str, dtype: torch.dtype, build: Any, tmp_path: Path, stopped_journal: Any
) -> None:
    moving = {} if name == "online-dpo" else {"kl_target": 1.0}
    how = replace(METHODS[name], steps=4, minibatches=2, epochs=2, **moving)
    whole, parts = build(dtype), build(dtype)
    expected = whole.train(how, Journal(name, tmp_path / "whole"))
    with pytest.raises(KeyboardInterrupt):
        parts.train(how, stopped_journal(name, tmp_path / "parts", 2))
    again = build(dtype)
    assert again.train(how, Journal(name, tmp_path / "parts")) == expected
    assert len(expected) == 4
    pairs = zip(again.policy.parameters(), whole.policy.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    if moving:
        assert len({row["kl_coefficient"] for row in expected}) == 4


# ---- every setting does something ---------------------------------------------------------------------------------

OTHER: dict[str, Any] = {
    "steps": 3, "batch_size": 6, "minibatches": 1, "epochs": 1, "learning_rate": 2e-3, "warmup": 0.0,
    "max_gradient_norm": 1e-4, "kl_target": 0.5, "kl_stop": 1e-3, "clip_ratio": 1e-4, "missing_end_penalty": 3.0,
    "temperature": 0.5, "kl_coefficient": 0.9, "answers_per_prompt": 6, "normalise": "none", "objective": "ipo",
    "parameters": {"beta": 0.9},
}  # fmt: skip
OWN = {"rloo": ("kl_target", "clip_ratio", "kl_coefficient"), "online-dpo": ("objective", "parameters")}
CASES = [("grpo", field.name) for field in dataclasses.fields(Grpo)]
CASES += [(name, setting) for name, settings in OWN.items() for setting in settings]


def test_the_list_of_settings_is_whole() -> None:
    every = {field.name for kind in (Rloo, Grpo, OnlinePreference) for field in dataclasses.fields(kind)}
    assert every == set(OTHER) == {setting for _, setting in CASES}


@pytest.fixture(scope="module")
def kept() -> dict[str, Any]:
    """What the settings of BASE lead to, computed once a method."""
    return {}


@pytest.mark.parametrize(("name", "setting"), CASES)
def test_every_setting_changes_what_comes_out(name: str, setting: str, build: Any, kept: dict[str, Any]) -> None:
    def outcome(how: Online) -> tuple[str, list[Tensor]]:
        three = build()
        three.reward_model.normalise(mean=0.2, std=0.7)
        rows = three.train(how, Journal(name), drawing=Drawing(max_new_tokens=4))
        return json.dumps(rows), [p.detach().clone() for p in three.policy.parameters()]

    base = replace(METHODS[name], steps=2, minibatches=2, epochs=2, warmup=0.9)
    if name not in kept:
        kept[name] = outcome(base)
    rows, weights = outcome(replace(base, **{setting: OTHER[setting]}))
    assert rows != kept[name][0] or not all(torch.equal(a, b) for a, b in zip(weights, kept[name][1], strict=True))
    assert outcome(base)[0] == kept[name][0] if setting == "steps" else True, "or the test would see noise"


# ---- a reward that says nothing -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["rloo", "grpo", "online-dpo"])
def test_rewards_that_tell_nothing_apart_are_counted_and_said(
    name: str, build: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Half of the prompts' answers are alike: counted. All of them: said, and nothing moves but by the KL."""
    alike = {"prompts": 2}

    def scored(_: Any, rows: Sequence[Any]) -> list[list[float]]:
        return [[0.1] * EACH if i < alike["prompts"] else [0.1 * k for k in range(EACH)] for i in range(len(rows))]

    monkeypatch.setattr(online, "score_rewards", scored)
    how = replace(METHODS[name], missing_end_penalty=0.0)
    three = build()
    (row,) = three.train(how, Journal(name))
    assert row["no_signal"] == 0.5
    assert "equal rewards" not in capsys.readouterr().err
    alike["prompts"] = len(PROMPTS)
    three, before = build(), copy.deepcopy(build().policy)
    without_kl = how if name == "online-dpo" else replace(how, kl_coefficient=0.0)  # type: ignore[call-arg]
    rows = three.train(replace(without_kl, steps=2), Journal(name))
    assert [row["no_signal"] for row in rows] == [1, 1]
    assert capsys.readouterr().err.count("all answers to each prompt have equal rewards") == 1
    assert [row["loss"] for row in rows] == [0, 0]
    assert all(torch.equal(a, b) for a, b in zip(three.policy.parameters(), before.parameters(), strict=True))
