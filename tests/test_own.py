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
from pairtune.data.files import data_hash
from pairtune.data.sources import has_labels, read_pairs, read_prompts
from pairtune.errors import InputError
from pairtune.grid import candidates
from pairtune.objectives import loss as losses
from pairtune.runs import CompareRun, TuneRun
from pairtune.stages import preference

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
    monkeypatch.setattr(losses, "OWN", {})
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
        patched.setattr(preference, "train_preference", interrupt)
        assert main(given) == 130
    written = json.loads(Path("out/settings.json").read_text())
    assert written["hashes"]["losses.py:my_dpo"] == own.sha256("losses.py:my_dpo")
    Path("losses.py").write_text(LOSSES.replace("0.1", "0.2"), encoding="utf-8")
    assert "unfinished run of other settings, data or model (hashes.losses.py:my_dpo)" in fails(*given)
    Path("losses.py").write_text(LOSSES, encoding="utf-8")
    assert main(given) == 0


# ---- rows ---------------------------------------------------------------------------------------------------------

ROWS = """
def rows():
    for i in range(24):
        yield {"prompt": f"Film {i} was", "chosen": " a small wonder, warm", "rejected": " dull and went nowhere"}

def prompts():
    return [{"prompt": f"Film {i} was"} for i in range(3)]
"""


def test_rows_of_ones_own_are_the_rows_of_a_file() -> None:
    Path("data.py").write_text(ROWS, encoding="utf-8")
    assert list(read_pairs("data.py:rows").rows) == list(read_pairs("pairs.jsonl").rows)
    assert [row.prompt for row in read_prompts("data.py:prompts").rows] == [f"Film {i} was" for i in range(3)]
    assert not has_labels("data.py:rows")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def rows(): pass", "data.py:rows: it returned a NoneType; it must give rows"),
        ("def rows(): return [3]", "data.py:rows row 1: a int where a row belongs"),
        ("def rows(): return [{1: 2}]", "data.py:rows row 1: a dict where a row belongs"),
        ("def rows(): return []", "data.py:rows: there are no rows in it"),
        ("def rows(path): return []", "data.py:rows failed: TypeError"),
        (
            "def rows():\n  yield {'prompt': 'a', 'chosen': 'b', 'rejected': 'c'}\n  1 / 0",
            "rows failed at line 3: ZeroD",
        ),
        ("def rows(): return [{'prompt': 'a', 'chosen': 'b'}]", "data.py:rows row 1:"),
        ("def rows(): return [{'prompt': 'a', 'chosen': 'b', 'rejected': ''}]", "data.py:rows row 1:"),
    ],
)
def test_rows_that_are_none_are_one_line(text: str, said: str) -> None:
    Path("data.py").write_text(text, encoding="utf-8")
    with pytest.raises(InputError) as caught:
        read_pairs("data.py:rows")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_commands_take_rows_and_know_them_by_what_they_are(model: str, fails: Callable[..., str]) -> None:
    Path("data.py").write_text(ROWS, encoding="utf-8")
    assert '"dat.py" does not exist; did you mean "data.py"?' in fails("tune", "--data", "dat.py:rows")
    out = pairtune.tune(model=model, data="data.py:rows", dtype="float32", heldout=4)
    before = json.loads((out / "settings.json").read_text())["hashes"]["data"]
    assert json.loads((out / "result.json").read_text())["pairs"] == 20
    assert data_hash("data.py:rows") == before
    Path("data.py").write_text(f"# other words, the same rows\n{ROWS}", encoding="utf-8")
    assert data_hash("data.py:rows") == before
    Path("data.py").write_text(ROWS.replace("warm", "cold"), encoding="utf-8")
    assert data_hash("data.py:rows") != before


# ---- rewards ------------------------------------------------------------------------------------------------------

SCORE = """
def score(prompts, answers):
    assert all(prompt.startswith("Film") for prompt in prompts)
    return [-abs(len(answer) - 10) / 5 for answer in answers]
"""


def test_ppo_and_evaluate_take_a_reward_of_ones_own(model: str) -> None:
    Path("mine.py").write_text(SCORE, encoding="utf-8")
    given = {"model": model, "reward_model": "mine.py:score", "data": "pairs.jsonl", "dtype": "float32"}
    out = pairtune.ppo(**given, steps=2, batch_size=6, sampling_max_new_tokens=6)
    rows = [json.loads(line) for line in (out / "records.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2]
    assert all(-20 < row["reward"] <= 0 for row in rows)
    assert json.loads((out / "settings.json").read_text())["hashes"]["mine.py:score"] == own.sha256("mine.py:score")
    few = {"prompts": 8, "sampling_max_new_tokens": 6}
    figures = pairtune.evaluate(**given | {"model": out, "reference": model}, **few)
    assert figures["reward_model_score"]["n"] == 8
    assert -20 < figures["reward_model_score"]["mean"] <= 0


def test_a_comparison_takes_a_judge_of_ones_own(model: str) -> None:
    """It scores every arm's answers, and how often it prefers the chosen ones is told as of any judge."""
    Path("mine.py").write_text(
        "def score(prompts, answers): return [float(len(answer)) for answer in answers]\n", encoding="utf-8"
    )
    out = pairtune.compare(
        model=model, data="pairs.jsonl", judge="mine.py:score", methods=["losses.py:my_dpo"], dtype="float32",
        heldout=6, sampling_max_new_tokens=4, evaluation_prompts=6, evaluation_curve_points=0, out="out",
    )  # fmt: skip
    summary = json.loads((out / "summary.json").read_text())
    assert summary["gold_scorer"]["heldout_accuracy"]["mean"] == 0  # the chosen ones are shorter
    assert set(summary["arms"]) == {"reference", "losses.py:my_dpo"}
    assert (out / "models" / "losses.py:my_dpo" / "model.safetensors").is_file()
    assert not (out / "models" / "judge").exists()


def test_a_reward_that_is_not_there_is_told_before_anything_is_loaded(
    fails: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("mine.py").write_text(SCORE, encoding="utf-8")
    monkeypatch.setattr("pairtune.commands.compare.compare", None)
    near = '"mien.py" does not exist; did you mean "mine.py"?'
    assert near in fails("ppo", "--reward-model", "mien.py:score", "--data", "pairs.jsonl")
    assert near in fails("evaluate", "--reward-model", "mien.py:score", "--data", "pairs.jsonl")
    assert near in fails("compare", "--judge", "mien.py:score", "--data", "pairs.jsonl")
    assert 'no function "scor"' in fails("compare", "--judge", "mine.py:scor", "--data", "pairs.jsonl")
    assert '"./jduge" does not exist' in fails("compare", "--judge", "./jduge", "--data", "pairs.jsonl")
