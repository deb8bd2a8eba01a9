"""`pairtune report`: page, table and picture again, from a run's records, without a model."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from pairtune.cli import main
from pairtune.report import page, plots


def test_a_page_is_drawn_again_from_records_alone(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = page.write(run_dir).read_bytes()
    (run_dir / page.REPORT).unlink()
    records = {path: path.read_bytes() for path in run_dir.iterdir()}
    assert main(["report", str(run_dir)]) == 0
    assert (run_dir / page.REPORT).read_bytes() == before
    assert {path: path.read_bytes() for path in records} == records, "it only reads them"
    said = capsys.readouterr()
    assert "Both beat the reference." in said.out
    assert f"report: {run_dir / page.REPORT}" in said.err


@pytest.mark.parametrize(("folder", "draw"), [("run_dir", "learning_curves_png"), ("grid_dir", "grid_png")])
def test_the_picture_is_that_of_the_run(
    folder: str, draw: str, request: pytest.FixtureRequest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = request.getfixturevalue(folder)
    getattr(plots, draw)(run, tmp_path / "expected.png")
    assert main(["report", str(run), "--figure", str(tmp_path / "new" / "picture.png")]) == 0
    assert (tmp_path / "new" / "picture.png").read_bytes() == (tmp_path / "expected.png").read_bytes()
    assert "picture.png" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere"], "nowhere is not a run directory"),
        (["."], "holds no summary.json: the run has not finished, or this is not a run"),
        ([".", "--figure", "picture.svg"], 'figure: "picture.svg" must end in .png'),
        ([], "DIR"),
    ],
)
def test_what_is_no_finished_run_is_one_plain_line(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["report", *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
    assert list(tmp_path.iterdir()) == []


def test_no_model_code_is_loaded(run_dir: Path) -> None:
    code = (
        "import sys; from pairtune.cli import main; code = main(['report', sys.argv[1]]);"
        "assert not {'torch', 'transformers'} & set(sys.modules); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(run_dir)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^report: ", done.stderr, re.MULTILINE)
