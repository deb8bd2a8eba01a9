"""Rows on disk read like the list they were written from, and leave no file behind."""

import gc
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pairtune.cache import cache_folder
from pairtune.data.pack import Tokens, batches_by_tokens, pack, row_lengths, sequence_lengths
from pairtune.data.schema import Demonstration, Message, Pair, Prompt
from pairtune.data.store import Mapped, store_texts, take
from pairtune.data.token_rows import store_tokens

HOSTILE = 'a\u2028b\n"\\ \x00 é \U0001f600'
ASKED = (Message("system", HOSTILE), Message("user", "Hi"))
PAIRS = [Pair("x", HOSTILE, " b", 1), Pair(ASKED, "c", "", 7), Pair("", "d", "e", 2**40)]
TOKENS = [Tokens((5, 6, 7), ((8, 9, 1), (10, 1))), Tokens((11,), ((2**31 - 1,), (15, 1))), Tokens((5, 6), ((7,), (1,)))]


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize(
    "rows", [PAIRS, [Demonstration(ASKED, HOSTILE, 3), Demonstration("", "x", 4)], [Prompt(ASKED, 1), Prompt("p", 2)]]
)
def test_texts_come_back_as_they_were(rows: Any) -> None:
    stored = store_texts(type(rows[0]), iter(rows))
    assert list(stored) == rows
    assert list(stored) == rows, "and again"
    assert [type(row.prompt) for row in stored] == [type(row.prompt) for row in rows]


@pytest.mark.parametrize(
    ("store", "rows"), [(lambda rows: store_texts(Pair, rows), PAIRS), (store_tokens, TOKENS)], ids=["texts", "tokens"]
)
class TestSequence:
    """What a list does, for both sorts of rows."""

    def test_it_is_the_list_it_was_written_from(self, store: Any, rows: Any) -> None:
        stored = store(rows)
        assert len(stored) == 3
        assert [stored[0], stored[1], stored[-1]] == rows
        assert stored[1:] == rows[1:]
        assert list(stored[::-1]) == rows[::-1]
        assert stored[1:][0] == rows[1]
        assert stored == rows
        assert stored != rows[:2]
        assert stored != [rows[0], rows[1], rows[1]]
        with pytest.raises(IndexError):
            stored[3]

    def test_take_is_a_view_in_the_order_asked_for(self, store: Any, rows: Any) -> None:
        for source in (store(rows), rows):
            assert list(take(source, np.array([2, 0, 2]))) == [rows[2], rows[0], rows[2]]
        assert list(take(store(rows)[1:], np.array([1]))) == [rows[2]]

    def test_no_rows(self, store: Any, rows: Any) -> None:
        assert list(store([])) == []

    def test_nothing_is_left_on_disk_and_no_file_stays_open(self, store: Any, rows: Any) -> None:
        gc.collect()
        before = open_files()
        stored = store(rows)
        view = stored[1:]
        del stored
        assert list(cache_folder().iterdir()) == [], "the file has no name"
        assert view[0] == rows[1], "a view keeps the file"
        del view
        gc.collect()
        assert open_files() == before

    def test_a_cache_that_cannot_be_made_is_no_hindrance(
        self, store: Any, rows: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        (tmp_path / "file").write_text("")
        monkeypatch.setenv("PAIRTUNE_CACHE", str(tmp_path / "file" / "cache"))
        assert list(store(rows)) == rows


def test_token_rows_know_their_lengths_without_being_read(monkeypatch: pytest.MonkeyPatch) -> None:
    stored = store_tokens(TOKENS)
    monkeypatch.setattr(Mapped, "read", None)
    assert row_lengths(stored).tolist() == [8, 4, 4] == row_lengths(TOKENS).tolist()
    assert row_lengths(stored[1:]).tolist() == [4, 4]
    assert batches_by_tokens(stored, 8) == batches_by_tokens(TOKENS, 8)


def test_token_rows_pack_like_tuples() -> None:
    assert torch.equal(pack(store_tokens(TOKENS)).tokens_T, pack(TOKENS).tokens_T)


def memory_of_files() -> int:
    """Bytes of files that count as this process's memory."""
    fields = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["RssFile"].split()[0]) * 1024


def test_what_is_read_of_a_mapped_file_does_not_stay_in_memory() -> None:
    row = Tokens(tuple(range(10_000)), ((1,),))
    stored = store_tokens(row for _ in range(2_000))  # 80 MB
    before = memory_of_files()
    assert all(stored[i].prompt[-1] == 9_999 for i in range(2_000))
    assert memory_of_files() - before < 30e6


def test_one_response_a_row_is_a_row_too() -> None:
    rows = [Tokens((1, 2), ((3,),)), Tokens((4,), ((5, 6),))]
    assert list(store_tokens(rows)) == rows


def test_rows_of_different_numbers_of_responses_are_refused() -> None:
    with pytest.raises(ValueError, match="a row has 1 responses where the first one has 2"):
        store_tokens([TOKENS[0], Tokens((1,), ((2,),))])


def test_what_is_asked_stands_with_its_row_and_is_no_part_of_its_length() -> None:
    given = [
        Tokens((1, 2), ((3,), (4, 5))),
        Tokens((1, 2), ((3,), (4, 5)), (1, 2, 9, 9, 9)),
        Tokens((7,), ((8,), (6,))),
    ]
    rows = store_tokens(given)
    assert list(rows) == given
    assert [row.question for row in rows] == [(1, 2), (1, 2, 9, 9, 9), (7,)]
    assert rows.lengths().tolist() == list(map(len, given)) == [5, 5, 3]
    assert rows.sequence_lengths().tolist() == sequence_lengths(given).tolist() == [4, 4, 2]
    assert rows.highest_id() == 9
