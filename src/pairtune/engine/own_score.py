"""A score from a person's own function of texts, in the place of a reward model: for PPO, for a comparison's judge.

def score(prompts: list[str], answers: list[str]) -> list[float]:
    return [float("good" in answer) for answer in answers]
"""

import inspect
import math
import numbers
from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from pairtune import own
from pairtune.data.pack import Tokens
from pairtune.data.reading import Reader
from pairtune.errors import InputError


class OwnScore:
    """Scores each response by a function of its prompt's text and its own; its numbers are taken as they are."""

    def __init__(self, name: str, tokenizer: PreTrainedTokenizerBase) -> None:
        """Raises InputError if there is no such function, or it does not take two lists."""
        self.function, self.reader = own.load(name), Reader(tokenizer)
        try:
            inspect.signature(self.function.function).bind([], [])
        except TypeError as error:
            raise InputError(f"{name}: it must take two arguments, prompts and answers, as lists of text") from error

    def score(self, rows: Sequence[Tokens]) -> list[list[float]]:
        """A finite number for every response, one list a row. Raises InputError on anything else."""
        sides = [(row.prompt, response) for row in rows for response in row.responses]
        prompts = [self.reader.text(prompt) for prompt, _ in sides]
        answers = [self.reader.continuation(prompt, response) for prompt, response in sides]
        with self.function.watched():
            found = _numbers(self.function.function(prompts, answers), self.function.name, len(answers))
        scores = iter(found)
        return [[next(scores) for _ in row.responses] for row in rows]


def _numbers(found: Any, name: str, count: int) -> list[float]:
    if hasattr(found, "tolist"):  # a tensor or an array
        found = found.tolist()
    if not isinstance(found, list | tuple) or len(found) != count:
        what = f"{len(found)} values" if isinstance(found, list | tuple) else f"a {type(found).__name__}"
        raise InputError(
            f"{name}: it returned {what} for {count} answers; it must return a list with a number for each"
        )
    for place, value in enumerate(found, 1):
        if not isinstance(value, numbers.Real) or not math.isfinite(value):
            raise InputError(f"{name}: its score of answer {place} is {repr(value)[:40]}; it must be a finite number")
    return [float(value) for value in found]
