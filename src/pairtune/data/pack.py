"""Packs: the prompt once, its responses after it, many rows end to end in one flat sequence, no padding.

    tokens     p p p c c c | p p r r r r ...       positions restart for every response where the prompt ended
    branch     0 0 0 1 1 1 | 0 0 1 1 1 1 ...       0 is the prompt; a token sees its prompt and its own branch

Shape suffixes: T tokens of the pack, R response tokens, S responses, X keys of all segments.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Tokens:
    """One prompt and the responses to it, as token ids. A pair is (chosen, rejected)."""

    prompt: tuple[int, ...]
    responses: tuple[tuple[int, ...], ...]
    asked: tuple[int, ...] = ()  #: the prompt as answers are sampled after it, where a chat template parts the two
    weight: float = 1.0  #: as often the row counts in training
    margin: float | None = None  #: by how much the first response was preferred, where that is known

    @property
    def question(self) -> tuple[int, ...]:
        """The prompt as answers are sampled after it."""
        return self.asked or self.prompt

    def __len__(self) -> int:
        return len(self.prompt) + sum(len(response) for response in self.responses)


@dataclass(frozen=True)
class Segments:
    """A pack cut where positions jump: a prompt with its first response, then every further response by itself.

    A segment's queries are its own tokens, as they lie in the pack; its keys are what came before them in the row
    (nothing, or the prompt) and then its own, so token i of the last n keys sees all keys up to its own.
    """

    queries: Tensor  # where each segment's queries begin, and the end of the last: [segments + 1] int32
    keys: Tensor  # the same of its keys, [segments + 1] int32
    index_X: Tensor | None  # the token that each key is, int32; None where the keys are the pack's tokens as they lie
    longest_queries: int
    longest_keys: int

    def to(self, device: torch.device) -> "Segments":
        """The same on another device."""
        moved: dict[str, Any] = {k: v.to(device) for k, v in vars(self).items() if isinstance(v, Tensor)}
        return replace(self, **moved)


@dataclass(frozen=True)
class Pack:
    """Token rows laid end to end, and where their responses' log-probabilities are read."""

    tokens_T: Tensor
    positions_T: Tensor
    segments: Segments  # what each run of tokens sees
    source_R: Tensor  # the token whose hidden state predicts response token r
    target_R: Tensor  # the id of response token r
    response_R: Tensor  # the response it belongs to, 0..S-1
    last_S: Tensor  # where each response's last token lies in the pack
    row_S: Tensor  # the row that each response belongs to
    rows: int
    responses: int
    attended: int  # pairs of (token, token it sees): what attention cannot avoid
    highest: int  # the largest token id

    def to(self, device: torch.device) -> "Pack":
        """The same pack on another device."""
        if self.tokens_T.device == device:
            return self
        moved: dict[str, Any] = {k: v.to(device) for k, v in vars(self).items() if isinstance(v, Tensor | Segments)}
        return replace(self, **moved)

    def lengths(self) -> Tensor:
        """Tokens in each response: [S]."""
        return torch.bincount(self.response_R, minlength=self.responses)


def pack(rows: Sequence[Tokens]) -> Pack:
    """Lay rows end to end in the order given. Every prompt and every response needs at least one token."""
    tokens: list[int] = []
    positions: list[np.ndarray] = []
    source: list[np.ndarray] = []
    place: list[np.ndarray] = []
    row_of: list[int] = []
    for number, row in enumerate(rows):
        start, prompt = len(tokens), len(row.prompt)
        if prompt == 0 or not row.responses or not all(row.responses):
            raise ValueError("a row needs a prompt and responses of at least one token each")
        tokens.extend(row.prompt)
        positions.append(np.arange(prompt))
        for response in row.responses:
            begin, length = len(tokens), len(response)
            tokens.extend(response)
            positions.append(np.arange(prompt, prompt + length))
            place.append(np.arange(begin, begin + length))
            source.append(np.concatenate(([start + prompt - 1], np.arange(begin, begin + length - 1))))
            row_of.append(number)
    tokens_T, positions_T = np.array(tokens), np.concatenate(positions)
    place_R = np.concatenate(place)
    lengths_S = np.array([len(p) for p in place])
    return Pack(
        tokens_T=torch.from_numpy(tokens_T),
        positions_T=torch.from_numpy(positions_T),
        segments=_segments(positions_T),
        source_R=torch.from_numpy(np.concatenate(source)),
        target_R=torch.from_numpy(tokens_T[place_R]),
        response_R=torch.from_numpy(np.repeat(np.arange(len(place)), lengths_S)),
        last_S=torch.from_numpy(place_R[np.cumsum(lengths_S) - 1]),
        row_S=torch.tensor(row_of),
        rows=len(rows),
        responses=len(place),
        attended=sum(_attended(row) for row in rows),
        highest=int(tokens_T.max()),
    )


