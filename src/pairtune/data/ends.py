"""Where an answer ends: at any token that the model's files declare an end, or that its chat template ends a turn with.

Everybody who samples, trains or counts ended answers asks here. Sampling stops at an end, so what a template writes
after it (a line break, often, or a further end) is never the model's to write, and is not trained.
"""

import json
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from pairtune.data.dialogue import PROBE, RefusedError, alike, render
from pairtune.data.schema import Message

_ASKED, _ANSWER = PROBE
_NEXT = Message("user", "Why?")
_CALL_ID = "a1b2c3d4e"  # nine letters and digits, which is what some templates demand
_TOOLS = json.dumps(
    {
        "tools": [
            {
                "type": "function",
                "function": {
                    "name": "look_up",
                    "description": "Looks a word up.",
                    "parameters": {"type": "object", "properties": {"word": {"type": "string", "description": "It."}}},
                },
            }
        ]
    }
)


class TurnEnd(NamedTuple):
    """A token that ends an assistant's turn, and what the template writes behind it if that has words in it."""

    token: int
    beyond: tuple[int, ...]


def end_ids(tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """Every token that ends an answer: the tokenizer's end of text, the chat template's ends of a turn, and those that
    the model's generation config declares (`load_tokenizer` leaves them with the tokenizer)."""
    turns = [end.token for end in turn_ends(tokenizer)]
    declared: Sequence[int] = getattr(tokenizer, "declared_ends", ())
    return tuple(dict.fromkeys([tokenizer.eos_token_id, *turns, *declared]))


def turn_ends(tokenizer: PreTrainedTokenizerBase) -> list[TurnEnd]:
    """What ends an assistant's turn in the chat template: an answer, an answer where there are tools, a call.

    None if there is no template, or no special token after a turn. Of the special tokens that follow a turn both at a
    dialogue's end and before the next turn it is the last one; a template that ends the two in different ways says what
    ends the last one.
    """
    if not tokenizer.chat_template:
        return []
    answers = _ANSWER, Message("assistant", "MARMALADE")
    calls = _call("marmalade"), _call("QUINCES")
    result = Message("tool", "A fruit.", json.dumps({"name": "look_up", "tool_call_id": _CALL_ID}))
    found = [
        _turn_end(tokenizer, answers, _NEXT, ""),
        _turn_end(tokenizer, answers, _NEXT, _TOOLS),
        _turn_end(tokenizer, calls, result, _TOOLS),
    ]
    return list(dict.fromkeys(end for end in found if end))


def special_ids(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Tokens that stand for themselves and are never cut out of words."""
    return {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}


def _turn_end(
    tokenizer: PreTrainedTokenizerBase, turns: tuple[Message, Message], following: Message, beside: str
) -> TurnEnd | None:
    """What ends a turn, by two of them that end in different letters."""
    final = _after(tokenizer, [(_ASKED, turn) for turn in turns], beside)
    places, more = _marks(tokenizer, final)
    if not places:
        return None
    between = _after(tokenizer, [(_ASKED, turn, following) for turn in turns], beside)
    others = [between[place] for place in _marks(tokenizer, between)[0]]
    shared = alike([[final[place] for place in places], others])
    place = places[0 if more else max(shared - 1, 0)]
    return TurnEnd(final[place], tuple(final[place + 1 :]) if more else ())


def _after(tokenizer: PreTrainedTokenizerBase, dialogues: Iterable[Sequence[Message]], beside: str) -> list[int]:
    """The ids of what is behind the place where dialogues differ; none if the template takes no such dialogues."""
    try:
        texts = [render(tokenizer, dialogue, beside=beside)[::-1] for dialogue in dialogues]
    except RefusedError:
        return []
    text = texts[0][: alike(texts)][::-1] if len({*texts}) > 1 else ""
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def _marks(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> tuple[list[int], bool]:
    """The places of special tokens from the first one on, up to a word; and whether there is a word."""
    special, places = special_ids(tokenizer), list[int]()
    for place, token in enumerate(ids):
        if not str(tokenizer.decode([token])).strip():
            continue  # some tokenizers have runs of spaces among their special tokens
        if token in special:
            places.append(place)
        elif places:
            return places, True
    return places, False


def _call(word: str) -> Message:
    function = {"name": "look_up", "arguments": {"word": word}}
    call = {"id": _CALL_ID, "type": "function", "function": function}
    return Message("assistant", "", json.dumps({"content": None, "tool_calls": [call]}))
