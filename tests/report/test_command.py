"""`pairtune report`: page, table and picture again, from a run's records, without a model."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from pairtune import manifest
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


@pytest.mark.parametrize("name", ["summary.json", "records.jsonl", "samples.jsonl", "result.json"])
def test_nothing_is_shown_of_records_that_are_damaged(
    name: str, run_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page.write(run_dir)
    manifest.seal_run(run_dir)
    assert main(["report", str(run_dir)]) == 0
    assert "nothing says" not in capsys.readouterr().err
    content = (run_dir / name).read_text(encoding="utf-8")
    digit = next(each for each in re.finditer(r"[1-8]", content)).start()  # a figure, still a figure
    (run_dir / name).write_text(f"{content[:digit]}9{content[digit + 1 :]}", encoding="utf-8")
    before = (run_dir / page.REPORT).read_bytes()
    assert main(["report", str(run_dir)]) == 2
    out, err = capsys.readouterr()
    assert not out
    assert name in err
    assert "so nothing is shown" in err
    assert (run_dir / page.REPORT).read_bytes() == before


def test_a_page_that_is_damaged_is_drawn_again(run_dir: Path) -> None:
    before = page.write(run_dir).read_bytes()
    manifest.seal_run(run_dir)
    (run_dir / page.REPORT).write_text("half")
    assert main(["report", str(run_dir)]) == 0
    assert (run_dir / page.REPORT).read_bytes() == before


def test_records_of_which_nothing_is_known_are_shown_with_a_word(
    run_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", str(run_dir)]) == 0
    assert "nothing says what the records in" in capsys.readouterr().err


def test_a_picture_is_not_written_over_unasked(
    run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.png").write_text("mine")
    assert main(["report", str(run_dir), "--figure", str(tmp_path / "mine.png")]) == 2
    assert "exists; give another, or --overwrite" in capsys.readouterr().err
    assert (tmp_path / "mine.png").read_text() == "mine"
    assert main(["report", str(run_dir), "--figure", str(tmp_path / "mine.png"), "--overwrite"]) == 0
    assert (tmp_path / "mine.png").read_bytes()[:4] == b"\x89PNG"
