"""Whether an error means that the disk is full: libraries wrap the system's own error in theirs."""

import errno

_SIGNS = ("No space left on device", "os error 28", "StorageFull")


def is_full(error: BaseException | None) -> bool:
    """Whether `error`, or an error behind it, says that no space is left."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if any(sign in str(error) for sign in _SIGNS):  # safetensors and transformers raise errors of their own
            return True
        error = error.__cause__ or error.__context__
    return False
