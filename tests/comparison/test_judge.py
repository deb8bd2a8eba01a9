"""`compare --judge`: a reward model that somebody else trained scores the arms, by transformers' own numbers."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from pairtune.comparison.pairs import SharedPairs
from pairtune.comparison.run import compare
from pairtune.configure import settings_from_keywords
from pairtune.errors import InputError
from pairtune.runs import CompareRun


@pytest.fixture
def judge(tmp_path: Path, tiny_model: Any, tiny_tokenizer: Any) -> str:
    """A sequence classifier with one label, of another architecture than the policy's."""
    config = tiny_model("gpt2").config
    config.num_labels = 1
    torch.manual_seed(7)
    model = AutoModelForSequenceClassification.from_config(config)
    with torch.no_grad():
        model.score.weight.normal_()
    model.save_pretrained(tmp_path / "judge")
    tiny_tokenizer().save_pretrained(tmp_path / "judge")
    return str(tmp_path / "judge")


def test_a_given_judge_scores_the_arms(judge: str, tiny_run: Any) -> None:
    out = compare(tiny_run(methods=["dpo"], judge=judge, evaluation_curve_points=0))
    summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    assert summary["gold_scorer"]["kind"] == "judge"
    assert not (out / "models" / "judge").exists()
    theirs = AutoModelForSequenceClassification.from_pretrained(judge, dtype=torch.float32).eval()

    def reward(*ids: int) -> float:
        with torch.no_grad():
            return float(theirs(torch.tensor([ids])).logits)

    held = SharedPairs.load(out / "stages" / "pairs" / "pairs.jsonl").heldout
    margins = [reward(*row.prompt, *row.responses[0]) - reward(*row.prompt, *row.responses[1]) for row in held]
    assert json.loads((out / "stages" / "judge" / "result.json").read_text())["margins"] == pytest.approx(
        margins, abs=1e-4
    )
    right = sum(margin > 0 for margin in margins) / len(margins)
    assert summary["gold_scorer"]["heldout_accuracy"]["mean"] == pytest.approx(right)


def test_a_judge_that_reads_other_tokens_is_refused(judge: str, tiny_run: Any) -> None:
    file = Path(judge) / "tokenizer.json"
    fields = json.loads(file.read_text(encoding="utf-8"))
    numbers = fields["model"]["vocab"]
    numbers["a"], numbers["b"] = numbers["b"], numbers["a"]
    file.write_text(json.dumps(fields), encoding="utf-8")
    with pytest.raises(InputError, match=r"judge: its tokenizer is not the policy's"):
        compare(tiny_run(methods=["dpo"], judge=judge))


def test_the_built_in_task_takes_no_judge(judge: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the built-in task has its gold scorer"):
        compare(settings_from_keywords(CompareRun, {"judge": judge, "out": str(tmp_path / "run")}))
