"""A whole comparison in seconds: what it leaves behind, what a second run redoes, and what a failing method does."""

import csv
import json
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from pairtune.commands.compare import run as run_command
from pairtune.comparison import context
from pairtune.comparison import pairs as shared_pairs
from pairtune.comparison.context import Context
from pairtune.comparison.pairs import SPLITS
from pairtune.comparison.run import compare
from pairtune.data import reviews
from pairtune.engine import hidden, reference
from pairtune.errors import InputError
from pairtune.models import adapters
from pairtune.models.load import load_model
from pairtune.models.machine import Machine
from pairtune.report import page
from pairtune.runs import CompareRun
from pairtune.stages import preference
from pairtune.training.checkpoint import Journal

Tiny = Callable[..., CompareRun]
FIGURES = {
    "heldout_accuracy",
    "reward_model_score",
    "gold_score",
    "kl_from_reference",
    "response_tokens",
    "repetition",
    "chosen_nats_per_token",
    "rejected_nats_per_token",
    "chosen_fell",
}
# Figures that are no mean of a value each, or that the reference has not.
OTHER_FIGURES = {"heldout_own_accuracy", "margin_length_correlation", "distinct_bigrams", "parameters"}
COSTS = {
    "seconds": dict,
    "tokens_processed": int,
    "flops": float,
    "peak_memory_bytes": int,
    "models_in_memory": int,
    "settings_to_tune": list,
    "lines_of_code": int,
}


def read(out: Path) -> dict[str, Any]:
    return dict(json.loads((out / "summary.json").read_text(encoding="utf-8")))


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def check_mean(value: Any) -> None:
    assert set(value) == {"mean", "n", "ci95"}
    assert isinstance(value["mean"], float)
    assert isinstance(value["n"], int)
    low, high = value["ci95"]
    assert low <= value["mean"] <= high


def check_schema(summary: dict[str, Any], arms: set[str]) -> None:
    """summary.json as the docs promise it."""
    for name, kind in {"preset": str, "model": str, "data": str, "seed": int, "verdict": str}.items():
        assert isinstance(summary[name], kind)
    assert summary["seconds_total"] > 0
    assert set(summary["pairs"]) == {"train", "heldout", "validation"}
    check_mean(summary["gold_scorer"]["heldout_accuracy"])
    rewarded = "ppo" in {*arms, *summary["failed"]}
    figures = FIGURES if rewarded else FIGURES - {"reward_model_score"}
    if rewarded:
        check_mean(summary["reward_model"]["heldout_accuracy"])
    else:
        assert summary["reward_model"] is None
    assert set(summary["arms"]) == arms
    for name, arm in summary["arms"].items():
        grid = {"grid_seconds", "grid_flops", "candidates"} if name in summary["grid"] else set()
        assert set(arm) == figures | OTHER_FIGURES | set(COSTS) | grid
        for figure in figures:
            check_mean(arm[figure])
        for cost, kind in COSTS.items():
            assert isinstance(arm[cost], (int, float) if kind is float else kind), (name, cost)
        if name != "reference":
            assert sum(arm["seconds"].values()) > 0
            assert min(arm["tokens_processed"], arm["flops"], arm["peak_memory_bytes"]) > 0
            assert arm["settings_to_tune"]
            check_mean(arm["heldout_own_accuracy"])
            assert arm["parameters"]
    for difference in summary["differences"].values():
        for value in difference.values():
            check_mean(value)


