"""From the stages' facts to what a run leaves behind: records, samples, summary.json, with intervals and a verdict."""

import json
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pairtune.comparison.effort import effort
from pairtune.comparison.stages import Done
from pairtune.comparison.verdict import verdict
from pairtune.data.pack import Tokens
from pairtune.engine.cost import Cost
from pairtune.evaluation.heldout import wins
from pairtune.evaluation.policy import Answer
from pairtune.evaluation.statistics import estimate, paired_difference
from pairtune.models.load import Tokenizer
from pairtune.objectives.mixture import loss_of
from pairtune.settings import CompareRun

DIFFERENCES = ("gold_score", "reward_model_score", "heldout_accuracy", "response_tokens")


def summarise(
    out: Path,
    settings: CompareRun,
    *,
    tokenizer: Tokenizer,
    stages: Mapping[str, Done | None],
    measured: Mapping[str, Done],
    failed: Mapping[str, str],
    train: Sequence[Tokens],
    heldout: Sequence[Tokens],
) -> dict[str, Any]:
    """Write records.jsonl, samples.jsonl and summary.json; returns the summary.

    Pairs of one prompt are not independent: intervals of the held-out accuracy are drawn over prompts. Answers are one
    to a prompt.
    """
    prompts = {"heldout_accuracy": [row.prompt for row in heldout]}
    scale = _gold_scale(measured["reference"].facts["gold"])
    values = {arm: _values(done.facts, scale) for arm, done in measured.items()}
    arms = list(values)
    gold, reward = stages["gold"], stages["reward"]
    assert gold is not None
    assert reward is not None
    summary: dict[str, Any] = {
        "preset": settings.preset,
        "model": settings.model,
        "data": settings.data,
        "seed": settings.seed,
        "pairs": {"train": len(train), "heldout": len(heldout)},
        "gold_scorer": {"kind": gold.facts["kind"], "heldout_accuracy": gold.facts["heldout_accuracy"]},
        "reward_model": {"heldout_accuracy": reward.facts["heldout_accuracy"]},
        "arms": {arm: _arm(arm, values[arm], prompts, stages) for arm in arms},
        "differences": {
            f"{first} - {second}": {
                name: paired_difference(values[first][name], values[second][name], prompts.get(name)).to_json()
                for name in DIFFERENCES
            }
            for i, second in enumerate(arms)
            for first in arms[i + 1 :]
        },
        "failed": dict(failed),
    }
    summary["verdict"] = verdict(summary)
    every = [done for done in [*stages.values(), *measured.values()] if done]
    summary["seconds_total"] = sum(done.cost.seconds for done in every)
    _write_lines(
        out / "records.jsonl", [*_step_rows(stages), *_evaluation_rows(measured, scale, prompts["heldout_accuracy"])]
    )
    _write_lines(out / "samples.jsonl", _sample_rows(measured, scale, tokenizer))
    partial = out / "summary.json.partial"
    partial.write_text(json.dumps(summary, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    partial.replace(out / "summary.json")
    return summary


def _gold_scale(reference_gold: Sequence[float]) -> tuple[float, float]:
    """Mean and standard deviation of the reference's own answers: every gold score is given in these units."""
    return float(np.mean(reference_gold)), max(float(np.std(reference_gold)), 1e-9)


def _standard(gold: Sequence[float], scale: tuple[float, float]) -> list[float]:
    return [(value - scale[0]) / scale[1] for value in gold]


def _values(facts: Mapping[str, Any], scale: tuple[float, float]) -> dict[str, list[float]]:
    """One value per held-out pair (accuracy) or per answer (the rest), in the same order for every arm."""
    return {
        "heldout_accuracy": wins(facts["margins"]),
        "reward_model_score": facts["reward"],
        "gold_score": _standard(facts["gold"], scale),
        "kl_from_reference": facts["log_ratio"],
        "response_tokens": facts["response_tokens"],
        "repetition": facts["repetition"],
    }


def _arm(
    arm: str,
    values: Mapping[str, Sequence[float]],
    prompts: Mapping[str, Sequence[Hashable]],
    stages: Mapping[str, Done | None],
) -> dict[str, Any]:
    figures: dict[str, Any] = {name: estimate(value, prompts.get(name)).to_json() for name, value in values.items()}
    spent = {name: done.cost for name in _stages_of(arm) if (done := stages.get(name))}
    total = sum(spent.values(), Cost())
    asked = effort(arm) if arm != "reference" else None
    return figures | {
        "seconds": {name: cost.seconds for name, cost in spent.items()},
        "tokens_processed": total.tokens,
        "flops": total.flops,
        "peak_memory_bytes": total.peak_memory_bytes,
        "models_in_memory": asked.models_in_memory if asked else 0,
        "settings_to_tune": asked.settings_to_tune if asked else [],
        "lines_of_code": asked.lines_of_code if asked else 0,
    }


def _stages_of(arm: str) -> list[str]:
    """The stages whose cost an arm bears, in the order in which they ran."""
    if arm in ("reference", "ppo"):
        return [] if arm == "reference" else ["reward", "ppo"]
    loss = loss_of(arm)
    before = {"reference": loss.needs_reference, "unrelated": "kl_baseline" in loss.arguments}
    return [*(name for name, needed in before.items() if needed), arm]


def _step_rows(stages: Mapping[str, Done | None]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for done in stages.values():
        path = done.folder / "records.jsonl" if done else None
        if path and path.is_file():
            rows += [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return rows


def _evaluation_rows(
    measured: Mapping[str, Done], scale: tuple[float, float], prompts: Sequence[Hashable]
) -> list[dict[str, Any]]:
    def mean(values: Sequence[float], prompts: Sequence[Hashable] | None = None) -> dict[str, Any]:
        return estimate(values, prompts).to_json()

    return [
        {
            "kind": "evaluation",
            "arm": arm,
            "step": point["step"],
            "seconds": point["seconds"],
            "heldout_accuracy": mean(wins(point["margins"]), prompts[: len(point["margins"])]),
            "gold_score": mean(_standard(point["gold"], scale)),
            "reward_model_score": mean(point["reward"]),
            "kl_from_reference": mean(point["log_ratio"]),
        }
        for arm, done in measured.items()
        for point in done.facts["curve"]
    ]


def _sample_rows(
    measured: Mapping[str, Done], scale: tuple[float, float], tokenizer: Tokenizer
) -> list[dict[str, Any]]:
    rows = []
    for arm, done in measured.items():
        facts = done.facts
        for i, fields in enumerate(facts["answers"]):
            answer = Answer.from_json(fields)
            rows.append(
                {
                    "prompt_index": i,
                    "prompt": tokenizer.decode(list(answer.prompt)),
                    "arm": arm,
                    "response": tokenizer.decode(list(answer.response), skip_special_tokens=True),
                    "gold_score": _standard([facts["gold"][i]], scale)[0],
                    "reward_model_score": facts["reward"][i],
                    "log_ratio": facts["log_ratio"][i],
                    "response_tokens": len(answer.response),
                    "ended": answer.ended,
                }
            )
    return sorted(rows, key=lambda row: row["prompt_index"])


def _write_lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    partial.replace(path)
