"""What one verdict on two answers says, as people write it: a letter, a number, a name, a strength.

A number that could mean either answer is never guessed at: what is not known for certain is one line.
"""

import re
from collections.abc import Mapping

from pairtune.data.scales import NONE, Scale
from pairtune.data.turns import MalformedError, UnusableError
from pairtune.data.wording import kind, quoted

#: Columns with a name or a number of the better one, the more particular first; a label may be of something else.
LABELS = ("label", "labels")
VERDICTS = (
    *("better_response_id", "winner", "preferred", "better", "choice", "verdict", "preference"),
    *("preferred_response", *LABELS),
)
#: Those of them that are an answer's number, so that 0 and 1 may be the first and the second.
NUMBERING = ("better_response_id", "winner", "preferred", "better", "choice", "verdict", "preferred_response")
#: Columns with a number whose sign says which: below zero the first.
STRENGTHS = ("overall_preference", "preference_strength")
_LEVEL = re.compile(r"\W*(?:tied?|both(?:bad)?|neither|draw|same|equal|none)(?![a-z])", re.IGNORECASE)
_NOUN = r"(?:(?:model|response|answer|assistant|output|completion|conversation|text|option|candidate|human_ref)[\W_]*)?"
_HOW = r"(?:\W+(?:is|was))?(?:\W+(?:much|far|clearly|slightly|significantly))*(?:\W+(?:better|preferred|wins?))?"
_LETTER = re.compile(rf"\W*{_NOUN}([ab]){_HOW}\W*\Z", re.IGNORECASE)
_DIGIT = re.compile(rf"\W*{_NOUN}([012]){_HOW}\W*\Z", re.IGNORECASE)
_COMPARED = re.compile(r"\W*([ab])\s*(>+|<+|=+)\s*([ab])\W*\Z", re.IGNORECASE)


def strength_of(value: object, column: str, names: tuple[str, str], models: tuple[object, object],
                scales: Mapping[str, Scale]) -> float:  # fmt: skip
    """Below zero for the first answer, above for the second, 0 for neither. `models` gave them, `scales` are the
    source's. Raises MalformedError or UnusableError.
    """
    scale = scales.get(column, NONE)
    if column in STRENGTHS:
        if scale.numbers and not scale.has_two_sides:
            raise MalformedError(
                f'"{column}" goes from {scale.low:g} to {scale.high:g}: never below zero, where the first answer is '
                "better; take the middle of its scale from it, or if the second one is always better say "
                f"--columns chosen={names[1]} rejected={names[0]}"
            )
        return number_in(value, column)
    if models[0] != models[1] and value in models:
        return -1.0 if value == models[0] else 1.0
    if isinstance(value, bool):
        raise MalformedError(f'"{column}" is true or false, which names neither "{names[0]}" nor "{names[1]}"')
    if not isinstance(value, str | int | float):
        raise MalformedError(f'"{column}" is {kind(value)} where a verdict belongs')
    try:
        number = float(value)
    except ValueError:
        return _named(str(value).strip(), column, names)
    return _numbered(number, column, names, scale)


def first_of(column: str, scale: Scale) -> float | None:
    """The number of the first of two answers, by all numbers of a column; None where they do not show it.

    2 shows that 1 is the first, and so does what lies between; 0 and 1 show that 0 is, but for a label, which may mean
    "yes, the first"; 1 alone shows nothing, and 0 beside 2 may be a tie.
    """
    if scale.high > 1:
        return 1.0 if scale.low >= 1 else None
    return 0.0 if (scale.low, scale.high) == (0, 1) and column in NUMBERING else None


def number_in(value: object, column: str) -> float:
    """A number that stands in a column. Raises MalformedError, or UnusableError for one that is not a number."""
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


def _named(text: str, column: str, names: tuple[str, str]) -> float:
    plain, lettered = text.lower(), names[0][-1:].lower() == "a"
    for name, word, side, strength in zip(names, ("left", "right"), ("first", "second"), (-1.0, 1.0), strict=True):
        if plain in (name.lower(), word, side):
            return strength
    if (letter := _LETTER.match(text)) and lettered:
        return -1.0 if letter[1].lower() == "a" else 1.0
    if (compared := _COMPARED.match(text)) and lettered and compared[1].lower() != compared[3].lower():
        strength = {">": -1.0, "<": 1.0, "=": 0.0}[compared[2][0]] * len(compared[2])
        return strength if compared[1].lower() == "a" else -strength
    if (digit := _DIGIT.match(text)) and names[0][-1:] in "01":
        return _numbered(float(digit[1]), column, names, NONE)
    if _LEVEL.match(text):
        return 0.0
    raise MalformedError(f'"{column}" is {quoted(text)}, which names neither "{names[0]}" nor "{names[1]}", nor a tie')


def _lettered(names: tuple[str, str]) -> bool:
    """Whether the answers have letters; SHP's have, and a rule of their own."""
    return names[0][-1:].lower() == "a" and names[0] != "human_ref_A"


def _numbered(number: float, column: str, names: tuple[str, str], scale: Scale) -> float:
    """A number counts the answers as their names do; SHP's `labels` is 1 where A is better, and 0 where B is."""
    first = first_of(column, scale)
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
    elif column == "preference" and number == 0 and names[0].startswith("output") and scale.high > 1:
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