def check_curves(records: list[dict[str, Any]], summary: dict[str, Any]) -> None:
    """Each curve begins with the reference's figures in the table and ends with its arm's, seconds included."""
    for arm in set(summary["arms"]) - {"reference"}:
        first, *between, last = (row for row in records if row["kind"] == "evaluation" and row["arm"] == arm)
        for point, of in ((first, "reference"), (last, arm)):
            assert {name: point[name] for name in FIGURES} == {name: summary["arms"][of][name] for name in FIGURES}
        steps = [row["step"] for row in records if row["kind"] == "step" and row["stage"] == arm]
        assert (first["step"], last["step"]) == (0, max(steps))
        assert last["seconds"] == pytest.approx(summary["arms"][arm]["seconds"][arm], abs=0.01)
        # Two measurements were asked for, and the end is the second.
        assert [row["step"] for row in between] == ([max(steps) // 2] if max(steps) > 1 else [])
        for row in between:
            assert first["seconds"] < row["seconds"] < last["seconds"]
            assert (row["heldout_accuracy"]["n"], row["gold_score"]["n"]) == (4, summary["along_the_way"]["prompts"])
    assert summary["along_the_way"]["pairs"] == 4
    assert summary["along_the_way"]["prompts"] <= 4 < summary["arms"]["reference"]["gold_score"]["n"]


@pytest.fixture
def worked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the stages whose work was called, in order."""
    names: list[str] = []
    original = Context.done

    def watched(self: Any, stage: Any, work: Any, **others: Any) -> Any:
        def counted(folder: Path) -> Any:
            names.append(stage.rests_on["stage"])
            return work(folder)

        return original(self, stage, counted, **others)

    monkeypatch.setattr(Context, "done", watched)
    return names


def test_adapters_are_compared_on_one_base(tiny_run: Tiny, worked: list[str], tmp_path: Path, cpu: Machine) -> None:
    given = {"lora": True, "lora_rank": 4, "methods": ["dpo", "ppo"], "batch_size": 6, "epochs": 4}
    out = compare(tiny_run(**given, learning_rate=1e-2))
    summary = read(out)
    check_schema(summary, {"reference", "dpo", "ppo"})
    assert summary["arms"]["dpo"]["heldout_accuracy"]["mean"] > 0.8  # the pairs are easy
    assert (summary["arms"]["ppo"]["models_in_memory"], summary["arms"]["dpo"]["models_in_memory"]) == (1, 1)
    for name in ("dpo", "ppo", "reward"):
        folder = out / "models" / name
        assert not (folder / "model.safetensors").exists()
        assert json.loads((folder / "adapter_config.json").read_text())["r"] == 4
        assert json.loads((folder / "settings.json").read_text())["adapters"]["lora_rank"] == 4
    assert (out / "models" / "reference" / "model.safetensors").is_file()

    # Moved as a whole, its models are still found beside each other, and nothing is done again.
    done = list(worked)
    (tmp_path / "run").rename(tmp_path / "moved")
    compare(tiny_run(**given, learning_rate=1e-2, out=str(tmp_path / "moved")))
    assert worked == done
    assert adapters.layers(load_model(str(tmp_path / "moved" / "models" / "dpo"), cpu))


def test_a_comparison_on_own_data_from_start_to_end(tiny_run: Tiny, worked: list[str]) -> None:
    out = compare(tiny_run(batch_size=6))
    summary = read(out)
    check_schema(summary, {"reference", "dpo", "ipo", "ppo"})
    reference = summary["arms"]["reference"]
    assert reference["heldout_accuracy"] == {"mean": 0.5, "n": summary["pairs"]["heldout"], "ci95": [0.5, 0.5]}
    assert reference["kl_from_reference"]["mean"] == 0
    assert reference["kl_from_reference"]["ci95"] == [0, 0]
    assert reference["gold_score"]["mean"] == pytest.approx(0, abs=1e-9)
    assert summary["arms"]["dpo"]["heldout_accuracy"]["mean"] > 0.8  # the pairs are easy
    assert (summary["arms"]["ppo"]["models_in_memory"], summary["arms"]["dpo"]["models_in_memory"]) == (4, 1)
    assert set(summary["arms"]["ppo"]["seconds"]) == {"reward", "ppo"}
    assert set(summary["arms"]["dpo"]["seconds"]) == {"reference", "dpo"}
    assert summary["gold_scorer"]["kind"] == "judge"
    assert "another seed, and from the model as it was before" in summary["gold_scorer"]["apart"]
    seeds = {
        name: json.loads((out / "models" / name / "settings.json").read_text())["seed"] for name in ("judge", "reward")
    }
    assert seeds["reward"] == 0 != seeds["judge"]
    assert summary["failed"] == {}
    assert summary["grid"] == {}
    assert summary["pairs"]["validation"] == 0
    assert reference["heldout_own_accuracy"] is None
    dpo = summary["arms"]["dpo"]
    assert dpo["heldout_own_accuracy"] == dpo["heldout_accuracy"]  # DPO's loss looks at the margin alone
    assert dpo["parameters"] == {"beta": 0.5}
    assert set(summary["differences"]) == {
        "dpo - reference",
        "ipo - reference",
        "ppo - reference",
        "ipo - dpo",
        "ppo - dpo",
        "ppo - ipo",
    }

    records = rows(out / "records.jsonl")
    assert {row["stage"] for row in records if row["kind"] == "step"} >= {"sft", "dpo", "ipo", "ppo", "reward", "judge"}
    check_curves(records, summary)
    assert {row["arm"] for row in records if row["kind"] == "evaluation" and row["step"] == 1} >= {"dpo", "ppo"}
    samples = rows(out / "samples.jsonl")
    assert len(samples) == 4 * summary["arms"]["dpo"]["gold_score"]["n"]
    first = [row for row in samples if row["prompt_index"] == 0]
    assert len({row["prompt"] for row in first}) == 1

    assert summary["seconds_total"] == summary["whole_run"]["seconds"]
    assert summary["seconds_total"] >= sum(
        json.loads(path.read_text())["cost"]["seconds"] for path in out.glob("*/*/result.json")
    )

    # A second run works on nothing and says the same.
    done, before = list(worked), (out / "summary.json").read_bytes()
    assert compare(tiny_run(batch_size=6)) == out
    assert worked == done
    assert (out / "summary.json").read_bytes() == before

    # Another number of PPO steps redoes PPO and its measurement, and nothing else.
    compare(tiny_run(batch_size=6, ppo_steps=1))
    assert worked[len(done) :] == ["ppo", "measure_ppo"]
    after = read(out)["arms"]
    assert after["dpo"] == summary["arms"]["dpo"]
    assert after["ppo"] != summary["arms"]["ppo"]


def test_a_failing_method_is_a_result_and_the_others_go_on(
    tiny_run: Tiny, worked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise FloatingPointError("the gradient's norm is nan\nand more")

    settings = tiny_run(methods=["ppo", "dpo"])
    with monkeypatch.context() as patched:
        patched.setattr("pairtune.stages.online.train_online", broken)
        summary = read(compare(settings))
    check_schema(summary, {"reference", "dpo"})
    assert summary["failed"] == {"ppo": "FloatingPointError: the gradient's norm is nan"}
    assert "PPO" in summary["verdict"]
    worked.clear()
    summary = read(compare(settings))  # the next run tries again, and only that
    assert worked == ["ppo", "measure_ppo"]
    assert summary["failed"] == {}
    check_schema(summary, {"reference", "ppo", "dpo"})


def test_an_interrupted_comparison_ends_as_if_never_stopped(
    tiny_run: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = read(compare(tiny_run(methods=["dpo"], epochs=3)))
    keep = Journal.checkpoint

    def stop_in_dpo(self: Any, step: int, *others: Any, stopping: bool, due: bool) -> None:
        keep(self, step, *others, stopping=self.stage == "dpo" and step == 2, due=due)

    parts = tiny_run(methods=["dpo"], epochs=3, out=str(tmp_path / "parts"))
    with monkeypatch.context() as patched:
        patched.setattr(Journal, "checkpoint", stop_in_dpo)
        with pytest.raises(KeyboardInterrupt):
            compare(parts)
    found = read(compare(parts))
    assert len(found["whole_run"]["sittings"]) == 2
    assert found["seconds_total"] == pytest.approx(sum(found["whole_run"]["sittings"]), abs=0.01)
    for arm in ("reference", "dpo"):
        for figure in FIGURES - {"reward_model_score"}:
            assert found["arms"][arm][figure] == whole["arms"][arm][figure]
    assert found["arms"]["dpo"]["tokens_processed"] == whole["arms"]["dpo"]["tokens_processed"]
    models = [
        (folder / "models/dpo/model.safetensors").read_bytes() for folder in (tmp_path / "run", tmp_path / "parts")
    ]
    assert models[0] == models[1]


def test_an_architecture_that_is_not_packable_is_padded_in_every_stage(
    tiny_run: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, blind_to_branches: Callable[[], None]
) -> None:
    packed = read(compare(tiny_run(methods=["ppo"], evaluation_curve_points=0)))

    blind_to_branches()
    monkeypatch.setenv("PAIRTUNE_CACHE", str(tmp_path / "cache"))
    padded_passes = []
    original = hidden.own_hidden_states
    monkeypatch.setattr(hidden, "own_hidden_states", lambda *a, **k: padded_passes.append(1) or original(*a, **k))
    padded = read(compare(tiny_run(methods=["ppo"], evaluation_curve_points=0, out=str(tmp_path / "padded"))))
    assert padded_passes
    for arm in ("reference", "ppo"):
        for figure in ("heldout_accuracy", "kl_from_reference", "reward_model_score"):
            found, expected = padded["arms"][arm][figure]["mean"], packed["arms"][arm][figure]["mean"]
            assert found == pytest.approx(expected, abs=1e-3), (arm, figure)


def test_the_built_in_task_on_synthetic_reviews(
    tiny_run: Tiny, tiny_folder: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, worked: list[str]
) -> None:
    """On Bloom, which packed rows are wrong for: its pairs are sampled before anything else has looked at the model."""
    path = tmp_path / "reviews.csv"
    words = {True: ["warm", "funny", "loved", "wonder"], False: ["dull", "nowhere", "boring", "awful"]}
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["text", "label", "source"])
        writer.writeheader()
        for i in range(200):
            good = i % 2 == 0
            chosen = " ".join(words[good][(i // 2 + k) % 4] for k in range(3))
            text = f"Film {i} {words[good][i % 4]} is {chosen}. I saw it."
            writer.writerow({"text": text, "label": str(int(good)), "source": "imdb"})
    monkeypatch.setattr(reviews, "_file", lambda: path)
    bloom = str(tiny_folder(tmp_path / "bloom", "bloom", spread=4.0))
    few = {"sft_demonstrations": 16, "sampling_max_new_tokens": 32}
    draw, held = shared_pairs.sample, []

    def holding(model: Any, prompts: Any, **how: Any) -> Any:
        answers = draw(model, prompts, **how)
        for prompt, answer in list(zip(prompts, answers, strict=True))[:6]:
            right = own_logprobs(model, prompt, answer.response, temperature=how["temperature"])
            held.append(answer.logprobs == pytest.approx(right, abs=1e-3))
        return answers

    monkeypatch.setattr(shared_pairs, "sample", holding)
    out = compare(tiny_run(model=bloom, data="reviews", methods=["dpo", "ppo"], **few))
    assert held
    assert all(held)
    summary = read(out)
    check_schema(summary, {"reference", "dpo", "ppo"})
    assert summary["gold_scorer"]["kind"] == "gold"
    assert summary["gold_scorer"]["heldout_accuracy"]["mean"] == 1
    assert summary["pairs"] == {"train": 12, "heldout": 10, "validation": 0}
    assert worked[0] == "gold"
    assert "judge" not in worked


def own_logprobs(model: Any, prompt: Sequence[int], response: Sequence[int], *, temperature: float) -> list[float]:
    """By the model's own forward on the whole text."""
    with torch.no_grad():
        logits = model(torch.tensor([[*prompt, *response]])).logits[0, len(prompt) - 1 : -1]
    return torch.log_softmax(logits / temperature, -1)[range(len(response)), list(response)].tolist()


def test_every_method_bears_the_cost_of_what_it_needs_and_no_more(tiny_run: Tiny, worked: list[str]) -> None:
    out = compare(tiny_run(methods=["dpo", "kto", "simpo", "dpo+0.2*sft"], evaluation_curve_points=0))
    summary = read(out)
    check_schema(summary, {"reference", "dpo", "kto", "simpo", "dpo+0.2*sft"})
    assert summary["failed"] == {}
    assert {arm: set(figures["seconds"]) for arm, figures in summary["arms"].items()} == {
        "reference": set(),
        "dpo": {"reference", "dpo"},
        "kto": {"reference", "mismatched", "kto"},
        "simpo": {"simpo"},
        "dpo+0.2*sft": {"reference", "dpo+0.2*sft"},
    }
    tokens = {arm: figures["tokens_processed"] for arm, figures in summary["arms"].items()}
    assert tokens["simpo"] < tokens["dpo"] < tokens["kto"]

    worked.clear()
    compare(tiny_run(methods=["dpo", "kto", "simpo", "dpo+0.2*sft"], evaluation_curve_points=0, gamma=0.3))
    assert worked == ["simpo", "measure_simpo"], "a parameter of one objective does not touch the others"


def check_frontier(records: list[dict[str, Any]], samples: list[dict[str, Any]], summary: dict[str, Any]) -> None:
    """Every candidate is kept prompt by prompt from the reference to its end, the chosen ones as in the table."""
    points = [row for row in records if row["kind"] == "frontier"]
    names = [point["arm"] for method in summary["grid"].values() for point in method]
    assert {row["candidate"] for row in points} == {*names, "simpo"}
    (size,) = {len(row[key]) for row in points for key in ("gold_score", "kl_from_reference")}
    chosen = {method: next(p["arm"] for p in each if p["chosen"]) for method, each in summary["grid"].items()}
    for name in (*names, "simpo"):
        first, *between, last = (row for row in points if row["candidate"] == name)
        assert [row["step"] for row in (first, *between, last)] == [0, 1, 2]
        assert first["kl_from_reference"] == [0] * size
        method = first["arm"]
        if name != chosen.get(method, method):
            continue
        for point, arm in ((first, "reference"), (last, method)):
            own = [row for row in samples if row["arm"] == arm][:size]
            assert point["gold_score"] == [row["gold_score"] for row in own]
            assert point["kl_from_reference"] == [row["log_ratio"] for row in own]
        (drawn,) = (row for row in records if row["kind"] == "evaluation" and (row["arm"], row["step"]) == (method, 1))
        for key in ("gold_score", "kl_from_reference"):
            assert drawn[key]["mean"] == pytest.approx(sum(between[0][key]) / size)


def test_each_method_stands_at_its_best_value_by_validation_data(tiny_run: Tiny, worked: list[str]) -> None:
    grid = {"methods": ["dpo", "simpo", "ppo"], "beta": [0.1, 5.0, "simpo=2"], "ppo_kl_coefficient": [0.02, 50.0]}
    grid["batch_size"] = 6  # two steps: after one, Adam has forgotten the size of beta
    grid["match_kl"] = False  # or PPO rests on which beta stands for DPO
    grid |= {"validation": 6, "heldout": 8, "evaluation_curve_points": 2, "evaluation_curve_prompts": 6}
    settings = tiny_run(**grid)
    out = compare(settings)
    summary = read(out)
    check_schema(summary, {"reference", "dpo", "simpo", "ppo"})
    assert summary["pairs"]["validation"] == 6
    assert {method: [point["arm"] for point in points] for method, points in summary["grid"].items()} == {
        "dpo": ["dpo@beta=0.1", "dpo@beta=5"],
        "ppo": ["ppo@kl_coefficient=0.02", "ppo@kl_coefficient=50"],
    }
    for method, points in summary["grid"].items():
        (chosen,) = [point for point in points if point["chosen"]]
        assert chosen["gold_score"]["mean"] == max(point["gold_score"]["mean"] for point in points)
        assert summary["arms"][method]["parameters"] == chosen["parameters"]
        assert sum(summary["arms"][method]["seconds"].values()) >= chosen["seconds"] > 0
        bill, shared = summary["arms"][method], sum(summary["arms"][method]["seconds"].values()) - chosen["seconds"]
        assert bill["grid_seconds"] == pytest.approx(sum(point["seconds"] for point in points) + shared)
        assert bill["grid_flops"] > 1.5 * bill["flops"] / (1 + ("reward" in bill["seconds"]))
        for point in points:
            for figure in (
                "heldout_accuracy",
                "gold_score",
                "kl_from_reference",
                "reward_model_score",
                "response_tokens",
            ):
                check_mean(point[figure])
            assert point["heldout_accuracy"]["n"] == 6
    strong, weak = summary["grid"]["dpo"]
    assert strong["kl_from_reference"]["mean"] != weak["kl_from_reference"]["mean"]
    assert summary["arms"]["simpo"]["parameters"] == {"beta": 2.0, "gamma": 1.0}

    # No prompt is on two sides, and held-out measurements saw held-out pairs only.
    pairs = rows(out / "stages" / "pairs" / "pairs.jsonl")
    prompts = {split: {row["prompt"] for row in pairs if row["split"] == split} for split in SPLITS}
    assert all(prompts.values())
    assert not any(prompts[a] & prompts[b] for a in SPLITS for b in SPLITS if a < b)
    assert {row["prompt"] for row in rows(out / "samples.jsonl")} <= prompts["heldout"]

    check_frontier(rows(out / "records.jsonl"), rows(out / "samples.jsonl"), summary)

    # One more value trains one more candidate; the others are kept.
    worked.clear()
    compare(tiny_run(**grid | {"beta": [0.1, 5.0, 1.0, "simpo=2"]}))
    assert worked[:2] == ["dpo@beta=1", "validate_dpo@beta=1"]
    assert set(worked[2:]) <= {"measure_dpo", *(f"frontier_dpo@beta={beta}" for beta in ("0.1", "5", "1"))}
    assert worked[2:]


def test_a_disk_without_room_for_the_arms_is_told_before_they_are_trained(
    tiny_run: Tiny, worked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"evaluation_curve_points": 0, "learning_rate": 1e-3}
    out = compare(tiny_run(methods=["dpo"], **settings))
    before = (out / "summary.json").read_bytes()
    usage = shutil.disk_usage(out)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    worked.clear()
    for changed in ({"methods": ["dpo", "ipo"]}, {"methods": ["dpo"], "epochs": 2}):  # another arm; the same again
        with pytest.raises(InputError, match="GB free and this run needs about"):
            compare(tiny_run(**settings | changed))
    assert worked == []
    compare(tiny_run(methods=["dpo"], **settings))  # nothing is left to be written
    assert worked == []
    assert (out / "summary.json").read_bytes() == before


def test_a_candidate_that_fails_leaves_the_method_to_the_others(
    tiny_run: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = preference.train_preference

    def breaks(model: Any, examples: Any, loss: Any, *others: Any, **named: Any) -> None:
        if loss.to_json()["dpo"]["beta"] == 5:
            raise FloatingPointError("the gradient's norm is nan")
        real(model, examples, loss, *others, **named)

    monkeypatch.setattr(preference, "train_preference", breaks)
    settings = tiny_run(methods=["dpo"], beta=[0.1, 5], validation=6, heldout=8, evaluation_curve_points=0)
    summary = read(compare(settings))
    assert summary["failed"] == {}
    kept, failed = summary["grid"]["dpo"]
    assert (kept["chosen"], failed["chosen"]) == (True, False)
    assert failed["failed"] == "FloatingPointError: the gradient's norm is nan"
    assert failed["gold_score"] is None


def test_methods_without_a_reference_leave_the_training_pairs_alone(
    tiny_run: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, asked = reference.reference_logprobs, []

    def watched(model: Any, rows: Any, **others: Any) -> Any:
        asked.append(len(rows))
        return real(model, rows, **others)

    monkeypatch.setattr(context, "reference_logprobs", watched)
    monkeypatch.setattr("pairtune.engine.examples.reference_logprobs", watched)
    summary = read(compare(tiny_run(methods=["simpo", "orpo"], evaluation_curve_points=0)))
    assert set(asked) == {summary["pairs"]["heldout"]}


def test_no_reward_model_is_trained_where_no_arm_learns_from_one(tiny_run: Tiny, worked: list[str]) -> None:
    settings = tiny_run(methods=["dpo", "simpo"])
    out = compare(settings)
    summary = read(out)
    check_schema(summary, {"reference", "dpo", "simpo"})
    assert "reward" not in worked
    assert "judge" in worked, "one's own data have no other score"
    assert not (out / "models/reward").exists()
    assert all("reward_model_score" not in fields for fields in summary["differences"].values())
    left = rows(out / "records.jsonl") + rows(out / "samples.jsonl")
    assert left
    assert not any("reward_model_score" in row for row in left)
    said = page.write(out).read_text(encoding="utf-8")
    assert "eward-model score" not in said
    assert "<dt>Reward model</dt>" not in said

    # PPO needs it: then every arm is scored by it, and only measuring is done again.
    worked.clear()
    compare(tiny_run(methods=["dpo", "simpo", "ppo"]))
    assert worked == ["reward", "ppo", "measure_reference", "measure_dpo", "measure_simpo", "measure_ppo"]
    check_schema(read(out), {"reference", "dpo", "simpo", "ppo"})


def test_the_whole_run_is_what_a_clock_beside_it_says(tiny_run: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading before, between and after stages, and drawing the report, are in it."""
    settings = tiny_run(methods=["dpo"], evaluation_curve_points=0)
    real = context.load_model

    def slow(*given: Any, **named: Any) -> Any:
        time.sleep(0.2)
        return real(*given, **named)

    monkeypatch.setattr(context, "load_model", slow)
    began = time.monotonic()
    out = run_command(settings)
    clock = time.monotonic() - began
    assert read(out)["seconds_total"] == pytest.approx(clock, rel=0.05)
    said = (out / "report.html").read_text(encoding="utf-8")
    assert f"{round(read(out)['seconds_total'])} s by the clock" in said or read(out)["seconds_total"] < 10
