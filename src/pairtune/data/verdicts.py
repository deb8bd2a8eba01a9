"""Two answers and a verdict on them: which column holds it, and the pair it makes.

What one verdict says is read in :mod:`pairtune.data.preferred`.
"""

import functools
import json
import math
import re
from collections.abc import Mapping
from typing import NamedTuple

from pairtune.data.asked import Asked
from pairtune.data.preferred import LABELS, STRENGTHS, VERDICTS, number_in, strength_of
from pairtune.data.scales import Scale, number_of
from pairtune.data.sides import JUDGED, Made, beside, check_prompt, prompt_of
from pairtune.data.turns import BESIDE, SYSTEMS, Columns, MalformedError, UnusableError

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
ROLES = ("user", "assistant")
_VOTES = ("winner_model_a", "winner_model_b")
# What people call who gave an answer.
_MODELS = ("model", "generator", "model_name")
# What a table's cell holds where nothing stands.
_MISSING = ("", "nan", "null", "na", "n/a")


# A longer text is no name of an answer.
LONGEST_NAME = 80


class Better(NamedTuple):
    """Which answer is better, and by how much: below zero the first, zero neither."""

    strength: float
    source: str


def answers_of(columns: Columns) -> tuple[str, str] | None:
    """The names of a row's two answers."""
    return next((pair for pair in ANSWERS if pair[0] in columns and pair[1] in columns), None)


def named_answer(columns: Columns, side: str) -> str | None:
    """The column of the answer that a side names in place of holding it: "response_b", "B", or who gave it."""
    value = columns.get(side)
    if not isinstance(value, str) or len(value) > LONGEST_NAME or (names := answers_of(columns)) is None:
        return None
    if value in (columns[names[0]], columns[names[1]]):
        return None
    try:
        strength = strength_of(value, side, names, _models(columns, names), {})
    except (MalformedError, UnusableError):
        return None
    return names[strength > 0] if strength else None


def verdict_of(columns: Columns) -> str | None:
    """The column or columns with the verdict on the two answers, as they are called; None if there is none."""
    names = answers_of(columns)
    if names is None:
        return None
    if all(name in columns for name in _VOTES):
        return "winner_model_a, winner_model_b"
    found = next((name for name in (*STRENGTHS, *VERDICTS) if name in columns), None)
    return found or next(iter([f"{a}, {b}" for a, b in _scores(columns, names)]), None)


def verdicts_in(columns: Columns) -> dict[str, object]:
    """The columns of a row that are a verdict on its two answers, the more particular first."""
    names = (*STRENGTHS, *VERDICTS) if answers_of(columns) else ()
    return {name: value for name in names if (value := _given(columns, name)) is not None}


def _given(columns: Columns, name: str) -> object:
    """What stands in a column; None where nothing does, as a table's cell says it."""
    value = columns.get(name)
    if isinstance(value, str):
        return None if value.strip().lower() in _MISSING else value
    return None if isinstance(value, float) and math.isnan(value) else value


def judged(columns: Columns, asked: Asked) -> Made:
    """The better answer chosen. Raises MalformedError, or UnusableError for a tie."""
    names = answers_of(columns)
    assert names
    better = _better(columns, names, asked.scales)
    if abs(better.strength) <= asked.min_margin:
        near = f" (at most {asked.min_margin:g} apart)" if asked.min_margin else ""
        raise UnusableError(f"a tie{near}", "", mistake=False)
    chosen, rejected = names if better.strength < 0 else names[::-1]
    sides = {"chosen": columns[chosen], "rejected": columns[rejected]}
    stands = {"chosen": f"{JUDGED} {names[0]} and {names[1]} by {better.source}"}
    extra, words = beside(columns)
    if names[0].startswith("conversation"):
        sides = {side: _up_to(value, columns.get("turn")) for side, value in sides.items()}
        _check_same(*sides.values())
        return Made({**extra, **sides}, {**stands, **words})
    if asked_N := _texts(columns.get("prompt")):
        sides = {side: _dialogue(asked_N, value, names) for side, value in sides.items()}
        _check_same(*sides.values())
        return Made({**extra, **sides}, {**stands, **words, "prompt": "prompt, a list of what the user said,"})
    made = prompt_of(columns)
    if all(isinstance(side, str) for side in sides.values()):
        check_prompt(made, columns, names)
    return Made({**made.columns, **sides}, {**made.stands_for, **stands})


