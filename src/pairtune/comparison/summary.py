"""From the stages' facts to what a run leaves behind: records, samples, summary.json, with intervals and a verdict."""

import json
import math
from collections.abc import Hashable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from pairtune import disk
from pairtune.comparison.arms import Trial, Trials
from pairtune.comparison.effort import effort
from pairtune.comparison.notices import notices
from pairtune.comparison.pairs import SharedPairs
from pairtune.data.pack import Tokens
from pairtune.engine.cost import Cost
from pairtune.estimate import Estimate
from pairtune.evaluation.diagnostics import distinct_bigrams, fell, margin_length_correlation, per_token
from pairtune.evaluation.heldout import margins, wins
from pairtune.evaluation.policy import Answer
from pairtune.evaluation.power import smallest
from pairtune.evaluation.simultaneous import simultaneous
from pairtune.evaluation.statistics import estimate, share
from pairtune.grid import rewarded
from pairtune.models.load import Tokenizer
from pairtune.objectives.loss import loss_of
from pairtune.report import figures
from pairtune.report.figures import Figure
from pairtune.report.records import REFERENCE
from pairtune.report.verdict import verdict
from pairtune.report.words import best_of
from pairtune.runs import CompareRun
from pairtune.stages.stage import Done
from pairtune.training.checkpoint import read_records


def summarise(
    out: Path,
    settings: CompareRun,
    *,
    tokenizer: Tokenizer,
    stages: Mapping[str, Done],
    trials: Mapping[str, Trials],
    measured: Mapping[str, Done],
    others: Mapping[str, Done],
    validated: Done | None,
    pairs: SharedPairs,
) -> None:
    """Write records.jsonl, samples.jsonl and summary.json.

    stages: what came before the arms, "gold" among it, and "reward" where an arm needs a reward model. others: by name,
    candidates that were not chosen, as they were measured on the curve's prompts. Pairs of one
    prompt are not independent: intervals of what is measured on them are drawn over prompts. Answers are one to a
    prompt.
    """
    scale = _gold_scale(measured["reference"])
    values = {arm: _values(done.facts, scale, pairs.heldout) for arm, done in measured.items()}
    chosen = {method: found.chosen for method, found in trials.items() if found.chosen}
    spent = {**stages, **{method: trial.trained for method, trial in chosen.items() if trial.trained}}
    summary: dict[str, Any] = {
        "preset": settings.preset,
        "model": settings.model,
        "data": settings.data,
        "seed": settings.seed,
        "pairs": {"train": len(pairs.train), "heldout": len(pairs.heldout), "validation": len(pairs.validation)},
        "gold_scorer": {name: stages["gold"].facts[name] for name in ("kind", "heldout_accuracy")}
        | ({"pairs": len(pairs.judge)} if pairs.judge else {})
        | ({"apart": stages["gold"].facts["apart"]} if "apart" in stages["gold"].facts else {}),
        "reward_model": {"heldout_accuracy": stages["reward"].facts["heldout_accuracy"]}
        if "reward" in stages
        else None,
        "arms": {
            arm: means(values[arm], pairs.heldout)
            | _of_all(done.facts, pairs.heldout)
            | _costs(arm, spent, lora=settings.lora)
            | _grid_costs(arm, spent, trials)
            | {"parameters": chosen[arm].candidate.parameters if arm in chosen else {}}
            for arm, done in measured.items()
        },
        "grid": _grid(trials, _gold_scale(validated) if validated else scale, pairs.validation),
        "differences": differences(values, pairs.heldout),
        "smallest_difference": smallest_difference(values),
        "failed": _failed(trials),
        "matched_kl": {method: where for method in chosen if (where := _matched_kl(chosen[method]))} or None,
    }
    summary["notices"] = [*notices(summary, values), *_warned(spent)]
    summary["verdict"] = verdict(summary)
    ends = {method: trial.trained for method, trial in chosen.items() if trial.trained and not best_of(method)}
    curves = _curves(measured, ends) if settings.evaluation.curve_points else {}
    summary["along_the_way"] = _along_the_way(curves, measured["reference"], scale)
    points = [_point_row(arm, values[arm], pairs.heldout) for arm in measured if best_of(arm)]
    records = [*_step_rows(spent), *_evaluation_rows(curves, scale, pairs.heldout), *points]
    records += _frontier_rows(trials, measured, others, scale)
    disk.write(out / "records.jsonl", _lines(records))
    disk.write(out / "samples.jsonl", _lines(_sample_rows(measured, scale, tokenizer)))
    disk.write(out / "summary.json", json.dumps(summary, indent=2, ensure_ascii=False) + "\n")


