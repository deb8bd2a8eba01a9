"""Rows to token ids: prompt and response apart, each response with its end, what is too long made shorter.

A dialogue is what the chat template writes (:mod:`pairtune.data.dialogue`): the prompt's ids are those of its turns up
to where an answer begins, the response's are what the whole dialogue's ids have after that, up to the turn's end
(:mod:`pairtune.data.ends`). Raw text goes on as it is (:mod:`pairtune.data.continuation`).
"""

from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from pairtune.data.dialogue import RefusedError
from pairtune.data.kept_tokens import Kept, kept
from pairtune.data.pack import Tokens
from pairtune.data.pieces import in_pieces
from pairtune.data.schema import Demonstration, Labelled, Pair, Prompt, PromptText, ResponseText
from pairtune.data.store import origin
from pairtune.data.token_rows import TokenRows, store_tokens
from pairtune.data.writing import CUT, DROPPED, SHORTENED, Remark, Writer, Written
from pairtune.errors import InputError, is_panic
from pairtune.progress import task

# What is to be said of rows, with the rows' numbers in the source.
Remarks = dict[Remark, tuple[int, ...]]
# A row: its number, prompt, responses, what stands beside the prompt, its weight and margin; and what is made of it.
_Source = tuple[int, PromptText, Sequence[ResponseText], str, float, float | None]
_Found = tuple[int, frozenset[Remark], Tokens | None]


@dataclass(frozen=True)
class Encoded:
    """Token rows in the order of their sources, and what is to be said of them."""

    rows: TokenRows
    origins: tuple[int, ...]  # the source's row number of each token row
    remarks: Remarks
    origin: str = "row"  # what those numbers count, and where: "pairs.jsonl line"

    def place(self, index: int) -> str:
        """Where a token row's source stands."""
        return f"{self.origin} {self.origins[index]}"

    @property
    def shortened(self) -> tuple[int, ...]:
        """Rows whose prompt lost its beginning."""
        return self.remarks.get(SHORTENED, ())

    @property
    def cut(self) -> tuple[int, ...]:
        """Rows with a response that lost its end, and so its end-of-text token."""
        return self.remarks.get(CUT, ())

    @property
    def dropped(self) -> tuple[int, ...]:
        """Rows with nothing left to learn from: both responses are equal after truncation."""
        return self.remarks.get(DROPPED, ())


def encode_prompt(prompt: PromptText, tokenizer: PreTrainedTokenizerBase, *, beside: str = "") -> list[int]:
    """Ids of a prompt: raw text as it is (with the one BOS its tokenizer adds), a dialogue by the chat template.

    A dialogue whose tokenizer has no chat template is written as a plain transcript of its turns. Raises RefusedError
    if the template does not take the dialogue.
    """
    return Writer(tokenizer).prompt(prompt, beside)


def encode_response(response: str, tokenizer: PreTrainedTokenizerBase, *, prompt: str = "") -> list[int]:
    """Ids of a response that goes on after raw text, with one end."""
    return Writer(tokenizer).row(prompt, [response]).responses[0]


def encode_pairs(
    pairs: Sequence[Pair], tokenizer: PreTrainedTokenizerBase, *, max_tokens: int, part: str = ""
) -> Encoded:
    """(chosen, rejected) token rows. Raises InputError if no pair of this `part` of the data is left, or if the chat
    template refuses one, or makes a prompt begin with two BOS."""

    def source(pair: Pair) -> _Source:
        return pair.row, pair.prompt, (pair.chosen, pair.rejected), pair.beside, pair.weight, pair.margin

    return _encode(pairs, source, tokenizer, max_tokens=max_tokens, part=part)


def encode_demonstrations(
    demonstrations: Sequence[Demonstration] | Sequence[Labelled], tokenizer: PreTrainedTokenizerBase, *, max_tokens: int
) -> Encoded:
    """One-response token rows, one for each demonstration or labelled response. Raises InputError as for pairs."""

    def source(each: Demonstration | Labelled) -> _Source:
        return each.row, each.prompt, (each.response,), each.beside, each.weight, None

    return _encode(demonstrations, source, tokenizer, max_tokens=max_tokens)


