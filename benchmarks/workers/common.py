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
        """Count what happens inside, a GPU's work to its end."""
        _wait()
        began = time.perf_counter()
        try:
            yield
        finally:
            _wait()
            self.seconds += time.perf_counter() - began


def _cuda() -> Any:
    """`torch.cuda` where it is in use."""
    torch = sys.modules.get("torch")
    return torch.cuda if torch and torch.cuda.is_available() else None


def _wait() -> None:
    if cuda := _cuda():
        cuda.synchronize()


def peak_memory() -> int:
    """The most memory that this process has held, in bytes: tensors on the GPU if there is one, else resident memory.

    The kernel's high-water mark belongs to the program; `ru_maxrss` would carry over what the parent held.
    """
    if cuda := _cuda():
        return int(cuda.max_memory_allocated())
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
