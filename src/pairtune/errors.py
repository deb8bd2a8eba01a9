"""The exceptions for mistakes of the user: the command line prints them as one line and exits with 2.

And what errors of libraries mean, whatever their class is.
"""

import errno

# What allocators say: torch's (on a processor it raises a plain RuntimeError), CUDA's, C++'s and the system's.
_NO_MEMORY = ("not enough memory", "can't allocate memory", "alloc_cpu", "out of memory", "bad_alloc", "bad allocation")


class InputError(Exception):
    """Something given to pairtune cannot be used.

    The message is one plain sentence that says where (file, line, field), what is wrong, and what to do.
    """


class DivergedError(InputError):
    """A model's numbers are not finite any more: of an arm of a comparison a result, not a mistake."""


def is_memory(error: BaseException | None) -> bool:
    """Whether `error`, or an error behind it, says that there was no memory left."""
    while error is not None:
        if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
            return True
        if isinstance(error, RuntimeError | OSError) and any(sign in str(error).lower() for sign in _NO_MEMORY):
            return True
        if isinstance(error, OSError) and error.errno == errno.ENOMEM:
            return True
        error = error.__cause__ or error.__context__
    return False


def is_panic(error: BaseException) -> bool:
    """Whether a library written in Rust broke off: its exception is no Exception, and has no name to catch it by."""
    return type(error).__name__ == "PanicException"
