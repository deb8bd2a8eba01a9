"""Rows whose two sides are named: what people call the prompt and the sides, as the columns that `formats` reads.

Every function takes a row's columns and gives the row with columns of ours, and what stood for what, in words.
"""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple, cast

from pairtune.data.turns import BESIDE, SYSTEMS, Columns, MalformedError, UnusableError, like_content, to_text
from pairtune.data.wording import escaped, kind, quoted

#: What people call the two sides, ours first.
SIDES = (
    ("chosen", "rejected"),
    ("chosen_response", "rejected_response"),
    ("preferred_output", "non_preferred_output"),
    ("preferred_response", "non_preferred_response"),
    ("response_j", "response_k"),
    ("chosen_conversations", "rejected_conversations"),
    ("accepted", "rejected"),
    ("preferred", "dispreferred"),
    ("preferred", "rejected"),
    ("winner_response", "loser_response"),
    *((f"{noun}_chosen", f"{noun}_rejected") for noun in ("answer", "response", "output", "completion", "text")),
    *((f"chosen_{noun}", f"rejected_{noun}") for noun in ("answer", "output", "completion", "text", "messages")),
    ("response", "rejected_response"),
)
#: What people call a prompt that is text, ours first.
PROMPTS = ("prompt", "instruction", "question", "query", "input", "context", "history", "problem", "post", "user")
DIALOGUES = ("messages", "conversations", "conversation", "context_messages", "trajectory", "contents")
# What people call the text within an object that is a question, or an answer.
_QUESTIONS = ("full_text", "text", "content")
_ANSWERS = ("response", "completion", "text", "answer", "output", "content")
#: How words begin that say by what an answer is the better one.
JUDGED = "the better of"
# Characters that two plain texts must share to be taken for a prompt and two ways to go on.
LEAST_SHARED = 8
# What stands before an answer in a dialogue that is a text.
_ANSWERED = re.compile(
    r"(?:\A|\n)[^\w\n]*(?:assistant|answer|a|response|gpt|model|bot|ai)[^\w\n]*:"
    r"|<\|assistant\|>\n?|\[/INST\]|<\|im_start\|>assistant\n|<\|start_header_id\|>assistant<\|end_header_id\|>\n\n"
    r"|<start_of_turn>model\n|<extra_id_1>Assistant\n",
    re.IGNORECASE,
)


class Made(NamedTuple):
    """A row in columns of ours, and what of the source stands for what: {"prompt": "instruction+input"}."""

    columns: Columns
    stands_for: Mapping[str, str]
    unread: tuple[str, ...] = ()  #: within a column: "completions.system"


def sides_of(columns: Columns) -> tuple[str, str] | None:
    """The names of a row's two sides."""
    return next((pair for pair in SIDES if pair[0] in columns and pair[1] in columns), None)


def dialogue_of(columns: Columns) -> str | None:
    """The column that holds a dialogue."""
    return next((name for name in DIALOGUES if isinstance(columns.get(name), list)), None)


def prompt_of(columns: Columns) -> Made:
    """The prompt and what goes with it, in our columns. Raises MalformedError or UnusableError."""
    found, stands = beside(columns)
    name = next((name for name in PROMPTS if columns.get(name) is not None), None)
    if name is None and (dialogue := dialogue_of(columns)):
        turns = cast(list[Any], columns[dialogue])
        if turns and _role(turns[-1]) == "assistant":
            raise MalformedError(f'"{dialogue}" ends with an answer, and answers stand beside it; end it before them')
        return Made({**found, "prompt": turns}, {**stands, "prompt": dialogue})
    if name is None:
        return Made(found, stands)
    prompt, source = columns[name], name
    if name == "instruction" and (more := columns.get("input")):
        parts = [to_text(prompt, '"instruction"'), to_text(more, '"input"')]
        filled = [part for part in parts if part.strip()]
        prompt, source = "\n".join(filled), "instruction+input"
    elif isinstance(prompt, Mapping) and (key := _text_in(prompt, _QUESTIONS)):
        prompt, source = prompt[key], f"{name}.{key}"
    elif name == "input" and isinstance(prompt, Mapping):
        return _openai(prompt, found, stands)
    before = columns.get("history") if name != "history" else None
    if isinstance(before, list) and before:
        found, source = {**found, "history": before}, f"history+{source}"
    return Made({**found, "prompt": prompt}, {**stands, "prompt": source})


