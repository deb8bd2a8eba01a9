"""Best of n as an arm: what is chosen, what is told of it and what is not, and what it costs."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from pairtune.comparison.effort import effort
from pairtune.comparison.run import compare
from pairtune.errors import InputError
from pairtune.report import page
from pairtune.runs import CompareRun
from pairtune.sampling.answer import Sample
from pairtune.settings import Sampling
from pairtune.stages import best_of as stage

Tiny = Callable[..., CompareRun]
OF_PAIRS = {"heldout_accuracy", "chosen_fell", "chosen_nats_per_token", "rejected_nats_per_token"}


def test_an_arm_of_the_best_answers(tiny_run: Tiny) -> None:
    out = compare(tiny_run(methods=["dpo", "best-of-2", "best-of-16"]))
    summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    assert summary["failed"] == {}
    assert summary["matched_kl"] is None
    assert not (out / "models" / "best-of-2").exists()
    few, many, reference = (summary["arms"][arm] for arm in ("best-of-2", "best-of-16", "reference"))
    # The reward model's best of 16 scores above its best of 2, and that above one answer.
    scores = [arm["reward_model_score"]["mean"] for arm in (reference, few, many)]
    assert scores == sorted(scores)
    assert scores[2] > scores[0] + 0.5
    assert many["kl_from_reference"]["mean"] <= 1.8351 + 1e-4  # ln 16 − 15/16
    assert 0 < few["kl_from_reference"]["mean"] <= 0.1932  # ln 2 − 1/2
    assert list(many["seconds"]) == ["reward", "best-of-16"]
    assert min(many["flops"], many["tokens_processed"]) > 0
    assert not OF_PAIRS & set(many)
    assert many["margin_length_correlation"] is None
    assert OF_PAIRS & set(summary["differences"]["dpo - reference"])
    assert not OF_PAIRS & set(summary["differences"]["best-of-16 - dpo"])
    assert "gold_score" in summary["differences"]["best-of-16 - dpo"]
    told = {notice["arm"]: notice["text"] for notice in summary["notices"] if notice["figure"] == "kl_from_reference"}
    assert "log n − (n − 1)/n = 1.84 nats" in told["best-of-16"]
    assert "16 answers to each of the 8 prompts" in told["best-of-16"]
    shown = page.write(out).read_text(encoding="utf-8")
    assert "best of 16" in shown
    frontier = shown.partition('id="frontier')[2].partition("</svg>")[0]
    assert "best of 2" in frontier
    # Drawn anew from the reference, the best is the answer with the highest reward of those drawn.
    answers = json.loads((out / "stages" / "best-of-2" / "result.json").read_text(encoding="utf-8"))["answers"]
    assert len(answers) == 8
    before = (out / "summary.json").read_bytes()
    compare(tiny_run(methods=["dpo", "best-of-2", "best-of-16"]))
    assert (out / "summary.json").read_bytes() == before


def test_what_it_asks_of_its_user() -> None:
    asked = effort("best-of-4")
    assert asked.models_in_memory == 2
    assert asked.settings_to_tune[-1] == "n"
    assert "ppo.clip_ratio" not in asked.settings_to_tune
    assert 0 < asked.lines_of_code < effort("ppo").lines_of_code


@pytest.mark.parametrize(
    ("method", "said"),
    [
        ("best-of-1", "best-of-1: the best is taken of 2 to 1,024 answers, as in best-of-4"),
        ("best-of-04", "best-of-04: the best is taken of 2 to 1,024 answers"),
        ("best-of-2000", "the best is taken of 2 to 1,024"),
        ("best-of-n", 'there is no objective "best-of-n"'),
    ],
)
def test_another_number_is_one_line(method: str, said: str, tiny_run: Tiny) -> None:
    with pytest.raises(InputError) as caught:
        tiny_run(methods=["dpo", method])
    assert said in str(caught.value)


def test_a_kl_to_match_needs_one_that_learns(tiny_run: Tiny) -> None:
    with pytest.raises(InputError, match="match_kl"):
        compare(tiny_run(methods=["dpo", "best-of-4"], match_kl=True))


def test_the_highest_reward_is_taken_and_of_equals_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def drawn(model: Any, prompts: Any, **others: Any) -> list[Sample]:
        asked.extend(prompts)
        return [Sample((i,), (0.0,), ended=i != 4) for i in range(len(prompts))]

    monkeypatch.setattr(stage, "sample", drawn)
    monkeypatch.setattr(stage, "score_rewards", lambda model, rows: [[0.0, 2.0, 2.0], [-1.0, -3.0, -2.0]])
    monkeypatch.setattr(stage, "summed_logprobs", lambda model, rows, **others: [-60.0] * len(rows))
    model: Any = None
    found = stage.best_of(model, model, [(7, 8), (9,)], answers=3, sampling=Sampling(), end_ids=[0], seed=0)
    assert asked == [(7, 8)] * 3 + [(9,)] * 3
    assert [each["response"] for each in found["answers"]] == [(1,), (3,)]
    assert [each["prompt"] for each in found["answers"]] == [(7, 8), (9,)]
    assert found["kl"] == pytest.approx([0.4319456220014431] * 2, abs=1e-12)  # ln 3 − 2/3
