"""Held-out pairs whose prompts the training pairs never show."""

import hashlib
import json
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from pairtune.data.schema import Labelled, Pair, PromptText
from pairtune.data.store import take
from pairtune.errors import InputError
from pairtune.progress import counted

Prompted = TypeVar("Prompted", Pair, Labelled)


def split_by_prompt(
    pairs: Sequence[Prompted], *, heldout: int | float, seed: int
) -> tuple[Sequence[Prompted], Sequence[Prompted]]:
    """Training and held-out pairs (or labelled responses); those of one prompt stay together, in their old order.

    ``heldout`` is a number of pairs (int) or a share of them (float between 0 and 1). Prompts are taken in
    the order of a hash of the seed and their content, whatever the order of the rows, as long as they fit:
    the held-out side never gets more pairs than asked, and fewer only if every prompt left has too many.

    Raises InputError when either side would be empty.
    """
    count = _count(len(pairs), heldout)
    digests = np.frombuffer(b"".join(_digest(pair.prompt, pair.beside, seed) for pair in pairs), dtype="S32")
    _, prompt_N, sizes = np.unique(digests, return_inverse=True, return_counts=True)  # in the digests' order
    taken = np.zeros(len(sizes), dtype=bool)
    room = count
    for prompt, size in enumerate(sizes.tolist()):
        if room == 0:
            break
        if size <= room:
            taken[prompt] = True
            room -= size
    if not taken.any():
        raise InputError(
            f"no held-out pairs: every prompt has more than {counted(count, 'pair')} and may not be cut; "
            f"hold out at least {counted(int(sizes.min()), 'pair')}"
        )
    held_N = taken[prompt_N]
    return take(pairs, np.flatnonzero(~held_N)), take(pairs, np.flatnonzero(held_N))


def _count(total: int, heldout: int | float) -> int:
    """The number of pairs to hold out: at least one, and at least one fewer than there are."""
    if isinstance(heldout, float) and not 0 < heldout < 1:
        raise InputError(f"a held-out share of {heldout:g} is not between 0 and 1; give one that is")
    count = round(heldout * total) if isinstance(heldout, float) else heldout
    if count < 1:
        raise InputError(f"no held-out pairs: {heldout:g} of {total} is {count}; hold out at least 1")
    if count >= total:
        raise InputError(f"no training pairs are left: {count} of {total} held out; hold out fewer")
    return count


def _digest(prompt: PromptText, beside: str, seed: int) -> bytes:
    turns = [] if isinstance(prompt, str) else [[turn.role, turn.content, turn.more] for turn in prompt]
    asked = prompt if isinstance(prompt, str) else [turn if turn[2] else turn[:2] for turn in turns]
    content = [seed, asked, beside] if beside else [seed, asked]
    return hashlib.sha256(json.dumps(content).encode("ascii")).digest()
