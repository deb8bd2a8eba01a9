"""A job goes to another process and its result comes back; sides take turns."""

from pathlib import Path
from typing import Any

import pytest

from benchmarks.processes import ROOT, Worker, rates, take_turns
from benchmarks.results import BenchmarkError

ECHO = """
import os
from benchmarks.workers.common import serve
def echo(job):
    print("a library talks")
    if job["value"] is None:
        raise ValueError("nothing to say")
    with open(job["log"], "a") as file:
        file.write(job["value"])
    return {"value": job["value"], "seconds": 2.0, "examples": 5, "cache": os.environ["PAIRTUNE_CACHE"]}
serve({"echo": echo})
"""


@pytest.fixture
def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """worker(value): a process that writes its value into tmp_path/log and gives it back."""
    (tmp_path / "echo_worker.py").write_text(ECHO, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return lambda value: Worker("echo_worker", {"task": "echo", "value": value, "log": str(tmp_path / "log")})


def test_round_trip(worker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    result = worker("π").run()
    assert result["value"] == "π"
    assert 1e6 < result["peak_memory_bytes"] < 1e9
    assert result["cache"] != worker("π").run()["cache"]  # nothing that one process caches serves another


def test_failure_is_one_line(worker: Any) -> None:
    with pytest.raises(BenchmarkError, match=r"^echo_worker echo: ValueError: nothing to say$"):
        worker(None).run()


def test_sides_take_turns(worker: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = take_turns({"ours": worker("a"), "peer": worker("b")}, repetitions=2, unit="pairs/s")
    assert (tmp_path / "log").read_text() == "abab"
    assert rates(results["peer"]) == [2.5, 2.5]
    assert "ours 2/2: 2.5 pairs/s" in capsys.readouterr().err


def test_root_holds_the_package() -> None:
    assert (ROOT / "benchmarks" / "workers" / "trl.py").is_file()