def encode_prompts(
    prompts: Iterable[Prompt], tokenizer: PreTrainedTokenizerBase, *, max_tokens: int
) -> tuple[list[list[int]], Remarks]:
    """Ids of prompts that are to be answered, at most `max_tokens` of each. Raises InputError as for pairs."""
    writer, remarks, found = Writer(tokenizer), _Remarks(), []
    for each in prompts:
        with _in_row(f"{origin(prompts)} {each.row}"):
            row = writer.fitted_prompt(each.prompt, each.beside, max_tokens)
        _check_beginning(row, tokenizer, f"{origin(prompts)} {each.row}")
        remarks.add(each.row, row.remarks)
        found.append(row.prompt)
    return found, _as_numbers(remarks.found())


def _encode(
    rows: Sequence[Any],
    source: Callable[[Any], _Source],
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_tokens: int,
    part: str = "",
) -> Encoded:
    if max_tokens < 2:
        raise ValueError("max_tokens must leave room for one token of the prompt and one of the response")
    writer, remarks, origins, where = Writer(tokenizer), _Remarks(), array("q"), origin(rows)

    def piece(begin: int, end: int) -> list[_Found]:
        return [_found(writer, source(row), max_tokens, where) for row in rows[begin:end]]

    def encoded() -> Iterator[Tokens]:
        for found in in_pieces(piece, len(rows)):
            progress.advance(len(found))
            for number, said, tokens in found:
                remarks.add(number, said)
                if tokens is not None:
                    origins.append(number)
                    yield tokens

    def make() -> Kept:
        return Kept(store_tokens(encoded()), np.array(origins), remarks.found())

    with task("tokenising", len(rows)) as progress:
        found = kept(rows, tokenizer, max_tokens, make)
    said = _as_numbers(found.remarks)
    if not found.rows:
        raise InputError(f"{part}{': ' * bool(part)}no row is left after tokenising; {_why(said, max_tokens)}")
    return Encoded(found.rows, tuple(found.origins.tolist()), said, where)


def _found(writer: Writer, source: _Source, max_tokens: int, where: str) -> _Found:
    """The row's number, what is to be said of it, and its tokens; None of a pair whose responses are the same."""
    number, prompt, responses, beside, weight, margin = source
    with _in_row(f"{where} {number}"):
        row = writer.fitted(prompt, responses, beside, max_tokens)
    _check_beginning(row, writer.tokenizer, f"{where} {number}")
    if len(row.responses) == 2 and row.responses[0] == row.responses[1]:
        return number, row.remarks | {DROPPED}, None
    asked = () if row.asked == row.prompt else tuple(row.asked)
    return number, row.remarks, Tokens(tuple(row.prompt), tuple(map(tuple, row.responses)), asked, weight, margin)


def _why(found: Remarks, max_tokens: int) -> str:
    """Why no row is left."""
    if DROPPED not in found:
        return "there was none before"
    if {*found.get(CUT, ())}.issuperset(found[DROPPED]):
        return f"both responses of every pair are the same as far as --max-tokens {max_tokens} leaves them; raise it"
    return "every pair's two responses are the same"


def _check_beginning(row: Written, tokenizer: PreTrainedTokenizerBase, place: str) -> None:
    """Raises InputError for two beginnings of text, which no model was trained on."""
    bos = tokenizer.bos_token_id
    if bos is not None and [bos, bos] in (row.prompt[:2], row.asked[:2]):
        raise InputError(
            f'{place}: the prompt begins with two beginning-of-text tokens ("{tokenizer.bos_token}"); '
            "take one out of the row, or out of the chat template"
        )


@contextmanager
def _in_row(place: str) -> Iterator[None]:
    """Turns a template's refusal into one line that names the row."""
    try:
        yield
    except RefusedError as error:
        raise InputError(
            f'{place}: the chat template refuses this dialogue: "{error}"; change the row or remove it'
        ) from error
    except BaseException as error:
        if not is_panic(error):
            raise
        raise InputError(
            f'{place}: the tokenizer breaks off on this row: "{" ".join(str(error).split())}"; remove the row, or mend '
            "tokenizer.json"
        ) from error


def _as_numbers(remarks: Mapping[Remark, np.ndarray]) -> Remarks:
    return {remark: tuple(numbers.tolist()) for remark, numbers in remarks.items()}


class _Remarks:
    """Rows by what is to be said of them."""

    def __init__(self) -> None:
        self.rows: dict[Remark, array[int]] = {}

    def add(self, number: int, remarks: Iterable[Remark]) -> None:
        for remark in remarks:
            self.rows.setdefault(remark, array("q")).append(number)

    def found(self) -> dict[Remark, np.ndarray]:
        return {remark: np.array(rows) for remark, rows in self.rows.items()}
