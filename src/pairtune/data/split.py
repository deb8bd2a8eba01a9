"""Held-out pairs whose prompts the training pairs never show."""

import hashlib
import json
import re
from collections.abc import Sequence
from itertools import chain
from typing import TypeVar

import numpy as np

from pairtune.data.pieces import in_pieces
from pairtune.data.schema import Labelled, Pair, PromptText
from pairtune.data.store import take
from pairtune.errors import InputError
from pairtune.progress import counted

Prompted = TypeVar("Prompted", Pair, Labelled)


def split_by_prompt(
    pairs: Sequence[Prompted], *, heldout: int | float, seed: int
) -> tuple[Sequence[Prompted], Sequence[Prompted]]:
    """Training and held-out pairs (or labelled responses); those of one prompt stay together, in their old order.

    Prompts of the same words are one, whatever their letters, spaces and marks: held out, the one would be known by the
    other. Prompts that are only nearly the same are for `pairtune check` to tell.

    ``heldout`` is a number of pairs (int) or a share of them (float between 0 and 1). Prompts are taken in
    the order of a hash of the seed and their content, whatever the order of the rows, as long as they fit:
    the held-out side never gets more pairs than asked, and fewer only if every prompt left has too many.

    Raises InputError when either side would be empty.
    """
    count = _count(len(pairs), heldout)

    def piece(begin: int, end: int) -> tuple[bytes, list[int]]:
        part = pairs[begin:end]
        digests = b"".join(_digest(pair.prompt, pair.beside, seed) for pair in part)
        return digests, [_words(pair.prompt, pair.beside) for pair in part]

    digests, words = zip(*in_pieces(piece, len(pairs)), strict=True)
    words_N = np.fromiter(chain.from_iterable(words), dtype=np.uint64, count=len(pairs))
    prompt_N, sizes = _by_words(words_N, np.frombuffer(b"".join(digests), dtype="S32"))
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


def _by_words(words_N: np.ndarray, digest_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The number of each pair's prompt, in the order of each one's first digest, and how many pairs each has."""
    _, group_N = np.unique(words_N, return_inverse=True)
    order = np.argsort(digest_N)[::-1]
    first = np.empty(int(group_N.max()) + 1, dtype=digest_N.dtype)
    first[group_N[order]] = digest_N[order]  # the last one written is the first in their order
    _, number = np.unique(first, return_inverse=True)
    prompt_N: np.ndarray = number[group_N]
    return prompt_N, np.bincount(prompt_N)


def _words(prompt: PromptText, beside: str) -> int:
    turns = [("", prompt)] if isinstance(prompt, str) else [(turn.role, turn.content + turn.more) for turn in prompt]
    said = [[role, re.findall(r"\w+", text.lower()) or text] for role, text in turns]
    return int.from_bytes(hashlib.blake2b(json.dumps([said, beside]).encode("ascii"), digest_size=8).digest(), "little")


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