def beside(columns: Columns) -> tuple[dict[str, object], dict[str, str]]:
    """What stands beside the turns: system, tools, what the chat template is given; the words for the first."""
    found = {name: columns[name] for name in BESIDE if name in columns}
    there = [name for name in SYSTEMS if name in columns]
    if not there:
        return found, {}
    system = next((name for name in there if columns[name] is not None), there[0])
    return {**found, "system": columns[system]}, {"system": system}


def paired(columns: Columns) -> Made:
    """A prompt and two sides under any of their names; a dialogue may stand for the prompt, or be on both sides."""
    names = sides_of(columns)
    assert names
    chosen, rejected = (_as_list(columns[name]) for name in names)
    stands = {"chosen": names[0], "rejected": names[1]}
    extra, words = beside(columns)
    if "prompt" not in columns and (dialogue := dialogue_of(columns)):
        return Made({**extra, **_behind(columns[dialogue], chosen, rejected, dialogue)},
                    {"prompt": dialogue, **stands, **words})  # fmt: skip
    if "prompt" not in columns and _is_whole(chosen) and _is_whole(rejected):  # a question beside it is its beginning
        return Made({**extra, **_both(chosen, rejected)}, {**stands, **words})
    asked = prompt_of(columns)
    check_prompt(asked, columns, names)
    both = _both(chosen, rejected)
    if isinstance(columns.get("input"), Mapping):  # OpenAI's messages
        both["prompt"] = _unanswered(asked.columns["prompt"], chosen, asked.stands_for["prompt"])
    return Made({**asked.columns, **both}, {**asked.stands_for, **stands})


def check_prompt(made: Made, columns: Columns, sides: tuple[str, ...]) -> None:
    """Raises MalformedError for a row without a prompt, if a column beside its sides could be one by another name."""
    others = (name for name in columns if name not in (*sides, *SYSTEMS, *BESIDE))
    if "prompt" not in made.columns and (name := next((name for name in others if like_content(columns[name])), None)):
        hint = f"--columns prompt={escaped(name)}"
        raise MalformedError(f"no column is known to be the prompt; if {quoted(name)} is: {hint}")


def _behind(dialogue: object, chosen: object, rejected: object, name: str) -> dict[str, object]:
    """The sides of a dialogue: each goes on from it, by a turn or several, or is the whole of it and an answer.

    Raises UnusableError for sides that are dialogues of their own.
    """
    turns, sides = cast(list[Any], dialogue), [_answers(chosen), _answers(rejected)]
    if all(side and _role(side[0]) != "assistant" for side in sides):
        if {_role(turn) for turn in turns} == {"system"} and _role(sides[0][0]) != "system":
            return _both(*([*turns, *side] for side in sides))
        if any(side[: len(turns)] != turns for side in sides if len(side) > len(turns)) or turns[:1] != sides[0][:1]:
            raise UnusableError(f'"{name}" is not how the sides begin', "sides go on from it, or begin with all of it")
        return _both(*sides)
    before = _unanswered(turns, chosen, name)
    if any(len(side) > 1 for side in sides):
        return _both(*([*before, *side] for side in sides))
    return {"prompt": before, **_both(chosen, rejected)}


def _unanswered(dialogue: object, chosen: object, name: str) -> list[Any]:
    """A dialogue up to its answers: without last turns that are the chosen ones. Raises UnusableError for others."""
    turns, answers = list(cast(list[Any], dialogue)), [_said(turn) for turn in _answers(chosen)]
    if not turns or _role(turns[-1]) != "assistant":
        return turns
    if not answers or [_said(turn) for turn in turns[-len(answers) :]] != answers:
        raise UnusableError(f'"{name}" ends with an answer that is not the chosen one', "the sides are the answers")
    return turns[: -len(answers)]


def _answers(side: object) -> list[Any]:
    """A side as turns: text is one of the assistant's."""
    return side if isinstance(side, list) else [{"role": "assistant", "content": side}]


def _role(turn: object) -> object:
    return turn.get("role") if isinstance(turn, Mapping) else None


