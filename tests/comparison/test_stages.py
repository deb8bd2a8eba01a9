"""Stages are kept by content, redone when what they depend on changed, and gone on with when they were interrupted."""

import json
from pathlib import Path
from typing import Any

import pytest

from pairtune.comparison.stages import Stages, content_key


class Chain:
    """Two stages, the second depending on the first, and what was done."""

    def __init__(self, folder: Path) -> None:
        self.stages, self.done = Stages(folder), []  # type: ignore[var-annotated]

    def run(self, first: int, second: int) -> dict[str, Any]:
        def work(name: str, fact: int) -> Any:
            def do(folder: Path) -> dict[str, Any]:
                self.done.append(name)
                return {"fact": fact}

            return do

        a = self.stages.run("a", {"x": first}, work("a", first), title="first")
        return self.stages.run("b", {"a": a.key, "y": second}, work("b", first + second), title="second").facts


def test_the_same_inputs_are_worked_on_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chain = Chain(tmp_path)
    assert chain.run(1, 2) == {"fact": 3}
    assert Chain(tmp_path).run(1, 2) == {"fact": 3}
    assert chain.run(1, 2) == {"fact": 3}
    assert chain.done == ["a", "b"]
    assert "first: kept from an earlier run" in capsys.readouterr().err


def test_a_changed_input_redoes_its_stage_and_what_depends_on_it(tmp_path: Path) -> None:
    chain = Chain(tmp_path)
    chain.run(1, 2)
    chain.run(1, 5)
    assert chain.done == ["a", "b", "b"]
    assert chain.run(4, 5) == {"fact": 9}
    assert chain.done == ["a", "b", "b", "a", "b"]


def test_an_interrupted_stage_finds_its_folder_as_it_was_left(tmp_path: Path) -> None:
    def stopped(folder: Path) -> dict[str, Any]:
        (folder / "half").write_text("done")
        raise KeyboardInterrupt

    stages = Stages(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        stages.run("a", {"x": 1}, stopped, title="first")
    assert not stages.finished("a")
    found = stages.run("a", {"x": 1}, lambda folder: {"half": (folder / "half").read_text()}, title="first")
    assert found.facts == {"half": "done"}


def test_a_stage_interrupted_under_other_inputs_starts_from_nothing(tmp_path: Path) -> None:
    def stopped(folder: Path) -> dict[str, Any]:
        (folder / "half").write_text("done")
        raise KeyboardInterrupt

    stages = Stages(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        stages.run("a", {"x": 1}, stopped, title="first")
    found = stages.run("a", {"x": 2}, lambda folder: {"half": (folder / "half").exists()}, title="first")
    assert found.facts == {"half": False}


@pytest.mark.parametrize("damage", ["", "{", "[]", "{}", '{"key": "other"}', None])
def test_a_damaged_result_is_redone(damage: str | None, tmp_path: Path) -> None:
    chain = Chain(tmp_path)
    chain.run(1, 2)
    path = tmp_path / "b" / "result.json"
    if damage is None:
        path.unlink()
    elif damage == "{}":
        path.write_text(json.dumps({"key": json.loads(path.read_text())["key"]}))  # its facts are missing
    else:
        path.write_text(damage)
    chain.stages.kept("b", {})  # asking beforehand changes nothing
    assert chain.run(1, 2) == {"fact": 3}
    assert chain.done == ["a", "b", "b"]


def test_a_result_whose_model_is_gone_is_redone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    leaves, done = tmp_path / "models" / "a", []

    def work(_: Path) -> dict[str, Any]:
        leaves.mkdir(parents=True)
        done.append(1)
        return {}

    stages = Stages(tmp_path / "stages")
    for _ in range(2):
        stages.run("a", {}, work, title="first", leaves=leaves)
    leaves.rmdir()
    stages.run("a", {}, work, title="first", leaves=leaves)
    assert len(done) == 2
    assert "is gone; doing the stage again" in capsys.readouterr().err


def test_keys_do_not_depend_on_the_order_of_inputs_but_on_every_value() -> None:
    assert content_key({"a": 1, "b": [2]}) == content_key({"b": [2], "a": 1})
    assert content_key({"a": 1, "b": [2]}) != content_key({"a": 1, "b": [2.5]})


def test_a_stage_may_tell_its_own_cost(tmp_path: Path) -> None:
    cost = {"seconds": 7.0, "tokens": 3, "flops": 2.0, "peak_memory_bytes": 1}
    done = Stages(tmp_path).run("a", {}, lambda _: {"cost": dict(cost)}, title="first")
    assert done.cost.to_json() == cost
    assert "cost" not in done.facts
