"""Being asked to stop: Ctrl-C, SIGTERM (`kill`, a scheduler), SIGHUP (the terminal has gone); all are one thing.

Handlers stand while a block goes on, in the main thread, and only where nobody else has one: what is ignored (`nohup`)
stays ignored.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from pairtune.progress import say
from pairtune.rank import size

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_OURS = "_pairtune"
# With several ranks one Ctrl-C may come from the terminal and from the launcher: so many seconds apart they are one.
TWICE = 3.0


class Stopped(KeyboardInterrupt):
    """Somebody asked to stop. `number`: by which signal; `left`: what becomes of the work, if that is known."""

    def __init__(self, number: int = signal.SIGINT, left: str = "") -> None:
        super().__init__()
        self.number, self.left = number, left


def number_of(error: KeyboardInterrupt) -> int:
    """The signal that an interruption came by."""
    return error.number if isinstance(error, Stopped) else int(signal.SIGINT)


def told(error: KeyboardInterrupt, left: str) -> Stopped:
    """The interruption, with what becomes of the work unless it knows that better."""
    return Stopped(number_of(error), (error.left if isinstance(error, Stopped) else "") or left)


class Interruption:
    """Whether somebody has asked to stop, and by which signal."""

    def __init__(self) -> None:
        self.asked, self.number, self.since = False, int(signal.SIGINT), 0.0


@contextmanager
def stoppable() -> Iterator[None]:
    """A signal stops what goes on in the block at once, as Ctrl-C does: it raises Stopped."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Stopped(number)

    with _handling(stop):
        yield


@contextmanager
def interruptible(left: Callable[[], str] = str) -> Iterator[Interruption]:
    """A first signal lets the step under way finish and its checkpoint be kept; a second one stops at once.

    left(): what the same command begins with afterwards. Whatever stops the block raises Stopped with it.
    """
    interruption = Interruption()

    def ask(number: int, frame: FrameType | None) -> None:
        if interruption.asked:
            if size() > 1 and time.monotonic() - interruption.since < TWICE:
                return
            raise Stopped(number)
        interruption.asked, interruption.number, interruption.since = True, number, time.monotonic()
        again = "press Ctrl-C again" if number == signal.SIGINT else "send it again"
        _say(f"\n  {signal.Signals(number).name}: stopping after this step; {again} to stop at once")

    try:
        with _handling(ask):
            yield interruption
    except KeyboardInterrupt as error:
        number = error.number if isinstance(error, Stopped) else interruption.number
        raise Stopped(number, left()) from error


def say_stopped(error: KeyboardInterrupt) -> None:
    """Say what becomes of the work."""
    left = error.left if isinstance(error, Stopped) else ""
    _say(f"stopped; {left}" if left else "stopped")


@contextmanager
def _handling(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """A handler for the signals that nobody else handles; those from before stand again afterwards."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    setattr(handler, _OURS, True)
    before = {}
    try:
        for number in SIGNALS:
            standing = signal.getsignal(number)
            if standing in (signal.SIG_DFL, signal.default_int_handler) or hasattr(standing, _OURS):
                before[number] = signal.signal(number, handler)
        yield
    finally:
        for number, standing in before.items():
            signal.signal(number, standing)


def _say(line: str) -> None:
    """A line to the terminal; if that has gone, whatever is written from now on goes nowhere, and nothing fails."""
    try:
        say(line)
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in (sys.stdout, sys.stderr):
            os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