def _said(turn: object) -> tuple[object, object]:
    return _role(turn), turn.get("content") if isinstance(turn, Mapping) else turn


def swift(columns: Columns) -> Made:
    """A dialogue that ends with the chosen answer, and another answer: text, an object or turns."""
    name = cast(str, dialogue_of(columns))
    turns = cast(list[Any], columns[name])
    other = next(column for column in ("rejected_response", "rejected_messages") if column in columns)
    extra, words = beside(columns)
    stands = {"chosen": f"the end of {name}", "rejected": other, **words}
    rejected = columns[other]
    if isinstance(rejected, list) and len(rejected) > 1:
        return Made({**extra, **_both(turns, rejected)}, stands)
    if not turns or not isinstance(turns[-1], Mapping) or turns[-1].get("role") != "assistant":
        raise UnusableError(f'"{name}" does not end with an assistant turn', "the last turn is the chosen response")
    if isinstance(rejected, str) or rejected is None:
        rejected = [{"role": "assistant", "content": to_text(rejected, f'"{other}"')}]
    answer = _as_list(rejected)
    if not isinstance(answer, list):
        raise MalformedError(f'"{other}" is {kind(rejected)} where an answer belongs; make it a text or a turn')
    return Made({**extra, **_both(turns, [*turns[:-1], *answer])}, stands)


def implicit(columns: Columns) -> Made:
    """Two plain texts that begin alike: what they share, up to a word's end, is the prompt; of a dialogue in marks,
    what they share up to where an answer begins. Raises MalformedError.
    """
    chosen, rejected = (to_text(columns[side], f'"{side}"') for side in ("chosen", "rejected"))
    shared = next((i for i, (a, b) in enumerate(zip(chosen, rejected, strict=False)) if a != b), None)
    shared = min(len(chosen), len(rejected)) if shared is None else shared
    cut = shared
    while cut > 0 and not _between_words(chosen, rejected, cut):
        cut -= 1
    marks = list(_ANSWERED.finditer(chosen, 0, cut))
    cut = marks[-1].end() if marks else cut
    cut = len(chosen[:cut].rstrip(" ")) if chosen[:cut].strip() else 0  # a space belongs to the response
    if len(chosen[:cut].strip()) < LEAST_SHARED:
        raise MalformedError(
            f'no prompt: "chosen" and "rejected" share only their first {cut} characters up to a word\'s end, too few '
            "to be one; add the prompt to every row"
        )
    prompt = chosen[:cut]
    made = {"prompt": prompt, "chosen": chosen[cut:], "rejected": rejected[cut:], **beside(columns)[0]}
    return Made(made, {"prompt": "the beginning that both sides share"})


def _between_words(first: str, second: str, place: int) -> bool:
    """Whether no word of either text goes on over the place."""
    before = first[place - 1]
    after = [text[place] for text in (first, second) if place < len(text)]
    return not before.isalnum() or not any(character.isalnum() or character == "'" for character in after)


def _openai(given: Mapping[str, Any], found: Mapping[str, object], stands: Mapping[str, str]) -> Made:
    """OpenAI's `input`: messages, and tools beside them."""
    more = {"tools": given["tools"]} if given.get("tools") else {}
    if not isinstance(given.get("messages"), list):
        raise MalformedError('"input" has no list of "messages"')
    return Made({**found, **more, "prompt": given["messages"]}, {**stands, "prompt": "input.messages"})


def _as_list(value: object) -> object:
    """One turn as the list of it; of another object its text."""
    if not isinstance(value, Mapping):
        return value
    key = _text_in(value, _ANSWERS)
    return [value] if {"role", "content"} <= value.keys() else value[key] if key else value


def _text_in(value: Mapping[str, object], names: tuple[str, ...]) -> str | None:
    """The first of these fields that is a text in an object."""
    return next((key for key in names if isinstance(value.get(key), str)), None)


def _both(chosen: object, rejected: object) -> dict[str, object]:
    return {"chosen": chosen, "rejected": rejected}


def _is_whole(side: object) -> bool:
    """Whether a side is a dialogue from its beginning on."""
    if isinstance(side, str):
        return side.lstrip().startswith("Human:")
    first = side[0] if isinstance(side, list) and len(side) > 1 else None
    return isinstance(first, Mapping) and first.get("role") != "assistant"
