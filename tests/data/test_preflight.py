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


def test_a_prompt_on_both_sides_is_named_with_the_way_out() -> None:
    with pytest.raises(InputError) as error:
        check_rows(GOOD, [*HELD, GOOD[3]], None, end_ids=[EOS])
    assert str(error.value) == (
        "1 prompt is in the training and in the held-out part once tokenised (the first in training pair 3 and "
        "held-out pair 4); if --max-tokens has made them equal, raise it, or else write them alike, and they stay "
        "together"
    )
    places = "pairs.jsonl line {}".format, "pairs.jsonl row {}".format
    with pytest.raises(InputError, match=r"2 prompts are .* \(the first in pairs.jsonl line 2 and pairs.jsonl row 5\)"):
        check_rows(GOOD, [*HELD, GOOD[3], GOOD[2]], None, end_ids=[EOS], places=places)


def test_what_is_no_fault_is_told(capsys: pytest.CaptureFixture[str], tiny_tokenizer: Any) -> None:
    cut = Tokens((BOS, 5, 3), ((7, 8, 9, 9), (8, EOS)))
    check_rows([*GOOD, cut], HELD, tiny_tokenizer(), end_ids=[EOS])
    said = capsys.readouterr().err
    assert "1 response has no end-of-text token" in said
    assert "the longer response is the chosen one in 9.1% of 11 pairs" in said
    assert "its prompt ends with" in said
    check_rows([*GOOD, cut], HELD, tiny_tokenizer(), end_ids=[EOS], say_longer=False)
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
