"""Two ranks learn what one does: every objective, SFT and the reward model; what becomes of a rank that fails."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.training import ranks

SCRIPT = Path(ranks.__file__)
ROOT = SCRIPT.parents[2]


def run(number: int, folder: Path, *words: str) -> tuple[int, str]:
    """The script on so many ranks: its exit code, and what was printed."""
    environment = os.environ | {"PAIRTUNE_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT / "src"), environment.get("PYTHONPATH", ""))))
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(number)] if number > 1 else []
    done = subprocess.run(
        [sys.executable, *launcher, str(SCRIPT), *words], env=environment, capture_output=True, text=True, timeout=200
    )
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Folders of what one rank and what two have left."""
    folders = {}
    for number in (1, 2):
        folders[number] = tmp_path_factory.mktemp(f"ranks-{number}")
        code, printed = run(number, folders[number], "main", str(folders[number]))
        assert code == 0, printed
    return folders


def distance(first: Path, second: Path) -> float:
    """The largest relative distance of losses, or of all weights, between two trainings."""
    one, other = load_file(first), load_file(second)
    assert one.keys() == other.keys()
    losses = (one.pop("losses"), other.pop("losses"))
    weights = tuple(torch.cat([value.double().flatten() for value in each.values()]) for each in (one, other))
    return max(float((a - b).norm() / a.norm()) for a, b in (losses, weights))


@pytest.mark.parametrize("name", list(ranks.trainings()))
def test_two_ranks_learn_what_one_does(name: str, both: dict[int, Path]) -> None:
    assert distance(*(both[number] / f"{name}.safetensors" for number in (1, 2))) < 1e-5


@pytest.mark.parametrize(("began", "ends"), [(1, 2), (2, 1)])
def test_what_was_stopped_goes_on_with_another_number_of_ranks(
    began: int, ends: int, both: dict[int, Path], tmp_path: Path
) -> None:
    shutil.copytree(both[began] / "stopped", tmp_path / "stopped")
    code, printed = run(ends, tmp_path, "go-on", str(tmp_path), str(tmp_path / "out.safetensors"))
    assert code == 0, printed
    assert "going on at step 3" in printed
    assert distance(both[1] / "bco.safetensors", tmp_path / "out.safetensors") < 1e-5