def pack_prompts(prompts: Sequence[Sequence[int]]) -> Pack:
    """Prompts alone, end to end: `source_R` is each one's last token, which predicts what comes next."""
    lengths = np.array([len(prompt) for prompt in prompts])
    if not lengths.all():
        raise ValueError("a prompt needs at least one token")
    positions_T = np.concatenate([np.arange(length) for length in lengths])
    none = torch.empty(0, dtype=torch.long)
    tokens_T = torch.tensor([token for prompt in prompts for token in prompt])
    return Pack(
        tokens_T=tokens_T,
        positions_T=torch.from_numpy(positions_T),
        segments=_segments(positions_T),
        source_R=torch.from_numpy(lengths.cumsum() - 1),
        target_R=none,
        response_R=none,
        last_S=none,
        row_S=none,
        rows=len(prompts),
        responses=0,
        attended=int((lengths * (lengths + 1) // 2).sum()),
        highest=int(tokens_T.max()),
    )


def _attended(row: Tokens) -> int:
    prompt = len(row.prompt)
    return prompt * (prompt + 1) // 2 + sum(len(r) * prompt + len(r) * (len(r) + 1) // 2 for r in row.responses)


def _segments(position: np.ndarray) -> Segments:
    begin = np.flatnonzero(np.diff(position, prepend=-2) != 1)
    before, own = position[begin], np.diff(begin, append=len(position))
    row = np.maximum.accumulate(np.where(before == 0, begin, 0))  # where the segment's row begins
    count = before + own
    after = count.cumsum()
    offset = np.arange(after[-1]) - np.repeat(after - count, count)
    index = offset + np.where(
        offset < np.repeat(before, count), np.repeat(row, count), np.repeat(begin - before, count)
    )

    def tensor(values: np.ndarray) -> Tensor:
        return torch.from_numpy(values.astype(np.int32))

    return Segments(
        queries=tensor(np.append(begin, len(position))),
        keys=tensor(np.append(0, after)),
        index_X=tensor(index) if before.any() else None,
        longest_queries=int(own.max()),
        longest_keys=int(count.max()),
    )


def row_lengths(rows: Sequence[Tokens]) -> np.ndarray:
    """Tokens of each row: [N]. Rows on disk know theirs without being read."""
    known = getattr(rows, "lengths", None)
    return known() if known else np.array([len(row) for row in rows], dtype=np.int64)


def sequence_lengths(rows: Sequence[Tokens]) -> np.ndarray:
    """Tokens of each prompt with its longest response: [N]. Rows on disk know theirs without being read."""
    known = getattr(rows, "sequence_lengths", None)
    if known:
        return known()  # type: ignore[no-any-return]
    return np.array([len(row.prompt) + max(map(len, row.responses)) for row in rows], dtype=np.int64)


def numbers_of(rows: Sequence[Tokens], name: str) -> np.ndarray | None:
    """The `weight` or the `margin` of every row: [N], float64. None where no row has one of its own.

    Rows on disk know theirs without being read.
    """
    known = getattr(rows, "numbers", None)
    if known is not None:
        return known.get(name)  # type: ignore[no-any-return]
    values = [getattr(row, name) for row in rows]
    if all(value is None or (name == "weight" and value == 1) for value in values):
        return None
    return np.array(values, dtype=np.float64)


def relative_weights(rows: Sequence[Tokens]) -> np.ndarray | None:
    """The rows' weights, 1 in the mean: [N]. None where all rows weigh the same, whatever that is."""
    weights = numbers_of(rows, "weight")
    if weights is None or weights.min() == weights.max():
        return None
    relative: np.ndarray = weights / weights.mean()
    return relative


def highest_id(rows: Sequence[Tokens]) -> int:
    """The largest token id of the rows; of rows on disk, of all that lie there."""
    known = getattr(rows, "highest_id", None)
    return known() if known else max(max(map(max, (row.prompt, *row.responses))) for row in rows)


def batches_by_tokens(rows: Sequence[Tokens], budget: int) -> list[list[int]]:
    """Indices of the rows in groups of similar length, each at most `budget` tokens (or one row), longest first.

    For passes whose order does not matter: a reference pass, an evaluation, the micro-batches of one step.
    """
    return batches_by_length(row_lengths(rows), budget)


def batches_by_length(lengths: np.ndarray, budget: int) -> list[list[int]]:
    """The same from the rows' lengths alone."""
    groups: list[list[int]] = []
    room = 0
    order = np.argsort(-lengths, kind="stable")
    for row, length in zip(order.tolist(), lengths[order].tolist(), strict=True):
        if not groups or length > room:
            groups.append([])
            room = budget
        groups[-1].append(row)
        room -= length
    return groups
