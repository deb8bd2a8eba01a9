"""Data that people have and that no row by itself can be read from: known by their columns, refused with what to do."""

from collections.abc import Callable, Mapping
from typing import Any, cast

from pairtune.data.answers import LISTS
from pairtune.data.turns import Columns, MalformedError
from pairtune.data.verdicts import answers_of, named_answer, verdict_of
from pairtune.data.wording import listed

_ORIGINAL = "--columns prompt=orig_instruction response_a=orig_response_A response_b=orig_response_B"


def _last_turn(columns: Columns) -> Mapping[str, Any]:
    turns = columns.get("messages")
    last = turns[-1] if isinstance(turns, list) and turns else None
    return last if isinstance(last, Mapping) else {}


def _is_list(value: object, kinds: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, kinds) for item in value)


#: What tells such data, and what is said of them.
_KNOWN: tuple[tuple[Callable[[Columns], bool], str], ...] = (
    (
        lambda c: {"parent_id", "message_id", "role", "text"} <= c.keys(),
        "looks like OpenAssistant's messages, a row each: write a row for each question, with its dialogue as messages "
        'and its replies as answers, [{"text": ..., "rank": ...}]',
    ),
    (
        lambda c: "message_tree_id" in c and isinstance(c.get("prompt"), Mapping),
        "looks like OpenAssistant's trees: write a row for each question, with its dialogue as messages and its "
        'replies as answers, [{"text": ..., "rank": ...}]',
    ),
    (
        lambda c: _is_list(c.get("completions"), str) and _is_list(c.get("labels"), bool | int),
        "looks like steps with labels, for a reward model of steps; only whole responses can be trained on: write "
        "prompt, response and label",
    ),
    (
        lambda c: {"transcript", "task_description"} <= c.keys(),
        "looks like red-team attempts, whose ratings are of the attacker: nothing says which answer is better",
    ),
    (
        lambda c: {"orig_response_A", "orig_response_B", "orig_preference"} <= c.keys(),
        f"looks like a judge's training data; for the answers that it judges: {_ORIGINAL} winner=orig_preference",
    ),
    (
        lambda c: isinstance(_last_turn(c).get("candidates"), list),
        "looks like Bedrock preference tuning: write messages without the candidates, which are chosen and rejected",
    ),
)


def refuse_misread(columns: Columns) -> None:
    """Raises MalformedError for a row whose columns have our names and mean something else."""
    if (chosen := named_answer(columns, "chosen")) and (rejected := named_answer(columns, "rejected")):
        raise MalformedError(
            f'"chosen" and "rejected" name the answers "{chosen}" and "{rejected}" and are not answers; say '
            "--columns winner=chosen other=rejected"
        )
    if columns.get("initial_reason_steps") and "chosen" in columns:  # Step-DPO's
        raise MalformedError(
            '"chosen" and "rejected" go on from "initial_reason_steps", the beginning of an answer; write prompt as '
            "messages that end with it, as the assistant's turn"
        )


def refusal(columns: Columns) -> str | None:
    """The line for data that are known and cannot be read as they are; None for all others."""
    if line := next((line for fits, line in _KNOWN if fits(columns)), None):
        return line
    if (names := answers_of(columns)) and verdict_of(columns) is None:
        others = listed(name for name in map(str, columns) if name not in names)
        said = f'"{names[0]}" and "{names[1]}" have no verdict that is known'
        return f"{said}; name its column, --columns winner=NAME; others are {others}"
    if not (name := next((name for name in LISTS if _is_list(columns.get(name), Mapping)), None)):
        return None
    keys = listed(map(str, cast(list[Mapping[str, object]], columns[name])[0]))
    return f'"{name}" has no score or rank in it that is known (its keys are {keys}); give each answer a "score"'
