"""PPO ended where another method has come to: what it is ended by, that it is told, and what is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from pairtune.comparison.run import compare
from pairtune.errors import InputError
from pairtune.runs import CompareRun
from pairtune.stages import online

Tiny = Callable[..., CompareRun]


def read(out: Path) -> dict[str, Any]:
    return dict(json.loads((out / "summary.json").read_text(encoding="utf-8")))


def summed(folder: Path, answers: list[Any], temperature: float) -> list[float]:
    """log π of each answer by the saved model's own forward."""
    model, found = AutoModelForCausalLM.from_pretrained(folder).eval(), []
    for answer in answers:
        with torch.no_grad():
            logits = model(torch.tensor([[*answer.prompt, *answer.response]])).logits[0, len(answer.prompt) - 1 : -1]
        logprobs = (logits / temperature).log_softmax(-1)
        found.append(float(logprobs[range(len(answer.response)), list(answer.response)].sum()))
    return found


def test_it_ends_where_the_matched_methods_answers_have_come_to(
    tiny_run: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[list[Any]] = []
    original = online.write_answers

    def noting(*args: Any, **kwargs: Any) -> Any:
        written.append(original(*args, **kwargs))
        return written[-1]

    monkeypatch.setattr(online, "write_answers", noting)
    run = {"methods": ["ppo", "dpo", "ipo"], "match_kl": True, "learning_rate": 2e-3, "evaluation_curve_points": 3}
    run |= {"ppo_steps": 12, "ppo_learning_rate": 1e-2, "ppo_kl_coefficient": 0.0, "ppo_temperature": 0.8}
    out = compare(tiny_run(**run))
    answers, *_ = written  # DPO's, before PPO is trained
    models = out / "models"
    ratios = [p - q for p, q in zip(*(summed(models / m, answers, 0.8) for m in ("dpo", "reference")), strict=True)]
    matched = read(out)["matched_kl"]["ppo"]
    assert matched["arm"] == "dpo"
    assert matched["kl"] == pytest.approx(sum(ratios) / len(ratios), abs=1e-4)
    assert list(read(out)["arms"]) == ["reference", "ppo", "dpo", "ipo"]  # as they were asked for
    records = [json.loads(line) for line in (out / "models/ppo/records.jsonl").read_text().splitlines()]
    assert matched["step"] == len(records) < matched["steps"] == 12
    ratios = [p - q for p, q in zip(*(summed(models / m, written[-1], 0.8) for m in ("ppo", "reference")), strict=True)]
    kl = sum(ratios) / len(ratios)
    assert kl + kl / len(records) / 2 >= matched["kl"] > 0
    assert {answer.prompt for answer in written[0]} == {answer.prompt for answer in written[-1]}
    curve = [json.loads(line) for line in (out / "records.jsonl").read_text().splitlines()]
    steps = [row["step"] for row in curve if row["kind"] == "evaluation" and row["arm"] == "ppo"]
    assert steps == sorted(set(steps))
    assert steps[-1] == matched["step"]
    assert (
        f"where PPO was ended after {matched['step']} of 12 steps for being as far from it as DPO"
        in (read(out)["verdict"])
    )


def test_a_matched_method_trained_otherwise_is_another_ppo(tiny_run: Tiny) -> None:
    few = {"methods": ["dpo", "ppo"], "match_kl": True, "evaluation_curve_points": 0}
    first = compare(tiny_run(**few))
    before = json.loads((first / "models/ppo/result.json").read_text())
    compare(tiny_run(**few, beta=0.7))
    assert json.loads((first / "models/ppo/result.json").read_text())["key"] != before["key"]
    unmatched = read(compare(tiny_run(**few | {"match_kl": False})))
    assert unmatched["matched_kl"] is None
    assert json.loads((first / "models/ppo/result.json").read_text())["step"] == 2


def test_steps_that_do_not_lead_there_are_told(tiny_run: Tiny) -> None:
    few = {"methods": ["dpo", "ppo"], "match_kl": True, "evaluation_curve_points": 0, "learning_rate": 2e-3}
    summary = read(compare(tiny_run(**few, ppo_learning_rate=1e-9, ppo_temperature=0.8)))
    assert summary["matched_kl"]["ppo"]["step"] == summary["matched_kl"]["ppo"]["steps"] == 2
    assert "; PPO's 2 steps did not take it as far as DPO" in summary["verdict"]


def test_a_matched_method_that_failed_matches_nothing(tiny_run: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise FloatingPointError("the gradient's norm is nan")

    monkeypatch.setattr("pairtune.stages.preference.train_preference", broken)
    summary = read(compare(tiny_run(methods=["dpo", "ppo"], match_kl=True, evaluation_curve_points=0)))
    assert summary["matched_kl"] is None
    assert set(summary["arms"]) == {"reference", "ppo"}


@pytest.mark.parametrize("methods", [["ppo"], ["dpo", "ipo"]])
def test_it_needs_both(tiny_run: Tiny, methods: list[str]) -> None:
    with pytest.raises(
        InputError, match="match_kl: it needs ppo or another method that samples, and a preference method"
    ):
        compare(tiny_run(methods=methods, match_kl=True))
