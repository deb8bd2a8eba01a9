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


GRID = {
    "dpo": ("beta", {0.05: (0.71, 6.4), 0.1: (0.78, 3.1), 0.3: (0.41, 0.9), 0.5: (0.28, 0.4)}),
    "ipo": ("beta", {0.05: (0.52, 8.9), 0.1: (0.63, 4.2), 0.3: (0.55, 1.6), 0.5: (0.36, 0.7)}),
    "dpo+0.2*sft": ("beta", {0.05: (0.49, 3.6), 0.1: (0.53, 2.3), 0.3: (0.3, 0.8), 0.5: (0.22, 0.35)}),
    "simpo": ("beta", {1.0: (0.2, 1.4), 2.0: (0.44, 5.5), 2.5: None, 4.0: (0.38, 11.8)}),
    "ppo": ("kl_coefficient", {0.01: (1.1, 9.5), 0.02: (1.22, 6.9), 0.05: (0.84, 2.9), 0.2: (0.24, 0.5)}),
}
"""Per method: what was varied, and where each value ends on validation: gold reward and KL; None where it failed."""


def candidate(method: str, name: str, value: float, ends: tuple[float, float] | None, best: float) -> dict[str, Any]:
    row = {"arm": f"{method}@{name}={value:g}", "parameters": {name: value}, "failed": None}
    if ends is None:
        figures = dict.fromkeys(
            ("gold_score", "kl_from_reference", "heldout_accuracy", "reward_model_score", "response_tokens", "seconds")
        )
        return row | figures | {"chosen": False, "failed": "RuntimeError: the loss is not a number at step 12"}
    gold, kl = ends
    return row | {
        "chosen": gold == best,
        "seconds": 81.2,
        "gold_score": mean(gold, 0.15, 100),
        "kl_from_reference": mean(kl, 0.1 + 0.07 * kl, 100),
        "heldout_accuracy": mean(0.64 + gold / 20, 0.07, 100),
        "reward_model_score": mean(1.1 * gold, 0.2, 100),
        "response_tokens": mean(17 + kl / 3, 1.4, 100),
    }


def make_grid_summary() -> dict[str, Any]:
    """Six arms, five of them chosen from a grid of four values each, with everything that is watched."""
    summary = make_summary()
    grid = {}
    arms = {"reference": arm_summary("reference") | {"heldout_own_accuracy": None, "parameters": {}}}
    for method, (name, values) in GRID.items():
        best = max(ends for ends in values.values() if ends)
        grid[method] = [candidate(method, name, value, ends, best[0]) for value, ends in values.items()]
        chosen = next(row for row in grid[method] if row["chosen"])
        own = arm_summary("ppo" if method == "ppo" else "dpo")
        if method != "ppo":
            own["seconds"] = {"reference": 21.0, method: 81.2}
        arms[method] = own | {
            "gold_score": mean(best[0] - 0.03),
            "kl_from_reference": mean(0.08 if method == "ipo" else best[1] * 1.02, 0.2),
            "heldout_own_accuracy": mean(0.7, 0.04, 512),
            "parameters": chosen["parameters"] | ({"gamma": 0.5} if method == "simpo" else {}),
            "distinct_bigrams": {"mean": 0.61 if method == "ppo" else 0.84, "n": 256, "ci95": None},
            "chosen_nats_per_token": mean(-0.031, 0.006, 512),
            "rejected_nats_per_token": mean(-0.06, 0.01, 512),
            "chosen_fell": mean(0.613, 0.04, 512),
            "margin_length_correlation": mean(0.18, 0.09, 512),
        }
    notices = [
        {
            "arm": "dpo",
            "figure": "chosen_fell",
            "text": "Chosen responses became less probable on 61% of held-out pairs, by 0.03 nats per token. "
            "That alone is not degeneration: rejected ones fell further.",
        },
        {
            "arm": "ppo",
            "figure": "response_tokens",
            "text": "Answers are 4.1 tokens longer than the reference's, by more than a fifth.",
        },
        {
            "arm": "ppo",
            "figure": "repetition",
            "text": "31% of an answer's 3-grams repeat an earlier one (reference 4%).",
        },
    ]
    names = list(arms)
    differences = {
        f"{first} - {second}": {
            "gold_score": mean(arms[first]["gold_score"]["mean"] - arms[second]["gold_score"]["mean"], 0.12),
            "heldout_accuracy": mean(0.012, 0.04, 512),
            "reward_model_score": mean(0.3, 0.2),
            "response_tokens": mean(0.3, 1.9),
        }
        for place, second in enumerate(names)
        for first in names[place + 1 :]
    }
    pairs = {"train": 1024, "heldout": 512, "validation": 200}
    return summary | {"arms": arms, "grid": grid, "notices": notices, "differences": differences, "pairs": pairs}


def watched(arm: str, scale: float) -> Iterable[dict[str, Any]]:
    """Evaluations as they are with what is watched, drawn like DPO's."""
    for row in evaluations("ppo" if arm == "ppo" else "dpo", 90 if arm == "ppo" else 128, 81):
        done = row["seconds"] / 81
        raised = {
            key: {"mean": scale * row[key]["mean"], "n": 256, "ci95": [scale * bound for bound in row[key]["ci95"]]}
            for key in ("gold_score", "kl_from_reference")
        }
        yield (
            row
            | raised
            | {
                "arm": arm,
                "chosen_fell": mean(0.5 + 0.11 * done, 0.04),
                "chosen_nats_per_token": mean(-0.03 * scale * done, 0.005),
                "response_tokens": mean(17 + 4 * scale * done, 1.2),
                "repetition": mean(0.04, 0.01),
                "margin_length_correlation": None if done == 0 else mean(0.2, 0.1),
            }
        )


@pytest.fixture
def grid_summary() -> dict[str, Any]:
    return make_grid_summary()


@pytest.fixture
def grid_dir(tmp_path: Path) -> Path:
    folder = write_run(tmp_path / "grid", make_grid_summary())
    trained = list(GRID)
    rows = [row for arm in trained for row in steps(arm, 40, 81)]
    rows += [row for place, arm in enumerate(trained) for row in watched(arm, 1 + 0.15 * place)]
    write_rows(folder / "records.jsonl", [*steps("reward", 64, 212), *rows])
    answers = [row for row in samples(20) if row["arm"] != "ppo"]
    also = [row | {"arm": arm} for row in answers if row["arm"] == "dpo" for arm in trained[1:]]
    write_rows(folder / "samples.jsonl", [*answers, *also])
    return folder


@pytest.fixture
def rewrite() -> Callable[[Path, Iterable[Mapping[str, Any]]], None]:
    return write_rows
