"""The shapes that people's rows have: one table, from which they are recognised, forced by name, listed and documented.

An entry says how a row of it is recognised by its columns and values, and gives the columns that `formats` reads. The
first that fits a source's first row is the source's. To add one: an entry here, a fixture in tests/data/test_shapes.py.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from pairtune.data.answers import list_of, of_sides, paired_up, several
from pairtune.data.asked import Asked
from pairtune.data.examples import EXAMPLES
from pairtune.data.labels import RESPONSES, label_of, labelled
from pairtune.data.sides import (
    DIALOGUES,
    PROMPTS,
    Made,
    beside,
    dialogue_of,
    implicit,
    paired,
    prompt_of,
    sides_of,
    swift,
)
from pairtune.data.turns import BESIDE, SYSTEMS, Columns, like_content
from pairtune.data.verdicts import judged, of_summaries, verdict_of

PAIRS, LABELLED, DEMONSTRATIONS, PROMPTS_ONLY = "pairs", "labels", "demonstrations", "prompts"
#: Numbers of one answer a row, of which those of one prompt that follow each other are several answers to it.
ROW_SCORES = ("helpfulness", "score", "rating", "reward", "overall_score", "rank")
ROW_ANSWERS = ("response", "completion", "output", "answer")


@dataclass(frozen=True)
class Shape:
    """One shape. `made` gives the rows of ours that a row holds; None: the row's columns are ours as they are."""

    name: str
    title: str
    gives: str
    fits: Callable[[Columns], bool]
    made: Callable[[Columns, Asked], Iterable[Made]] | None = None
    gathers: bool = False  #: whether rows that follow each other with one prompt are one row

    @property
    def example(self) -> tuple[str, ...]:
        """Two rows, as JSON lines."""
        return EXAMPLES[self.name]

    def rows(self, columns: Columns, asked: Asked) -> Iterable[Made]:
        """What a row holds, in columns of ours."""
        return [Made(columns, {})] if self.made is None else self.made(columns, asked)


def _one(make: Callable[[Columns], Made]) -> Callable[[Columns, Asked], Iterable[Made]]:
    return lambda columns, asked: [make(columns)]


def _both_named(columns: Columns) -> bool:
    return "chosen" in columns and "rejected" in columns


def _plain(columns: Columns) -> bool:
    """Whether the sides are neither objects nor one turn each without its prompt."""
    return not any(isinstance(columns[side], Mapping) for side in ("chosen", "rejected"))


def _whole(columns: Columns) -> bool:
    """Whether both sides are dialogues from their beginning on."""
    if not (_both_named(columns) and _plain(columns)):
        return False
    sides: list[Any] = [columns["chosen"], columns["rejected"]]
    if all(isinstance(side, str) for side in sides):
        return any(side.lstrip().startswith("Human:") for side in sides)
    if dialogue_of(columns) is not None:
        return False  # they go on from it, or it is their beginning
    return any(isinstance(side, list) and len(side) > 1 for side in sides)


def _is_text(columns: Columns, *names: str) -> bool:
    return all(isinstance(columns.get(name), str) for name in names)


def _no_prompt(columns: Columns) -> bool:
    """Whether a row has nothing beside its sides that could be a prompt, whatever it is called."""
    others = (value for name, value in columns.items() if name not in ("chosen", "rejected", *SYSTEMS, *BESIDE))
    return not any(map(like_content, others)) and all(columns.get(name) is None for name in PROMPTS)


def _answers_itself(columns: Columns) -> bool:
    """Whether a row has a demonstration in columns of ours."""
    if several(columns) or ("prompt" not in columns and sides_of(columns) and not _whole(columns)):
        return False  # its messages are the prompt
    dialogue = any(isinstance(columns.get(name), list) for name in ("messages", "response", "completion", "chosen"))
    return dialogue or ("prompt" in columns and any(name in columns for name in ("response", "completion")))


def _alpaca(columns: Columns) -> Made:
    made = prompt_of(columns)
    answer = next(name for name in ("output", "answer", "response", "completion") if name in columns)
    return Made({**made.columns, "response": columns[answer]}, {**made.stands_for, "response": answer})


def _sharegpt(columns: Columns) -> Made:
    name = next(name for name in DIALOGUES if isinstance(columns.get(name), list))
    extra, words = beside(columns)
    return Made({**extra, "messages": columns[name]}, {"messages": name, **words})


def _two_outputs(columns: Columns) -> bool:
    output = columns.get("output")
    return "instruction" in columns and isinstance(output, list) and len(output) == 2 and isinstance(output[0], str)


def _from_outputs(columns: Columns) -> Made:
    made, outputs = prompt_of(columns), cast(list[object], columns["output"])
    sides = {"chosen": outputs[0], "rejected": outputs[1]}
    return Made({**made.columns, **sides}, {**made.stands_for, "chosen": "output 1"})


def _answered(columns: Columns) -> bool:
    """Whether a row has more than a prompt: its answers say whether they go on from it."""
    return recognised(columns, DEMONSTRATIONS, PAIRS, LABELLED) is not None


def _scored(columns: Columns) -> bool:
    """Whether a row is one answer and a score of it, and no label."""
    asked = row_answer(columns) is not None and any(name in columns for name in PROMPTS)
    return asked and row_score(columns) is not None and label_of(columns) is None


