"""The cache is listed with what is known of it, and cleared of what pairtune made and of nothing else."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pairtune import commands
from pairtune.cache import cache_folder, entries
from pairtune.cli import main
from pairtune.data.pack import Tokens
from pairtune.engine.reference import reference_logprobs
from pairtune.engine.version import engine_version
from pairtune.runs import GenerateRun

ROWS = [Tokens((5, 6, 7), ((8, 9, 1), (10, 1))), Tokens((5, 6), ((7, 1),))]
MODEL = "SmolLM2-Q4_1-0123456789abcdef"


@pytest.fixture
def cache(tiny_model: Any) -> Any:
    """A cache with one model, one reference of three responses, and things that are not pairtune's."""
    model = tiny_model()
    model.config._name_or_path = "runs/\x1b[31mred"
    reference_logprobs(model, ROWS)
    folder = cache_folder()
    shutil.rmtree(folder / "kernels", ignore_errors=True)  # built by the first test of a process that needs them
    (folder / "models" / MODEL).mkdir(parents=True)
    (folder / "models" / MODEL / "model.safetensors").write_bytes(b"x" * 2_000_000)
    for other in ("models/my-own-model", "reference/notes", "photos"):
        (folder / other).mkdir()
        (folder / other / "kept.txt").write_text("somebody's")
    return folder


def others(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("kept.txt"))


OTHERS = ["models/my-own-model/kept.txt", "photos/kept.txt", "reference/notes/kept.txt"]


def test_it_lists_kind_size_time_and_origin(cache: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cache"]) == 0
    model, reference, checks, total = capsys.readouterr().out.splitlines()
    assert model.startswith("model            2.0 MB  20")
    assert model.endswith(f"  {MODEL}")
    assert reference.split()[:3] == ["reference", "0.0", "MB"]
    assert reference.endswith(
        rf"  3 responses of runs/\u001b[31mred, float32 on cpu, engine version {engine_version()}"
    )
    assert checks.split()[0] == "checks"
    assert checks.endswith("  verdicts")
    assert total == f"3 entries, 2.0 MB in {cache}; `pairtune cache --clear` removes them"
    assert len(entries()) == 3, "listing removes nothing"


def test_clear_removes_what_pairtune_made_and_says_so(cache: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cache", "--clear"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines[:3]] == ["model", "reference", "checks"]
    assert lines[3] == f"removed 3 entries, 2.0 MB in {cache}"
    assert entries() == []
    assert others(cache) == OTHERS
    assert main(["cache"]) == 0
    assert capsys.readouterr().out == f"0 entries, 0.0 MB in {cache}\n"


def test_no_link_is_followed(cache: Any, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    (outside / MODEL).mkdir(parents=True)
    (outside / MODEL / "kept.txt").write_text("somebody's")
    (cache / "models" / MODEL.replace("0", "1")).symlink_to(outside / MODEL)  # an entry that is a link
    (cache / "models" / MODEL / "link").symlink_to(outside / MODEL)  # a link inside an entry
    (cache / "reference" / "notes").rename(tmp_path / "notes")
    (cache / "reference").rename(outside / "reference")
    (cache / "reference").symlink_to(outside / "reference")  # a kind that is a link
    before = sorted(outside.rglob("*"))
    assert [entry.kind for entry in entries()] == ["model", "checks"]
    assert main(["cache", "--clear"]) == 0
    assert sorted(outside.rglob("*")) == before
    assert not (cache / "models" / MODEL).exists()


def test_what_other_versions_and_broken_runs_left_is_listed_and_cleared(capsys: pytest.CaptureFixture[str]) -> None:
    folder = cache_folder()
    for name in (f"models/{MODEL}.partial-77", f"reference/{'0f' * 32}-v1"):
        (folder / name).mkdir(parents=True)
    (folder / "reference" / f"{'0f' * 32}-v1" / f"{'1' * 64}.safetensors").write_text("not safetensors")
    (folder / "reference" / f"{'0a' * 32}.safetensors").write_text("of the first version")
    assert main(["cache"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith(f"{MODEL}.partial-77")
    assert lines[1].endswith("of an older version of pairtune")
    assert lines[2].endswith("nothing that can be read, engine version 1")
    assert main(["cache", "--clear"]) == 0
    assert entries() == []


def test_a_cache_that_is_not_there_is_empty(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PAIRTUNE_CACHE", str(tmp_path / "none"))
    assert main(["cache", "--clear"]) == 0
    assert capsys.readouterr().out == f"removed 0 entries, 0.0 MB in {tmp_path / 'none'}\n"
    assert not (tmp_path / "none").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may remove anything")
def test_what_may_not_be_removed_is_one_line(cache: Any, capsys: pytest.CaptureFixture[str]) -> None:
    (cache / "models").chmod(0o500)
    try:
        assert main(["cache", "--clear"]) == 2
    finally:
        (cache / "models").chmod(0o700)
    (line,) = capsys.readouterr().err.splitlines()
    assert "may not be written" in line


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--claer"], '`pairtune cache` has no flag --claer; did you mean "--clear"?'),
        (["all"], '"all" is one word too many for `pairtune cache`; put quotes around text with spaces'),
    ],
)
def test_wrong_words_are_one_line(words: Any, message: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cache", *words]) == 2
    assert capsys.readouterr().err == f"pairtune: {message}\n"


def test_listing_imports_nothing_heavy(tmp_path: Path) -> None:
    heavy = {"torch", "transformers", "numpy"}
    code = f"import sys; from pairtune.cli import main; main(['cache']); print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("set()\n")


@pytest.mark.parametrize("place", ["a file", "a file/below", "x" * 300, "a\0b"])
def test_a_run_goes_on_without_a_cache_that_cannot_be_written(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a file").write_text("mine")
    folder, used = tmp_path / place, []

    def run(settings: object) -> None:
        (cache_folder() / "kept").write_text("for this run")
        used.append(cache_folder())

    monkeypatch.setattr(commands, "import_module", lambda name: SimpleNamespace(run=run))
    monkeypatch.setattr(commands, "cache_folder", lambda: folder)  # no environment can hold a NUL
    before = os.environ["PAIRTUNE_CACHE"]
    commands.run("generate", GenerateRun(prompt="x"))
    said = capsys.readouterr().err
    assert "cannot be written" in said
    assert "set PAIRTUNE_CACHE" in said
    assert said.count("\n") == 1
    assert used[0] != folder
    assert not used[0].exists(), "what was kept for the run has gone with it"
    assert os.environ["PAIRTUNE_CACHE"] == before
    assert (tmp_path / "a file").read_text() == "mine"
