"""When this sitting began: a command's with its process, imports included; a call's from Python with the call."""

import time

_LOADED = time.monotonic()  # the command line imports this module before anything that takes time
_is_command = False


def this_process_is_one_command() -> None:
    """All that this process does belongs to the command that it was started for."""
    global _is_command
    _is_command = True


def began() -> float:
    """The moment at which what is under way began, on the clock of time.monotonic()."""
    return _LOADED if _is_command else time.monotonic()
