"""Prompts that are too long, made shorter where it hurts least: whole turns, then words, and only then tokens."""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace

from pairtune.data.schema import Message, PromptText

# Turns that say how to answer, not what was said.
OPENING = ("system", "developer")
# Where a text may begin: after white space, or at a character that is a word of its own (Chinese, Japanese, Korean).
_WORD = re.compile(r"(?<=\s)\S|[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff]")


def shortened(prompt: PromptText, fits: Callable[[PromptText], bool]) -> PromptText | None:
    """As much of the prompt's end as fits; None if not even its last word does.

    A dialogue keeps its system turn and then begins with a turn of the user's; where its last turns are still too long,
    the longest of them loses its first words.
    """
    if isinstance(prompt, str):
        return _words(prompt, fits)
    opening, starts = _later_turns(prompt)

    def from_turn(start: int) -> tuple[Message, ...]:
        return (*prompt[:opening], *prompt[start:])

    if (first := _first(len(starts), lambda i: fits(from_turn(starts[i])))) is not None:
        return from_turn(starts[first])
    last = from_turn(starts[-1]) if starts else prompt
    place = max(range(len(last)), key=lambda i: (last[i].role not in OPENING, len(last[i].content)))

    def with_text(text: str) -> tuple[Message, ...]:
        return (*last[:place], replace(last[place], content=text), *last[place + 1 :])

    text = _words(last[place].content, lambda text: fits(with_text(str(text))))
    return None if text is None else with_text(str(text))


def last_tokens(ids: Sequence[int], room: int, bos: int | None) -> list[int]:
    """The last `room` ids, behind the BOS that was before them. One that marks turns as well is not doubled."""
    kept = list(ids[-room:])
    if len(ids) <= room or room < 2 or ids[0] != bos:
        return kept
    return kept[1:] if kept[1] == bos else [ids[0], *kept[1:]]


def _later_turns(turns: tuple[Message, ...]) -> tuple[int, list[int]]:
    """How many system turns there are, and where the user's later turns are, from which a dialogue may begin."""
    opening = next((i for i, turn in enumerate(turns) if turn.role not in OPENING), len(turns))
    return opening, [i for i in range(opening + 1, len(turns)) if turns[i].role == "user"]


def _words(text: str, fits: Callable[[PromptText], bool]) -> str | None:
    """The longest end of the text that begins with a word and fits."""
    starts = [match.start() for match in _WORD.finditer(text)]
    first = _first(len(starts), lambda i: fits(text[starts[i] :]))
    return None if first is None else text[starts[first] :]


def _first(count: int, fits: Callable[[int], bool]) -> int | None:
    """The first of `count` places from which on an end fits; None if none does. Later places have shorter ends.

    Looked for from the end, twice as far each time: what is a thousand times too long is hardly ever tried.
    """
    low, high, step = 0, count, 1
    while low < high:
        at = max(0, count - step) if low == 0 else (low + high) // 2
        low, high, step = (low, at, 2 * step) if fits(at) else (at + 1, high, step)
    return high if high < count else None
