"""`pairtune sample`: answers of a prompt drawn, scored, written, and read by `tune` as what they are."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

import pairtune
from pairtune.cli import main
from pairtune.commands import sample as command
from pairtune.data.sources import read_pairs
from pairtune.sampling.answer import Sample

SCORES = "def score(prompts, answers):\n    return [float(len(answer)) for answer in answers]\n"


@pytest.fixture
def asked(tmp_path: Path, tiny_folder: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """asked(chat=False): the words of a command on three prompts, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    Path("score.py").write_text(SCORES, encoding="utf-8")
    prompts = ["The film was", "It is", "The film was", "I saw"]
    Path("prompts.jsonl").write_text("".join(json.dumps({"prompt": p}) + "\n" for p in prompts), encoding="utf-8")

    def words(*, chat: bool = False) -> list[str]:
        model = str(tiny_folder(tmp_path, chat=chat))
        given = ["--model", model, "--data", "prompts.jsonl", "--reward-model", "score.py:score", "--dtype", "float32"]
        return ["sample", *given, "--answers-per-prompt", "3", "--out", "pairs.jsonl"]

    return words


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Sequence[Sequence[int]]]:
    """What is sampled in place of the model's answers, all prompts' alike; and what was asked."""
    seen: list[Sequence[Sequence[int]]] = []

    def answers(model: Any, prompts: Sequence[Sequence[int]], *, end_ids: Sequence[int], **_: Any) -> list[Sample]:
        seen.append(prompts)
        several = [((40, 41, 42, 1), True), ((40, 1), True), ((50, 51, 52, 53, 54, 55, 56), False)]
        if len(prompts) > 3:
            several += [((40, 1), True), ((40, 1), True), ((41, 1), True)]  # to the second prompt
        return [
            Sample(response, (0.0,) * len(response), ended)
            for response, ended in (several + several[:3])[: len(prompts)]
        ]

    monkeypatch.setattr(command, "sample", answers)
    return seen


def lines(name: str = "pairs.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(name).read_text(encoding="utf-8").splitlines()]


def test_the_best_and_the_worst_that_ended_are_a_pair(
    asked: Any, drawn: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(asked()) == 0
    said = capsys.readouterr().err
    assert len(drawn[0]) == 9, "three answers to each of three different prompts"
    assert drawn[0][0] == drawn[0][1] == drawn[0][2] != drawn[0][3]
    found = lines()
    assert [row["prompt"] for row in found] == ["The film was", "I saw"]
    assert all(len(row["chosen"]) > len(row["rejected"]) > 0 for row in found)
    assert "1 prompt stood there before; each is asked once" in said
    assert "2 of 9 had no end in 32 tokens" in said
    assert "answers: 1 of 3 prompts have no two that the scores tell apart; left out" in said
    pairs = read_pairs("pairs.jsonl").rows
    assert [(p.prompt, p.chosen, p.rejected) for p in pairs] == [tuple(row.values()) for row in found]


def test_all_scored_answers_are_read_as_the_same_pairs(asked: Any, drawn: list[Any]) -> None:
    assert main(asked()) == 0
    assert main([*asked()[:-1], "scores.jsonl", "--write", "scores"]) == 0
    assert [len(row["completions"]) for row in lines("scores.jsonl")] == [2, 2]
    one, two = read_pairs("pairs.jsonl").rows, read_pairs("scores.jsonl").rows
    assert [(p.prompt, p.chosen, p.rejected) for p in one] == [(p.prompt, p.chosen, p.rejected) for p in two]


def test_a_dialogues_answer_is_a_turn(asked: Any, drawn: list[Any]) -> None:
    words = asked(chat=True)
    for name, kind in (("pairs.jsonl", "pairs"), ("scores.jsonl", "scores")):
        assert main([*words[:-1], name, "--write", kind]) == 0
    one, two = read_pairs("pairs.jsonl").rows, read_pairs("scores.jsonl").rows
    assert [turn.role for turn in one[0].prompt] == ["user"]  # type: ignore[union-attr]
    assert one[0].chosen != one[0].rejected
    assert [(p.prompt, p.chosen, p.rejected) for p in one] == [(p.prompt, p.chosen, p.rejected) for p in two]
    assert main(["tune", "--model", words[2], "--data", "pairs.jsonl", "--dtype", "float32", "--heldout", "1"]) == 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"--out": "prompts.jsonl"}, 'out: "prompts.jsonl" is a file that is read here; give another'),
        ({"--answers-per-prompt": "1"}, '--answers-per-prompt is "1"; it must be at least 2'),
        ({"--reward-model": "score.py:nothing"}, '"score.py" has no function "nothing"'),
        ({"--reward-model": "bad.py:flat"}, "no prompt has two answers that the scores tell apart; nothing is written"),
        ({"--reward-model": "bad.py:few"}, "bad.py:few: it returned 1 values for 6 answers"),
        ({"--reward-model": "bad.py:nan"}, "bad.py:nan: its score of answer 1 is nan"),
        ({"--reward-model": ""}, "reward_model is missing; give --reward-model"),
        ({"--out": ""}, "out is missing; give --out"),
    ],
)
def test_what_cannot_be_is_one_line_and_nothing_is_written(
    change: dict[str, str], said: str, asked: Any, drawn: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("bad.py").write_text(
        "def flat(p, a):\n    return [1.0] * len(a)\ndef few(p, a):\n    return [1.0]\n"
        "def nan(p, a):\n    return [float('nan')] * len(a)\n",
        encoding="utf-8",
    )
    words = asked()
    for name, value in change.items():
        words[words.index(name) + 1] = value
    assert main(words) == 2
    assert said in capsys.readouterr().err.splitlines()[-1]
    assert not Path("pairs.jsonl").exists()


def test_a_file_is_written_over_only_if_asked_for(
    asked: Any, drawn: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("pairs.jsonl").write_text("mine\n")
    assert main(asked()) == 2
    assert 'out: "pairs.jsonl" exists; give another, or --overwrite' in capsys.readouterr().err
    assert Path("pairs.jsonl").read_text() == "mine\n"
    assert main([*asked(), "--overwrite"]) == 0


def test_a_real_models_answers(asked: Any) -> None:
    """No stand-in: drawn, scored and written; and the Python function gives the file."""
    words = asked()
    given = {"model": words[2], "data": "prompts.jsonl", "reward_model": "score.py:score", "dtype": "float32"}
    out = pairtune.sample(**given, out="deep/er.jsonl", answers_per_prompt=8, max_new_tokens=300)
    assert out == Path("deep/er.jsonl")
    assert all(len(row["chosen"]) > len(row["rejected"]) for row in lines(str(out)))
