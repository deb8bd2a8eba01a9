"""Turns of a dialogue out of a row's columns, and what a chat template is given beside them.

A turn is ``{"role": ..., "content": ...}``; its other keys (``tool_calls``, ``reasoning_content``, ...) are kept for
the chat template. Content may be a list of parts, ``{"type": "text", "text": ...}``: their texts are put together as
they are, as the templates that take parts do. Parts that are no text cannot be read.

Beside the turns the template is given the columns ``tools`` (a list, or JSON text of one), ``chat_template_kwargs`` (an
object, or JSON text of one) and ``enable_thinking``, which is one of the latter.
"""

import json
import re
from collections.abc import Mapping
from typing import Any, TypeAlias

from pairtune.data.schema import Message
from pairtune.data.wording import escaped, kind, listed, quoted

Columns: TypeAlias = Mapping[str, object]

#: What people call a system prompt that stands in a column of its own.
SYSTEMS = ("system", "system_prompt", "system_message", "system_instruction")
#: The columns that the chat template is given beside the turns.
BESIDE = ("tools", "chat_template_kwargs", "enable_thinking")
#: What transformers' `apply_chat_template` and its templates call by these names is not a row's to give.
RESERVED = frozenset(
    {
        *("conversation", "messages", "tools", "chat_template", "add_generation_prompt", "continue_final_message"),
        *("tokenize", "sanitize_control_tokens", "padding", "truncation", "max_length", "return_tensors"),
        *("return_dict", "return_assistant_tokens_mask", "tokenizer_kwargs", "conversations"),
    }
)


#: Names of columns, and of a turn's fields, that hold something else than text.
NOT_TEXT = re.compile(
    r"(?:image|img|picture|photo|audio|video|waveform|pixel_value)s?"
    r"(?:_?(?:path|url|file|filename|file_name|name|id|byte|base64|b64)s?)?\Z",
    re.IGNORECASE,
)


class MalformedError(Exception):
    """The row has none of the formats: a column is missing, or no text is where text belongs."""


class UnusableError(Exception):
    """The row has a known format but holds nothing to learn from."""

    def __init__(self, reason: str, need: str, *, mistake: bool = True) -> None:
        super().__init__(reason, need)
        self.reason = reason
        self.need = need
        self.mistake = mistake  #: False where a row is as it should be, a tie for one


def to_turns(value: list[object], column: str) -> tuple[Message, ...]:
    """A list of messages. Raises MalformedError or UnusableError."""
    if not value:
        raise UnusableError(f'"{column}" is an empty list', "a dialogue needs turns")
    return tuple(_turn(turn, f'"{column}" turn {n}') for n, turn in enumerate(value, 1))


def to_text(value: object, where: str) -> str:
    """Text that every tokenizer can read. Raises MalformedError or UnusableError."""
    if value is None:
        raise UnusableError(f"{where} is null", "every row needs text there")
    if not isinstance(value, str):
        raise MalformedError(f"{where} is {kind(value)} where text belongs; make it a string")
    if value.isascii():
        return value
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        half = escaped(value[error.start])
        raise MalformedError(f"{where} has half a surrogate pair ({half}), which no tokenizer can read") from None
    return value


def like_content(value: object) -> bool:
    """Whether a value is text of several words, or a list of such, of objects or of lists of texts."""
    if isinstance(value, list):
        texts = (isinstance(item, list) and any(isinstance(text, str) for text in item) for item in value)
        return any(isinstance(item, Mapping) or like_content(item) for item in value) or any(texts)
    return isinstance(value, str) and len(value.split()) > 1


def given_beside(columns: Columns) -> str:
    """What the chat template is given beside the turns, as a JSON object; "" if nothing is. Raises MalformedError."""
    found = _template_kwargs(columns.get("chat_template_kwargs"))
    thinking = columns.get("enable_thinking")
    if thinking is not None:
        if not isinstance(thinking, bool):
            raise MalformedError(f'"enable_thinking" is {kind(thinking)}; it must be true or false')
        if found.setdefault("enable_thinking", thinking) is not thinking:
            raise MalformedError('"enable_thinking" is not what "chat_template_kwargs" says; keep one of them')
    if tools := _tools(columns.get("tools")):
        found["tools"] = tools
    return _as_json(found, f'"{next(name for name in BESIDE if columns.get(name) is not None)}"') if found else ""


def _turn(turn: object, where: str) -> Message:
    if not isinstance(turn, Mapping):
        raise MalformedError(f'{where} is {kind(turn)}; a turn is {{"role": ..., "content": ...}}')
    if len(turn) == 2 and isinstance(role := turn.get("role"), str) and isinstance(said := turn.get("content"), str):
        return Message(to_text(role, f"{where} role"), to_text(said, f"{where} content"))
    more = {str(key): value for key, value in turn.items() if key not in ("role", "content") and value is not None}
    if other := next((key for key in more if more[key] and NOT_TEXT.match(key)), None):
        raise MalformedError(f"{where} has {quoted(other)}, and only text can be trained on; remove such rows")
    if turn.get("content") is None and more.get("tool_calls"):  # a call may stand for the answer's text
        more, turn = more | {"content": None}, {**turn, "content": ""}
    for key in ("role", "content"):
        if key not in turn:
            raise MalformedError(f'{where} has no "{key}"; its keys are {listed(map(str, turn))}')
    role, content = to_text(turn["role"], f"{where} role"), turn["content"]
    text = _joined(content, where) if isinstance(content, list) else to_text(content, f"{where} content")
    return Message(role, text, _as_json(more, where) if more else "")


def _joined(parts: list[Any], where: str) -> str:
    """The text of content that is given in parts."""
    texts = []
    for number, part in enumerate(parts, 1):
        here = f"{where} content part {number}"
        if not isinstance(part, Mapping) or "type" not in part:
            raise MalformedError(f'{here} is no part; one is {{"type": "text", "text": ...}}')
        if part["type"] != "text":
            raise MalformedError(f"{here} is of type {quoted(str(part['type']))}; only text can be read")
        texts.append(to_text(part.get("text"), here))
    return "".join(texts)


def _tools(value: object) -> list[Any]:
    if isinstance(value, str) and value.strip():
        value = _from_json(value, '"tools"', "a list of tools")
    if value is None or value == "" or value == []:
        return []
    tools = value if isinstance(value, list) else [None]
    tools = [_from_json(tool, '"tools"', "a list of tools") if isinstance(tool, str) else tool for tool in tools]
    if not all(isinstance(tool, Mapping) for tool in tools):
        raise MalformedError('"tools" is no list of tools; a tool is an object, as a chat template takes it')
    return tools


def _template_kwargs(value: object) -> dict[str, Any]:
    if isinstance(value, str) and value.strip():
        value = _from_json(value, '"chat_template_kwargs"', "an object")
    if value is None or value == "":
        return {}
    if not isinstance(value, Mapping):
        raise MalformedError(f'"chat_template_kwargs" is {kind(value)}; it must be an object')
    if wrong := next((name for name in value if str(name) in RESERVED), None):
        raise MalformedError(f'"chat_template_kwargs" holds {quoted(str(wrong))}, which is not a row\'s to say')
    return {str(name): item for name, item in value.items() if item is not None}


def _from_json(text: str, where: str, wanted: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise MalformedError(f"{where} is text that is not JSON; give {wanted}") from None


def _as_json(value: object, where: str) -> str:
    try:
        text = json.dumps(value, ensure_ascii=False)
        text.encode("utf-8")
    except (TypeError, ValueError, RecursionError):
        raise MalformedError(f"{where} holds something that JSON cannot; make it text, numbers and lists") from None
    return text
