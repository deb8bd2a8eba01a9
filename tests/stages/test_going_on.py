"""Whose work lies in a folder, and going on with it: damaged settings, other settings, a folder that another has."""

import fcntl
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pairtune import manifest
from pairtune.errors import InputError
from pairtune.holding import held
from pairtune.stages.stage import Stage
from pairtune.training.checkpoint import Journal
from pairtune.training.loop import run_steps
from pairtune.training.step import Optimizer

RESTS_ON = {"command": "tune", "seed": 1, "preference": {"objective": "dpo", "learning_rate": 0.1}, "lora": False}


def other(**preference: Any) -> dict[str, Any]:
    return {**RESTS_ON, "preference": {**RESTS_ON["preference"], **preference}}  # type: ignore[dict-item]


def training(done: list[int], *, stop: int = 0, steps: int = 4) -> Callable[[Path], dict[str, Any]]:
    """The work of a stage: steps that are noted, each kept; Ctrl-C after one of them."""

    def work(folder: Path) -> dict[str, Any]:
        layer = nn.Linear(2, 2)
        optimizer = Optimizer(layer.parameters())

        def step(number: int) -> dict[str, float]:
            done.append(number)
            layer(torch.ones(1, 2)).sum().backward()
            optimizer.step(learning_rate=0.1, max_gradient_norm=1.0)
            if number == stop:
                raise KeyboardInterrupt
            return {"loss": 1.0, "gradient_norm": 1.0}

        journal = Journal("dpo", folder, every=1e-9)
        run_steps(steps, step, {"": optimizer}, {}, journal=journal, note=lambda figures: "", measure=None)
        return journal.end()

    return work


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    """A stage's folder, stopped in its third step, the second kept."""
    with pytest.raises(KeyboardInterrupt):
        Stage(tmp_path / "out", RESTS_ON).run(training([], stop=3))
    return tmp_path / "out"


@pytest.mark.parametrize("damage", ["flipped", "cut", "emptied", "removed"])
def test_settings_that_are_damaged_are_known_by_the_checkpoint(
    damage: str, begun: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, done = begun / "settings.json", list[int]()
    before = path.read_text()
    if damage == "removed":
        path.unlink()
    else:
        path.write_text({"flipped": before.replace("seed", "sead"), "cut": before[:30], "emptied": ""}[damage])
    assert Stage(begun, RESTS_ON).changed() == []
    assert Stage(begun, other(learning_rate=0.2)).changed(), "of other settings it is not"
    capsys.readouterr()
    Stage(begun, RESTS_ON).run(training(done))
    assert done == [3, 4]
    assert path.read_text() == before
    assert "settings.json is not what was written" in capsys.readouterr().err


def test_a_folder_goes_on_under_other_settings_if_that_is_asked_for_and_says_so(
    begun: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done = list[int]()
    stage = Stage(begun, other(learning_rate=0.2)).going_on()
    said = capsys.readouterr().err
    assert "preference.learning_rate: 0.1 before, 0.2 from here on" in said
    assert "seed" not in said, "what is the same is not told"
    with pytest.raises(KeyboardInterrupt):
        stage.run(training(done, stop=3))
    assert done == [3]
    assert "settings.json is not what was written" not in capsys.readouterr().err
    again = Stage(begun, other(learning_rate=0.2)).going_on()  # the same command once more
    assert again.settings == stage.settings
    again.run(training(done))
    assert done == [3, 3, 4]
    (went_on,) = json.loads((begun / "result.json").read_text())["went_on"]
    assert went_on["otherwise"] == {"preference.learning_rate": [0.1, 0.2]}
    found = manifest.read(begun)
    assert found
    assert found["key"] not in (Stage(begun, RESTS_ON).key, Stage(begun, other(learning_rate=0.2)).key)


def test_without_being_asked_it_is_another_runs(begun: Path) -> None:
    assert Stage(begun, other(learning_rate=0.2)).changed() == ["preference.learning_rate"]


def test_nothing_is_to_be_said_where_nothing_differs(begun: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert Stage(begun, RESTS_ON).going_on().settings == Stage(begun, RESTS_ON).settings
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("rests_on", "said"),
    [(other(objective="ipo"), "another preference.objective"), ({**RESTS_ON, "lora": True}, "lora")],
)
def test_work_of_another_kind_is_not_gone_on_with(rests_on: dict[str, Any], said: str, begun: Path) -> None:
    with pytest.raises(InputError, match=said):
        Stage(begun, rests_on).going_on()


def test_what_it_was_begun_with_has_to_be_known(begun: Path) -> None:
    (begun / "settings.json").write_text("{")
    with pytest.raises(InputError, match="cannot be read"):
        Stage(begun, other(learning_rate=0.2)).going_on()


def test_a_checkpoint_beyond_the_end_is_not_gone_on_with(begun: Path) -> None:
    with pytest.raises(InputError, match="of step 2, and this training has 1"):
        Stage(begun, RESTS_ON).run(training([], steps=1))


def test_a_model_of_other_shapes_is_one_line() -> None:
    small, large = (Optimizer(nn.Linear(2, size).parameters()) for size in (2, 3))
    with pytest.raises(InputError, match="of other shapes"):
        small.load_state(large.state())


def test_the_second_run_in_a_folder_says_who_has_it(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    other_run = os.open(tmp_path / "run", os.O_RDONLY)
    fcntl.flock(other_run, fcntl.LOCK_EX)
    with (
        pytest.raises(InputError, match=rf"another run \(process {os.getpid()}\) is writing to"),
        held(tmp_path / "run"),
    ):
        pass
    os.close(other_run)
    with held(tmp_path / "run"):
        pass
    with held(tmp_path / "new" / "run"):
        assert (tmp_path / "new" / "run").is_dir()
    assert not (tmp_path / "new").exists(), "nothing was written in it"
