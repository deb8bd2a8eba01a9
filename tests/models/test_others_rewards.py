"""A reward model that somebody else trained, in `evaluate` and `ppo`: its rewards are transformers' own."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification

import pairtune
from pairtune.data.pack import Tokens
from pairtune.stages import measure
from pairtune.training import ppo
from tests.survey.ours import recorded


@pytest.fixture
def theirs(tmp_path: Path, tiny_model: Any, tiny_tokenizer: Any) -> Path:
    """Of another architecture than the policy's, and, as many are, with a token more to pad with."""
    config = tiny_model("mistral").config
    config.num_labels, config.vocab_size, config.pad_token_id = 1, 301, 300
    torch.manual_seed(7)
    model = AutoModelForSequenceClassification.from_config(config)
    with torch.no_grad():
        model.score.weight.normal_()
    model.save_pretrained(tmp_path / "theirs")
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    tokenizer.save_pretrained(tmp_path / "theirs")
    return tmp_path / "theirs"


@pytest.fixture
def data(tmp_path: Path) -> str:
    pairs = [{"prompt": f"Who wrote {i}?", "chosen": " I wrote it.", "rejected": " Nobody."} for i in range(8)]
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(pair) + "\n" for pair in pairs), encoding="utf-8")
    return str(path)


def rewards(folder: Path, rows: list[Tokens]) -> list[float]:
    """By transformers' own class, one row at a time."""
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        return [float(model(torch.tensor([[*row.prompt, *row.responses[0]]])).logits) for row in rows]


def test_evaluate_and_ppo_read_it(theirs: Path, data: str, tiny_folder: Any, tmp_path: Path) -> None:
    policy = str(tiny_folder(tmp_path))
    few = {"dtype": "float32", "sampling_max_new_tokens": 6, "max_tokens": 64}
    with recorded(measure, "score_rewards") as calls:
        figures = pairtune.evaluate(model=policy, reference=policy, data=data, reward_model=str(theirs), **few)
    ((_, rows), _, scores), *_ = calls
    right = rewards(theirs, rows)
    assert [score for (score,) in scores] == pytest.approx(right, abs=1e-4)
    assert figures["reward_model_score"]["mean"] == pytest.approx(sum(right) / len(right), abs=1e-4)
    assert max(right) - min(right) > 0.05
    with recorded(ppo, "score_rewards") as calls:
        pairtune.ppo(
            model=policy, reward_model=str(theirs), data=data, out=str(tmp_path / "out"), steps=1, batch_size=4, **few
        )
    for (_, rows), _, scores in calls:
        assert [score for (score,) in scores] == pytest.approx(rewards(theirs, rows), abs=1e-4)
    assert calls
