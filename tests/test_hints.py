"""A hint is given where a name is a slip of another, and not where it is a guess."""

from pathlib import Path

import pytest

from pairtune.hints import near_path, nearest, suggestion
from pairtune.objectives.catalog import OBJECTIVES

FLAGS = ["--model", "--data", "--out", "--beta", "--seed", "--ppo-steps", "--learning-rate", "--batch-size", "--config"]


@pytest.mark.parametrize(
    ("wrong", "near"),
    [
        ("--betta", "--beta"),
        ("--sede", "--seed"),
        ("--ppo_step", "--ppo-steps"),
        ("--Learning-Rate", "--learning-rate"),
        ("--batchsize", "--batch-size"),
        ("--steps", "--ppo-steps"),  # its last word
        ("--output", "--out"),
        ("--dataset", "--data"),
        ("--bogus", None),
        ("--mine", None),
        ("--lr", None),
        ("--x", None),
        ("", None),
    ],
)
def test_flags(wrong: str, near: str | None) -> None:
    assert nearest(wrong, FLAGS) == near


@pytest.mark.parametrize(
    ("wrong", "near"), [("mine", None), ("simp0", "simpo"), ("dop", "dpop"), ("SimPO", "simpo"), ("grpo", "rpo")]
)
def test_objectives(wrong: str, near: str | None) -> None:
    assert nearest(wrong, OBJECTIVES) == near


def test_of_two_the_first_that_is_as_near() -> None:
    assert suggestion("aot", ["aot-paired", "aot-unpaired"]) == '; did you mean "aot-paired"?'
    assert suggestion("xyzzy", FLAGS) == ""


def test_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "runs" / "tuned").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert near_path("runs/tunde") == '; did you mean "runs/tuned"?'
    assert near_path("rusn/tuned") == '; did you mean "runs"?'
    assert near_path("~/runs/tunde") == f'; did you mean "{tmp_path}/runs/tuned"?'
    assert near_path("./runs/other") == ""
    assert near_path("/xyzzy/y") == ""
