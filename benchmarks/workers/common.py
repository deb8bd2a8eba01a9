"""A worker's frame: a JSON job on standard input, a JSON line as the result. Standard library only, for any peer."""

import json
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from typing import Any

Job = Mapping[str, Any]
Task = Callable[[Job], dict[str, Any]]


def serve(tasks: Mapping[str, Task]) -> None:
    """Do the job's task and print its result; whatever libraries print meanwhile goes to standard error."""
    job = json.load(sys.stdin)
    with redirect_stdout(sys.stderr):
        result = tasks[job["task"]](job)
    print(json.dumps({**result, "peak_memory_bytes": peak_memory()}))


class Clock:
    """Seconds spent inside `running` blocks."""

    def __init__(self) -> None:
        self.seconds = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count what happens inside."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds += time.perf_counter() - began


def peak_memory() -> int:
    """The most resident memory that this process has held, in bytes.

    The kernel's high-water mark belongs to the program; `ru_maxrss` would carry over what the parent held.
    """
    try:
        with open("/proc/self/status", encoding="ascii") as status:
            return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def read_rows(path: str) -> list[dict[str, Any]]:
    """The rows of a JSON lines file."""
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file]
