"""Packs lie as drawn in the module's head: the prompt once, positions, branches, where log-probabilities are read."""

import random
from itertools import pairwise
from typing import Any

import pytest
import torch

from pairtune.data.pack import Tokens, batches_by_tokens, pack, pack_prompts

#      place    0  1    2  3  4    5  6  7    8  9
ROWS = [Tokens((10, 11), ((12, 13, 14), (15,))), Tokens((20,), ((21,), (22, 23)))]


def random_rows(count: Any, *, seed: Any = 0, longest: Any = 40) -> Any:
    chance = random.Random(seed)

    def tokens() -> Any:
        return tuple(chance.choices(range(100), k=chance.randint(1, longest)))

    return [Tokens(tokens(), tuple(tokens() for _ in range(chance.randint(1, 3)))) for _ in range(count)]


def test_by_hand() -> None:
    found = pack(ROWS)
    assert found.tokens_T.tolist() == [10, 11, 12, 13, 14, 15, 20, 21, 22, 23]
    assert found.positions_T.tolist() == [0, 1, 2, 3, 4, 2, 0, 1, 1, 2]
    assert found.target_R.tolist() == [12, 13, 14, 15, 21, 22, 23]
    assert found.source_R.tolist() == [1, 2, 3, 1, 6, 6, 8]  # both responses are predicted from the prompt's end
    assert found.response_R.tolist() == [0, 0, 0, 1, 2, 3, 3]
    assert found.last_S.tolist() == [4, 5, 7, 9]
    assert found.row_S.tolist() == [0, 0, 1, 1]
    assert (found.rows, found.responses) == (2, 4)
    assert found.lengths().tolist() == [3, 1, 1, 2]
    assert len(ROWS[0]) == 6


def seen(found: Any, window: Any = None) -> Any:
    """What each token sees by the rule of `Segments`: [T, T] bool."""
    cut, tokens = found.segments, len(found.tokens_T)
    key_X = torch.arange(tokens) if cut.index_X is None else cut.index_X
    result = torch.zeros(tokens, tokens, dtype=torch.bool)
    for (begin, end), (first, last) in zip(pairwise(cut.queries.tolist()), pairwise(cut.keys.tolist()), strict=True):
        for query in range(begin, end):
            stop = last - (end - 1 - query)
            result[query, key_X[max(first, stop - window) if window else first : stop].long()] = True
    return result


def test_who_sees_whom_by_hand() -> None:
    found = pack(ROWS[:1])
    expected = ["x.....", "xx....", "xxx...", "xxxx..", "xxxxx.", "xx...x"]
    assert ["".join("x" if sees else "." for sees in row) for row in seen(found).tolist()] == expected
    expected = ["x.....", "xx....", ".xx...", "..xx..", "...xx.", ".x...x"]  # 15 stands where 12 does, next to 11
    assert ["".join("x" if sees else "." for sees in row) for row in seen(found, 2).tolist()] == expected


@pytest.mark.parametrize("window", [None, 5])
def test_who_sees_whom_is_the_rule_on_random_rows(window: Any) -> None:
    rows = random_rows(30, seed=1)
    found = pack(rows)
    branch_T = torch.cat(
        [torch.cat([torch.full((len(p),), i) for i, p in enumerate((row.prompt, *row.responses))]) for row in rows]
    )
    row_T = torch.repeat_interleave(torch.arange(len(rows)), torch.tensor([len(row) for row in rows]))
    q, k = torch.meshgrid(torch.arange(len(row_T)), torch.arange(len(row_T)), indexing="ij")
    rule = (row_T[q] == row_T[k]) & (k <= q) & ((branch_T[k] == 0) | (branch_T[k] == branch_T[q]))
    if window:
        rule &= found.positions_T[q] - found.positions_T[k] < window
    else:
        assert int(rule.sum()) == found.attended
    assert torch.equal(seen(found, window), rule)


@pytest.mark.parametrize("row", [Tokens((), ((1,),)), Tokens((1,), ()), Tokens((1,), ((2,), ()))])
def test_what_cannot_be_packed_is_refused(row: Any) -> None:
    with pytest.raises(ValueError, match="at least one token each"):
        pack([ROWS[0], row])


def test_the_same_device_is_the_same_pack() -> None:
    found = pack(ROWS)
    assert found.to(torch.device("cpu")) is found
    moved = found.to(torch.device("meta"))
    assert {moved.tokens_T.device.type, moved.segments.queries.device.type, moved.last_S.device.type} == {"meta"}
    assert (moved.rows, moved.attended) == (found.rows, found.attended)


class TestBatches:
    """Rows grouped by length under a budget of tokens."""

    def test_every_row_once_within_the_budget_longest_first(self) -> None:
        rows = random_rows(60, seed=4)
        groups = batches_by_tokens(rows, 150)
        assert sorted(i for group in groups for i in group) == list(range(60))
        assert all(sum(len(rows[i]) for i in group) <= 150 or len(group) == 1 for group in groups)
        lengths = [len(rows[i]) for group in groups for i in group]
        assert lengths == sorted(lengths, reverse=True)

    def test_a_row_over_the_budget_goes_alone(self) -> None:
        assert batches_by_tokens(ROWS, 1) == [[0], [1]]

    def test_ties_go_by_row_so_the_order_is_the_same_every_time(self) -> None:
        assert batches_by_tokens([ROWS[0]] * 4, 12) == [[0, 1], [2, 3]]

    def test_no_rows(self) -> None:
        assert batches_by_tokens([], 10) == []


def test_prompts_alone_are_read_at_their_last_tokens() -> None:
    found = pack_prompts([(5, 6, 7), (8,), (9, 10)])
    assert found.source_R.tolist() == [2, 3, 5]
    assert found.positions_T.tolist() == [0, 1, 2, 0, 0, 1]
    assert found.tokens_T.tolist() == [5, 6, 7, 8, 9, 10]
    assert found.attended == (1 + 2 + 3) + 1 + (1 + 2)  # each token sees itself and those before it
