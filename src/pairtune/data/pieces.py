"""Rows worked on in pieces by all cores, the results in the rows' order.

Processes are forked: they see the rows and the tokenizer as they lie in memory, so only places and results travel. They
run Python and tokenizers, never torch, whose threads a fork leaves behind. Where there is no fork, one core or little
to do, the pieces are done here. So is every piece that a process could not do: an error is then raised as without them.
"""

import os
import signal
import sys
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import Any, TypeVar

# Rows in a piece; from so many pieces on it is worth to begin processes.
PIECE, WORTH = 256, 16
# Pieces under way for each process: results wait in memory until those before them are there.
AHEAD = 4

Result = TypeVar("Result")
_work: Callable[[int, int], Any]


def in_pieces(work: Callable[[int, int], Result], count: int) -> Iterator[Result]:
    """`work(begin, end)` over all of range(count), a piece at a time, in order."""
    spans = [(begin, min(begin + PIECE, count)) for begin in range(0, count, PIECE)]
    workers = min(_cores(), len(spans))
    if sys.platform != "linux" or workers < 2 or len(spans) < WORTH:
        yield from (work(*span) for span in spans)
        return
    with ProcessPoolExecutor(workers, get_context("fork"), _begin, (work,)) as pool:
        under_way: deque[tuple[tuple[int, int], Future[Result] | None]] = deque()
        try:
            for span in spans:
                under_way.append((span, _submitted(pool, span)))
                if len(under_way) >= AHEAD * workers:
                    yield _result(work, *under_way.popleft())
            while under_way:
                yield _result(work, *under_way.popleft())
        finally:
            pool.shutdown(cancel_futures=True)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _submitted(pool: ProcessPoolExecutor, span: tuple[int, int]) -> Future[Any] | None:
    """The piece under way; None where a process has died, and so all of them."""
    with warnings.catch_warnings():  # Python 3.12 warns of every fork beside threads: see the head of this file
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            return pool.submit(_do, *span)
        except BrokenProcessPool:
            return None


def _result(work: Callable[[int, int], Result], span: tuple[int, int], future: Future[Result] | None) -> Result:
    if future is not None and future.exception() is None:
        return future.result()
    return work(*span)


def _begin(work: Callable[[int, int], Any]) -> None:
    """In a new process: what it is to do. Ctrl-C is its parent's to hear."""
    global _work
    _work = work
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def _do(begin: int, end: int) -> Any:
    return _work(begin, end)
