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

Messages are lists of ``{"role": ..., "content": ...}``; their other keys (``tool_calls``, ``reasoning_content``,
...) are kept for the chat template. A whole dialogue ends with the assistant's answer, which is the response; all
turns before it are the prompt. A column ``system`` is the dialogue's first turn, a column ``tools`` what the model
may call (a list, or JSON text of one); both are for dialogues, so a text ``prompt`` beside them is a user turn.
"""

import json
import re
from collections.abc import Iterable, Mapping
from typing import TypeAlias

from pairtune.data.schema import Demonstration, Labelled, Message, Pair, Prompt, PromptText, ResponseText
from pairtune.hints import nearest

Columns: TypeAlias = Mapping[str, object]

_TURN = re.compile(r"(?:\A\s*|\r?\n\r?\n)(Human|Assistant):")
_ROLES = {"Human": "user", "Assistant": "assistant"}
_DEMONSTRATION_SIDES = ("response", "completion", "messages", "chosen")
_READ = {*_DEMONSTRATION_SIDES, "prompt", "rejected", "label", "system", "tools"}


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
    return Pair(prompt, chosen, rejected, row, _tools(columns))


def to_demonstration(columns: Columns, row: int) -> Demonstration:
    """The first of response, completion, messages and chosen. Raises MalformedError or UnusableError."""
    side = next((name for name in _DEMONSTRATION_SIDES if name in columns), None)
    if side is None:
        _require(columns, *_DEMONSTRATION_SIDES)
        raise AssertionError("unreachable: _require raised")
    prompt, response = _side(columns, side)
    return Demonstration(prompt, response, row, _tools(columns))


def to_labelled(columns: Columns, row: int) -> Labelled:
    """The response of ``response`` or ``completion`` and its ``label``. Raises MalformedError or UnusableError."""
    side = "response" if "response" in columns else "completion"
    _require(columns, "response", "completion")
    _require(columns, "label")
    prompt, response = _side(columns, side)
    return Labelled(prompt, response, _label(columns["label"]), row, _tools(columns))


def to_prompt(columns: Columns, row: int) -> Prompt:
    """The prompt on its own, as :func:`to_pair` would see it. Raises MalformedError or UnusableError."""
    dialogue = next((side for side in _DEMONSTRATION_SIDES if isinstance(columns.get(side), list)), None)
    if dialogue == "chosen" or ("chosen" in columns and "prompt" not in columns):
        prompt = to_pair(columns, row).prompt
    elif dialogue:
        prompt = _side(columns, dialogue)[0]
    else:
        _require(columns, "prompt")
        prompt = _opened(columns, _prompt(columns))
    return Prompt(prompt, row, _tools(columns))


def unread(columns: Columns) -> list[str]:
    """Columns that nobody reads and that look like content: text of several words, or a list of texts or objects."""
    return [name for name, value in columns.items() if name not in _READ and _like_content(value)]


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


def _like_content(value: object) -> bool:
    if isinstance(value, list):
        return any(isinstance(item, Mapping) or _like_content(item) for item in value)
    return isinstance(value, str) and len(value.split()) > 1


def _side(columns: Columns, side: str) -> tuple[PromptText, ResponseText]:
    """The prompt and the response that one column holds (see the table at the head of this file)."""
    value = columns[side]
    prompt: PromptText
    response: ResponseText
    if isinstance(value, list):
        prompt, response = _answered(_whole_dialogue(columns, side, _messages(value, side)), side)
    elif "prompt" in columns:
        prompt, response = _prompt(columns), _response(_text(value, f'"{side}"'), f'"{side}"')
    else:
        prompt, response = _answered(_parse_dialogue(columns, side, _text(value, f'"{side}"')), side)
    return _opened(columns, prompt), response


def _opened(columns: Columns, prompt: PromptText) -> PromptText:
    """The prompt with what the columns ``system`` and ``tools`` make of it."""
    if "system" not in columns and "tools" not in columns:
        return prompt
    turns = (Message("user", prompt),) if isinstance(prompt, str) else prompt
    system = columns.get("system")
    if system is None or not (text := _text(system, '"system"')).strip():
        return turns
    if turns[0].role == "system" and turns[0].content != text:
        raise MalformedError('there is a "system" column and a system turn, and they differ; keep one of them')
    return turns if turns[0].role == "system" else (Message("system", text), *turns)


def _tools(columns: Columns) -> str:
    """The column ``tools`` as a JSON array, or "" if there are none."""
    value = columns.get("tools")
    if isinstance(value, str) and value.strip():
        value = _from_json(value)
    tools = [_from_json(tool) if isinstance(tool, str) else tool for tool in value] if isinstance(value, list) else None
    if value is None or value == "" or tools == []:
        return ""
    if tools is None or not all(isinstance(tool, Mapping) for tool in tools):
        raise MalformedError('"tools" is no list of tools; a tool is an object, as a chat template takes it')
    return _as_json(tools, '"tools"')


def _from_json(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise MalformedError('"tools" is text that is not JSON; give a list of tools') from None


def _as_json(value: object, where: str) -> str:
    try:
        text = json.dumps(value, ensure_ascii=False)
        text.encode("utf-8")
    except (TypeError, ValueError, RecursionError):
        raise MalformedError(f"{where} holds something that JSON cannot; make it text, numbers and lists") from None
    return text


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


def _answered(turns: tuple[Message, ...], side: str) -> tuple[tuple[Message, ...], ResponseText]:
    """The turns before the assistant's last answer, and that answer."""
    answer = turns[-1]
    if answer.role != "assistant":
        raise UnusableError(f'"{side}" does not end with an assistant turn', "the last turn is the response")
    if not any(turn.content.strip() for turn in turns[:-1]):
        raise UnusableError(f'"{side}" has no prompt before the answer', "every response needs a prompt")
    if "tool_calls" not in answer.others():
        _response(answer.content, f'the last answer in "{side}"')
    return turns[:-1], answer if answer.more else answer.content


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
    more = {str(key): value for key, value in turn.items() if key not in ("role", "content") and value is not None}
    if turn.get("content") is None and more.get("tool_calls"):  # a call may stand for the answer's text
        more, turn = more | {"content": None}, {**turn, "content": ""}
    for key in ("role", "content"):
        if key not in turn:
            raise MalformedError(f'{where} has no "{key}"; its keys are {listed(map(str, turn))}')
    role, content = _text(turn["role"], f"{where} role"), _text(turn["content"], f"{where} content")
    return Message(role, content, _as_json(more, where) if more else "")


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
