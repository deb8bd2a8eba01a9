"""When this sitting began: a command's with its process, imports included; a call's from Python with the call."""

import os
import time
from pathlib import Path

# The command line imports this module before anything that takes time; before that, there is Python's own start.
_LOADED = time.monotonic()
# A process that is older than this was something else before: Python does not take so long to start.
LONGEST_START = 10.0
_is_command = False


def this_process_is_one_command() -> None:
    """All that this process does belongs to the command that it was started for."""
    global _is_command
    _is_command = True


def began() -> float:
    """The moment at which what is under way began, on the clock of time.monotonic()."""
    return _LOADED - _start() if _is_command else time.monotonic()


def _start() -> float:
    """Seconds from the start of this process to the import of this module, where the system tells them (Linux)."""
    try:
        fields = Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError, IndexError, ValueError):
        return 0.0
    start = age - (time.monotonic() - _LOADED)
    return start if 0 <= start <= LONGEST_START else 0.0
