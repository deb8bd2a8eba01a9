"""What is measured of a policy's answers, against its own forward: above all the sign and the unit of the KL."""

import json
import math
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pytest

import pairtune
from pairtune.evaluation.policy import Answer, log_ratios_to, repetition, summed_logprobs, write_answers
from pairtune.settings import Sampling
from tests import by_hand

EOS = 1
PROMPTS = [(5, 6), (7,), (8, 9, 10, 11, 12), (13, 14, 15), (16, 17), (18,)]


@pytest.fixture
def policy(tiny_model: Any) -> Any:
    return tiny_model(seed=1, spread=12.0)


@pytest.fixture
def reference(tiny_model: Any) -> Any:
    return tiny_model(seed=2, spread=4.0)


def answered(
    policy: Any, *, temperature: Any = 1.0, max_new_tokens: Any = 6, prompts: Any = PROMPTS, seed: Any = 0
) -> Any:
    sampling = Sampling(max_new_tokens=max_new_tokens, temperature=temperature)
    return write_answers(policy, prompts, sampling, end_ids=[EOS], seed=seed)


@pytest.mark.parametrize("temperature", [0.6, 1.0, 1.7])
def test_an_answers_logprob_is_the_policys_at_the_temperature_it_was_drawn_with(policy: Any, temperature: Any) -> None:
    answers = answered(policy, temperature=temperature)
    for prompt, answer in zip(PROMPTS, answers, strict=True):
        assert answer.prompt == prompt
        assert answer.tokens.responses == (answer.response,)
        expected = by_hand.token_logprobs(policy, prompt, answer.response, temperature=temperature).sum()
        assert answer.logprob == pytest.approx(float(expected), abs=1e-4)
        assert answer.ended == (answer.response[-1] == EOS)


@pytest.mark.parametrize("temperature", [0.6, 1.0, 1.7])
def test_log_ratios_are_the_policys_less_the_references(policy: Any, reference: Any, temperature: Any) -> None:
    answers = answered(policy, temperature=temperature)
    found = log_ratios_to(reference, answers, temperature=temperature)
    expected = [by_hand.log_ratio(policy, reference, a.prompt, a.response, temperature=temperature) for a in answers]
    assert found == pytest.approx(expected, abs=1e-4)
    assert fmean(found) > 1, "an answer is likelier under the policy that wrote it"


@pytest.mark.parametrize("temperature", [0.7, 1.0])
def test_their_mean_is_the_kl_summed_over_the_whole_vocabulary(tiny_model: Any, temperature: Any) -> None:
    """Answers of one token: the exact KL is at hand, and another divergence, sign or temperature is far from it."""
    policy, reference = tiny_model(seed=1, spread=20.0), tiny_model(seed=2, spread=5.0)
    answers = answered(policy, temperature=temperature, max_new_tokens=1, prompts=PROMPTS * 800)
    found = log_ratios_to(reference, answers, temperature=temperature)
    error = stdev(found) / math.sqrt(len(found))
    exact = fmean(by_hand.kl_of_one_token(policy, reference, prompt, temperature=temperature) for prompt in PROMPTS)
    reverse = fmean(by_hand.kl_of_one_token(reference, policy, prompt, temperature=temperature) for prompt in PROMPTS)
    assert abs(fmean(found) - exact) < 4 * error
    assert abs(exact - reverse) > 5 * error


def test_a_policy_is_no_distance_from_itself(policy: Any) -> None:
    assert log_ratios_to(policy, answered(policy), temperature=1.0) == pytest.approx([0.0] * len(PROMPTS), abs=1e-9)


def test_summed_logprobs_are_sums_over_the_response_alone(policy: Any) -> None:
    rows = [answer.tokens for answer in answered(policy)]
    expected = [float(by_hand.token_logprobs(policy, row.prompt, row.responses[0]).sum()) for row in rows]
    assert summed_logprobs(policy, rows, temperature=1.0) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    ("response", "share"),
    [
        ((), 0.0),
        ((1, 2, 3), 0.0),  # one 3-gram can repeat none
        ((1, 2, 3, 4), 0.0),
        ((1, 1, 1, 1), 0.5),  # 111 twice
        ((1, 2, 3, 1, 2, 3), 0.25),  # 123 twice among 123 231 312 123
        ((7,) * 12, 0.9),
    ],
)
def test_repetition_by_hand(response: Any, share: Any) -> None:
    assert repetition(response) == pytest.approx(share)


def test_an_answer_is_read_as_it_was_written() -> None:
    answer = Answer((5, 6), (7, 1), -2.5, True)
    assert Answer.from_json(json.loads(json.dumps(answer.to_json()))) == answer


def test_the_command_reports_the_kl_of_the_policy_from_the_reference(tmp_path: Path, tiny_folder: Any) -> None:
    """`pairtune evaluate`, whole: one-token answers to many prompts, against the exact KL of each."""
    for name, seed, spread in (("policy", 1, 12.0), ("reference", 2, 4.0)):
        tiny_folder(tmp_path / name, seed=seed, spread=spread)
    data = tmp_path / "pairs.jsonl"
    texts = [f"The film was {word} and {other}" for word in "abcdefghijklmnopqrst" for other in "uvwxyzabcdefghij"]
    data.write_text("".join(json.dumps({"prompt": t, "chosen": " good", "rejected": " bad"}) + "\n" for t in texts))
    found = pairtune.evaluate(
        model=tmp_path / "policy" / "model",
        reference=tmp_path / "reference" / "model",
        data=data,
        dtype="float32",
        prompts=len(texts),
        sampling_max_new_tokens=1,
        sampling_temperature=0.8,
    )
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "policy" / "model")
    policy, reference = (AutoModelForCausalLM.from_pretrained(tmp_path / n / "model") for n in ("policy", "reference"))
    ids = [tokenizer(text).input_ids for text in texts]
    exact = fmean(by_hand.kl_of_one_token(policy, reference, prompt, temperature=0.8) for prompt in ids)
    figure = found["kl_from_reference"]
    low, high = figure["ci95"]
    assert abs(figure["mean"] - exact) < 1.5 * (high - low)
    assert exact > 0.5