def _asks(columns: Columns) -> bool:
    """Whether a row has a prompt in columns of ours: none that stands in lists of texts, or before named sides."""
    if "prompt" in columns:
        return verdict_of(columns) is None and list_of(columns) is None and not several(columns)
    return isinstance(columns.get("messages"), list) and sides_of(columns) is None


TABLE: tuple[Shape, ...] = (
    Shape(
        "several-sides",
        "chosen and rejected answers, several of a kind (RewardBench 2)",
        PAIRS,
        lambda c: several(c) and not _no_prompt(c),
        of_sides,
    ),
    Shape("pairs", "prompt, chosen, rejected", PAIRS, lambda c: _both_named(c) and "prompt" in c and _plain(c)),
    Shape("dialogues", "two whole dialogues", PAIRS, _whole),
    Shape(
        "sharegpt-ranking",
        "a dialogue and two answers to it (LLaMA-Factory, axolotl)",
        PAIRS,
        lambda c: _both_named(c) and dialogue_of(c) is not None,
        _one(paired),
    ),
    Shape(
        "llama-factory-ranking",
        "LLaMA-Factory ranking",
        PAIRS,
        lambda c: _both_named(c) and "instruction" in c,
        _one(paired),
    ),
    Shape(
        "llama-factory-outputs",
        "LLaMA-Factory ranking, two outputs, the better one first",
        PAIRS,
        _two_outputs,
        _one(_from_outputs),
    ),
    Shape(
        "openai",
        "OpenAI preference fine-tuning",
        PAIRS,
        lambda c: isinstance(c.get("input"), Mapping) and "preferred_output" in c and sides_of(c) is not None,
        _one(paired),
    ),
    Shape(
        "implicit",
        "two texts that begin with their prompt",
        PAIRS,
        lambda c: _is_text(c, "chosen", "rejected") and _no_prompt(c),
        _one(implicit),
    ),
    Shape("two-sides", "a prompt and two sides by other names", PAIRS, lambda c: sides_of(c) is not None, _one(paired)),
    Shape(
        "swift",
        "a dialogue and a rejected answer (ms-swift)",
        PAIRS,
        lambda c: dialogue_of(c) is not None and ("rejected_response" in c or "rejected_messages" in c),
        _one(swift),
    ),
    Shape(
        "verdict",
        "two answers and a verdict",
        PAIRS,
        lambda c: verdict_of(c) is not None,
        lambda columns, asked: [judged(columns, asked)],
    ),
    Shape(
        "summaries",
        "two summaries of a post and the choice (summarize from feedback)",
        PAIRS,
        lambda c: isinstance(c.get("info"), Mapping) and isinstance(c.get("summaries"), list) and "choice" in c,
        lambda columns, asked: [of_summaries(columns, asked)],
    ),
    Shape("answers", "several answers with scores or ranks", PAIRS, lambda c: list_of(c) is not None, paired_up),
    Shape(
        "scored-rows",
        "an answer and its score a row, those of one prompt together",
        PAIRS,
        lambda c: _scored(c),
        paired_up,
        gathers=True,
    ),
    Shape(
        "labels",
        "prompt, response, label",
        LABELLED,
        lambda c: "label" in c and any(name in c for name in ("response", "completion")),
        labelled,
    ),
    Shape(
        "named-labels",
        "a response and a label by other names",
        LABELLED,
        lambda c: label_of(c) is not None and any(name in c for name in RESPONSES),
        labelled,
    ),
    Shape("demonstrations", "prompt and response, or messages", DEMONSTRATIONS, _answers_itself),
    Shape(
        "alpaca",
        "instruction and output (Alpaca)",
        DEMONSTRATIONS,
        lambda c: (
            any(_is_text(c, name) for name in ("output", "answer", "response", "completion"))
            and any(name in c for name in PROMPTS)
        ),
        _one(_alpaca),
    ),
    Shape(
        "sharegpt",
        "conversations (ShareGPT)",
        DEMONSTRATIONS,
        lambda c: dialogue_of(c) is not None and sides_of(c) is None and list_of(c) is None and verdict_of(c) is None,
        _one(_sharegpt),
    ),
    Shape("prompts", "prompts", PROMPTS_ONLY, lambda c: _asks(c)),
    Shape(
        "named-prompts",
        "prompts by another name",
        PROMPTS_ONLY,
        lambda c: any(isinstance(c.get(name), str) for name in PROMPTS) and not _answered(c),
        _one(prompt_of),
    ),
)
BY_NAME = {shape.name: shape for shape in TABLE}


def row_score(columns: Columns) -> str | None:
    """The column with the score of a row's one answer."""
    return next((name for name in ROW_SCORES if columns.get(name) is not None), None)


def row_answer(columns: Columns) -> str | None:
    """The column with the one answer of a row, a text."""
    return next((name for name in ROW_ANSWERS if isinstance(columns.get(name), str)), None)


def gathered(rows: list[Columns]) -> Columns:
    """Rows of one prompt as one row with several answers."""
    answer, score = row_answer(rows[0]), row_score(rows[0])
    found = [{"response": row.get(str(answer)), score: row.get(str(score))} for row in rows]
    return {
        **{name: value for name, value in rows[0].items() if name not in (answer, *ROW_SCORES)},
        "answers": found,
    }


def recognised(columns: Columns, *gives: str) -> Shape | None:
    """The first shape that fits a row, of those that give the first of these that any gives."""
    for wanted in gives:
        for shape in TABLE:
            if shape.gives == wanted and shape.fits(columns):
                return shape
    return None
