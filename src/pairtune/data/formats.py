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

Messages are lists of ``{"role": ..., "content": ...}``; other keys are ignored. A whole dialogue ends with
the assistant's answer, which is the response; all turns before it are the prompt.
"""

import re
from collections.abc import Iterable, Mapping
from typing import TypeAlias

from pairtune.data.schema import Demonstration, Labelled, Message, Pair, Prompt, PromptText
from pairtune.hints import nearest

Columns: TypeAlias = Mapping[str, object]

_TURN = re.compile(r"(?:\A\s*|\r?\n\r?\n)(Human|Assistant):")
_ROLES = {"Human": "user", "Assistant": "assistant"}
_DEMONSTRATION_SIDES = ("response", "completion", "messages", "chosen")


class MalformedError(Exception):
    """The row has none of the formats: a column is missing, or no text is where text belongs."""


class UnusableError(Exception):
    """The row has a known format but holds nothing to learn from."""

    def __init__(self, reason: str, need: str) -> None:
        super().__init__(reason, need)
        self.reason = reason
        self.need = need


def to_pair(columns: Columns, row: int) -> Pair:
    """The pair in ``chosen`` and ``rejected``. Raises MalformedError or UnusableError."""
    _require(columns, "chosen")
    _require(columns, "rejected")
    forms = _kind(columns["chosen"]), _kind(columns["rejected"])
    if set(forms) == {"text", "a list"}:
        raise MalformedError(f'"chosen" is {forms[0]} but "rejected" is {forms[1]}; give both the same form')
    prompt, chosen = _side(columns, "chosen")
    other, rejected = _side(columns, "rejected")
    if prompt != other:
        raise UnusableError('"chosen" and "rejected" have different prompts', "a pair needs one prompt")
    return Pair(prompt, chosen, rejected, row)


def to_demonstration(columns: Columns, row: int) -> Demonstration:
    """The first of response, completion, messages and chosen. Raises MalformedError or UnusableError."""
    side = next((name for name in _DEMONSTRATION_SIDES if name in columns), None)
    if side is None:
        _require(columns, *_DEMONSTRATION_SIDES)
        raise AssertionError("unreachable: _require raised")
    prompt, response = _side(columns, side)
    return Demonstration(prompt, response, row)


def to_labelled(columns: Columns, row: int) -> Labelled:
    """The response of ``response`` or ``completion`` and its ``label``. Raises MalformedError or UnusableError."""
    side = "response" if "response" in columns else "completion"
    _require(columns, "response", "completion")
    _require(columns, "label")
    prompt, response = _side(columns, side)
    return Labelled(prompt, response, _label(columns["label"]), row)


def to_prompt(columns: Columns, row: int) -> Prompt:
    """The prompt on its own, as :func:`to_pair` would see it. Raises MalformedError or UnusableError."""
    if "prompt" in columns and not isinstance(columns.get("chosen"), list):
        return Prompt(_prompt(columns), row)
    if "chosen" in columns:
        return Prompt(to_pair(columns, row).prompt, row)
    if "messages" in columns:
        return Prompt(_side(columns, "messages")[0], row)
    _require(columns, "prompt")
    raise AssertionError("unreachable: _require raised")


def quoted(text: str, limit: int = 40) -> str:
    """``text`` between double quotes, shortened, with everything unprintable escaped: safe in a terminal."""
    shown = text if len(text) <= limit else text[: limit - 3] + "..."
    return f'"{escaped(shown.replace(chr(92), chr(92) * 2)).replace(chr(34), chr(92) + chr(34))}"'


def escaped(text: str) -> str:
    """``text`` with every unprintable character written as an escape; printable text is unchanged."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def listed(names: Iterable[str], limit: int = 8) -> str:
    """Names for a message: quoted, separated by commas, the rest counted."""
    all_names = list(names)
    text = ", ".join(quoted(name) for name in all_names[:limit])
    return text + (f" and {len(all_names) - limit} more" if len(all_names) > limit else "")


def _side(columns: Columns, side: str) -> tuple[PromptText, str]:
    """The prompt and the response that one column holds (see the table at the head of this file)."""
    value = columns[side]
    if isinstance(value, list):
        return _answered(_whole_dialogue(columns, side, _messages(value, side)), side)
    text = _text(value, f'"{side}"')
    if "prompt" in columns:
        return _prompt(columns), _response(text, f'"{side}"')
    return _answered(_parse_dialogue(columns, side, text), side)


