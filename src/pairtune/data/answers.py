"""Several answers to a prompt, with scores or ranks, and the pairs that are made of them."""

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple, cast

from pairtune.data.asked import ADJACENT, ALL, BEST_REST, BEST_WORST, Asked
from pairtune.data.sides import JUDGED, Made, check_prompt, prompt_of
from pairtune.data.speakers import turns_of
from pairtune.data.turns import SYSTEMS, Columns, MalformedError, UnusableError
from pairtune.data.wording import kind, listed, quoted

#: What people call a list of answers, and within one the answer, its score and its rank.
LISTS = (
    *("completions", "responses", "answers", "generations", "outputs", "candidates"),
    *("candidates_completions", "all_generated_responses"),
)
TEXTS = ("response", "completion", "text", "answer", "output", "content", "generation", "messages")
SCORES = (
    *("overall_score", "score", "rating", "reward", "helpfulness"),
    *("fine-grained_score", "fine_grained_score", "pm_score"),
)
RANKS = ("rank", "ranking")
_SINGLE = "for answers that stand alone: --columns label=SCORE --label-threshold N"
#: Lists beside the answers with a score, or a rank, for each.
BESIDE_SCORES = ("scores", "ratings", "rewards", "rating", "all_rm_scores")
BESIDE_RANKS = ("ranks", "rank")
#: These may be each answer's rank, or the answers' numbers from the best on.
_EITHER = ("rankings", "ranking")


class Answer(NamedTuple):
    """An answer, and how good it is: more is better, ranks are turned round."""

    value: object
    score: float


def list_of(columns: Columns) -> str | None:
    """The column that holds several answers with scores or ranks, or None."""
    for name in LISTS:
        answers = columns.get(name)
        if not isinstance(answers, list) or not answers:
            continue
        if any(isinstance(answer, Mapping) and is_scored(answer) for answer in answers) or _beside(columns, name):
            return name
    return None


def is_scored(answer: Mapping[str, object]) -> bool:
    """Whether an object is an answer with a score or a rank."""
    return bool(_key(answer, TEXTS) and _key(answer, (*SCORES, *RANKS)))


def paired_up(columns: Columns, asked: Asked) -> Iterator[Made]:
    """A row for each pair that is asked for. Raises MalformedError, or UnusableError where all are level."""
    name = list_of(columns)
    if name is None:
        raise UnusableError("it has no answers with scores", "a pair needs two")
    answers, by = _answers(columns, name)
    unread = _systems_within(columns[name], name)
    pairs = list(pairs_of(answers, asked))
    if len(answers) < 2:
        raise UnusableError("it has one answer with a score (those to one prompt must follow each other)", _SINGLE)
    if not pairs:
        raise UnusableError("its answers are level", "", mistake=False)
    made = prompt_of(columns)
    check_prompt(made, columns, (name,))
    for better, worse in pairs:
        sides = {"chosen": _turns(better.value), "rejected": _turns(worse.value)}
        yield Made({**made.columns, **sides}, {**made.stands_for, "chosen": f"{JUDGED} {name} by {by}"}, unread)


def several(columns: Columns) -> bool:
    """Whether a row's chosen or rejected side is a list of answers that are texts."""
    sides = [columns.get("chosen"), columns.get("rejected")]
    lists = [isinstance(side, list) and bool(side) and all(isinstance(text, str) for text in side) for side in sides]
    return any(lists) and all(is_list or isinstance(side, str) for is_list, side in zip(lists, sides, strict=True))


def of_sides(columns: Columns, asked: Asked) -> Iterator[Made]:
    """A row for each pair of one of the chosen answers and one of the rejected. Raises MalformedError."""
    sides = [columns["chosen"], columns["rejected"]]
    chosen, rejected = ([side] if isinstance(side, str) else cast(list[object], side) for side in sides)
    if chosen[0] == rejected[0]:
        raise MalformedError(
            '"chosen" and "rejected" are lists that begin with the same text; if those are turns, write them as '
            '{"role": ..., "content": ...}'
        )
    made = prompt_of(columns)
    answers = [*(Answer(text, 1) for text in chosen), *(Answer(text, 0) for text in rejected)]
    for better, worse in pairs_of(answers, replace(asked, min_margin=0)):
        yield Made({**made.columns, "chosen": better.value, "rejected": worse.value}, made.stands_for)


