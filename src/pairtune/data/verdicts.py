"""Two answers and a verdict on them, as people write it: a letter, a number, a name, a strength, two scores.

A number that could mean either answer is never guessed at: what is not known for certain is one line.
"""

import json
import re
from collections.abc import Set
from typing import NamedTuple

from pairtune.data.asked import Asked
from pairtune.data.sides import Made, beside, prompt_of
from pairtune.data.turns import Columns, MalformedError, UnusableError
from pairtune.data.wording import kind, quoted

#: What people call two answers, in their order.
ANSWERS = (
    *((f"{noun}_a", f"{noun}_b") for noun in ("response", "answer", "output", "completion", "conversation", "text")),
    *((f"{noun}_0", f"{noun}_1") for noun in ("response", "answer", "output", "completion")),
    *((f"{noun}_1", f"{noun}_2") for noun in ("response", "answer", "output", "completion")),
    *((f"{noun}1", f"{noun}2") for noun in ("response", "answer", "output")),
    ("human_ref_A", "human_ref_B"),
    ("response_A", "response_B"),
    ("answer_A", "answer_B"),
)
#: Columns with a name or a number of the better one, the more particular first.
VERDICTS = (
    *("better_response_id", "winner", "preferred", "better", "choice", "verdict", "preference"),
    *("preferred_response", "label", "labels"),
)
#: Those of them that are an answer's number, so that 0 and 1 may be the first and the second.
NUMBERING = ("better_response_id", "winner", "preferred", "better", "choice", "verdict", "preferred_response")
#: Columns with a number whose sign says which: below zero the first.
STRENGTHS = ("overall_preference", "preference_strength")
ROLES = ("user", "assistant")
_VOTES = ("winner_model_a", "winner_model_b")
_LEVEL = re.compile(r"(?:tie|both|neither|draw|same|equal|none)\b|tie[_ (]", re.IGNORECASE)
_LETTER = re.compile(r"(?:\A|[\W_])([ab])\Z", re.IGNORECASE)


class Better(NamedTuple):
    """Which answer is better, and by how much: below zero the first, zero neither."""

    strength: float
    source: str


def answers_of(columns: Columns) -> tuple[str, str] | None:
    """The names of a row's two answers."""
    return next((pair for pair in ANSWERS if pair[0] in columns and pair[1] in columns), None)


def verdict_of(columns: Columns) -> str | None:
    """The column or columns with the verdict on the two answers, as they are called; None if there is none."""
    names = answers_of(columns)
    if names is None:
        return None
    if all(name in columns for name in _VOTES):
        return "winner_model_a, winner_model_b"
    found = next((name for name in (*STRENGTHS, *VERDICTS) if name in columns), None)
    return found or next(iter([f"{a}, {b}" for a, b in _scores(columns, names)]), None)


def number_beside_letters(columns: Columns) -> tuple[str, float] | None:
    """The verdict's column and number, in a row whose answers have letters; None of any other row."""
    names = answers_of(columns)
    if names is None or not _lettered(names):
        return None
    name = next((name for name in VERDICTS if columns.get(name) is not None), None)
    value = columns.get(str(name))
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    try:
        return str(name), float(value)
    except ValueError:
        return None


def first_of(found: Set[tuple[str, float]]) -> float | None:
    """The number of the first answer, by all columns and numbers of a source; None where they do not show it.

    2 shows that 1 is the first, and so does what lies between; 0 and 1 show that 0 is, but for a label, which may mean
    "yes, the first"; 1 alone shows nothing, and 0 beside 2 may be a tie.
    """
    numbers = {number for _, number in found}
    if any(1 < number <= 2 for number in numbers):
        return None if 0 in numbers else 1.0
    return 0.0 if {0.0, 1.0} <= numbers and all(column in NUMBERING for column, _ in found) else None


def judged(columns: Columns, asked: Asked) -> Made:
    """The better answer chosen. Raises MalformedError, or UnusableError for a tie."""
    names = answers_of(columns)
    assert names
    better = _better(columns, names, asked.first)
    if abs(better.strength) <= asked.min_margin:
        near = f" (at most {asked.min_margin:g} apart)" if asked.min_margin else ""
        raise UnusableError(f"a tie{near}", "", mistake=False)
    chosen, rejected = names if better.strength < 0 else names[::-1]
    sides = {"chosen": columns[chosen], "rejected": columns[rejected]}
    stands = {"chosen": f"the better of {names[0]} and {names[1]} by {better.source}"}
    extra, words = beside(columns)
    if names[0].startswith("conversation"):
        return Made({**extra, **sides}, {**stands, **words})
    if asked_N := _texts(columns.get("prompt")):
        sides = {side: _dialogue(asked_N, value, names) for side, value in sides.items()}
        return Made({**extra, **sides}, {**stands, **words, "prompt": "prompt, a list of what the user said,"})
    made = prompt_of(columns)
    return Made({**made.columns, **sides}, {**made.stands_for, **stands})


def _texts(value: object) -> list[str]:
    """The texts of a list, or of JSON text of one, as the arena's files have them; none of anything else."""
    if isinstance(value, str) and value.startswith('["'):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return []
    return value if isinstance(value, list) and value and all(isinstance(text, str) for text in value) else []


