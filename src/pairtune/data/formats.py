"""One row's columns in, one pair, labelled response, demonstration or prompt out: the formats people have.

A *side* is a column that holds a response: ``chosen``, ``rejected``, ``response``, ``completion`` or
``messages``. Its shape, and whether there is a ``prompt`` column, say what it means:

====================================  ==================================================================
side                                  read as
====================================  ==================================================================
text, with ``prompt``                 the response, unchanged (a leading space is part of it)
text, no ``prompt``                   a whole dialogue, ``\\n\\nHuman: ...\\n\\nAssistant: ...`` (hh-rlhf)
messages, no ``prompt``               a whole dialogue
one message, with ``prompt``          the answer to it (TRL); a text ``prompt`` becomes a user turn
more messages, with ``prompt``        a whole dialogue that already contains the prompt (UltraFeedback)
====================================  ==================================================================

Messages are lists of turns (:mod:`pairtune.data.turns`). A whole dialogue ends with the assistant's answer, which is
the response; all turns before it are the prompt. Where prompts alone are read, a dialogue may end before an answer. A
``prompt`` of messages that ends with the assistant's turn has begun the answer, which goes on with that turn; within a
whole dialogue two turns of the assistant's are two. A column ``system`` (or ``system_prompt``) is the dialogue's first
turn; it and what the chat template is given beside the turns (``tools``, ...) are for dialogues, so a text ``prompt``
beside them is a user turn. A list ``history`` of [question, answer] stands before a prompt of one turn.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import cast

from pairtune.data.cells import refuse_placeholders
from pairtune.data.numbers_beside import margin_of, weight_of
from pairtune.data.schema import Demonstration, Labelled, Message, Pair, Prompt, PromptText, ResponseText, said
from pairtune.data.turns import (
    BESIDE,
    SYSTEMS,
    Columns,
    MalformedError,
    UnusableError,
    given_beside,
    like_content,
    to_text,
    to_turns,
)
from pairtune.data.wording import escaped, kind, listed, quoted
from pairtune.hints import nearest

# Begins with a letter as it stands, which is found ten times as fast as one of two ways to begin.
_TURN = re.compile(r"\n\r?\n(Human|Assistant):")
_ROLES = {"Human": "user", "Assistant": "assistant"}
_DEMONSTRATION_SIDES = ("response", "completion", "messages", "chosen")
_KNOWN_LABELS = {
    **dict.fromkeys(("true", "1", "1.0", "+1", "up", "thumbs_up", "thumbs up", "👍", "yes", "good", "positive"), True),
    **dict.fromkeys(("desirable", "chosen", "preferred", "accepted", "like", "liked"), True),
    **dict.fromkeys(("false", "0", "0.0", "-1", "-1.0", "down", "thumbs_down", "thumbs down", "👎", "no"), False),
    **dict.fromkeys(("bad", "negative", "undesirable", "rejected", "dispreferred", "dislike", "disliked"), False),
}
_ALONE = "a dialogue starts with its prompt (--columns other=prompt takes the dialogues alone)"
# What means something to others, one word or a number as it may be.
_MEANT = {"weight", "margin", "input", "context", "history", "instruction", "question", "query"}
_READ = {*_DEMONSTRATION_SIDES, *BESIDE, *SYSTEMS, "prompt", "rejected", "label"}


def to_pair(columns: Columns, row: int) -> Pair:
    """The pair in ``chosen`` and ``rejected``. Raises MalformedError or UnusableError."""
    _require(columns, "chosen")
    _require(columns, "rejected")
    forms = kind(columns["chosen"]), kind(columns["rejected"])
    if set(forms) == {"text", "a list"}:
        raise MalformedError(f'"chosen" is {forms[0]} but "rejected" is {forms[1]}; give both the same form')
    prompt, chosen = _side(columns, "chosen")
    other, rejected = _side(columns, "rejected")
    if prompt != other:
        raise UnusableError('"chosen" and "rejected" have different prompts', "a pair needs one prompt")
    return Pair(prompt, chosen, rejected, row, given_beside(columns), weight_of(columns), margin_of(columns))


def to_demonstration(columns: Columns, row: int) -> Demonstration:
    """The first of response, completion, messages and chosen. Raises MalformedError or UnusableError."""
    side = next((name for name in _DEMONSTRATION_SIDES if name in columns), None)
    if side is None:
        _require(columns, *_DEMONSTRATION_SIDES)
        raise AssertionError("unreachable: _require raised")
    prompt, response = _side(columns, side)
    return Demonstration(prompt, response, row, given_beside(columns), weight_of(columns))


def to_labelled(columns: Columns, row: int) -> Labelled:
    """The response of ``response`` or ``completion`` and its ``label``. Raises MalformedError or UnusableError."""
    side = "response" if "response" in columns else "completion"
    _require(columns, "response", "completion")
    _require(columns, "label")
    prompt, response = _side(columns, side)
    return Labelled(prompt, response, _label(columns["label"]), row, given_beside(columns), weight_of(columns))


def to_prompt(columns: Columns, row: int) -> Prompt:
    """The prompt on its own, as :func:`to_pair` would see it. Raises MalformedError or UnusableError."""
    dialogue = next((side for side in _DEMONSTRATION_SIDES if isinstance(columns.get(side), list)), None)
    if dialogue == "chosen" or ("chosen" in columns and "prompt" not in columns):
        prompt = to_pair({**columns, "weight": None, "margin": None}, row).prompt
    elif dialogue:
        prompt = _asked(columns, dialogue)
    else:
        _require(columns, "prompt")
        prompt = _opened(columns, _prompt(columns))
    return Prompt(prompt, row, given_beside(columns), _gone_on_from(columns))


def _gone_on_from(columns: Columns) -> bool:
    """Whether the responses of a row that is read for its prompt all begin with white space."""
    responses = [columns[name] for name in ("chosen", "rejected", "response", "completion") if name in columns]
    return bool(responses) and all(isinstance(text, str) and text[:1].isspace() for text in responses)


def asked_in(text: str) -> tuple[Message, ...] | None:
    """The turns of a prompt written ``Human: ... Assistant:``, which is to be answered; None of another one."""
    before, *marked = _marked(text)
    if before.strip() or marked[:1] != ["Human"] or marked[-2] != "Assistant" or marked[-1].strip():
        return None
    return tuple(
        Message(_ROLES[speaker], said.strip()) for speaker, said in zip(marked[:-2:2], marked[1:-2:2], strict=True)
    )


def _marked(text: str) -> list[str]:
    """What is before the first turn, then of every turn its speaker and what they say, with white space around it."""
    return _TURN.split(f"\n\n{text.lstrip()}")


def unread(columns: Columns, prompt: PromptText) -> list[str]:
    """Columns of a row with that prompt that are not read and look like content (text of several words, or a list of
    texts or objects), or whose name says that they mean something; but for those that say the prompt again.
    """
    said = {prompt} if isinstance(prompt, str) else {turn.content for turn in prompt}
    read = {*_READ, "history"} if isinstance(columns.get("prompt"), str) and _before(columns) else _READ
    names = [
        name
        for name, value in columns.items()
        if name not in read and (like_content(value) or (name in _MEANT and value not in (None, "", [])))
    ]
    dialogue = columns.get("messages") if "prompt" in columns and "chosen" in columns else None
    turns = [turn for turn in dialogue if isinstance(turn, Mapping)] if isinstance(dialogue, list) else []
    texts = [turn.get("content") for turn in turns if turn.get("role") == "user"]
    if any(isinstance(text, str) and text not in said for text in texts):
        names.append("messages")
    return [name for name in names if not (isinstance(columns[name], str) and columns[name] in said)]


def _side(columns: Columns, side: str) -> tuple[PromptText, ResponseText]:
    """The prompt and the response that one column holds (see the table at the head of this file)."""
    value = columns[side]
    prompt: PromptText
    response: ResponseText
    if isinstance(value, list):
        prompt, response = _answered(_whole_dialogue(columns, side, to_turns(value, side)), side)
    elif "prompt" in columns:
        prompt, response = _prompt(columns), _response(to_text(value, f'"{side}"'), f'"{side}"')
    else:
        prompt, response = _answered(_parse_dialogue(columns, side, to_text(value, f'"{side}"')), side)
    last = prompt[-1] if isinstance(prompt, tuple) else None
    if last and last.unfinished and last.content.strip() == said(response).strip():
        raise UnusableError(f'"prompt" ends with the answer that "{side}" is', "a prompt ends before its answers")
    return _opened(columns, prompt), response


def _asked(columns: Columns, side: str) -> PromptText:
    """The prompt of a dialogue that may end before the answer, as it does in a file of prompts."""
    turns = to_turns(cast(list[object], columns[side]), side)
    if turns[-1].role == "assistant" or "prompt" in columns:
        return _side(columns, side)[0]
    return _opened(columns, _with_text(turns, side))


def _opened(columns: Columns, prompt: PromptText) -> PromptText:
    """The prompt with what the column ``system``, and those that are for dialogues only, make of it."""
    for text in [prompt] if isinstance(prompt, str) else [turn.content for turn in prompt if turn.role != "assistant"]:
        refuse_placeholders(text, "the prompt")
    before = _before(columns) if isinstance(prompt, str) or len(prompt) == 1 else ()
    if not before and not any(name in columns for name in (*SYSTEMS, *BESIDE)):
        return prompt
    turns = (*before, *([Message("user", prompt)] if isinstance(prompt, str) else prompt))
    name = next((name for name in SYSTEMS if columns.get(name) is not None), "system")
    if columns.get(name) is None or not (text := to_text(columns[name], f'"{name}"')).strip():
        return turns
    if turns[0].role == "system" and turns[0].content != text:
        raise MalformedError('there is a "system" column and a system turn, and they differ; keep one of them')
    return turns if turns[0].role == "system" else (Message("system", text), *turns)


def _before(columns: Columns) -> tuple[Message, ...]:
    """The turns of a column ``history``: a list of [question, answer], or of turns."""
    history = columns.get("history")
    if not isinstance(history, list) or not history:
        return ()
    if isinstance(history[0], Mapping):
        return to_turns(history, "history")
    turns: list[Message] = []
    for number, exchange in enumerate(history, 1):
        if not isinstance(exchange, list) or len(exchange) != 2:
            raise MalformedError(f'"history" {number} is {kind(exchange)}; an exchange is [question, answer]')
        texts = [to_text(text, f'"history" {number}') for text in exchange]
        turns += [Message(role, text) for role, text in zip(("user", "assistant"), texts, strict=True)]
    return tuple(turns)


def _whole_dialogue(columns: Columns, side: str, turns: tuple[Message, ...]) -> tuple[Message, ...]:
    if columns.get("prompt") is None:
        return turns
    prompt = _prompt(columns)
    before = (Message("user", prompt),) if isinstance(prompt, str) else prompt
    if len(turns) == 1:
        return before + turns
    if isinstance(prompt, str):
        contained = any(turn.content.strip() == prompt.strip() for turn in turns[:-1])
    else:
        contained = turns[: len(prompt)] == (*prompt[:-1], replace(prompt[-1], unfinished=False))
    if not contained:
        raise UnusableError(f'"{side}" does not contain its "prompt"', _ALONE)
    return turns


def _parse_dialogue(columns: Columns, side: str, text: str) -> tuple[Message, ...]:
    """Raw ``Human: ... Assistant: ...`` text as messages, each stripped of the white space around it."""
    before, *marked = _marked(text)
    if before.strip() or not marked:
        raise MalformedError(
            f'no column "prompt", and "{side}" is not a dialogue that starts with "Human:"; '
            f"the columns are {listed(columns)} - add the prompt to every row"
        )
    return tuple(
        Message(_ROLES[speaker], content.strip()) for speaker, content in zip(marked[::2], marked[1::2], strict=True)
    )


def _answered(turns: tuple[Message, ...], side: str) -> tuple[tuple[Message, ...], ResponseText]:
    """The turns before the assistant's last answer, and that answer."""
    answer = turns[-1]
    if answer.role != "assistant":
        raise UnusableError(f'"{side}" does not end with an assistant turn', "the last turn is the response")
    if not any(turn.content.strip() for turn in turns[:-1]):
        raise UnusableError(f'"{side}" has no prompt before the answer', "every response needs a prompt")
    if not answer.others().get("tool_calls"):
        _response(answer.content, f'the last answer in "{side}"')
    return turns[:-1], answer if answer.more else answer.content