def _warned(spent: Mapping[str, Done]) -> list[dict[str, str]]:
    """What the trainings warned of, by the name of what was trained."""
    return [
        {"arm": name, "figure": warning["figure"], "text": f"In training {warning['text']}."}
        for name, done in spent.items()
        for warning in done.facts.get("warnings", [])
    ]


def tell_time(out: Path, took: Mapping[str, Any]) -> None:
    """Put into summary.json what the whole run took by the clock."""
    summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    summary |= {"seconds_total": took["seconds"], "whole_run": took}
    disk.write(out / "summary.json", json.dumps(summary, indent=2, ensure_ascii=False) + "\n")


def _gold_scale(reference: Done) -> tuple[float, float]:
    """Mean and standard deviation of the reference's own answers: every gold score is given in these units."""
    gold = reference.facts["gold"]
    return float(np.mean(gold)), max(float(np.std(gold)), 1e-9)


def _standard(gold: Sequence[float], scale: tuple[float, float]) -> list[float]:
    return [(value - scale[0]) / scale[1] for value in gold]


def _values(facts: Mapping[str, Any], scale: tuple[float, float], rows: Sequence[Tokens]) -> dict[str, list[float]]:
    """One value per held-out pair or per answer, in the same order for every arm. Of an arm or one of its snapshots.

    Best of n has none of pairs.
    """
    ratios = facts.get("log_ratios")
    of_pairs = (
        {
            "heldout_accuracy": wins(margins(ratios)),
            "chosen_nats_per_token": per_token(ratios, rows, 0),
            "rejected_nats_per_token": per_token(ratios, rows, 1),
            "chosen_fell": fell(ratios),
        }
        if ratios
        else {}
    )
    return {
        **of_pairs,
        **({"reward_model_score": facts["reward"]} if "reward" in facts else {}),
        "gold_score": _standard(facts["gold"], scale),
        "kl_from_reference": facts["log_ratio"],
        "response_tokens": facts["response_tokens"],
        "repetition": facts["repetition"],
    }


def means(values: Mapping[str, Sequence[float]], rows: Sequence[Tokens]) -> dict[str, Any]:
    """Every figure's mean with its n and interval, as it is saved."""
    prompts = [row.prompt for row in rows]
    return {name: _mean(figures.figure(name), each, prompts).to_json() for name, each in values.items()}


def _mean(figure: Figure, values: Sequence[float], prompts: Sequence[Hashable]) -> Estimate:
    """With the interval that belongs to the figure. Answers are one to a prompt."""
    of = prompts if figure.per == "pair" else None
    return share(values, of) if figure.accuracy else estimate(values, of)


def differences(values: Mapping[str, Mapping[str, Sequence[float]]], rows: Sequence[Tokens]) -> dict[str, Any]:
    """Every arm against every one before it; intervals hold together with 95%.

    Of each figure: those of all arms against each other, and those of all arms against the reference.
    """
    prompts = [row.prompt for row in rows]
    pairs = list(combinations(values, 2))
    families = [pair for pair in pairs if REFERENCE in pair], [pair for pair in pairs if REFERENCE not in pair]
    found: dict[str, dict[str, Any]] = {f"{first} - {second}": {} for second, first in pairs}
    for figure in (each for each in figures.FIGURES if each.difference):
        of = prompts if figure.per == "pair" else None
        for family in families:
            known = [pair for pair in family if all(figure.key in values[arm] for arm in pair)]
            columns = [np.subtract(values[first][figure.key], values[second][figure.key]) for second, first in known]
            largest = 1.0 if figure.accuracy else math.inf
            told = simultaneous(np.stack(columns, axis=1), of, largest=largest) if columns else []
            for (second, first), each in zip(known, told, strict=True):
                found[f"{first} - {second}"][figure.key] = each.to_json()
    return found


def smallest_difference(values: Mapping[str, Mapping[str, Sequence[float]]]) -> float | None:
    """The difference of two arms' scores that 80% of such comparisons would find, where any two arms differ most."""
    scores = [np.asarray(each["gold_score"]) for arm, each in values.items() if arm != REFERENCE]
    if len(scores) < 2 or len(scores[0]) < 2:
        return None
    deviation = max(float(np.std(first - second, ddof=1)) for first, second in combinations(scores, 2))
    return smallest(deviation, prompts=len(scores[0]), arms=len(scores))


