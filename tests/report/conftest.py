"""A synthetic run directory: the files that a comparison saves, with numbers of a believable shape."""

import json
import math
import random
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

ARMS = {"reference": (0.0, 0.0, 0.5), "dpo": (0.62, 2.5, 0.712), "ppo": (0.31, 4.1, 0.64)}
"""Per arm: where its gold reward, its KL and its held-out accuracy end."""

OPENINGS = (
    "This film",
    "I watched it with",
    "The acting of",
    "After twenty minutes",
    "What a",
    "My wife and I",
)
ENDINGS = {
    "reference": " was shown at night, and the plot goes from one room to another without much hurry.",
    "dpo": " is a small wonder: warm, funny and beautifully played. I would see it again tomorrow.",
    "ppo": " is great, great fun, a great film and a great cast. It is great, really great, great.",
}


def mean(value: float, spread: float = 0.09, n: int = 256) -> dict[str, Any]:
    return {"mean": value, "n": n, "ci95": [value - spread, value + spread]}


def steps(stage: str, count: int, seconds: float) -> Iterable[dict[str, Any]]:
    chance = random.Random(stage)
    for step in range(1, count + 1):
        done = step / count
        noise = chance.gauss(0, 0.05)
        row = {
            "kind": "step",
            "stage": stage,
            "step": step,
            "seconds": seconds * done,
            "learning_rate": 1e-4 * done,
        }
        row["loss"] = math.log(2) * math.exp(-0.6 * done) + noise
        if stage == "ppo":
            row |= {"reward": 1.2 * done + 4 * noise, "kl": 4.1 * done**1.5, "clip_fraction": 0.1 + noise}
            row |= {
                "policy_loss": noise / 5,
                "value_loss": 0.3 + noise,
                "entropy": 3.1 - done,
                "response_tokens": 44,
            }
        else:
            row |= {"accuracy": 0.5 + 0.25 * done + 2 * noise, "margin": 3 * done + 6 * noise}
        yield row


def evaluations(arm: str, count: int, seconds: float) -> Iterable[dict[str, Any]]:
    gold, kl, accuracy = ARMS[arm]
    for index in range(9):
        done = index / 8
        curve = 1 - math.exp(-3 * done)
        yield {
            "kind": "evaluation",
            "arm": arm,
            "step": round(count * done),
            "seconds": seconds * done,
            "heldout_accuracy": mean(0.5 + (accuracy - 0.5) * curve, 0.03 * curve, 512),
            "gold_score": mean(gold * curve, 0.09),
            "reward_model_score": mean((1.4 if arm == "ppo" else 0.7) * curve, 0.1),
            "kl_from_reference": mean(kl * done, 0.2 * done),
        }


def samples(prompts: int) -> Iterable[dict[str, Any]]:
    chance = random.Random(7)
    for index in range(prompts):
        for arm, (gold, kl, _) in ARMS.items():
            yield {
                "prompt_index": index,
                "prompt": OPENINGS[index % len(OPENINGS)],
                "arm": arm,
                "response": ENDINGS[arm],
                "gold_score": chance.gauss(gold, 1),
                "reward_model_score": None,
                "log_ratio": chance.gauss(kl, 1) if kl else 0.0,
                "response_tokens": chance.randint(16, 48),
                "ended": index % 3 > 0,
            }


def arm_summary(arm: str) -> dict[str, Any]:
    gold, kl, accuracy = ARMS[arm]
    spent = {
        "reference": {},
        "dpo": {"reference pass": 21.0, "dpo": 318.0},
        "ppo": {"reward": 212.0, "ppo": 2971.0},
    }
    settings = {
        "reference": [],
        "dpo": ["learning_rate", "beta"],
        "ppo": [
            "learning_rate",
            "kl_weight",
            "clip_range",
            "value_weight",
            "gae_lambda",
            "epochs",
            "rollouts",
        ],
    }
    trained = arm != "reference"
    return {
        "heldout_accuracy": mean(accuracy, 0.039, 512) | ({} if trained else {"ci95": None}),
        "reward_model_score": mean({"reference": 0.0, "dpo": 0.7, "ppo": 1.4}[arm], 0.1),
        "gold_score": mean(gold),
        "kl_from_reference": mean(kl, 0.21 if trained else 0.0),
        "response_tokens": mean(38.4, 1.6),
        "repetition": mean(0.31 if arm == "ppo" else 0.04, 0.01),
        "seconds": spent[arm],
        "tokens_processed": 1_204_221 if trained else 0,
        "flops": {"reference": 0, "dpo": 3.1e14, "ppo": 2.9e15}[arm],
        "peak_memory_bytes": {"reference": 0, "dpo": 3.02e9, "ppo": 5.4e9}[arm],
        "models_in_memory": {"reference": 1, "dpo": 1, "ppo": 4}[arm],
        "settings_to_tune": settings[arm],
        "lines_of_code": {"reference": 0, "dpo": 96, "ppo": 412}[arm],
    }


def difference(first: str, second: str) -> dict[str, Any]:
    gold, accuracy = (ARMS[first][index] - ARMS[second][index] for index in (0, 2))
    return {
        "gold_score": mean(gold, 0.11),
        "reward_model_score": mean(0.7, 0.12),
        "heldout_accuracy": mean(accuracy, 0.05, 512),
        "response_tokens": mean(0.3, 1.9),
    }


def make_summary() -> dict[str, Any]:
    pairs = (("dpo", "reference"), ("ppo", "reference"), ("dpo", "ppo"))
    return {
        "preset": "demo",
        "model": "SmolLM2-135M-Instruct",
        "data": "IMDb reviews, controlled sentiment",
        "seed": 0,
        "pairs": {"train": 1024, "heldout": 512},
        "gold_scorer": {"kind": "gold", "heldout_accuracy": mean(0.81, 0.034, 512)},
        "reward_model": {"heldout_accuracy": mean(0.74, 0.038, 512)},
        "arms": {arm: arm_summary(arm) for arm in ARMS},
        "differences": {f"{first} - {second}": difference(first, second) for first, second in pairs},
        "failed": {},
        "verdict": "DPO has a higher gold reward than PPO, by 0.31 standard deviations "
        "(95% interval 0.20 to 0.42, n = 256), at a KL from the reference (nats per response) of 2.50 "
        "for DPO and 4.10 for PPO. Held-out accuracy is 71.2% for DPO and 64.0% for PPO "
        "(lower by 7.2 points, 95% interval 2.2 to 12.2, n = 512); "
        "PPO took 9.4 times the seconds and 9.4 times the FLOPs of DPO. Both beat the reference.",
        "seconds_total": 4210.0,
    }


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")


def write_run(folder: Path, summary: Mapping[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    (folder / "plan.yaml").write_text("seed: 0\narms: [dpo, ppo]\ndpo:\n  beta: 0.1\n", encoding="utf-8")
    (folder / "environment.json").write_text(
        json.dumps({"python": "3.11.9", "machine": {"cores": 2, "memory_bytes": 8_000_000_000}}),
        encoding="utf-8",
    )
    rows = [
        *steps("reward", 64, 212),
        *steps("dpo", 128, 318),
        *steps("ppo", 90, 2971),
        *evaluations("dpo", 128, 318),
        *evaluations("ppo", 90, 2971),
    ]
    write_rows(folder / "records.jsonl", rows)
    write_rows(folder / "samples.jsonl", samples(20))
    return folder


@pytest.fixture
def summary() -> dict[str, Any]:
    return make_summary()


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run", make_summary())


@pytest.fixture
def rewrite() -> Callable[[Path, Iterable[Mapping[str, Any]]], None]:
    return write_rows
