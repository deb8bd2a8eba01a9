"""Turns as people write them, as turns of ``role`` and ``content``.

Read are turns of ``from`` and ``value`` (ShareGPT), of ``input`` and ``output`` (an exchange each), of ``role`` and
``parts`` (Gemini), and speakers by other names. A role that is nobody's synonym stays as it is: a chat template may
know it.
"""

import json
from collections.abc import Mapping

from pairtune.data.turns import MalformedError
from pairtune.data.wording import listed, quoted

AS_JSON = "write them as JSON, with json.dumps"
#: What people call the speakers of turns, and what a chat template calls them.
_SYNONYMS = {
    **dict.fromkeys(("human", "user", "prompter"), "user"),
    **dict.fromkeys(("gpt", "assistant", "chatgpt", "bard", "bing", "model", "bot", "chatbot", "ai"), "assistant"),
    "system": "system",
}
_PLAIN = ("user", "assistant", "system")
#: In turns of `from` and `value` these are known beside them; a role by these names may be a template's own.
_SPEAKERS = {**_SYNONYMS, "function_call": "assistant", **dict.fromkeys(("tool", "function", "observation"), "tool")}


def is_turn(value: object) -> bool:
    """Whether an object is one turn, of a role or a speaker."""
    if not isinstance(value, Mapping):
        return False
    said = "content" in value or "tool_calls" in value or "parts" in value
    return ("role" in value and said) or {"from", "value"} <= value.keys()


def turns_of(value: object, where: str) -> object:
    """Turns of ``role`` and ``content``, or one of them; everything else as it is. Raises MalformedError."""
    if isinstance(value, Mapping):
        return _turn(value, where) if is_turn(value) else value
    if not isinstance(value, list) or not value or not isinstance(value[0], Mapping):
        return value
    if all(type(turn) is dict and turn.get("role") in _PLAIN and "content" in turn for turn in value):
        return value  # as most are
    if all(isinstance(each, Mapping) and each.keys() == {"input", "output"} for each in value):
        return [{"role": role, "content": each[key]} for each in value
                for role, key in (("user", "input"), ("assistant", "output"))]  # fmt: skip
    if not all(map(is_turn, value)):
        return value
    return [_turn(turn, f"{where} turn {number}") for number, turn in enumerate(value, 1)]


def plain_text(value: object) -> object:
    """The text of ``{"parts": [{"text": ...}]}``; everything else as it is."""
    parts = value.get("parts") if isinstance(value, Mapping) else None
    if not isinstance(parts, list) or not all(isinstance(part, Mapping) for part in parts):
        return value
    texts = [part.get("text") for part in parts]
    return "".join(texts) if all(isinstance(text, str) for text in texts) else value


def _turn(turn: Mapping[str, object], where: str) -> Mapping[str, object]:
    if "role" in turn:
        role = turn["role"]
        known = _SYNONYMS.get(role.strip().lower(), role) if isinstance(role, str) else role
        if "content" not in turn and isinstance(text := plain_text(turn), str):
            return {"role": known, "content": text}
        return turn if known == role else {**turn, "role": known}
    speaker = str(turn["from"]).strip().lower()
    if speaker not in _SPEAKERS:
        raise MalformedError(f"{where} is from {quoted(str(turn['from']))}; known are {listed(_SPEAKERS, limit=20)}")
    others = {key: value for key, value in turn.items() if key not in ("from", "value")}
    if speaker == "function_call":
        return {"role": "assistant", "content": None, "tool_calls": _calls(turn["value"], where), **others}
    return {"role": _SPEAKERS[speaker], "content": turn["value"], **others}


def _calls(value: object, where: str) -> list[dict[str, object]]:
    try:
        found = json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError):
        raise MalformedError(f"{where} is a call that is not JSON; {AS_JSON}") from None
    calls = found if isinstance(found, list) else [found]
    if not all(isinstance(call, Mapping) and "name" in call for call in calls):
        raise MalformedError(f'{where} is no call; one is {{"name": ..., "arguments": ...}}')
    return [{"type": "function", "function": call} for call in calls]
