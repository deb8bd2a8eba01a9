"""What a comparison takes from one's own data where nobody said otherwise, and what does not fit."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pairtune.comparison.pairs import SharedPairs, read_own_pairs
from pairtune.comparison.sizes import Parts, parts_of, settle
from pairtune.configure import settings_from_keywords
from pairtune.data.sources import read_pairs
from pairtune.errors import InputError
from pairtune.runs import CompareRun

Own = Callable[..., CompareRun]


@pytest.fixture
def own(tmp_path: Path) -> Own:
    """own(rows, **keywords): settings of a comparison on a file of so many pairs, or of these rows."""

    def settings(rows: int | list[dict[str, Any]], **keywords: Any) -> CompareRun:
        if isinstance(rows, int):
            rows = [{"prompt": f"Film {i} was", "chosen": f" good {i}", "rejected": f" bad {i}"} for i in range(rows)]
        path = tmp_path / "mine.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return settings_from_keywords(CompareRun, {"data": str(path), **keywords})

    return settings


def sizes(pairs: SharedPairs) -> tuple[int, int, int, int]:
    return len(pairs.train), len(pairs.heldout), len(pairs.validation), len(pairs.judge)


@pytest.mark.parametrize(
    ("total", "given", "expected"),
    [
        (60, {}, (36, 12, 0, 12)),
        (6, {}, (2, 2, 0, 2)),
        (100, {}, (60, 20, 0, 20)),
        (60, {"pairs": 20}, (20, 20, 0, 20)),
        (60, {"pairs": 50}, (50, 5, 0, 5)),
        (60, {"pairs": 56}, (56, 2, 0, 2)),
        (60, {"heldout": 20}, (30, 20, 0, 10)),
        (60, {"heldout": 6, "pairs": 10}, (10, 6, 0, 10)),
        (60, {"beta": [0.1, 0.3]}, (30, 10, 10, 10)),
        (60, {"beta": [0.1, 0.3], "validation": 20}, (24, 8, 20, 8)),
        (60, {"validation": 20}, (36, 12, 0, 12)),  # nothing to choose: no such part
    ],
)
def test_sizes_follow_the_file(own: Own, total: int, given: dict[str, Any], expected: tuple[int, ...]) -> None:
    assert parts_of(total, own(1, **given)) == Parts(*expected)


@pytest.mark.parametrize("preset", ["quick", "chapter"])
def test_of_a_large_file_a_preset_takes_what_it_takes_of_the_built_in_task(own: Own, preset: str) -> None:
    settings = own(1, preset=preset)
    assert parts_of(10**6, settings) == Parts(settings.pairs, settings.heldout, 0, settings.pairs)


@pytest.mark.parametrize("total", [*range(6, 40), 61, 117, 560, 1319, 1320, 1321, 5000])
@pytest.mark.parametrize("beta", [0.1, [0.1, 0.3]])
def test_every_part_has_pairs_and_none_has_a_pair_twice(own: Own, total: int, beta: Any) -> None:
    if isinstance(beta, list) and total < 8:
        with pytest.raises(InputError, match="a comparison needs 8 at least"):
            parts_of(total, own(1, beta=beta))
        return
    settings = own(1, beta=beta)
    found = parts_of(total, settings)
    needed = [found.pairs, found.heldout, found.judge] + [found.validation] * isinstance(beta, list)
    assert min(needed) >= 2
    assert sum(needed) <= total
    assert found.pairs <= settings.pairs
    assert found.heldout <= settings.heldout
    assert found.pairs >= found.judge


@pytest.mark.parametrize(
    ("total", "given", "said"),
    [
        (5, {}, "5 usable pairs; a comparison needs 6 at least, 2 for each part"),
        (60, {"heldout": 59}, "60 usable pairs; with 59 held out, nothing is left to train on - lower --heldout"),
        (60, {"heldout": 200}, "60 usable pairs; with 200 held out, nothing is left to train on - lower --heldout"),
        (60, {"pairs": 57}, "60 usable pairs; 57 to train on and at least 2 for each other part"),
        (60, {"pairs": 560}, "make 564 - lower --pairs"),
        (
            60,
            {"pairs": 40, "heldout": 19},
            "40 to train on and 19 held out and at least 2 for .* make 61 - lower --pairs or",
        ),
        (
            60,
            {"beta": [1, 2], "heldout": 30, "validation": 30},
            "with 30 held out and 30 to choose by, nothing is left",
        ),
    ],
)
def test_what_does_not_fit_is_told_with_its_numbers(own: Own, total: int, given: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        parts_of(total, own(1, **given))


def test_what_was_taken_is_said(own: Own, tiny_tokenizer: Any, capsys: pytest.CaptureFixture[str]) -> None:
    settings = own(60)
    assert sizes(read_own_pairs(settings, tiny_tokenizer())) == (36, 12, 0, 12)
    said = capsys.readouterr().err
    assert (
        "data: 60 pairs: 36 to train on, 12 held out, 12 for the judge; give --pairs and --heldout for others" in said
    )
    assert "a judge that learns from 12 pairs may do no better than guessing" in said
    assert "3 steps of preference tuning in all" in said
    read_own_pairs(own(900, pairs=200, heldout=50, epochs=1), tiny_tokenizer())
    said = capsys.readouterr().err
    assert "data: 900 pairs: 200 to train on, 50 held out, 200 for the judge, 450 not used\n" in said
    assert "guessing" not in said
    assert "steps" not in said


def rows_of(*counts: int) -> list[dict[str, Any]]:
    """Prompts with so many pairs each."""
    return [
        {"prompt": f"Film {i} was", "chosen": f" good {k}", "rejected": f" bad {k}"}
        for i, count in enumerate(counts)
        for k in range(count)
    ]


@pytest.mark.parametrize("counts", [(20, 20, 20), (12, 30, 9, 9), (1,) * 30 + (30,), (2,) * 30, (10,) * 6])
def test_prompts_that_repeat_stay_on_one_side(own: Own, tiny_tokenizer: Any, counts: tuple[int, ...]) -> None:
    parts = read_own_pairs(own(rows_of(*counts)), tiny_tokenizer())
    prompts = [{row.prompt for row in rows} for rows in (parts.train, parts.heldout, parts.judge)]
    assert all(prompts)
    assert len(set.union(*prompts)) == sum(map(len, prompts))


@pytest.mark.parametrize(
    ("counts", "given", "said"),
    [
        ((60,), {}, "60 pairs have 1 different prompts; no two parts of a comparison may share one, so 3 are needed"),
        ((30, 30), {}, "2 different prompts"),
        ((20, 20, 20), {"beta": [1, 2]}, "so 4 are needed"),
        ((20, 20, 20), {"heldout": 12}, "the heldout part first .*hold out at least 20 pairs"),
    ],
)
def test_too_few_prompts(own: Own, tiny_tokenizer: Any, counts: Any, given: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        read_own_pairs(own(rows_of(*counts), **given), tiny_tokenizer())


# ---- warm start and length of answers -----------------------------------------------------------------------------


def settled(settings: CompareRun, tokenizer: Any) -> CompareRun:
    return settle(settings, read_pairs(settings.data).rows, tokenizer)


def test_a_model_with_a_chat_template_is_not_warm_started(
    own: Own, tiny_tokenizer: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert settled(own(60), tiny_tokenizer(chat=True)).sft.epochs == 0
    assert "warm start: none, as the model has a chat template" in capsys.readouterr().err
    assert settled(own(60), tiny_tokenizer(chat=False)).sft.epochs == 1
    assert "warm start: on chosen responses, as the model has no chat template" in capsys.readouterr().err
    for epochs in (0, 2):
        for chat in (True, False):
            assert settled(own(60, sft_epochs=epochs), tiny_tokenizer(chat=chat)).sft.epochs == epochs
    assert "warm start" not in capsys.readouterr().err


def test_answers_are_as_long_as_nearly_all_chosen_responses(
    own: Own, tiny_tokenizer: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    tokenizer = tiny_tokenizer()
    assert len(tokenizer("xxx", add_special_tokens=False)["input_ids"]) == 3

    def longest(lengths: list[int], **given: Any) -> int:
        rows = [{"prompt": f"Film {i}", "chosen": "x" * n, "rejected": "y" * 300} for i, n in enumerate(lengths)]
        return settled(own(rows, **given), tokenizer).sampling.max_new_tokens

    assert longest([20] * 95 + [90] * 5) == 21  # the end-of-text token is one of them
    assert "answers: at most 21 tokens long, as 95% of the chosen responses are" in capsys.readouterr().err
    assert longest([20] * 94 + [90] * 6) == 91
    assert longest([1] * 60) == 8
    assert longest([900] * 60) == 256
    assert "at most 256 tokens long, of the chosen responses' 901" in capsys.readouterr().err
    assert longest([900] * 60, max_tokens=100) == 50
    assert "at most 50 tokens long, of the chosen responses' 901" in capsys.readouterr().err, (
        "counted before they are cut"
    )
    assert longest([20] * 60, sampling_max_new_tokens=33) == 33


def test_what_is_settled_stays_settled(own: Own, tiny_tokenizer: Any) -> None:
    once = settled(own(60), tiny_tokenizer())
    assert (once.pairs, once.heldout) == (36, 12)
    assert settled(once, tiny_tokenizer()) == once
    assert sizes(read_own_pairs(once, tiny_tokenizer())) == (36, 12, 0, 12)
