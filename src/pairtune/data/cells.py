"""A row's cells as they are meant: turns that stand as JSON text in a table's cell, turns by other names.

What no text model can be trained on (pictures, sound) is refused by its name.

A cell is taken for turns only if all of it is: a text that quotes some stays text.
"""

import json
import re
from collections.abc import Mapping
from typing import Any, cast

from pairtune.data.answers import BESIDE_RANKS, BESIDE_SCORES, LISTS, is_scored
from pairtune.data.speakers import AS_JSON, is_turn, plain_text, turns_of
from pairtune.data.turns import NOT_TEXT, SYSTEMS, Columns, MalformedError
from pairtune.data.wording import quoted

_PLACEHOLDER = r"<\|?(?:image|audio|video)(?:_?\d+)?(?:_pad|_start|_end)?\|?>"
_WITH_PLACEHOLDER = re.compile(rf"\s*({_PLACEHOLDER})|.*({_PLACEHOLDER})\s*\Z", re.DOTALL)
_TURNS = re.compile(r"""\s*(?:array\()?\[?\s*\{\s*(["'])(?:role|from|content|value)\1\s*:""")

# How the name of a file ends that is no text, and columns that hold names of files.
_FILES = (".png", ".jpg", ".jpeg", ".gif", ".webp", ".bmp", ".wav", ".mp3", ".flac", ".ogg", ".mp4", ".webm", ".avi")
_NAMES_FILES = re.compile(r"(?:.*_)?(?:file|file_?name|path|url|uri|media|figure|screenshot|frame)s?\Z", re.IGNORECASE)

# Columns that hold lists, how those begin, and the column beside which they do.
_PRINTED = (
    ("history", "[[", "history"),
    ("prompt", ("['", '["'), "response_a"),
    ("chosen", ("['", '["'), "num_correct"),
)


def read_cells(columns: Columns) -> Columns:
    """The columns with their cells as they are meant. Raises MalformedError."""
    found: dict[str, object] = {}
    for name, value in columns.items():
        if value and (NOT_TEXT.match(name) or _is_media(name, value)):
            raise MalformedError(f"{quoted(name)} is not text, and only text can be trained on; remove such rows")
        found[name] = _cell(value, f'"{name}"' if name.isprintable() else quoted(name))
    return _structured(found)


def refuse_placeholders(text: str, where: str) -> None:
    """Raises MalformedError where a text begins or ends with the place of a picture."""
    match = _WITH_PLACEHOLDER.match(text) if "<" in text else None
    if match:
        mark = quoted(match[1] or match[2])
        raise MalformedError(f"{where} has the place of something that is not text ({mark}); remove such rows")


def _is_media(name: str, value: object) -> bool:
    """Whether a column of another name holds pictures or sound: a file's name, or what `datasets` keeps."""
    first = value[0] if isinstance(value, list) and value else value
    if isinstance(first, Mapping):
        return {"bytes", "path"} == first.keys() or {"array", "sampling_rate"} <= first.keys()
    return isinstance(first, str) and first[-5:].lower().endswith(_FILES) and bool(_NAMES_FILES.match(name))


def _cell(value: object, where: str) -> object:
    if isinstance(value, str):
        return turns_of(_from_text(value, where), where) if _TURNS.match(value) else value
    return turns_of(value, where)


def _structured(columns: dict[str, object]) -> dict[str, object]:
    """The columns with messages that are wrapped, and with lists of answers and scores that stand as JSON text."""
    _refuse_printed(columns)
    wrapped = {name: value for name, value in columns.items() if isinstance(value, Mapping)}
    opened = {name: value for name, text in columns.items() if isinstance(text, str) and (value := _json_of(text))}
    for name, value in (*wrapped.items(), *opened.items()):
        if isinstance(value, Mapping) and _wrapped(value):
            columns[name] = value if name == "input" else turns_of(value["messages"], quoted(name))
        elif name in LISTS and _all(value, dict) and any(map(is_scored, cast(list[Any], value))):
            columns[name] = value
        elif _is_meant(name, value) or (
            name in ("chosen", "rejected") and "num_correct" in columns and _all(value, str)
        ):
            columns[name] = plain_text(value)
    if not opened:
        return columns
    texts = [name for name in LISTS if _all(opened.get(name), str)]
    for beside in (name for name in (*BESIDE_SCORES, *BESIDE_RANKS) if _all(opened.get(name), int | float)):
        count = len(cast(list[Any], opened[beside]))
        answers = next((name for name in texts if len(cast(list[Any], opened[name])) == count), None)
        if answers:
            columns |= {answers: opened[answers], beside: opened[beside]}
    return columns


def _refuse_printed(columns: Columns) -> None:
    """Raises MalformedError where a list stands as Python prints it: as a text it would be trained on."""
    for name, marks, beside in _PRINTED:
        text = columns.get(name)
        like_a_list = isinstance(text, str) and text.startswith(marks) and text.endswith("]") and beside in columns
        if like_a_list and _json_of(str(text)) is None:
            raise MalformedError(f'"{name}" holds a list as Python prints it, which is not JSON; {AS_JSON}')


def _is_meant(name: str, value: object) -> bool:
    """Whether what a text holds as JSON is what its column is known to hold, and no answer in JSON."""
    if isinstance(value, dict):
        return name in (*SYSTEMS, "info") or (name == "question" and isinstance(value.get("full_text"), str))
    return (name == "history" and _all(value, list)) or (name == "summaries" and _all(value, dict))


def _wrapped(value: Mapping[str, object]) -> bool:
    """Whether an object holds a dialogue as its messages."""
    turns = value.get("messages")
    return isinstance(turns, list) and bool(turns) and all(map(is_turn, turns))


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
            raise MalformedError(f"{where} holds turns as Python prints them, which is not JSON; {AS_JSON}") from None
        if text.rstrip().endswith(("}", "]")):
            raise MalformedError(f"{where} looks like turns in JSON and is not JSON; {AS_JSON}") from None
        return text
    turns = found if isinstance(found, list) else [found]
    return found if all(is_turn(turn) for turn in turns) else text
