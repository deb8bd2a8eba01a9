"""An environment that stands is used as it is; one that cannot be built says why in a line."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.peers import COMPLETE, Peer
from benchmarks.results import BenchmarkError

PEER = Peer("toy-1", ("toy==1",))


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """The commands that would have been run, and a cache folder; each command fails if `runs.fail`."""
    monkeypatch.setenv("PAIRTUNE_CACHE", str(tmp_path))

    class Runs(list[Any]):
        fail = False

    commands = Runs()

    def run(command: Any, **_: Any) -> Any:
        commands.append(command)
        if "venv" in command:
            (tmp_path / "peers" / "toy-1").mkdir(parents=True)
        return subprocess.CompletedProcess(command, int(commands.fail), "", "trying\nERROR: no such version")

    monkeypatch.setattr(subprocess, "run", run)
    return commands


def test_built_once(runs: Any, tmp_path: Path) -> None:
    python = PEER.python()
    assert python == tmp_path / "peers" / "toy-1" / "bin" / "python"
    assert runs == [
        [sys.executable, "-m", "venv", str(tmp_path / "peers" / "toy-1")],
        [str(python), "-m", "pip", "install", "--quiet", "toy==1"],
    ]
    PEER.python()
    assert len(runs) == 2


def test_other_requirements_build_it_again(runs: Any) -> None:
    PEER.python()
    Peer("toy-1", ("toy==2",)).python()
    assert runs[-1][-1] == "toy==2"


def test_a_failed_build_is_one_line_and_leaves_no_mark(runs: Any, tmp_path: Path) -> None:
    runs.fail = True
    with pytest.raises(BenchmarkError, match=r"toy-1 cannot be built: ERROR: no such version$"):
        PEER.python()
    assert not (tmp_path / "peers" / "toy-1" / COMPLETE).exists()
