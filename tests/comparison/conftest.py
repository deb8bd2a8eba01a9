"""What the comparison tests share: a tiny model, a file of pairs, and the settings of a comparison of seconds."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pairtune.configure import settings_from_keywords
from pairtune.runs import CompareRun


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Any) -> str:
    return str(tiny_folder(tmp_path_factory.mktemp("models"), spread=1.0))


@pytest.fixture(scope="session")
def own_pairs(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A JSONL file of 40 pairs; every fifth prompt has two."""
    path = tmp_path_factory.mktemp("data") / "pairs.jsonl"
    rows = [
        {"prompt": f"Film {i - (i % 5 == 1)} was", "chosen": f" a wonder {i}", "rejected": f" dull, {i} went nowhere"}
        for i in range(40)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


@pytest.fixture
def tiny_run(model: str, own_pairs: str, tmp_path: Path) -> Callable[..., CompareRun]:
    """tiny_run(**keywords): the settings of a comparison on the file of pairs that takes a second or two."""

    def settings(**keywords: Any) -> CompareRun:
        given = {
            "model": model,
            "data": own_pairs,
            "out": str(tmp_path / "run"),
            "dtype": "float32",
            "methods": ["dpo", "ipo", "ppo"],
            "pairs": 12,
            "heldout": 10,
            "learning_rate": 1e-3,
            "sft_batch_size": 8,
            "ppo_steps": 2,
            "ppo_batch_size": 4,
            "sampling_max_new_tokens": 5,
            "evaluation_prompts": 8,
            "evaluation_curve_points": 2,
            "evaluation_curve_prompts": 4,
        }
        return settings_from_keywords(CompareRun, given | keywords)

    return settings
