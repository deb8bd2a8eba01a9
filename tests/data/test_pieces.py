"""Work shared out among processes gives what one process gives, errors too."""

import os

import pytest

from pairtune.data import pieces
from pairtune.data.pieces import in_pieces

HERE = os.getpid()


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "PIECE", 3)
    monkeypatch.setattr(pieces, "WORTH", 2)
    monkeypatch.setattr(pieces, "_cores", lambda: 2)


def test_results_are_in_order_and_made_by_other_processes() -> None:
    found = list(in_pieces(lambda begin, end: (os.getpid(), [i * i for i in range(begin, end)]), 40))
    assert [number for _, part in found for number in part] == [i * i for i in range(40)]
    assert HERE not in {process for process, _ in found}


def test_little_is_done_here() -> None:
    assert list(in_pieces(lambda begin, end: os.getpid(), 3)) == [HERE]
    assert list(in_pieces(lambda begin, end: os.getpid(), 0)) == []


def test_an_error_is_raised_here_after_the_results_before_it() -> None:
    class OwnError(Exception):
        """What no other process could hand over."""

    def work(begin: int, end: int) -> int:
        if begin >= 9:
            raise OwnError(begin)
        return begin

    results = in_pieces(work, 40)
    assert [next(results) for _ in range(3)] == [0, 3, 6]
    with pytest.raises(OwnError) as raised:
        next(results)
    assert raised.value.args == (9,)


def test_what_a_process_dies_of_is_done_here() -> None:
    def work(begin: int, end: int) -> tuple[int, int]:
        if begin == 12 and os.getpid() != HERE:
            os._exit(1)
        return begin, os.getpid()

    found = list(in_pieces(work, 40))
    assert [begin for begin, _ in found] == list(range(0, 40, 3))
    assert found[4] == (12, HERE)


def test_results_that_nobody_wants_any_more_end_the_processes() -> None:
    results = in_pieces(lambda begin, end: begin, 4000)
    assert next(results) == 0
    results.close()  # type: ignore[attr-defined]
    with pytest.raises(StopIteration):
        next(results)
