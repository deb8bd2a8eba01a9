"""What each benchmark makes of its workers' results: the agreed rows, and no figure where results do not agree."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from benchmarks import __main__ as every
from benchmarks import dpo, lora, ppo, reward, sampling, scale, startup
from benchmarks.options import Options
from benchmarks.peers import Peer
from benchmarks.processes import Worker
from benchmarks.results import BenchmarkError

EQUAL = {
    "steps": 20,
    "loss_relative": 2e-5,
    "logprob_ours": 0.040,
    "logprob_plain": 0.041,
    "loss_ours": 0.1,
    "loss_plain": 0.1,
}


def answer(worker: Any) -> Any:
    """What a worker would have said: ours takes 10 s and 2 GB for 40 examples, everybody else 30 s and 6 GB."""
    ours = worker.module.endswith("ours") and worker.job["task"] != "plain"
    found = {"seconds": 10.0, "examples": 40, "peak_memory_bytes": 2e9, "flops": 6e12, "gemm": 1e12}
    found |= {"first_seconds": 8.0, "second_seconds": 4.0, "first_reference": 900, "second_reference": 0}
    return found if ours else {**found, "seconds": 30.0, "peak_memory_bytes": 6e9}


@pytest.fixture(autouse=True)
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """No process is started: workers answer at once. Returns the workers that were asked."""
    workers = []

    def run(self: Any) -> Any:
        workers.append(self)
        tasks = {"equality": EQUAL, "versions": {"versions": dict.fromkeys(("trl", "transformers", "torch"), "1")}}
        tasks |= {"machine": {"machine": "2 cores"}}
        return tasks.get(self.job["task"]) or answer(self)

    @contextmanager
    def prepared(**counts: Any) -> Iterator[Any]:
        yield dict.fromkeys(("model", "pairs", "warmup", "compared", "prompts", "described", "prompts_described"), "x")

    monkeypatch.setattr(Worker, "run", run)
    monkeypatch.setattr(Peer, "python", lambda self: Path(f"/peers/{self.name}/bin/python"))
    monkeypatch.setattr(startup, "_seconds", lambda command: 0.5 if "pairtune.cli" in command else 4.0)
    for benchmark in (dpo, lora, reward, sampling, ppo):
        monkeypatch.setattr(benchmark, "prepared", prepared)
    return workers


@pytest.mark.parametrize(
    ("benchmark", "ratios"),
    [
        (dpo, {"trl-best": 3, "trl-default": 3, "naive": 3, "gemm-share": 0.6, "memory": 3, "memory-default": 3}),
        (lora, {"trl": 3, "memory-trl": 3, "full": 1, "memory-full": 1}),
        (reward, {"trl": 3}),
        (sampling, {"generate-64": 3, "generate-256": 3}),
        (ppo, {"trl": 3}),
        (startup, {"help": 8}),
        (scale, {"cost-10000": 1, "memory-10000": 1, "cost-50000": 1, "memory-50000": 1, "second-objective": 2}),
    ],
)
def test_rows_and_ratios(benchmark: Any, ratios: Any) -> None:
    rows = benchmark.measure(Options(repetitions=2))
    assert {row.name: row.ratio.median for row in rows} == pytest.approx(ratios)


def test_both_sides_are_given_the_same_batch_and_rate(asked: Any) -> None:
    dpo.measure(Options(repetitions=1))
    ours = next(worker.job["settings"] for worker in asked if worker.job["task"] == "dpo" and "settings" in worker.job)
    for options in (worker.job["options"] for worker in asked if "options" in worker.job):
        size = options["per_device_train_batch_size"] * options.get("gradient_accumulation_steps", 1)
        theirs = (size, options["num_train_epochs"], options["learning_rate"])
        assert theirs == (ours["batch_size"], ours["epochs"], ours["learning_rate"])


@pytest.mark.parametrize("wrong", [{"loss_relative": 2e-4}, {"loss_relative": float("nan")}, {"logprob_ours": 0.05}])
def test_results_that_differ_stop_the_benchmark_before_any_is_timed(
    monkeypatch: pytest.MonkeyPatch, asked: Any, wrong: Any
) -> None:
    monkeypatch.setitem(EQUAL, *next(iter(wrong.items())))
    with pytest.raises(BenchmarkError, match="plain loop's"):
        dpo.measure(Options())
    assert [worker.job["task"] for worker in asked] == ["equality"]


def test_a_second_reference_pass_stops_the_benchmark() -> None:
    made = {**answer(Worker("ours", {"task": "scale"})), "second_reference": 12}
    with pytest.raises(BenchmarkError, match="made a reference pass again"):
        scale.second_objective([made], 1000)


def test_all_benchmarks_write_one_table(monkeypatch: pytest.MonkeyPatch) -> None:
    written = []
    monkeypatch.setattr(every, "write", lambda *given: written.append(given))
    rows = every.measure_all(Options(repetitions=1))
    assert list(rows) == ["dpo", "lora", "reward", "sampling", "ppo", "startup", "scale"]
    assert written == [(rows, "2 cores")] * len(rows)  # the same mapping, growing
