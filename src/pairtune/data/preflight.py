"""What token rows are checked for before a step is spent on them. A fault is an error of one line; the rest is said."""

import hashlib
from array import array
from collections.abc import Collection, Sequence

from pairtune.data.pack import Tokens
from pairtune.data.tokenize import Remarks
from pairtune.errors import InputError
from pairtune.progress import counted, say

# Row numbers named in a message.
SHOWN_ROWS = 5


def check_rows(
    train: Sequence[Tokens],
    heldout: Sequence[Tokens],
    tokenizer: object,
    *,
    end_ids: Collection[int],
    bos_id: int | None,
    say_longer: bool = True,
) -> None:
    """One BOS at most, an end on the responses, both responses different, no prompt on both sides.

    Raises InputError for a fault; says the boundary's tokens and, unless the check of the texts has said it already,
    the share of pairs in which the longer one wins.
    """
    held = {_prompt_hash(row) for row in heldout}
    double, same, shared, unended, longer = [], [], set(), 0, 0.0
    for i, row in enumerate(train):
        if bos_id is not None and row.prompt[:2] == (bos_id, bos_id):
            double.append(i)
        if len(set(row.responses)) < len(row.responses):
            same.append(i)
        shared |= {_prompt_hash(row)} & held
        unended += sum(response[-1] not in end_ids for response in row.responses)
        first, second = (len(row.responses[side]) for side in (0, -1))
        longer += 0.5 if first == second else float(first > second)
    if double:
        raise InputError(
            f"{counted(len(double), 'prompt')} {'begins' if len(double) == 1 else 'begin'} with two beginning-of-text "
            f"tokens (first: training pair {double[0] + 1})"
        )
    if same:
        have = "has" if len(same) == 1 else "have"
        raise InputError(
            f"{counted(len(same), 'pair')} {have} two equal responses (the first is training pair {same[0] + 1})"
        )
    if shared:
        are = "is" if len(shared) == 1 else "are"
        raise InputError(
            f"{counted(len(shared), 'prompt')} {are} in the training and in the held-out pairs; split by prompt"
        )
    if unended:
        have = "has" if unended == 1 else "have"
        say(f"data: {counted(unended, 'response')} {have} no end-of-text token (cut by truncation or the length limit)")
    if say_longer and len(train[0].responses) == 2:
        share = longer / len(train)
        say(f"data: the longer response is the chosen one in {share:.1%} of {counted(len(train), 'pair')}")
    decode = getattr(tokenizer, "decode", repr)
    row = train[0]
    say(f"data: boundary of the first row: {decode(row.prompt[-4:])!r} | {decode(row.responses[0][:4])!r} ... "
        f"{decode(row.responses[0][-2:])!r}")  # fmt: skip


def _prompt_hash(row: Tokens) -> bytes:
    """A prompt in 16 bytes: as many prompts as there are rows do not have to be in memory at once."""
    return hashlib.blake2b(array("i", row.prompt).tobytes(), digest_size=16).digest()


def say_truncation(remarks: Remarks) -> None:
    """What tokenising did to rows, and to which: nothing is shortened, cut or left out in silence."""
    for what, rows in remarks.items():
        shown = ", ".join(map(str, rows[:SHOWN_ROWS])) + (", ..." if len(rows) > SHOWN_ROWS else "")
        say(f"data: {counted(len(rows), *what)} ({'row' if len(rows) == 1 else 'rows'} {shown})")