def _of_all(facts: Mapping[str, Any], rows: Sequence[Tokens]) -> dict[str, Any]:
    """What is no mean of one value each, and the method's own criterion, which the reference has not."""
    own, ratios = facts["own_wins"], facts.get("log_ratios")
    correlation = margin_length_correlation(ratios, rows) if ratios else None
    return {
        "heldout_own_accuracy": share(own, [row.prompt for row in rows]).to_json() if own else None,
        "margin_length_correlation": correlation.to_json() if correlation else None,
        "distinct_bigrams": distinct_bigrams(_responses(facts)).to_json(),
    }


def _responses(facts: Mapping[str, Any]) -> list[Sequence[int]]:
    return [answer["response"] for answer in facts["answers"]]


def _grid(trials: Mapping[str, Trials], scale: tuple[float, float], rows: Sequence[Tokens]) -> dict[str, Any]:
    """Every candidate of each method that had several."""
    return {
        method: [_grid_point(trial, found, scale, rows) for trial in found.every]
        for method, found in trials.items()
        if len(found.every) > 1
    }


def _grid_point(trial: Trial, found: Trials, scale: tuple[float, float], rows: Sequence[Tokens]) -> dict[str, Any]:
    """A candidate as it did on validation data; of one that failed, why."""
    point: dict[str, Any] = {
        "arm": trial.candidate.name,
        "parameters": trial.candidate.parameters,
        "chosen": trial is found.chosen,
        "failed": trial.failed,
        "seconds": trial.trained.cost.seconds if trial.trained else None,
    }
    names = [each.key for each in figures.FIGURES if each.grid]
    if not trial.validated:
        return point | dict.fromkeys(names)
    known = means(_values(trial.validated.facts, scale, rows), rows)
    return point | {name: known[name] for name in names if name in known}


def _failed(trials: Mapping[str, Trials]) -> dict[str, str]:
    """Why, of each method that no candidate is left of."""
    return {
        method: "; ".join(dict.fromkeys(trial.failed for trial in found.every if trial.failed))
        for method, found in trials.items()
        if not found.chosen
    }


def _matched_kl(trial: Trial) -> dict[str, Any] | None:
    """Where it was to end: the "arm" whose "kl" its sampled answers had reached after "step" of "steps", or not."""
    if not trial.trained or "matched" not in trial.trained.facts:
        return None
    return {**trial.trained.facts["matched"], "step": trial.trained.facts["step"]}


def _costs(arm: str, stages: Mapping[str, Done], *, lora: bool) -> dict[str, Any]:
    spent = {name: stages[name].cost for name in _stages_of(arm) if name in stages}
    total = sum(spent.values(), Cost())
    asked = effort(arm, lora=lora) if arm != "reference" else None
    return {
        "seconds": {name: cost.seconds for name, cost in spent.items()},
        "tokens_processed": total.tokens,
        "flops": total.flops,
        "peak_memory_bytes": total.peak_memory_bytes,
        "models_in_memory": asked.models_in_memory if asked else 0,
        "settings_to_tune": asked.settings_to_tune if asked else [],
        "lines_of_code": asked.lines_of_code if asked else 0,
    }


def _grid_costs(arm: str, stages: Mapping[str, Done], trials: Mapping[str, Trials]) -> dict[str, Any]:
    """What it took to try all candidates of a method that had several: all that was trained, and chosen by or not.

    A candidate whose training failed has left no bill.
    """
    if arm not in trials or len(trials[arm].every) < 2:
        return {}
    trained = {trial.candidate.name: trial.trained.cost for trial in trials[arm].every if trial.trained}
    shared = [stages[name].cost for name in _stages_of(arm) if name in stages and name != arm]
    total = sum([*shared, *trained.values()], Cost())
    return {"grid_seconds": total.seconds, "grid_flops": total.flops, "candidates": len(trials[arm].every)}


def _stages_of(arm: str) -> list[str]:
    """The stages whose cost an arm bears, in the order in which they ran."""
    if arm == "reference":
        return []
    if rewarded(arm):
        return ["reward", arm]
    loss = loss_of(arm)
    return [*(name for name in ("reference", "mismatched") if name in loss.needs), arm]


