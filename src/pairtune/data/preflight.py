"""What token rows are checked for before a step is spent on them. A fault is an error of one line; the rest is said."""

import hashlib
from array import array
from collections.abc import Callable, Collection, Sequence

from pairtune.data.numbers_beside import MARGIN, WEIGHT
from pairtune.data.pack import Tokens, numbers_of
from pairtune.data.tokenize import Remarks
from pairtune.errors import InputError
from pairtune.progress import counted, say

# Row numbers named in a message.
SHOWN_ROWS = 5
# Where the row of an index came from: "pairs.jsonl line 7".
Place = Callable[[int], str]


def check_rows(
    train: Sequence[Tokens],
    heldout: Sequence[Tokens],
    tokenizer: object,
    *,
    end_ids: Collection[int],
    places: tuple[Place, Place] | None = None,
    say_longer: bool = True,
) -> None:
    """No prompt on both sides, and an end on the responses.

    `places` say where a training and a held-out row came from. Raises InputError for a shared prompt; says where the
    first prompt ends and its response begins and, unless the check of the texts has said it already, the share of pairs
    in which the longer one wins.
    """
    held = {_prompt_hash(row): i for i, row in enumerate(heldout)}
    shared, unended, longer = dict[bytes, int](), 0, 0.0
    for i, row in enumerate(train):
        if (prompt := _prompt_hash(row)) in held:
            shared.setdefault(prompt, i)
        unended += sum(response[-1] not in end_ids for response in row.responses)
        first, second = (len(row.responses[side]) for side in (0, -1))
        longer += 0.5 if first == second else float(first > second)
    if shared:
        of_train, of_held = places or ("training pair {}".format, "held-out pair {}".format)
        prompt, i = next(iter(shared.items()))
        raise InputError(
            f"{counted(len(shared), 'prompt')} {'is' if len(shared) == 1 else 'are'} in the training and in the "
            f"held-out part once tokenised (the first in {of_train(i)} and {of_held(held[prompt])}); if --max-tokens "
            "has made them equal, raise it, or else write them alike, and they stay together"
        )
    if unended:
        have = "has" if unended == 1 else "have"
        say(f"data: {counted(unended, 'response')} {have} no end-of-text token (cut by truncation or the length limit)")
    if say_longer and len(train[0].responses) == 2:
        share = longer / len(train)
        say(f"data: the longer response is the chosen one in {share:.1%} of {counted(len(train), 'pair')}")
    decode = getattr(tokenizer, "decode", repr)
    row = train[0]
    say(
        f"data: as the model reads the first row, its prompt ends with {decode(row.prompt[-4:])!r}, its response "
        f"begins with {decode(row.responses[0][:4])!r} and ends with {decode(row.responses[0][-2:])!r}"
    )


def _prompt_hash(row: Tokens) -> bytes:
    """A prompt in 16 bytes: as many prompts as there are rows do not have to be in memory at once."""
    return hashlib.blake2b(array("i", row.prompt).tobytes(), digest_size=16).digest()


def say_truncation(remarks: Remarks) -> None:
    """What tokenising did to rows, and to which: nothing is shortened, cut or left out in silence."""
    for what, rows in remarks.items():
        shown = ", ".join(map(str, rows[:SHOWN_ROWS])) + (", ..." if len(rows) > SHOWN_ROWS else "")
        say(f"data: {counted(len(rows), *what)} ({'row' if len(rows) == 1 else 'rows'} {shown})")


def told_numbers(rows: Sequence[Tokens], noun: str, *, weights: str, margins: str = "") -> list[str]:
    """A line on what weights there are, where rows differ in them, and one on margins; each ends as given."""
    found, of_weights, of_margins = list[str](), numbers_of(rows, WEIGHT), numbers_of(rows, MARGIN)
    if of_weights is not None and of_weights.min() != of_weights.max():
        few = counted(round(float(of_weights.sum() ** 2 / (of_weights**2).sum())), noun)
        span = f"{of_weights.min():g} to {of_weights.max():g}"
        found.append(f"rows have weights ({span}; they are as good as {few} of one weight): {weights}")
    if of_margins is not None and margins:
        found.append(f"rows have margins ({of_margins.min():g} to {of_margins.max():g}): {margins}")
    return found
