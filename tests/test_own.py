"""A person's own functions where commands take a name: the same words and checks, one line where they fail."""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import pairtune
from pairtune import own
from pairtune.cli import main
from pairtune.commands import compare, tune
from pairtune.configure import settings_from_keywords
from pairtune.errors import InputError
from pairtune.grid import candidates
from pairtune.objectives import mixture
from pairtune.settings import CompareRun, TuneRun

LOSSES = '''
def my_dpo(chosen_logratio_B, rejected_logratio_B, *, beta: float = 0.1, shift: float = 0.0):
    """DPO, and a shift.

    shift: what the margin must be ahead by
    """
    margin_B = beta * (chosen_logratio_B - rejected_logratio_B) - shift
    return (-margin_B).logaddexp(0 * margin_B)
'''


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Any) -> str:
    return str(tiny_folder(tmp_path_factory.mktemp("models")))


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A fresh folder with pairs and losses in it, and nothing left behind of what a test loads."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(mixture, "OWN", {})
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    Path("losses.py").write_text(LOSSES, encoding="utf-8")
    rows = [
        {"prompt": f"Film {i} was", "chosen": " a small wonder, warm", "rejected": " dull and went nowhere"}
        for i in range(24)
    ]
    Path("pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    yield
    for name in set(sys.modules) - before:
        if (getattr(sys.modules[name], "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.fixture
def fails(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """fails(*words): the one line that a command ends with."""

    def run(*words: str) -> str:
        capsys.readouterr()
        assert main(list(words)) == 2
        lines = capsys.readouterr().err.splitlines()
        assert [line.startswith("pairtune: ") for line in lines].count(True) == 1
        return lines[-1]

    return run


# ---- objectives ---------------------------------------------------------------------------------------------------


def test_an_objective_of_ones_own_trains_as_the_catalogues_does(model: str) -> None:
    given = {"model": model, "data": "pairs.jsonl", "dtype": "float32", "beta": 0.3, "learning_rate": 1e-3}
    theirs = pairtune.tune(**given, objective="losses.py:my_dpo", out="theirs")
    ours = pairtune.tune(**given, objective="dpo", out="ours")
    losses = [
        [json.loads(line)["loss"] for line in (folder / "records.jsonl").read_text().splitlines()]
        for folder in (theirs, ours)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert losses[0][-1] < losses[0][0]


def test_flags_files_and_keywords_take_its_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[TuneRun] = []
    monkeypatch.setattr(tune, "run", seen.append)
    Path("run.yaml").write_text("objective: losses.py:my_dpo\nshift: 0.25\n", encoding="utf-8")
    main(["tune", "--objective", "losses.py:my_dpo", "--shift", "0.25"])
    main(["tune", "--config", "run.yaml"])
    pairtune.tune(objective="losses.py:my_dpo", shift=0.25)
    assert seen[0] == seen[1] == seen[2]
    assert seen[0].preference.parameters == {"shift": 0.25}


def test_a_comparison_tries_its_values_and_names_it_by_its_file(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[CompareRun] = []
    monkeypatch.setattr(compare, "run", seen.append)
    Path("deep").mkdir()
    Path("losses.py").rename("deep/losses.py")
    name = f"{Path('deep/losses.py').resolve()}:my_dpo"
    main(["compare", "--methods", "dpo", name, f"{name}+0.2*sft", "--beta", "0.3", f"{name}=0.5", "--shift", "1", "2"])
    methods = ["dpo", name, f"{name}+0.2*sft"]
    pairtune.compare(methods=methods, beta=[0.3, f"{name}=0.5"], shift=[1, 2])
    assert seen[0] == seen[1]
    assert {each.name: each.parameters for several in candidates(seen[0]).values() for each in several} == {
        "dpo": {"beta": 0.3},
        "losses.py:my_dpo@shift=1": {"beta": 0.5, "shift": 1.0},
        "losses.py:my_dpo@shift=2": {"beta": 0.5, "shift": 2.0},
        "losses.py:my_dpo+0.2*sft@shift=1": {"beta": 0.3, "shift": 1.0},
        "losses.py:my_dpo+0.2*sft@shift=2": {"beta": 0.3, "shift": 2.0},
    }


def test_its_help_is_beside_the_catalogues(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["tune", "--objective", "losses.py:my_dpo", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "--shift N what the margin must be ahead by [losses.py:my_dpo: 0]" in text
    assert "its own parameter [losses.py:my_dpo: 0.1]" in text  # of beta it says nothing


def test_what_is_wrong_with_it_is_told_before_anything_is_read(fails: Callable[..., str]) -> None:
    for command, flag in (("tune", "--objective"), ("compare", "--methods")):
        assert '"lossse.py" does not exist; did you mean "losses.py"?' in fails(command, flag, "lossse.py:my_dpo")
        assert 'no function "my_dop"; did you mean "my_dpo"?' in fails(command, flag, "losses.py:my_dop")
        assert 'has no flag --shfit; did you mean "--shift"?' in fails(
            command, flag, "losses.py:my_dpo", "--shfit", "1"
        )
        assert '--shift is "x"; it must be a number' in fails(command, flag, "losses.py:my_dpo", "--shift", "x")
    said = fails("tune", "--objective", "losses.py:my_dpo", "--gamma", "1")
    assert 'losses.py:my_dpo has no parameter "gamma"; its parameters are beta, shift' in said
    Path("losses.py").write_text(LOSSES.replace("shift", "epochs"), encoding="utf-8")
    assert '"epochs" is a setting already' in fails("tune", "--objective", "losses.py:my_dpo")


def test_two_files_of_one_name_are_not_one_arm() -> None:
    for folder in ("a", "b"):
        Path(folder).mkdir()
        Path(folder, "losses.py").write_text(LOSSES, encoding="utf-8")
    with pytest.raises(InputError, match="have one name; results are told apart by it"):
        settings_from_keywords(CompareRun, {"methods": ["a/losses.py:my_dpo", "b/losses.py:my_dpo"]})


def test_a_changed_function_is_another_run(
    model: str, fails: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    given = ["tune", "--model", model, "--data", "pairs.jsonl", "--dtype", "float32", "--out", "out"]
    given += ["--objective", "losses.py:my_dpo"]
    with monkeypatch.context() as patched:
        patched.setattr(tune, "train_preference", interrupt)
        assert main(given) == 130
    written = json.loads(Path("out/settings.json").read_text())
    assert written["hashes"]["losses.py:my_dpo"] == own.sha256("losses.py:my_dpo")
    Path("losses.py").write_text(LOSSES.replace("0.1", "0.2"), encoding="utf-8")
    assert "unfinished run of other settings, data or model (hashes.losses.py:my_dpo)" in fails(*given)
    Path("losses.py").write_text(LOSSES, encoding="utf-8")
    assert main(given) == 0
