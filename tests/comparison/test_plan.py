"""The plan is on disk before anything runs; another plan's folder is refused, a changed setting is announced."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import yaml

from pairtune.comparison.plan import check_disk, open_run, write_environment
from pairtune.errors import InputError
from pairtune.runs import CompareRun
from pairtune.settings_list import to_mapping

Tiny = Callable[..., CompareRun]


def begun(settings: CompareRun) -> Path:
    """A run's folder in which a stage was begun."""
    out = open_run(settings)
    (out / "stages").mkdir()
    return out


def test_the_plan_holds_every_setting(tiny_run: Tiny) -> None:
    settings = tiny_run()
    assert yaml.safe_load((open_run(settings) / "plan.yaml").read_text()) == to_mapping(settings)


@pytest.mark.parametrize("name", ["model", "data"])
def test_another_plan_is_refused(name: str, tiny_run: Tiny) -> None:
    begun(tiny_run())
    with pytest.raises(InputError, match=rf"holds another plan \({name} "):
        open_run(dataclasses.replace(tiny_run(), **{name: "other"}))


def test_a_plan_under_which_nothing_was_done_may_be_replaced(tiny_run: Tiny) -> None:
    out = open_run(dataclasses.replace(tiny_run(), model="typo"))
    open_run(tiny_run())
    assert yaml.safe_load((out / "plan.yaml").read_text())["model"] == tiny_run().model


def test_a_run_of_the_old_layout_is_neither_read_nor_written_over(tiny_run: Tiny) -> None:
    old = begun(tiny_run()) / "stages" / "gold"
    old.mkdir()
    (old / "key").write_text("0")
    with pytest.raises(InputError, match="holds a run of an earlier version of pairtune; give another --out"):
        open_run(tiny_run())


def test_a_changed_setting_is_announced(tiny_run: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    begun(tiny_run())
    open_run(tiny_run())
    assert capsys.readouterr().err == ""
    open_run(tiny_run(ppo_steps=3))
    assert "plan: changed ppo.steps 2 -> 3; what depends on it is done again" in capsys.readouterr().err


def test_a_damaged_plan_is_told(tiny_run: Tiny) -> None:
    (begun(tiny_run()) / "plan.yaml").write_text("model: [")
    with pytest.raises(InputError, match="is not YAML"):
        open_run(tiny_run())


def test_environment(tiny_run: Tiny, cpu: Any) -> None:
    out = open_run(tiny_run())
    write_environment(out, tiny_run(), cpu, {"model": "abc"})
    found = json.loads((out / "environment.json").read_text())
    assert set(found) == {"versions", "machine", "hashes", "seed", "candidates"}
    assert found["candidates"] == {"dpo": {"beta": 0.5}, "ipo": {"beta": 0.1}, "ppo": {"kl_coefficient": 0.05}}
    assert found["versions"]["torch"] != "not installed"
    assert found["hashes"] == {"model": "abc"}


@pytest.mark.parametrize(("free", "enough"), [(1000 * (3 * 2 + 2 * 36), True), (1000 * (3 * 2 + 2 * 36) - 1, False)])
def test_room_for_models_and_checkpoints(
    free: int, enough: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=free))
    expected = nullcontext() if enough else pytest.raises(InputError, match="GB free and this run needs about")
    with expected:
        check_disk(tmp_path, 1000, value_bytes=2, models=3, learning=2)


def test_models_of_an_earlier_plan_are_told(tiny_run: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    out = begun(tiny_run(methods=["dpo", "ipo"]))
    for name in ("reference", "reward", "judge", "dpo", "ipo"):
        (out / "models" / name).mkdir(parents=True)
    open_run(tiny_run(methods=["dpo", "ipo"]))
    assert "no longer asked for" not in capsys.readouterr().err
    open_run(tiny_run(methods=["dpo"], beta=[0.1, 0.3]))
    assert f"no part of summary and report: dpo, ipo in {out / 'models'}" in capsys.readouterr().err
