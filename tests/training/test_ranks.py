"""Two ranks learn what one does: every objective, SFT and the reward model; what becomes of a rank that fails."""

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from pairtune import joining, parallel, rank
from pairtune.cli import main
from pairtune.data.pack import Tokens
from pairtune.engine import hidden
from tests.training import ranks

HERE = Path(__file__).parent
SOURCES = HERE.parents[1] / "src"


def run(script: str, *words: Path | str) -> list[tuple[int, str]]:
    """A script on two ranks, as torchrun would start them: exit code and output of each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    path = os.pathsep.join(filter(None, (str(SOURCES), str(HERE.parents[1]), os.environ.get("PYTHONPATH", ""))))
    environment = os.environ | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "PYTHONPATH": path}
    started = [
        subprocess.Popen(
            [sys.executable, str(HERE / script), *map(str, words)],
            env=environment | {"RANK": number, "LOCAL_RANK": number, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for number in ("0", "1")
    ]
    printed = [process.communicate(timeout=300)[0] for process in started]
    return [(process.returncode, text) for process, text in zip(started, printed, strict=True)]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Folders of what one rank and what two have left, and what each went on with that the other left."""
    folders = {number: tmp_path_factory.mktemp(f"ranks-{number}") for number in (1, 2)}
    stopped = tmp_path_factory.mktemp("stopped")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(hidden.TOKENS_PER_PASS, "cpu", ranks.BUDGET)
        first, second = (tmp_path_factory.mktemp(f"cache-{number}") for number in (1, 2))
        patch.setenv("PAIRTUNE_CACHE", str(first))
        ranks.main(folders[1])
        for number in (1, 2):
            shutil.copytree(folders[1] / "stopped", stopped / f"{number}" / "stopped")
        if (first / "kernels").is_dir():  # not to be built twice; the reference is computed anew
            shutil.copytree(first / "kernels", second / "kernels")
        patch.setenv("PAIRTUNE_CACHE", str(second))
        for code, printed in run("ranks.py", folders[2], stopped / "1", folders[2]):
            assert code == 0, printed
        ranks.go_on(folders[2], folders[1])
    return folders


def distance(first: Path, second: Path) -> float:
    """The largest relative distance of losses, of gradients' norms, or of all that learned, between two trainings."""
    one, other = load_file(first), load_file(second)
    assert one.keys() == other.keys()
    figures = [(one.pop(name), other.pop(name)) for name in ("losses", "norms")]
    weights = [torch.cat([value.double().flatten() for value in each.values()]) for each in (one, other)]
    return max(float((a - b).norm() / a.norm()) for a, b in (*figures, weights))


@pytest.mark.parametrize("name", [*ranks.trainings(), *ranks.parted()])
def test_two_ranks_learn_what_one_does(name: str, both: dict[int, Path]) -> None:
    rounding = 1e-2 if name.endswith("in bfloat16") else 1e-5
    assert distance(*(both[number] / f"{name}.safetensors" for number in (1, 2))) < rounding


@pytest.mark.parametrize("ends", [1, 2])
@pytest.mark.parametrize("name", list(ranks.stopped()))
def test_what_was_stopped_goes_on_with_another_number_of_ranks(name: str, ends: int, both: dict[int, Path]) -> None:
    assert distance(both[1] / f"{name}.safetensors", both[ends] / f"{name} went on.safetensors") < 1e-5


def test_a_rank_holds_half_of_what_one_process_does(both: dict[int, Path]) -> None:
    alone, parted = (int((both[number] / "bytes.json").read_text()) for number in (1, 2))
    assert parted <= 0.55 * alone


def test_parts_without_torchrun_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tune", "--shard", "always", "--data", "pairs.jsonl"]) == 2
    assert "shard: there is one process" in capsys.readouterr().err


def test_a_rank_that_was_killed_is_named_by_the_other() -> None:
    (code, printed), _ = run("failing_ranks.py", "killed")
    assert (code, "rank 1 of 2 ended without a word" in printed) == (2, True), printed


def test_an_error_of_one_rank_ends_all_and_is_told_once() -> None:
    first, second = run("failing_ranks.py", "wrong")
    assert second == (2, "what is wrong here\n")
    assert first == (2, "")


# ---- one process, as if it were a rank ----------------------------------------------------------------------------


@pytest.fixture
def second_of_three(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in zip(rank.ENVIRONMENT, ("1", "3", "127.0.0.1", "1"), strict=True):
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("command", ["evaluate", "generate", "ppo", "compare", "check"])
def test_what_ranks_would_do_twice_is_refused(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in zip(rank.ENVIRONMENT, ("0", "2", "127.0.0.1", "1"), strict=True):
        monkeypatch.setenv(name, value)
    assert main([command]) == 2
    assert capsys.readouterr().err == (
        f"pairtune: `pairtune {command}` runs in one process; give it without torchrun (sft, tune and reward share)\n"
    )


def test_a_steps_examples_are_shared_by_tokens_and_each_is_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joining, "_together", object())
    lengths, indices, parts = [9, 1, 1, 1, 8, 1, 7], [5, 3, 9, 8, 0, 2, 4], []
    for name, value in zip(rank.ENVIRONMENT, ("0", "3", "127.0.0.1", "1"), strict=True):
        monkeypatch.setenv(name, value)
    for number in range(3):
        monkeypatch.setenv("RANK", str(number))
        parts.append(parallel.share(indices, lengths))
    assert sorted(i for part in parts for i in part) == sorted(indices)
    assert [sum(lengths[indices.index(i)] for i in part) for part in parts] == [10, 9, 9]


def test_only_the_first_rank_speaks(second_of_three: None, capsys: pytest.CaptureFixture[str]) -> None:
    from pairtune.progress import say

    say("not this")
    say("this", by_any=True)
    assert capsys.readouterr().err == "this\n"


def test_more_ranks_than_examples_are_refused(second_of_three: None, monkeypatch: pytest.MonkeyPatch) -> None:
    from pairtune.errors import InputError
    from pairtune.settings import Sft
    from pairtune.training.step import enough_for

    monkeypatch.setattr(joining, "_together", object())
    rows = [Tokens((3,), ((4, 1),))] * 8
    enough_for(rows, Sft(batch_size=3))
    with pytest.raises(InputError, match="a step has 2 of the examples and there are 3 ranks; give fewer"):
        enough_for(rows, Sft(batch_size=2))
    with pytest.raises(InputError, match="a step has 2"):
        enough_for(rows[:2], Sft(batch_size=8))
