"""Where an answer ends: at any token that the model's files declare an end, or that its chat template ends a turn with.

Everybody who samples, trains or counts ended answers asks here. Sampling stops at an end, so what a template writes
after it (a line break, often, or a further end) is never the model's to write, and is not trained.
"""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from pairtune.data.dialogue import PROBE, RefusedError, render
from pairtune.data.schema import Message


def end_ids(tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """Every token that ends an answer: the tokenizer's end of text, the chat template's end of a turn, and those that
    the model's generation config declares (`load_tokenizer` leaves them with the tokenizer)."""
    turn = turn_end(tokenizer)
    declared: Sequence[int] = getattr(tokenizer, "declared_ends", ())
    return tuple(dict.fromkeys([tokenizer.eos_token_id, *([] if turn is None else [turn]), *declared]))


def turn_end(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The token that ends an assistant's turn in the chat template; None if there is no template, or no such token.

    The last special token of those that follow an answer both at a dialogue's end and before the next turn; a template
    that ends the two in different ways says what ends the last one.
    """
    if not tokenizer.chat_template:
        return None
    final = _marks_after_answer(tokenizer, PROBE)
    between = _marks_after_answer(tokenizer, (*PROBE, Message("user", "Why?")))
    shared = 0
    while shared < min(len(final), len(between)) and final[shared] == between[shared]:
        shared += 1
    return final[max(shared - 1, 0)] if final else None


def special_ids(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Tokens that stand for themselves and are never cut out of words."""
    return {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}


def _marks_after_answer(tokenizer: PreTrainedTokenizerBase, turns: Sequence[Message]) -> list[int]:
    """The special tokens that the template writes after the answer; none if it takes no such dialogue."""
    try:
        text = render(tokenizer, turns)
    except RefusedError:
        return []
    _, found, after = text.rpartition(PROBE[-1].content)
    marks = special_ids(tokenizer)
    return [i for i in tokenizer(after, add_special_tokens=False)["input_ids"] if i in marks] if found else []