def _dialogue(asked: list[str], value: object, names: tuple[str, str]) -> list[dict[str, str]]:
    answers = _texts(value)
    if len(answers) != len(asked):
        raise UnusableError(f'"prompt" has {len(asked)} texts and "{names[0]}" or "{names[1]}" others', "give as many")
    turns = zip(asked, answers, strict=True)
    return [{"role": role, "content": text} for pair in turns for role, text in zip(ROLES, pair, strict=True)]


def _better(columns: Columns, names: tuple[str, str], first: float | None) -> Better:
    if all(name in columns for name in _VOTES):
        first, second = (_number(columns[name], name) for name in _VOTES)
        return Better(second - first, "the votes")
    for name in STRENGTHS:
        if columns.get(name) is not None:
            return Better(_number(columns[name], name), name)
    for name in VERDICTS:
        if columns.get(name) is not None:
            return Better(_verdict(columns[name], name, names, first), name)
    for one, other in _scores(columns, names):
        return Better(_number(columns[other], other) - _number(columns[one], one), f"{one} and {other}")
    raise UnusableError("there is no verdict", "a pair needs one")


def _scores(columns: Columns, names: tuple[str, str]) -> list[tuple[str, str]]:
    """Columns with a score for each answer."""
    ends = [re.search(r"_?[a-zA-Z0-9]\Z", name) for name in names]
    first, second = (end[0] for end in ends if end)
    nouns = ("score", "rating", "reward")
    named = [(f"{noun}{first}", f"{noun}{second}") for noun in nouns]
    named += [(f"{names[0]}_{noun}", f"{names[1]}_{noun}") for noun in nouns]
    return [pair for pair in named if columns.get(pair[0]) is not None and columns.get(pair[1]) is not None]


def _verdict(value: object, column: str, names: tuple[str, str], first: float | None) -> float:
    """Below zero for the first answer, above for the second, 0 for neither."""
    if isinstance(value, bool):
        raise MalformedError(f'"{column}" is true or false, which names neither "{names[0]}" nor "{names[1]}"')
    text = str(value).strip()
    try:
        number = float(text)
    except ValueError:
        return _named(text, column, names)
    if isinstance(value, str | int | float):
        return _numbered(number, column, names, first)
    raise MalformedError(f'"{column}" is {kind(value)} where a verdict belongs')


def _named(text: str, column: str, names: tuple[str, str]) -> float:
    plain = text.lower()
    for name, strength in zip(names, (-1.0, 1.0), strict=True):
        if plain == name.lower():
            return strength
    if plain in ("left", "first"):
        return -1.0
    if plain in ("right", "second"):
        return 1.0
    letter = _LETTER.search(text)
    if letter and names[0][-1:].lower() == "a":
        return -1.0 if letter[1].lower() == "a" else 1.0
    digit = re.search(r"(?:\A|[\W_a-z])([012])\Z", plain)
    if digit and names[0][-1:] in "01":
        return _numbered(float(digit[1]), column, names, None)
    if _LEVEL.match(text):
        return 0.0
    raise MalformedError(f'"{column}" is {quoted(text)}, which names neither "{names[0]}" nor "{names[1]}", nor a tie')


def _lettered(names: tuple[str, str]) -> bool:
    """Whether the answers have letters; SHP's have, and a rule of their own."""
    return names[0][-1:].lower() == "a" and names[0] != "human_ref_A"


def _numbered(number: float, column: str, names: tuple[str, str], first: float | None) -> float:
    """A number counts the answers as their names do; SHP's `labels` is 1 where A is better, and 0 where B is."""
    if names[0] == "human_ref_A":
        counted = {1.0: -1.0, 0.0: 1.0}
    elif names[0].endswith("0"):
        counted = {0.0: -1.0, 1.0: 1.0}
    elif _lettered(names) and first is None and number == 1:
        one, other = (f"{names[0][:-1]}{digit}" for digit in (0, 1))
        raise MalformedError(
            f'"{column}" is 1, and no row shows whether that is "{names[0]}" or "{names[1]}"; name them {one} and '
            f"{other}, or {names[0][:-1]}1 and {names[0][:-1]}2, with --columns"
        )
    elif _lettered(names) and first == 0:
        counted = {0.0: -1.0, 1.0: 1.0}
    elif column == "preference" and 1 <= number <= 2:  # AlpacaEval's: anything from 1 to 2
        return 2 * (number - 1.5)
    elif column == "preference" and number == 0 and names[0].startswith("output"):
        return 0.0  # AlpacaEval's older tie
    else:
        counted = {1.0: -1.0, 2.0: 1.0}
    if number not in counted:
        these = " or ".join(f"{one:g}" for one in counted)
        raise MalformedError(
            f'"{column}" is {number:g}; for "{names[0]}" and "{names[1]}" it must be {these} - if 0 is the first, name '
            "them response_0 and response_1 with --columns"
        )
    return counted[number]


def _number(value: object, column: str) -> float:
    try:
        if not isinstance(value, str | int | float):
            raise ValueError
        number = float(value)
    except ValueError:
        shown = quoted(value) if isinstance(value, str) else kind(value)
        raise MalformedError(f'"{column}" is {shown} where a number belongs') from None
    if number != number:
        raise UnusableError(f'"{column}" is not a number', "a verdict needs one")
    return number
