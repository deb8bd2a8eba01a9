"""A pass that memory has no room for: halved, and what it was part of done again from the same state."""

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import torch

from pairtune import memory
from pairtune.data.pack import Tokens, row_lengths
from pairtune.engine.hidden import hold_passes, passes, tokens_per_pass
from pairtune.errors import InputError, is_memory
from pairtune.progress import say
from pairtune.training.step import Optimizer

Found = TypeVar("Found")


def within_memory(
    work: Callable[[], Found], rows: Sequence[Tokens], optimizers: Iterable[Optimizer], device: torch.device
) -> Found:
    """What work() gives that gathers these rows' gradients, nothing else; in smaller passes if memory runs out.

    Losses are normalised by the step's counts, so the gradients are the same but for rounding. What was gathered by
    then is forgotten. Raises InputError if a row does not fit by itself. With several processes nothing is halved: the
    others would wait for passes that never come.
    """
    while True:
        try:
            return work()
        except Exception as error:
            if not is_memory(error) or (torch.distributed.is_available() and torch.distributed.is_initialized()):
                raise
        # The error is gone by here, and with it the frames that held the pass's tensors.
        for optimizer in optimizers:
            optimizer.forget()
        _halve(rows, device)


def _halve(rows: Sequence[Tokens], device: torch.device) -> None:
    """Hold passes to half of the largest of these rows that more than one row shares."""
    lengths = row_lengths(rows)
    shared = [int(lengths[group].sum()) for group in passes(rows, device) if len(group) > 1]
    if not shared:
        raise InputError(
            f"the memory ran out ({memory.told()}) in a pass of one row of {int(lengths.max()):,} tokens, which cannot "
            "be parted; try a smaller --max-tokens, --lora or a smaller model"
        )
    held = max(1, min(max(shared), tokens_per_pass(device)) // 2)
    hold_passes(held)
    if device.type == "cuda":
        torch.cuda.empty_cache()
    say(
        f"  the memory ran out ({memory.told()}) in a pass of {max(shared):,} tokens; the step is done again, and from "
        f"here on a pass has at most {held:,}"
    )
