"""`pairtune check`: without training, with exit codes that a script can go by."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pairtune.cli import main
from pairtune.data.asked import Asked
from pairtune.data.check import check_reading
from pairtune.data.check_labels import check_labelled
from pairtune.data.schema import Labelled
from pairtune.data.sources import read_pairs
from tests.written import write

pytestmark = pytest.mark.usefixtures("inside")


def pair(number: int, **more: Any) -> dict[str, Any]:
    return {"prompt": f"Film {number} was", "chosen": " warm.", "rejected": " dull, and the plot went nowhere."} | more


def test_clean_pairs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--data", write(*map(pair, range(4)))]) == 0
    shown = capsys.readouterr()
    assert shown.out.splitlines() == [
        "  prompt, chosen, rejected, 4 rows",
        '  "the shorter response wins" is right for 100.0% of the 4 pairs (in characters; 0 ties count half): a '
        "baseline that any method should beat",
        '  "the response with more of the prompt\'s words in it wins" is right for 50.0% of the pairs',
        "  responses have 6 to 33 characters, nine in ten 6 to 33, half at most 19  |█              █|",
    ]
    assert shown.err == "nothing is wrong with what was looked at\n"


def test_findings(capsys: pytest.CaptureFixture[str]) -> None:
    source = write(*map(pair, range(4)), pair(4, rejected=" warm."), pair(0), pair(6, notes="Somebody's own words."))
    assert main(["check", "--data", source]) == 1
    shown = capsys.readouterr()
    marked = [line for line in shown.out.splitlines() if line.startswith("!")]
    assert marked == [
        '! column "notes" is not read; what belongs to the prompt has to stand in it',
        "! 1 pair (row 5) has a chosen response identical to the rejected one and teaches nothing",
        "! 1 pair (row 6) repeats an earlier pair word for word",
    ]
    assert shown.err == "3 findings\n"
    assert main(["check", "--data", source, "--json"]) == 1
    found = {finding["name"]: finding for finding in json.loads(capsys.readouterr().out)}
    assert found["identical"] == {
        "name": "identical",
        "count": 1,
        "rows": [5],
        "message": marked[1].removeprefix("! "),
        "finding": True,
        "share": pytest.approx(1 / 7),
        "where": ["d.jsonl line 5"],
        "effect": "nothing is learned from them",
        "todo": "--fix leaves them out",
    }


SIDE_SCORES = [
    lambda good, poor: {"chosen_rating": good, "rejected_rating": poor},
    lambda good, poor: {"score_chosen": good, "score_rejected": str(poor)},
    lambda good, poor: {"chosen-score": good, "rejected-score": poor},
]


@pytest.mark.parametrize("scores", SIDE_SCORES)
def test_a_chosen_response_that_was_rated_lower(scores: Callable[..., Any], capsys: pytest.CaptureFixture[str]) -> None:
    given = [(1, 4.5), (4, 4), (5, 4), (None, 4), (2, 3)]
    names = list(scores(1, 2))
    source = write(*(pair(at) | scores(*both) for at, both in enumerate(given)))
    assert main(["check", "--data", source]) == 1
    shown = capsys.readouterr()
    assert shown.out.splitlines()[1:3] == [
        f'! 2 pairs (rows 1, 5) have their "{names[0]}" below "{names[1]}" (50.0% of the 4 that have both); if higher '
        "is better, turn or remove them",
        "    the answer that was rated worse is learned; turn them round, or remove them",
    ]
    # a run says it before its first step, and nothing of sides that a person has named
    read = read_pairs(source)
    assert [finding.name for finding in check_reading(read)] == ["shape", "rated_lower"]
    assert read.rated.both == 4
    turned = read_pairs(source, asked=Asked(columns={"chosen": "rejected", "rejected": "chosen"}))
    assert [finding.name for finding in check_reading(turned)] == ["shape"]
    level = write(pair(0) | scores(2, 2), pair(1) | scores(3, 2))
    assert [finding.name for finding in check_reading(read_pairs(level))] == ["shape"]


def test_scores_within_the_sides(capsys: pytest.CaptureFixture[str]) -> None:
    sides = {"chosen": {"text": "x", "score": 1}, "rejected": {"text": "y", "score": 2}}
    assert main(["check", "--data", write({"prompt": "A film?"} | sides)]) == 1
    assert 'has its "chosen.score" below "rejected.score" (100.0% of the 1 that' in capsys.readouterr().out


def test_what_cannot_be_read(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--data", write({"prompt": "Hi"})]) == 2
    assert main(["check"]) == 2
    assert "data is missing; give --data" in capsys.readouterr().err


def test_as_a_model_reads_them(
    tiny_folder: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = str(tiny_folder(tmp_path, chat=True))
    source = write(*map(pair, range(3)), pair(3, rejected=" dull" * 200))
    assert main(["check", "--data", source, "--model", model, "--max-tokens", "64"]) == 1
    shown = capsys.readouterr()
    assert "! 1 row has a response that lost its end to --max-tokens; raise it to keep it whole (row 4)" in shown.out
    assert " tokens in 4 rows: " in shown.out
    assert "text prompts stay text that the answer goes on from (4 of 4 have responses that begin" in shown.err
    assert "as the model reads the first row, its prompt ends with" in shown.err


def test_labels(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [("1?", "x", True), ("1?", "x", True), ("2?", "x", True), ("2?", "x", False), ("2?", "y", False)]
    found = check_labelled(Labelled(*row, number) for number, row in enumerate(rows, 1))
    assert [(finding.name, finding.count, finding.rows) for finding in found] == [
        ("balance", 5, ()),
        ("duplicate_labelled", 1, (2,)),
        ("contradictory_labels", 1, (4,)),
    ]
    assert [finding.message for finding in found] == [
        "60.0% of the 5 responses are desirable; every step has its share of either",
        "1 response (row 2) repeats an earlier response to the same prompt, label and all",
        "1 response (row 4) has the other label where it stood before",
    ]
    assert check_labelled([]) == []
    names = ("prompt", "response", "label")
    assert main(["check", "--data", write(*(dict(zip(names, row, strict=True)) for row in rows))]) == 1
    assert capsys.readouterr().err == "2 findings\n"