def of_summaries(columns: Columns, asked: Asked) -> Made:
    """The one that was chosen of two summaries of a post. Raises MalformedError or UnusableError."""
    info, summaries = columns["info"], columns["summaries"]
    kind = "post" if isinstance(info, Mapping) and info.get("post") is not None else "article"
    texts = [each.get("text") for each in summaries if isinstance(each, Mapping)] if isinstance(summaries, list) else []
    if len(texts) != len(ROLES) or not isinstance(info, Mapping):
        raise MalformedError('"summaries" must be two objects with a "text", and "info" an object with a "post"')
    beside_them = {name: columns[name] for name in (*SYSTEMS, *BESIDE) if name in columns}
    two = {"prompt": info.get(kind), "answer_0": texts[0], "answer_1": texts[1], "choice": columns["choice"]}
    made = judged({**two, **beside_them}, asked)
    return Made(made.columns, {"prompt": f"info.{kind}", "chosen": "the choice of summaries"})


def _up_to(conversation: object, turn: object) -> object:
    """A dialogue up to the answer that was judged: MT-bench's judgments of the first hold the second as well."""
    number = number_of(turn)
    if not isinstance(conversation, list) or number is None or number < 1:
        return conversation
    answers = [
        at for at, each in enumerate(conversation, 1) if isinstance(each, Mapping) and each.get("role") == ROLES[1]
    ]
    return conversation[: answers[int(number) - 1]] if number <= len(answers) else conversation


def _check_same(chosen: object, rejected: object) -> None:
    """Raises UnusableError for dialogues with two models that went apart before the answers that were judged."""
    if isinstance(chosen, list) and isinstance(rejected, list) and chosen[:-1] != rejected[:-1]:
        raise UnusableError("its two dialogues went apart before their last answers", "", mistake=False)


def _texts(value: object) -> list[str]:
    """The texts of a list, or of JSON text of one, as the arena's files have them; none of anything else."""
    if isinstance(value, str) and value.startswith(('["', "[null")):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return []
        if isinstance(value, list) and any(text is None for text in value):
            raise UnusableError("a turn in it is null", "every turn needs text")
    return value if isinstance(value, list) and value and all(isinstance(text, str) for text in value) else []


def _dialogue(asked: list[str], value: object, names: tuple[str, str]) -> list[dict[str, str]]:
    answers = _texts(value)
    if len(answers) != len(asked):
        raise UnusableError(f'"prompt" has {len(asked)} texts and "{names[0]}" or "{names[1]}" others', "give as many")
    turns = zip(asked, answers, strict=True)
    return [{"role": role, "content": text} for pair in turns for role, text in zip(ROLES, pair, strict=True)]


def _better(columns: Columns, names: tuple[str, str], scales: Mapping[str, Scale]) -> Better:
    if all(name in columns for name in _VOTES):
        first, second = (number_in(columns[name], name) for name in _VOTES)
        return Better(second - first, "the votes")
    models = _models(columns, names)
    given = verdicts_in(columns)
    if given:
        (name, value), *others = given.items()
        strength = strength_of(value, name, names, models, scales)
        if other := next(
            (other for other, value in others if _opposed(strength, value, other, names, models, scales)), ""
        ):
            need = f"--columns other={other} leaves the second out"
            raise UnusableError(f'"{name}" and "{other}" name different answers', need)
        return Better(strength, name)
    if not scales:  # no row of the source has a verdict of the kinds above
        for one, other in _scores(columns, names):
            return Better(number_in(columns[other], other) - number_in(columns[one], one), f"{one} and {other}")
    raise UnusableError("there is no verdict", "a pair needs one")


def _opposed(strength: float, value: object, name: str, names: tuple[str, str], models: tuple[object, object],
             scales: Mapping[str, Scale]) -> bool:  # fmt: skip
    """Whether another column, as far as it is a verdict and no label, is for the other answer."""
    if name in LABELS:
        return False
    try:
        return strength * strength_of(value, name, names, models, scales) < 0
    except (MalformedError, UnusableError):
        return False


@functools.cache
def _ends(names: tuple[str, str]) -> tuple[str, str]:
    """What tells the names of two answers apart: _a and _b, 1 and 2."""
    first, second = (re.sub(r"\A.*?(_?[a-zA-Z0-9])\Z", r"\1", name) for name in names)
    return first, second


def _models(columns: Columns, names: tuple[str, str]) -> tuple[object, object]:
    """Who gave the answers, where columns say it."""
    first, second = _ends(names)
    noun = next((noun for noun in _MODELS if f"{noun}{first}" in columns and f"{noun}{second}" in columns), "")
    return (columns[f"{noun}{first}"], columns[f"{noun}{second}"]) if noun else (None, None)


def _scores(columns: Columns, names: tuple[str, str]) -> list[tuple[str, str]]:
    """Columns with a score for each answer."""
    first, second = _ends(names)
    nouns = ("score", "rating", "reward")
    named = [(f"{noun}{first}", f"{noun}{second}") for noun in nouns]
    named += [(f"{names[0]}_{noun}", f"{names[1]}_{noun}") for noun in nouns]
    return [pair for pair in named if columns.get(pair[0]) is not None and columns.get(pair[1]) is not None]