def _whole_dialogue(columns: Columns, side: str, turns: tuple[Message, ...]) -> tuple[Message, ...]:
    if "prompt" not in columns:
        return turns
    prompt = _prompt(columns)
    before = (Message("user", prompt),) if isinstance(prompt, str) else prompt
    if len(turns) == 1:
        return before + turns
    if isinstance(prompt, str):
        contained = any(turn.content.strip() == prompt.strip() for turn in turns[:-1])
    else:
        contained = turns[: len(prompt)] == prompt
    if not contained:
        raise UnusableError(f'"{side}" does not contain its "prompt"', "a dialogue starts with its prompt")
    return turns


def _parse_dialogue(columns: Columns, side: str, text: str) -> tuple[Message, ...]:
    """Raw ``Human: ... Assistant: ...`` text as messages, each stripped of the white space around it."""
    before, *marked = _TURN.split(text)
    if before.strip() or not marked:
        raise MalformedError(
            f'no column "prompt", and "{side}" is not a dialogue that starts with "Human:"; '
            f"the columns are {listed(columns)} - add the prompt to every row"
        )
    return tuple(
        Message(_ROLES[speaker], content.strip()) for speaker, content in zip(marked[::2], marked[1::2], strict=True)
    )


def _answered(turns: tuple[Message, ...], side: str) -> tuple[tuple[Message, ...], str]:
    """The turns before the assistant's last answer, and that answer."""
    if turns[-1].role != "assistant":
        raise UnusableError(f'"{side}" does not end with an assistant turn', "the last turn is the response")
    if not any(turn.content.strip() for turn in turns[:-1]):
        raise UnusableError(f'"{side}" has no prompt before the answer', "every response needs a prompt")
    return turns[:-1], _response(turns[-1].content, f'the last answer in "{side}"')


def _prompt(columns: Columns) -> PromptText:
    value = columns["prompt"]
    prompt = _messages(value, "prompt") if isinstance(value, list) else _text(value, '"prompt"')
    texts = [prompt] if isinstance(prompt, str) else [turn.content for turn in prompt]
    if not any(text.strip() for text in texts):
        raise UnusableError('"prompt" is empty', "every row needs a prompt")
    return prompt


def _label(value: object) -> bool:
    """True or false; 1 or 0, 1.0 or 0.0 (a column with gaps, read by pandas), and all as text, mean the same."""
    known = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}
    name = str(value).strip().lower()
    if not isinstance(value, bool | int | float | str) or name not in known:
        shown = (
            quoted(value) if isinstance(value, str) else str(value) if isinstance(value, int | float) else _kind(value)
        )
        raise MalformedError(f'"label" is {shown}; it must be true (desirable) or false')
    return known[name]


def _response(text: str, where: str) -> str:
    if not text.strip():
        raise UnusableError(f"{where} is empty", "every response needs text")
    return text


def _messages(value: list[object], column: str) -> tuple[Message, ...]:
    if not value:
        raise UnusableError(f'"{column}" is an empty list', "a dialogue needs turns")
    return tuple(_message(turn, f'"{column}" turn {n}') for n, turn in enumerate(value, 1))


def _message(turn: object, where: str) -> Message:
    if not isinstance(turn, Mapping):
        raise MalformedError(f'{where} is {_kind(turn)}; a turn is {{"role": ..., "content": ...}}')
    for key in ("role", "content"):
        if key not in turn:
            raise MalformedError(f'{where} has no "{key}"; its keys are {listed(map(str, turn))}')
    return Message(_text(turn["role"], f"{where} role"), _text(turn["content"], f"{where} content"))


def _text(value: object, where: str) -> str:
    if value is None:
        raise UnusableError(f"{where} is null", "every row needs text there")
    if not isinstance(value, str):
        raise MalformedError(f"{where} is {_kind(value)} where text belongs; make it a string")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        half = escaped(value[error.start])
        raise MalformedError(f"{where} has half a surrogate pair ({half}), which no tokenizer can read") from None
    return value


def _require(columns: Columns, *names: str) -> None:
    """Raise MalformedError unless one of the columns is there; say what is, and which of those is nearest."""
    if any(name in columns for name in names):
        return
    near = next(filter(None, (nearest(name, map(str, columns)) for name in names)), None)
    hint = f" - is {quoted(near)} the one to rename?" if near else ""
    wanted = " or ".join(f'"{name}"' for name in names)
    raise MalformedError(f"no column {wanted}; the columns are {listed(map(str, columns)) or 'none'}{hint}")


def _kind(value: object) -> str:
    if isinstance(value, str):
        return "text"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, list):
        return "a list"
    return "null" if value is None else "an object" if isinstance(value, Mapping) else type(value).__name__
