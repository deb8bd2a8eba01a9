"""A row's weight and margin: read as they stand, never made up, and what is wrong with them said in one line."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

import pairtune
from pairtune.data.asked import Asked
from pairtune.data.sources import read_demonstrations, read_labelled, read_pairs, read_prompts
from pairtune.data.split import split_by_prompt
from pairtune.errors import InputError
from tests.written import write

pytestmark = pytest.mark.usefixtures("inside")

PAIR = {"prompt": "Sky?", "chosen": "Blue.", "rejected": "Green."}
ANSWERS = [{"response": text, "score": score} for text, score in (("a", 3), ("b", 2), ("c", 1))]


def test_they_are_read_with_pairs_labels_and_demonstrations() -> None:
    read = read_pairs(write(PAIR | {"weight": 2, "margin": 0.5}, PAIR | {"weight": "0.25", "margin": "-1e1"}))
    assert [(pair.weight, pair.margin) for pair in read.rows] == [(2.0, 0.5), (0.25, -10.0)]
    assert read.unread == ()
    read = read_pairs(write({"question": "Sky?", "response_j": "Blue.", "response_k": "Green.", "weight": 3}))
    assert [(pair.weight, pair.margin) for pair in read.rows] == [(3.0, None)]
    labelled = read_labelled(write({"prompt": "Sky?", "response": "Blue.", "label": True, "weight": 0.5}))
    assert labelled.rows[0].weight == 0.5
    assert read_demonstrations(write({"prompt": "Sky?", "response": "Blue.", "weight": 0.5})).rows[0].weight == 0.5
    renamed = Asked(columns={"weight": "importance"})
    assert read_pairs(write(PAIR | {"importance": 4}), asked=renamed).rows[0].weight == 4
    assert read_pairs(write(PAIR)).rows[0].weight == 1


def test_where_they_say_nothing_they_are_named_as_not_read() -> None:
    assert read_prompts(write({"prompt": "Sky?", "weight": 2})).unread == ("weight",)
    assert read_demonstrations(write({"prompt": "Sky?", "response": "Blue.", "margin": 2})).unread == ("margin",)


def test_pairs_of_one_row_share_its_weight() -> None:
    source = write(
        {"instruction": "Sky?", "completions": ANSWERS, "weight": 3},
        {"instruction": "Grass?", "completions": ANSWERS[:2], "weight": 1},
    )
    weights = {
        way: [pair.weight for pair in read_pairs(source, asked=Asked(pair_up="all", weight=way)).rows]
        for way in ("prompt", "pair")
    }
    assert weights == {"prompt": [1, 1, 1, 1], "pair": [3, 3, 3, 1]}
    plain = write(
        {"instruction": "Sky?", "completions": ANSWERS}, {"instruction": "Grass?", "completions": ANSWERS[:2]}
    )
    read = read_pairs(plain, asked=Asked(pair_up="all")).rows
    assert [pair.weight for pair in read] == pytest.approx([1 / 3, 1 / 3, 1 / 3, 1])
    gathered = [{"prompt": "Sky?", "response": str(i), "score": i, "weight": 4} for i in range(3)]
    read = read_pairs(write(*gathered), asked=Asked(pair_up="best-rest")).rows
    assert [pair.weight for pair in read] == [2, 2]
    with pytest.raises(InputError, match="line 1: the answers to this prompt have different weights"):
        read_pairs(write(*gathered[:2], gathered[2] | {"weight": 5}))


def test_rows_of_weight_0_are_left_out_and_counted() -> None:
    read = read_pairs(write(PAIR | {"weight": 0}, PAIR | {"weight": 1}))
    assert len(read.rows) == 1
    assert [(skip.row, skip.reason) for skip in read.skipped] == [(1, 'its "weight" is 0')]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"weight": -1}], '"weight" is -1; it must be 0 or more'),
        ([{"weight": "heavy"}], '"weight" is "heavy", and it must be a number; a column that is something else needs'),
        ([{"weight": True}], '"weight" is true or false, and it must be a number'),
        ([{"weight": "nan"}], '"weight" is "nan", and it must be a number'),
        ([{"weight": "Infinity"}], '"weight" is "Infinity", and it must be a number'),
        ([{"weight": [1]}], '"weight" is a list, and it must be a number'),
        ([{"margin": {"a": 1}}], '"margin" is an object, and it must be a number'),
        ([{"weight": 10**400}], '"weight" is '),
        ([{"weight": 1}, {}], 'line 2: "weight" is missing, and the rows before have one'),
        ([{"weight": 1}, {"weight": None}], 'line 2: "weight" is missing, and the rows before have one'),
        ([{}, {"weight": 1}], 'line 2: "weight" is given here, and not in the rows before'),
        ([{"margin": 1}, {}], 'line 2: "margin" is missing, and the rows before have one'),
    ],
)
def test_what_is_wrong_with_them(rows: list[dict[str, Any]], said: str) -> None:
    with pytest.raises(InputError) as raised:
        read_pairs(write(*(PAIR | row for row in rows)))
    assert said in str(raised.value)
    assert str(raised.value).startswith("d.jsonl line ")
    assert "\n" not in str(raised.value)


def test_they_reach_the_step_and_are_told(tiny_folder: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What the first step of `tune` and `reward` records is the weighted loss: ln 2 whatever the weights, or not."""
    model = str(tiny_folder(tmp_path))
    rows = [
        {"prompt": f"Film {i} was", "chosen": " warm", "rejected": " dull", "weight": 1 + i, "margin": 2.0}
        for i in range(8)
    ]
    common = {"model": model, "data": write(*rows), "heldout": 2, "dtype": "float32", "batch_size": 6}
    first = {}
    for name in ("tune", "reward"):
        getattr(pairtune, name)(**common, out=name)
        first[name] = json.loads(Path(name, "records.jsonl").read_text().splitlines()[0])["loss"]
    said = capsys.readouterr().err
    assert "training counts them, held-out figures count each pair once" in said
    assert "data: rows have margins (2 to 2): not used by this objective; a reward model's loss takes them" in said
    assert "data: rows have margins (2 to 2): each is taken from its pair's difference of rewards" in said
    assert first["tune"] == pytest.approx(0.693147, abs=1e-5)
    write(*({key: value for key, value in row.items() if key != "margin"} for row in rows))
    pairtune.reward(**common, out="without")
    assert json.loads(Path("without", "records.jsonl").read_text().splitlines()[0])["loss"] < first["reward"] - 0.5