def _prompt(columns: Columns) -> PromptText:
    value = columns["prompt"]
    if not isinstance(value, list):
        return _with_text(to_text(value, '"prompt"'), "prompt")
    *before, last = to_turns(value, "prompt")
    begun = last.role == "assistant" and not last.others().get("tool_calls")
    return _with_text((*before, replace(last, unfinished=True) if begun else last), "prompt")


def _with_text(prompt: PromptText, column: str) -> PromptText:
    texts = [prompt] if isinstance(prompt, str) else [turn.content for turn in prompt]
    if not any(text.strip() for text in texts):
        raise UnusableError(f'"{column}" is empty', "every row needs a prompt")
    return prompt


def _label(value: object) -> bool:
    """True or false; 1 or 0, 1.0 or 0.0 (a column with gaps, read by pandas), 1 or -1, up or down, also as text."""
    name = str(value).strip().lower()
    if not isinstance(value, bool | int | float | str) or name not in _KNOWN_LABELS:
        shown = (
            quoted(value) if isinstance(value, str) else str(value) if isinstance(value, int | float) else kind(value)
        )
        more = "; --label-threshold N makes it so from N on" if isinstance(value, int | float) else ""
        raise MalformedError(f'"label" is {shown}; it must be true (desirable) or false{more}')
    return _KNOWN_LABELS[name]


def _response(text: str, where: str) -> str:
    if not text.strip():
        raise UnusableError(f"{where} is empty", "every response needs text")
    return text


def _require(columns: Columns, *names: str) -> None:
    """Raise MalformedError unless one of the columns is there; say what is, and which of those is nearest."""
    if any(name in columns for name in names):
        return
    near = next(((name, found) for name in names if (found := nearest(name, map(str, columns)))), None)
    hint = f" - if it is {quoted(near[1])}: --columns {near[0]}={escaped(near[1])}" if near else ""
    wanted = " or ".join(f'"{name}"' for name in names)
    raise MalformedError(f"no column {wanted}; the columns are {listed(map(str, columns)) or 'none'}{hint}")
