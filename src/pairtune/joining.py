"""Ranks that work together: joined in one store, and ended together when one of them fails. One process joins nobody.

`torchrun` (or `accelerate launch`) starts the ranks, and says in the environment who each one is. Each beats in the
launcher's store; one that fails says so there, and the others end with it.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import cache
from itertools import count
from typing import TYPE_CHECKING, Any

from pairtune.errors import InputError
from pairtune.rank import is_first, rank, size

if TYPE_CHECKING:
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

# Seconds: a collective that is not answered for so long has failed; between two looks at the store.
TIMEOUT, LOOK = 600.0, 0.2
# A rank beats once in so many seconds. When a collective has failed, one that has not for SILENT has ended, and this is
# looked for during SEARCHED. Another's failure leaves a rank so many seconds to end by itself.
BEAT, SILENT, SEARCHED, GRACE = 0.5, 6.0, 20.0, 5.0
# What torch says when a collective fails.
_BROKEN = ("gloo", "nccl", "connection", "timed out", "socket", "tcpstore", "broken pipe")

_TOLD = "_pairtune_told_by_this_rank"


class OtherRankError(InputError):
    """Another rank has failed, and said why."""


def tells(error: BaseException) -> bool:
    """Whether this rank says what went wrong, if it is not the first: an error of several ranks is told by one."""
    return is_first() or getattr(error, _TOLD, False)


def of_rank(line: str) -> str:
    """What stands before what this rank says of a failure: nothing where it is the first, or the line names a rank."""
    return "" if is_first() or line.startswith("rank ") else f"rank {rank()}: "


@cache
def _server() -> TCPStore:
    """The launcher's store, or the first rank's own where it has none."""
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    hosts = rank() == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    return TCPStore(address, port, size(), hosts, timedelta(seconds=TIMEOUT), wait_for_workers=False)


# How often this process has joined the others: what one time leaves in the store is not read the next.
_joined = count()


class Ranks:
    """The store that all ranks share, under keys of this attempt; the beat that says that this rank lives."""

    def __init__(self) -> None:
        from torch.distributed import PrefixStore  # type: ignore[attr-defined]

        attempt = [os.environ.get(f"TORCHELASTIC_{name}", "0") for name in ("RUN_ID", "RESTART_COUNT")]
        self.store = PrefixStore("/".join(["pairtune", *attempt, str(next(_joined))]), _server())
        self.number, self.grouped, self.over = count(), False, threading.Event()
        threading.Thread(target=self._beat, daemon=True).start()

    def _beat(self) -> None:
        """Say that this rank lives; end it where another has failed and it cannot end by itself."""
        seen = 0.0
        for beat in count():
            with suppress(Exception):  # the store has gone: the collectives tell
                self.store.set(f"beat/{rank()}", str(beat))
                if not seen and self.store.check(["failed"]):
                    seen = time.monotonic()
            if seen and time.monotonic() - seen > GRACE:
                os._exit(2)
            if self.over.wait(BEAT):
                return

    def wait_for(self, key: str) -> str:
        """The value of a key, however long it takes. Raises OtherRankError if another rank fails meanwhile."""
        while not self.store.check([key]):
            if self.store.check(["failed"]):
                raise OtherRankError("another rank has failed")
            time.sleep(LOOK)
        return bytes(self.store.get(key)).decode()

    def of_all(self, value: Any) -> list[Any]:
        """A plain value of each rank, in the order of ranks."""
        key = f"values/{next(self.number)}"
        self.store.set(f"{key}/{rank()}", json.dumps(value))
        return [json.loads(self.wait_for(f"{key}/{other}")) for other in range(size())]

    def group(self) -> None:
        """Make the process group when tensors first have to travel."""
        if self.grouped:
            return
        import torch
        from torch import distributed
        from torch.distributed import PrefixStore  # type: ignore[attr-defined]

        backend = "gloo"
        if torch.cuda.is_available():
            local = int(os.environ.get("LOCAL_RANK", rank()))
            torch.cuda.set_device(local)
            backend = "cpu:gloo,cuda:nccl"
        distributed.init_process_group(
            backend,
            store=PrefixStore("group", self.store),
            rank=rank(),
            world_size=size(),
            timeout=timedelta(seconds=TIMEOUT),
        )
        self.grouped = True

    def ended_without_a_word(self, stopped: bool) -> int | None:
        """The rank that has stopped beating and has not said that it ended; None if each has ended in order.

        stopped: this rank ends because it was asked to, which is said to the others.
        """
        if stopped:
            self.store.set(f"ended/{rank()}", "1")
        others = [other for other in range(size()) if other != rank()]
        heard, since = dict.fromkeys(others, b""), dict.fromkeys(others, time.monotonic())
        until = time.monotonic() + (SEARCHED if not stopped else SILENT + GRACE)
        while time.monotonic() < until:
            if self.store.check(["failed"]) and not stopped:
                return None
            if stopped and self.store.check([f"ended/{other}" for other in others]):
                return None
            for other in others:
                key = f"beat/{other}"
                beat = bytes(self.store.get(key)) if self.store.check([key]) else b""
                if beat != heard[other]:
                    heard[other], since[other] = beat, time.monotonic()
                silent = time.monotonic() - since[other] > SILENT
                if silent and not self.store.check([f"ended/{other}"]):
                    return other
            time.sleep(LOOK)
        return None

    def end(self, *, grouped: bool) -> None:
        """Say that this rank has ended in order."""
        self.over.set()
        with suppress(Exception):
            self.store.set(f"ended/{rank()}", "1")
        if grouped and self.grouped:
            from torch import distributed

            distributed.destroy_process_group()


_together: Ranks | None = None


def ranks() -> Ranks | None:
    """Those that work is shared out among now; None where one process does it."""
    return _together


@contextmanager
def joined() -> Iterator[None]:
    """Do what is in the block together with the other ranks, if there are others.

    What one raises ends all. Who is not the one to tell of it raises OtherRankError; InputError says which rank has
    gone without a word.
    """
    global _together
    if size() == 1 or _together is not None:
        yield
        return
    _check_devices()
    _together = Ranks()
    try:
        yield
        _together.of_all(None)
    except BaseException as error:
        _fail(_together, error)
        raise
    else:
        _together.end(grouped=True)
    finally:
        _together.end(grouped=False)
        _together = None


def _check_devices() -> None:
    import torch

    there, local = torch.cuda.device_count() if torch.cuda.is_available() else 0, int(os.environ.get("LOCAL_RANK", 0))
    if there and local >= there:
        raise InputError(f"there are more ranks on this machine than its {there} GPUs; give --nproc-per-node {there}")
    if there:
        torch.cuda.set_device(local)


def _fail(ranks: Ranks, error: BaseException) -> None:
    """Say in the store that this rank ends by an error, and raise another one if it is another rank's."""
    if isinstance(error, OtherRankError):
        return
    stopped = isinstance(error, KeyboardInterrupt)  # by a person, or by the launcher because a rank has gone
    if stopped or _is_broken(error):
        _ignore_signals()  # the launcher's, while this rank finds out which one has gone
        try:
            gone = ranks.ended_without_a_word(stopped)
        except Exception:  # the first rank held the store
            gone = 0
        if stopped and gone is None:
            return
        if gone is not None:
            error = InputError(
                f"rank {gone} of {size()} ended without a word (killed, or out of memory?), so this one ends as well; "
                "the same command goes on from the last checkpoint"
            )
    if not is_first():
        time.sleep(LOOK)  # what fails on all ranks is told by the first
    told = str(rank())
    with suppress(Exception):  # the store has gone with the first rank
        told = bytes(ranks.store.compare_set("failed", "", told)).decode()
    if told != str(rank()):
        raise OtherRankError(f"rank {told} has failed") from error
    setattr(error, _TOLD, True)
    raise error


def _ignore_signals() -> None:
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)


def _is_broken(error: BaseException | None) -> bool:
    """Whether a collective failed because another rank was not there."""
    while error is not None:
        named = type(error).__name__.startswith("Dist")
        if named or (isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in _BROKEN)):
            return True
        error = error.__cause__
    return False