ODPO = """
import torch.nn.functional as F

def odpo(chosen_logratio_B, rejected_logratio_B, row_margin_B, *, beta: float = 0.1):
    \'\'\'DPO with an offset (Amini et al. 2024, arXiv 2402.10571).

    beta: weight of KL
    \'\'\'
    return -F.logsigmoid(beta * (chosen_logratio_B - rejected_logratio_B) - row_margin_B)
"""


def test_an_objective_of_ones_own_takes_margins(
    tiny_folder: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("mine.py").write_text(ODPO)
    rows = [{"prompt": f"Film {i} was", "chosen": " warm", "rejected": " dull", "margin": i / 4} for i in range(8)]
    common = {"model": str(tiny_folder(tmp_path)), "heldout": 2, "dtype": "float32", "batch_size": 8}
    pairtune.tune(**common, data=write(*rows), objective="mine.py:odpo", out="a")
    assert "data: rows have margins" in (said := capsys.readouterr().err)
    assert ": the objective takes them" in said
    found = json.loads(Path("a", "records.jsonl").read_text().splitlines()[0])["loss"]
    trained, _ = split_by_prompt(read_pairs("d.jsonl").rows, heldout=2, seed=0)
    expected = [math.log1p(math.exp(pair.margin or 0)) for pair in trained]  # the policy still is the reference
    assert found == pytest.approx(sum(expected) / 6, abs=1e-5)
    plain = write(*({name: value for name, value in row.items() if name != "margin"} for row in rows))
    with pytest.raises(InputError, match='takes the margin of each pair, and the rows have no column "margin"'):
        pairtune.tune(**common, data=plain, objective="mine.py:odpo", out="b")
