"""`verify` says what of a run's folder is not what was written; a file is not written over unasked."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pairtune import manifest
from pairtune.cli import main
from pairtune.commands import verify
from pairtune.commands.one_file import result_file
from pairtune.errors import InputError
from pairtune.runs import VerifyRun


@pytest.fixture
def run_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A comparison's folder with two stages, each with a file below it, and files of its own."""
    monkeypatch.chdir(tmp_path)
    for name in ("models/dpo", "stages/pairs"):
        stage = Path("run", name)
        (stage / "left").mkdir(parents=True)
        (stage / "settings.json").write_text("{}")
        (stage / "left/weights").write_text(name)
        manifest.write(stage, {"key": "k"})
    for name in ("plan.yaml", "summary.json", "report.html", "stages/sittings.json"):
        Path("run", name).write_text("{}")
    manifest.seal_run(Path("run"))
    return Path("run")


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


FILES = [
    *("plan.yaml", "summary.json", "report.html", "stages/sittings.json"),
    *("models/dpo/settings.json", "models/dpo/left/weights", "stages/pairs/left/weights"),
]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("how", ["flipped", "cut", "removed"])
def test_each_file_that_is_not_what_was_written_has_a_line(
    name: str, how: str, run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damage: dict[str, Callable[[Path], Any]] = {
        "flipped": flip,
        "cut": lambda path: path.write_bytes(path.read_bytes()[:1]),
        "removed": Path.unlink,
    }
    assert main(["verify", "run"]) == 0
    assert capsys.readouterr() == ("", "11 files looked at: all are as they were written\n")
    damage[how](run_folder / name)
    assert main(["verify", "run"]) == 1
    said = "is gone" if how == "removed" else "is not what was written"
    assert capsys.readouterr().out == f"run/{name} {said}\n"


@pytest.mark.parametrize("name", ["models/dpo", "stages/pairs", ""])
def test_a_damaged_manifest_is_one_trouble(name: str, run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flip(run_folder / name / "result.json")
    assert main(["verify", "run"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{(run_folder / name / 'result.json').as_posix()} is damaged"


def test_what_is_in_no_manifest_is_named_and_what_is_unfinished_said(
    run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run_folder / "models/dpo/left/\x1b[31mnew").write_text("?")
    (run_folder / "notes.txt").write_text("mine")
    unfinished = run_folder / "models/ppo"
    unfinished.mkdir()
    (unfinished / "settings.json").write_text("{}")
    (unfinished / "checkpoint.safetensors").write_text("...")
    assert main(["verify", "run"]) == 1
    found = capsys.readouterr()
    assert found.out.splitlines() == [
        "run/models/dpo/left/\\u001b[31mnew is in no manifest",
        "run/notes.txt is in no manifest",
    ]
    assert "run/models/ppo is unfinished" in found.err


def test_what_is_no_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "result.json").write_text('{"loss": 1}')  # of another program
    assert main(["verify", str(tmp_path)]) == 2
    assert "holds no run of pairtune" in capsys.readouterr().err
    assert main(["verify", str(tmp_path / "none")]) == 2
    assert "is not a folder" in capsys.readouterr().err
    with pytest.raises(InputError):
        verify.run(VerifyRun(folder=str(tmp_path / "result.json")))


# ---- files that are asked for ---------------------------------------------------------------------------------------


@pytest.fixture
def inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """pairs.jsonl by several names, a folder of data, and a file of somebody's own."""
    monkeypatch.chdir(tmp_path)
    row = {"prompt": "p", "chosen": " c", "rejected": " r"}
    Path("pairs.jsonl").write_text(json.dumps(row) + "\n")
    Path("rows.py").write_text("def rows(): return []\n")
    Path("folder").mkdir()
    shutil.copy("pairs.jsonl", "folder/part.jsonl")
    Path("link").symlink_to("pairs.jsonl")
    Path("other").symlink_to("folder")
    os.link("pairs.jsonl", "same.jsonl")
    return tmp_path


@pytest.mark.parametrize(
    ("given", "out"),
    [
        ("pairs.jsonl", "pairs.jsonl"),
        ("pairs.jsonl", "./pairs.jsonl"),
        ("pairs.jsonl", "folder/../pairs.jsonl"),
        ("pairs.jsonl", "link"),
        ("link", "pairs.jsonl"),
        ("pairs.jsonl", "same.jsonl"),
        ("*.jsonl", "pairs.jsonl"),
        ("folder", "folder/part.jsonl"),
        ("folder", "other/part.jsonl"),
        ("rows.py:rows", "rows.py"),
        ("ABSOLUTE", "pairs.jsonl"),
    ],
)
def test_an_input_is_never_written_over(given: str, out: str, inputs: Path) -> None:
    given = str(inputs / "pairs.jsonl") if given == "ABSOLUTE" else given
    for overwrite in (False, True):
        with pytest.raises(InputError, match="is a file that is read here; give another"):
            result_file(out, inputs=["", given], overwrite=overwrite)


def test_a_file_that_exists_is_written_over_only_when_that_is_said(inputs: Path) -> None:
    Path("mine.txt").write_text("mine")
    with pytest.raises(InputError, match=r'fix: "mine.txt" exists; give another, or --overwrite'):
        result_file("mine.txt", inputs=["pairs.jsonl"], overwrite=False, name="fix")
    assert result_file("mine.txt", inputs=["pairs.jsonl", "some/hub-name"], overwrite=True) == Path("mine.txt")
    assert result_file("new.txt", inputs=["folder"], overwrite=False) == Path("new.txt")
    assert result_file("", inputs=[], overwrite=False) is None


@pytest.mark.parametrize(
    "words",
    [
        "generate --model model --data pairs.jsonl --out link",
        "evaluate --model model --reference model --data pairs.jsonl --out ./pairs.jsonl",
        "check pairs.jsonl --fix same.jsonl",
        "check pairs.jsonl --html same.jsonl",
        "check pairs.jsonl --against folder --html folder/part.jsonl",
    ],
)
def test_commands_refuse_their_own_inputs(words: str, inputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("model").mkdir()
    before = Path("pairs.jsonl").read_text()
    assert main([*words.split(), "--overwrite"]) == 2
    assert "is a file that is read here" in capsys.readouterr().err
    assert Path("pairs.jsonl").read_text() == before


def test_fixed_rows_go_over_a_file_when_that_is_said(inputs: Path) -> None:
    Path("good.jsonl").write_text("mine")
    assert main(["check", "pairs.jsonl", "--fix", "good.jsonl"]) == 2
    assert Path("good.jsonl").read_text() == "mine"
    main(["check", "pairs.jsonl", "--fix", "good.jsonl", "--overwrite"])
    assert json.loads(Path("good.jsonl").read_text())["chosen"] == " c"
    assert not list(Path().glob("*.partial"))


def test_what_lies_beside_runs_is_nobodys_business(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder that holds runs and other things is looked at for its runs."""
    run = tmp_path / "runs" / "tune"
    run.mkdir(parents=True)
    (run / "weights").write_text("1 2 3")
    manifest.write(run, {})
    (tmp_path / "notes.txt").write_text("somebody's")
    assert main(["verify", str(tmp_path)]) == 0
    (run / "notes.txt").write_text("somebody's")
    assert main(["verify", str(tmp_path)]) == 1
    assert "runs/tune/notes.txt is in no manifest" in capsys.readouterr().out
