"""A chat template is a program that came with a model: it has so long, so much memory and so many letters, no more."""

import functools
import os
import resource
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

import jinja2

from pairtune.errors import InputError

# Seconds of the processor that writing a dialogue may take, and of every character of it: on a machine that is busy
# with other things, or asleep, a template is not to blame.
SECONDS, SECONDS_A_CHARACTER = 10.0, 1e-5
# Bytes that it may take beyond what the process has, and for every character of the dialogue.
ROOM, ROOM_A_CHARACTER = 512 << 20, 64
# Characters that may come out, and for every character of the dialogue.
LETTERS, LETTERS_A_CHARACTER = 1_000_000, 10
WHOSE = "the model's chat template"


class _TooSlow(BaseException):
    """No Exception, so that nothing between here and the template takes it for its own."""


def written(write: Callable[[], Any], size: int) -> str:
    """What a template writes of a dialogue of `size` characters. Raises InputError if it takes too much.

    Other errors are the template's own. Without limits where they cannot be set: in a thread, or beyond Unix.
    """
    try:
        with _seconds(SECONDS + size * SECONDS_A_CHARACTER), _room(ROOM + size * ROOM_A_CHARACTER):
            text = str(write())
    except _TooSlow:
        raise InputError(f"{WHOSE} does not come to an end on a dialogue of {size:,} characters; mend it") from None
    except MemoryError as error:
        raise InputError(f"{WHOSE} takes too much memory on a dialogue of {size:,} characters; mend it") from error
    if len(text) > LETTERS + size * LETTERS_A_CHARACTER:
        raise InputError(f"{WHOSE} writes {len(text):,} characters for a dialogue of {size:,}; mend it")
    return text


@functools.lru_cache(maxsize=16)
def check_powers(template: str) -> None:
    """Raises InputError for a power: one number of it can take hours, and no limit reaches into that."""
    before = ""
    with suppress(jinja2.TemplateError):  # it is told where the template is asked
        for _, kind, token in jinja2.Environment().lex(template):
            if kind == "operator" and token == "**" and before not in ("(", ","):
                raise InputError(f"{WHOSE} raises something to a power, which may take for ever; mend it")
            before = token if kind not in ("whitespace",) else before


@contextmanager
def _seconds(limit: float) -> Iterator[None]:
    """Raises _TooSlow inside once so many seconds of the processor have gone into it."""
    if threading.current_thread() is not threading.main_thread() or signal.getitimer(signal.ITIMER_VIRTUAL)[0]:
        yield
        return

    def stop(_: int, __: FrameType | None) -> None:
        raise _TooSlow

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, limit)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


@functools.lru_cache(maxsize=1)
def _held(process: int, second: int) -> int:
    """Bytes of address space that this process has, looked up once a second: it takes longer than many a row does.

    0 where that cannot be known.
    """
    try:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    except OSError:  # not Linux
        return 0


@contextmanager
def _room(limit: int) -> Iterator[None]:
    """Inside, the process may hold so many bytes more: beyond them Python raises MemoryError."""
    held = _held(os.getpid(), int(time.monotonic()))
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    wanted = held + limit
    if not held or (soft != resource.RLIM_INFINITY and soft <= wanted):
        yield
        return
    resource.setrlimit(resource.RLIMIT_AS, (wanted, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
