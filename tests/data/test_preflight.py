"""Preflight: each fault that it promises to catch is planted, and caught."""

from collections.abc import Callable
from typing import Any

import pytest

from pairtune.data.pack import Tokens
from pairtune.data.preflight import check_rows, say_truncation
from pairtune.data.writing import CUT, DROPPED, SHORTENED
from pairtune.errors import InputError

Pairs = Callable[..., list[Tokens]]
BOS, EOS = 0, 1


GOOD = [Tokens((BOS, 5, i), ((7, EOS), (8, 9, EOS))) for i in range(10, 20)]
HELD = [Tokens((BOS, 6, i), ((7, EOS), (8, 9, EOS))) for i in range(10, 14)]


@pytest.mark.parametrize(
    ("train", "heldout", "complaint"),
    [
        ([*GOOD, Tokens((BOS, BOS, 5), ((7, EOS), (8, EOS)))], HELD, "1 prompt begins with two beginning-of-text"),
        ([*GOOD, Tokens((BOS, 5), ((7, EOS), (7, EOS)))], HELD, "1 pair has two equal responses"),
        (GOOD, [*HELD, GOOD[3]], "1 prompt is in the training and in the held-out pairs"),
    ],
    ids=["two BOS", "equal responses", "shared prompts"],
)
def test_faults_in_the_rows_are_caught(train: list[Tokens], heldout: list[Tokens], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        check_rows(train, heldout, None, end_ids=[EOS], bos_id=BOS)


def test_what_is_no_fault_is_told(capsys: pytest.CaptureFixture[str], tiny_tokenizer: Any) -> None:
    cut = Tokens((BOS, 5, 3), ((7, 8, 9, 9), (8, EOS)))
    check_rows([*GOOD, cut], HELD, tiny_tokenizer(), end_ids=[EOS], bos_id=BOS)
    said = capsys.readouterr().err
    assert "1 response has no end-of-text token" in said
    assert "the longer response is the chosen one in 9.1% of 11 pairs" in said
    assert "boundary of the first row" in said
    check_rows([*GOOD, cut], HELD, tiny_tokenizer(), end_ids=[EOS], bos_id=BOS, say_longer=False)
    assert "longer" not in capsys.readouterr().err  # the check of the texts has said it


def test_one_is_one_and_many_are_many(capsys: pytest.CaptureFixture[str]) -> None:
    def said(shortened: int, cut: int, dropped: int) -> str:
        counts = zip((SHORTENED, CUT, DROPPED), (shortened, cut, dropped), strict=True)
        say_truncation({remark: tuple(range(1, count + 1)) for remark, count in counts if count})
        return capsys.readouterr().err

    assert said(1, 1, 1).splitlines() == [
        "data: 1 prompt lost its beginning to --max-tokens; raise it to keep it whole (row 1)",
        "data: 1 row has a response that lost its end to --max-tokens; raise it to keep it whole (row 1)",
        "data: 1 pair was left out: its responses are the same once tokenised (row 1)",
    ]
    assert said(2, 0, 7).splitlines() == [
        "data: 2 prompts lost their beginning to --max-tokens; raise it to keep them whole (rows 1, 2)",
        "data: 7 pairs were left out: their responses are the same once tokenised (rows 1, 2, 3, 4, 5, ...)",
    ]


def test_a_tokenizer_without_bos_has_no_double_bos() -> None:
    check_rows([Tokens((BOS, BOS, 5), ((7, EOS), (8, EOS)))], HELD, None, end_ids=[EOS], bos_id=None)
