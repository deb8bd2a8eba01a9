"""Which of several processes this one is. A launcher says it in the environment; nothing heavy is imported to know."""

import os

# What a launcher says to each rank; where one of them is missing there is one process.
ENVIRONMENT = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def rank() -> int:
    """This process's number; 0 where there is one process."""
    return int(os.environ["RANK"]) if size() > 1 else 0


def size() -> int:
    """How many processes do this work together."""
    return int(os.environ["WORLD_SIZE"]) if all(name in os.environ for name in ENVIRONMENT) else 1


def on_this_machine() -> int:
    """How many of them run on this machine, as far as the launcher says it; else all."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", size()))


def is_first() -> bool:
    """Whether this rank is the one that writes, prints and shows progress."""
    return rank() == 0
