"""A stage is done once for what it rests on, gone on with where it was interrupted, made again where it is damaged."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pairtune import manifest
from pairtune.comparison.context import Context
from pairtune.comparison.sittings import Sittings
from pairtune.engine.cost import Cost
from pairtune.errors import InputError
from pairtune.models.load import resolve
from pairtune.stages import stage as stage_module
from pairtune.stages.stage import Done, Stage


class Chain(Context):
    """Two stages, the second resting on the first, in a comparison's way, and what was done."""

    def __init__(self, out: Path) -> None:
        self.out, self.sittings, self.worked = out, Sittings(), []  # type: ignore[var-annotated]

    def run(self, first: int, second: int) -> dict[str, Any]:
        def of(name: str, rests_on: dict[str, Any], fact: int) -> Done:
            def work(folder: Path) -> dict[str, Any]:
                self.worked.append(name)
                (folder / "left").mkdir(exist_ok=True)
                (folder / "left" / "weights").write_text(str(fact))
                return {"fact": fact}

            return self.done(self.stage(name, rests_on), work, title=name)

        a = of("a", {"x": first}, first)
        return of("b", {"a": a.key, "y": second}, first + second).facts


def test_the_same_is_worked_on_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chain = Chain(tmp_path)
    assert chain.run(1, 2) == {"fact": 3}
    assert Chain(tmp_path).run(1, 2) == {"fact": 3}
    assert chain.run(1, 2) == {"fact": 3}
    assert chain.worked == ["a", "b"]
    assert "a: kept from an earlier run" in capsys.readouterr().err


def test_what_rests_on_something_changed_is_done_again(tmp_path: Path) -> None:
    chain = Chain(tmp_path)
    chain.run(1, 2)
    chain.run(1, 5)
    assert chain.worked == ["a", "b", "b"]
    assert chain.run(4, 5) == {"fact": 9}
    assert chain.worked == ["a", "b", "b", "a", "b"]


@pytest.mark.parametrize("version", ["engine_version", "STAGES_VERSION"])
def test_another_version_of_what_computes_does_it_again(
    version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain = Chain(tmp_path)
    chain.run(1, 2)
    monkeypatch.setattr(stage_module, version, (lambda: "another") if version == "engine_version" else 99)
    chain.run(1, 2)
    assert chain.worked == ["a", "b", "a", "b"]


def stopped(folder: Path) -> dict[str, Any]:
    (folder / "half").write_text("done")
    raise KeyboardInterrupt


@pytest.mark.parametrize(("then", "found"), [(1, "done"), (2, "nothing")])
def test_an_interrupted_stage_is_found_as_it_was_left_unless_it_is_another(
    then: int, found: str, tmp_path: Path
) -> None:
    def work(folder: Path) -> dict[str, Any]:
        return {"half": (folder / "half").read_text() if (folder / "half").exists() else "nothing"}

    chain = Chain(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        chain.done(chain.stage("a", {"x": 1}), stopped, title="a")
    assert chain.stage("a", {"x": 1}).finished() is None
    assert chain.done(chain.stage("a", {"x": then}), work, title="a").facts == {"half": found}


Damage = Callable[[Path], Any]
DAMAGES: dict[str, tuple[str, Damage]] = {
    "a file's byte": ("left/weights is not what was written", lambda b: (b / "left" / "weights").write_text("4")),
    "a file cut": ("left/weights is not what was written", lambda b: (b / "left" / "weights").write_text("")),
    "a file gone": ("left/weights is gone", lambda b: (b / "left" / "weights").unlink()),
    "settings": ("settings.json is not what was written", lambda b: (b / "settings.json").write_text("{}")),
    "a fact": ("result.json is damaged", lambda b: edit(b / "result.json", '"fact": 3', '"fact": 4')),
    "the key": ("result.json is damaged", lambda b: edit(b / "result.json", '"key": "', '"key": "0')),
    "result cut": ("result.json is damaged", lambda b: edit(b / "result.json", "}\n", "")),
    "result empty": ("result.json is damaged", lambda b: (b / "result.json").write_text("")),
    "result garbage": ("result.json is damaged", lambda b: (b / "result.json").write_bytes(b"\xff\xfe")),
}


def edit(path: Path, before: str, after: str) -> None:
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))


@pytest.mark.parametrize("damage", list(DAMAGES))
def test_a_damaged_result_is_named_once_and_made_again(
    damage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chain = Chain(tmp_path)
    chain.run(1, 2)
    folder = tmp_path / "stages" / "b"
    said, do = DAMAGES[damage]
    do(folder)
    assert manifest.damage(folder) == said
    assert chain.run(1, 2) == {"fact": 3}
    assert chain.worked == ["a", "b", "b"]
    assert capsys.readouterr().err.count(said) == 1
    assert manifest.damage(folder) == ""
    chain.run(1, 2)
    assert chain.worked == ["a", "b", "b"]


def test_a_result_that_is_gone_is_made_again(tmp_path: Path) -> None:
    chain = Chain(tmp_path)
    chain.run(1, 2)
    (tmp_path / "stages" / "b" / "result.json").unlink()
    chain.run(1, 2)
    assert chain.worked == ["a", "b", "b"]


def test_a_result_that_stopped_before_its_manifest_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is written last: what a crash before it leaves is no result."""
    chain = Chain(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(manifest, "write", lambda *_, **__: stopped(tmp_path))
        with pytest.raises(KeyboardInterrupt):
            chain.run(1, 2)
    assert chain.run(1, 2) == {"fact": 3}
    assert chain.worked == ["a", "a", "b"]


def test_what_others_lay_beside_it_is_no_damage(tmp_path: Path) -> None:
    stage = Stage(tmp_path, {})
    stage.run(lambda _: {})
    (tmp_path / "notes.txt").write_text("mine")
    assert stage.finished()


def test_keys_do_not_depend_on_the_order_but_on_every_value(tmp_path: Path) -> None:
    def key(**rests_on: Any) -> str:
        return Stage(tmp_path, rests_on).key

    assert key(a=1, b=(2,)) == key(b=[2], a=1)
    assert key(a=1, b=[2]) != key(a=1, b=[2.5])


def test_a_stage_may_tell_its_own_cost(tmp_path: Path) -> None:
    cost = {"seconds": 7.0, "tokens": 3, "flops": 2.0, "peak_memory_bytes": 1}
    done = Stage(tmp_path, {}).run(lambda _: {"cost": dict(cost)})
    assert done.cost.to_json() == cost
    assert "cost" not in done.facts


def test_what_preparing_it_cost_counts_too(tmp_path: Path) -> None:
    stage = Stage(tmp_path, {})
    done = stage.run(lambda _: {}, spent=Cost(seconds=100.0, tokens=7))
    assert (done.cost.tokens, int(done.cost.seconds)) == (7, 100)
    again = stage.finished()
    assert again is not None
    assert again.cost == done.cost


def test_a_damaged_model_is_not_loaded(tmp_path: Path, tiny_folder: Any) -> None:
    folder = tiny_folder(tmp_path)
    assert resolve(str(folder)) == str(folder)
    manifest.write(folder, {})
    assert resolve(str(folder)) == str(folder)
    weights = folder / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(InputError, match=r"is damaged \(model.safetensors is not what was written\); make it again"):
        resolve(str(folder))
    (folder / "result.json").write_text(json.dumps({"loss": 1.0}))  # of another program: nothing is known
    assert resolve(str(folder)) == str(folder)