def _step_rows(stages: Mapping[str, Done]) -> list[dict[str, Any]]:
    return [row for done in stages.values() for row in read_records(done.folder)]


Curves = dict[str, list[Mapping[str, Any]]]


def _curves(measured: Mapping[str, Done], ends: Mapping[str, Done]) -> Curves:
    """Each arm from the reference's full measurement, by its snapshots, to its own full measurement: the table's.

    Seconds are those of the arm's own stage: those of its steps, and, before the first one, whatever else it took
    (loading, compiling, saving), so that a curve ends at the table's seconds.
    """
    curves: Curves = {}
    for arm, trained in ends.items():
        end, facts = trained.facts, measured[arm].facts
        points = [
            {**measured["reference"].facts, "step": 0, "seconds": 0.0},
            *facts["curve"],
            {**facts, "step": end["step"], "seconds": end["seconds"]},
        ]
        before = max(0.0, trained.cost.seconds - end["seconds"])
        curves[arm] = [point | {"seconds": round(before + point["seconds"], 3)} for point in points]
    return curves


def _along_the_way(curves: Curves, reference: Done, scale: tuple[float, float]) -> dict[str, Any] | None:
    """What the points between a curve's ends are measured on, and how the reference scores there.

    None where there are no such points, or where they are measured on all that the table's figures are.
    """
    between = [point for points in curves.values() for point in points[1:-1]]
    sizes = [(len(point["answers"]), len(point["log_ratios"])) for point in (*between[:1], reference.facts)]
    if len(set(sizes)) < 2:
        return None
    prompts, pairs = sizes[0]
    score = estimate(_standard(reference.facts["gold"][:prompts], scale))
    return {"prompts": prompts, "pairs": pairs, "reference_gold_score": score.to_json()}


def _evaluation_rows(curves: Curves, scale: tuple[float, float], heldout: Sequence[Tokens]) -> list[dict[str, Any]]:
    rows = []
    for arm, points in curves.items():
        for point in points:
            some = heldout[: len(point["log_ratios"])]
            correlation = margin_length_correlation(point["log_ratios"], some, interval=False)
            rows.append(
                {
                    "kind": "evaluation",
                    "arm": arm,
                    "step": point["step"],
                    "seconds": point["seconds"],
                    **means(_values(point, scale, some), some),
                    "margin_length_correlation": correlation.to_json() if correlation else None,
                    "distinct_bigrams": distinct_bigrams(_responses(point)).to_json(),
                }
            )
    return rows


def _point_row(arm: str, values: Mapping[str, Sequence[float]], heldout: Sequence[Tokens]) -> dict[str, Any]:
    """An arm without steps: one point of the frontier, and of no curve."""
    return {"kind": "point", "arm": arm, "step": 0, "seconds": 0.0, **means(values, heldout)}


def _frontier_rows(
    trials: Mapping[str, Trials], measured: Mapping[str, Done], others: Mapping[str, Done], scale: tuple[float, float]
) -> list[dict[str, Any]]:
    """Every candidate along its training, from the reference to its end: KL and score of each answer, by prompt.

    All on the same prompts in the same order, so that any two points are paired: those that every point has.
    """
    rows = []
    for method, found in trials.items():
        for trial in found.every:
            name = trial.candidate.name
            done = measured.get(method) if trial is found.chosen else others.get(name)
            if done is None or trial.trained is None or best_of(method):
                continue
            end = {**done.facts, "step": trial.trained.facts["step"], "seconds": trial.trained.facts["seconds"]}
            for point in ({**measured["reference"].facts, "step": 0, "seconds": 0.0}, *done.facts["curve"], end):
                row = {"kind": "frontier", "arm": method, "candidate": name}
                row |= {"step": point["step"], "seconds": point["seconds"], "kl_from_reference": point["log_ratio"]}
                rows.append(row | {"gold_score": _standard(point["gold"], scale)})
    shared = min((len(row["gold_score"]) for row in rows), default=0)
    return [row | {key: row[key][:shared] for key in ("kl_from_reference", "gold_score")} for row in rows]


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
                    **({"reward_model_score": facts["reward"][i]} if "reward" in facts else {}),
                    "log_ratio": facts["log_ratio"][i],
                    "response_tokens": len(answer.response),
                    "ended": answer.ended,
                }
            )
    return sorted(rows, key=lambda row: row["prompt_index"])


def _lines(rows: Sequence[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
