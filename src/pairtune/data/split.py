"""Held-out pairs whose prompts the training pairs never show."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import TypeVar

from pairtune.data.schema import Labelled, Pair, PromptText
from pairtune.errors import InputError


def shared_prompts(train: Iterable[PromptText], heldout: Iterable[PromptText]) -> int:
    """How many distinct prompts stand on both sides. Any at all make held-out figures look too good."""
    return len(set(train) & set(heldout))


Prompted = TypeVar("Prompted", Pair, Labelled)


def split_by_prompt(
    pairs: Sequence[Prompted], *, heldout: int | float, seed: int
) -> tuple[list[Prompted], list[Prompted]]:
    """Training and held-out pairs (or labelled responses); those of one prompt stay together, in their old order.

    ``heldout`` is a number of pairs (int) or a share of them (float between 0 and 1). Prompts are taken in
    the order of a hash of the seed and their content, whatever the order of the rows, as long as they fit:
    the held-out side never gets more pairs than asked, and fewer only if every prompt left has too many.

    Raises InputError when either side would be empty.
    """
    count = _count(len(pairs), heldout)
    sizes: dict[PromptText, int] = {}
    for pair in pairs:
        sizes[pair.prompt] = sizes.get(pair.prompt, 0) + 1
    taken: set[PromptText] = set()
    room = count
    for prompt in sorted(sizes, key=lambda prompt: _digest(prompt, seed)):
        if room == 0:
            break
        if sizes[prompt] <= room:
            taken.add(prompt)
            room -= sizes[prompt]
    if not taken:
        raise InputError(
            f"no held-out pairs: every prompt has more than {count} pairs and may not be cut; "
            f"hold out at least {min(sizes.values())} pairs"
        )
    return (
        [pair for pair in pairs if pair.prompt not in taken],
        [pair for pair in pairs if pair.prompt in taken],
    )


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


def _digest(prompt: PromptText, seed: int) -> bytes:
    content = prompt if isinstance(prompt, str) else [[turn.role, turn.content] for turn in prompt]
    return hashlib.sha256(json.dumps([seed, content]).encode("ascii")).digest()