def pairs_of(answers: Iterable[Answer], asked: Asked) -> Iterator[tuple[Answer, Answer]]:
    """Pairs (better, worse) further apart than the least margin; best and worst are the first of those that are."""
    order = sorted(answers, key=lambda answer: -answer.score)  # stable: equal ones in the row's order
    if asked.pair_up == ALL:
        found: Iterable[tuple[Answer, Answer]] = itertools.combinations(order, 2)
    elif asked.pair_up == ADJACENT:
        found = itertools.pairwise(order)
    elif asked.pair_up == BEST_REST:
        found = ((order[0], other) for other in order[1:])
    else:
        assert asked.pair_up == BEST_WORST
        worst = next((answer for answer in order if order and answer.score == order[-1].score), None)
        found = [(order[0], worst)] if worst else []
    yield from ((a, b) for a, b in found if a.score - b.score > asked.min_margin)


def _answers(columns: Columns, name: str) -> tuple[list[Answer], str]:
    """The answers that have a score, and what the score is called."""
    given: Any = columns[name]
    if beside := _beside(columns, name):
        if beside in _EITHER:
            raise MalformedError(
                f"\"{beside}\" may be each answer's rank or the answers' numbers from the best on; if it is the rank, "
                f"say --columns ranks={beside}"
            )
        scores: Any = columns[beside]
        if len(scores) != len(given):
            raise MalformedError(f'"{name}" and "{beside}" are {len(given)} and {len(scores)} long; give each its own')
        sign = -1 if beside in BESIDE_RANKS else 1
        values = [_key_value(answer) for answer in given]
        scored = [(value, _score(score, beside)) for value, score in zip(values, scores, strict=True)]
        return [Answer(value, sign * score) for value, score in scored if score is not None], beside
    objects = [answer for answer in given if isinstance(answer, Mapping)]
    text = next(key for answer in objects if is_scored(answer) and (key := _key(answer, TEXTS)))
    score = next(key for key in (*SCORES, *RANKS) if any(answer.get(key) is not None for answer in objects))
    found = []
    for number, answer in enumerate(given, 1):
        if not isinstance(answer, Mapping) or text not in answer:
            raise MalformedError(f'"{name}" {number} has no "{text}"; {_keys(answer)}')
        value = _score(answer.get(score), f"{name} {number} {score}")
        if value is not None:
            found.append(Answer(answer[text], -value if score in RANKS else value))
    return found, str(score)


def _keys(answer: object) -> str:
    return f"its keys are {listed(map(str, answer))}" if isinstance(answer, Mapping) else f"it is {kind(answer)}"


def _beside(columns: Columns, name: str) -> str | None:
    """The list beside the answers with a score or a rank for each."""
    for beside in (*BESIDE_SCORES, *BESIDE_RANKS, *_EITHER):
        if beside != name and isinstance(columns.get(beside), list):
            return beside
    return None


def _key(answer: Mapping[str, object], names: Iterable[str]) -> str | None:
    return next((name for name in names if answer.get(name) is not None), None)


def _key_value(answer: object) -> object:
    if not isinstance(answer, Mapping) or {"role", "content"} <= answer.keys():
        return answer
    key = _key(answer, TEXTS)
    return answer[key] if key else answer


def _systems_within(answers: object, name: str) -> tuple[str, ...]:
    """System prompts that answers have each for itself: those of one prompt are given without."""
    given = [answer for answer in cast(list[object], answers) if isinstance(answer, Mapping)]
    keys = (*SYSTEMS, "custom_system_prompt")
    return tuple(f"{name}.{key}" for key in keys if any(answer.get(key) for answer in given))


def _turns(value: object) -> object:
    turns = turns_of(value, "an answer")
    return [turns] if isinstance(turns, Mapping) else turns


def _score(value: object, where: str) -> float | None:
    """A number, or None where the answer has none."""
    if value is None:
        return None
    try:
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise ValueError
        number = float(value)
    except ValueError:
        shown = quoted(value) if isinstance(value, str) else kind(value)
        if isinstance(value, str) and value.strip().lower() in ("n/a", "na", "none", ""):
            return None
        raise MalformedError(f'"{where}" is {shown} where a score belongs') from None
    return None if math.isnan(number) else number
