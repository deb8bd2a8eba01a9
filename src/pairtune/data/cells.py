"""A row's cells as they are meant: turns that stand as JSON text in a table's cell, turns of ``from`` and ``value``.

What no text model can be trained on (pictures, sound) is refused by its name.

A cell is taken for turns only if all of it is: a text that quotes some stays text.
"""

import json
import re
from collections.abc import Mapping
from typing import Any, cast

from pairtune.data.answers import BESIDE_RANKS, BESIDE_SCORES, LISTS, is_scored
from pairtune.data.turns import NOT_TEXT, Columns, MalformedError
from pairtune.data.wording import listed, quoted

#: What people call the speakers of turns of ``from`` and ``value``, and what a chat template calls them.
SPEAKERS = {
    **dict.fromkeys(("human", "user"), "user"),
    **dict.fromkeys(("gpt", "assistant", "chatgpt", "bard", "bing", "model", "bot", "function_call"), "assistant"),
    **dict.fromkeys(("tool", "function", "observation"), "tool"),
    "system": "system",
}
_PLACEHOLDER = r"<\|?(?:image|audio|video)(?:_?\d+)?(?:_pad|_start|_end)?\|?>"
_WITH_PLACEHOLDER = re.compile(rf"\s*({_PLACEHOLDER})|.*({_PLACEHOLDER})\s*\Z", re.DOTALL)
_TURNS = re.compile(r"""\s*(?:array\()?\[?\s*\{\s*(["'])(?:role|from|content|value)\1\s*:""")
_AS_JSON = "write them as JSON, with json.dumps"


def read_cells(columns: Columns) -> Columns:
    """The columns with their cells as they are meant. Raises MalformedError."""
    found: dict[str, object] = {}
    for name, value in columns.items():
        if value and NOT_TEXT.match(name):
            raise MalformedError(f"{quoted(name)} is not text, and only text can be trained on; remove such rows")
        found[name] = _cell(value, f'"{name}"')
    return _structured(found)


def refuse_placeholders(text: str, where: str) -> None:
    """Raises MalformedError where a text begins or ends with the place of a picture."""
    match = _WITH_PLACEHOLDER.match(text) if "<" in text else None
    if match:
        mark = quoted(match[1] or match[2])
        raise MalformedError(f"{where} has the place of something that is not text ({mark}); remove such rows")


def _cell(value: object, where: str) -> object:
    if isinstance(value, str):
        return _turns_of(_from_text(value, where), where) if _TURNS.match(value) else value
    return _turns_of(value, where)


def _structured(columns: dict[str, object]) -> dict[str, object]:
    """The columns with lists of answers, their scores, and messages that are wrapped, where they stand as JSON text."""
    opened = {name: _json_of(value) for name, value in columns.items() if isinstance(value, str)}
    texts = [name for name in LISTS if _all(opened.get(name), str)]
    scores = [name for name in (*BESIDE_SCORES, *BESIDE_RANKS) if _all(opened.get(name), int | float)]
    for name, value in opened.items():
        turns = value.get("messages") if isinstance(value, dict) else None
        if isinstance(turns, list) and turns and all(map(_is_turn, turns)):
            columns[name] = value if name == "input" else _turns_of(turns, f'"{name}"')
        elif name in LISTS and _all(value, dict) and all(map(is_scored, cast(list[Any], value))):
            columns[name] = value
    for beside in scores:
        count = len(cast(list[Any], opened[beside]))
        answers = next((name for name in texts if len(cast(list[Any], opened[name])) == count), None)
        if answers:
            columns |= {answers: opened[answers], beside: opened[beside]}
    return columns


def _json_of(text: str) -> object:
    """What a text that is wholly a JSON list or object holds; None of another one."""
    if not text.lstrip().startswith(("[", "{")):
        return None
    try:
        found: object = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found


def _all(value: object, kinds: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, kinds) for item in value)


def _from_text(text: str, where: str) -> object:
    """What a text that begins like turns holds; the text itself if it goes on as something else."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        if re.match(r"\s*(?:array\()?\[?\s*\{\s*'", text):
            raise MalformedError(f"{where} holds turns as Python prints them, which is not JSON; {_AS_JSON}") from None
        if text.rstrip().endswith(("}", "]")):
            raise MalformedError(f"{where} looks like turns in JSON and is not JSON; {_AS_JSON}") from None
        return text
    turns = found if isinstance(found, list) else [found]
    return found if all(_is_turn(turn) for turn in turns) else text


def _is_turn(value: object) -> bool:
    if not isinstance(value, Mapping):
        return False
    return ("role" in value and ("content" in value or "tool_calls" in value)) or {"from", "value"} <= value.keys()


def _turns_of(value: object, where: str) -> object:
    """Turns of ``role`` and ``content`` for turns of ``from`` and ``value``; everything else as it is."""
    if isinstance(value, Mapping):
        return _turn(value, where) if {"from", "value"} <= value.keys() else value
    if not isinstance(value, list) or not value:
        return value
    if not all(isinstance(turn, Mapping) and {"from", "value"} <= turn.keys() for turn in value):
        return value
    return [_turn(turn, f"{where} turn {number}") for number, turn in enumerate(value, 1)]


def _turn(turn: Mapping[str, object], where: str) -> dict[str, object]:
    speaker = str(turn["from"]).strip().lower()
    if speaker not in SPEAKERS:
        raise MalformedError(f"{where} is from {quoted(str(turn['from']))}; known are {listed(SPEAKERS, limit=20)}")
    others = {key: value for key, value in turn.items() if key not in ("from", "value")}
    if speaker == "function_call":
        return {"role": "assistant", "content": None, "tool_calls": _calls(turn["value"], where), **others}
    return {"role": SPEAKERS[speaker], "content": turn["value"], **others}


def _calls(value: object, where: str) -> list[dict[str, object]]:
    try:
        found = json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError):
        raise MalformedError(f"{where} is a call that is not JSON; {_AS_JSON}") from None
    calls = found if isinstance(found, list) else [found]
    if not all(isinstance(call, Mapping) and "name" in call for call in calls):
        raise MalformedError(f'{where} is no call; one is {{"name": ..., "arguments": ...}}')
    return [{"type": "function", "function": call} for call in calls]
