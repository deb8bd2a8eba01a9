"""Packs: the prompt once, its responses after it, many rows end to end in one flat sequence, no padding.

    tokens     p p p c c c | p p r r r r ...       positions restart for every response where the prompt ended
    branch     0 0 0 1 1 1 | 0 0 1 1 1 1 ...       0 is the prompt; a token sees its prompt and its own branch

Shape suffixes: T tokens of the pack, R response tokens, S responses, N rows of a block, L the block's length, X keys of
all segments.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

# A block pads its rows to one length for attention alone; a new block starts when that would waste more than this.
BLOCK_WASTE = 1.25


@dataclass(frozen=True, slots=True)
class Tokens:
    """One prompt and the responses to it, as token ids. A pair is (chosen, rejected)."""

    prompt: tuple[int, ...]
    responses: tuple[tuple[int, ...], ...]

    def __len__(self) -> int:
        return len(self.prompt) + sum(len(response) for response in self.responses)


@dataclass(frozen=True)
class Block:
    """Rows of similar length, padded to one length for attention alone; `index_NL` points into the pack's tokens."""

    index_NL: Tensor  # -1 where padded
    prompt_NL: Tensor  # length of the prompt before a response's token; 0 for a prompt's own
    branch_NL: Tensor  # where in the row the token's branch (prompt or response) begins; itself where padded
    asked: dict[int | None, Tensor] = field(default_factory=dict, compare=False)

    def seen(self, window: int | None) -> Tensor:
        """What token i of a row sees, within the window of positions: [N, L, 4] int32.

        (a, b, c, 0): places a..b-1 of its prompt and c..i of its own branch. Padding sees itself alone, for a softmax
        over nothing would be 0/0.
        """
        if window not in self.asked:
            place = torch.arange(self.index_NL.shape[1], device=self.index_NL.device)
            prompt, branch = self.prompt_NL, self.branch_NL
            first = torch.zeros_like(prompt)
            if window is not None:
                position = torch.where(prompt > 0, prompt + place - branch, place)
                first = torch.minimum((position - window + 1).clamp_min(0), prompt)
                branch = torch.maximum(branch, place - window + 1)
            self.asked[window] = torch.stack((first, prompt, branch, torch.zeros_like(prompt)), -1).int()
        return self.asked[window]


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


@dataclass(frozen=True)
class Pack:
    """Token rows laid end to end, and where their responses' log-probabilities are read."""

    tokens_T: Tensor
    positions_T: Tensor
    blocks: tuple[Block, ...]
    source_R: Tensor  # the token whose hidden state predicts response token r
    target_R: Tensor  # the id of response token r
    place_R: Tensor  # where response token r itself lies in the pack
    response_R: Tensor  # the response it belongs to, 0..S-1
    last_S: Tensor  # where each response's last token lies in the pack
    row_S: Tensor  # the row that each response belongs to
    rows: int
    responses: int
    attended: int  # pairs of (token, token it sees): what attention cannot avoid
    cut: list[Segments] = field(default_factory=list, compare=False)  # what `segments` found, once it was asked

    def to(self, device: torch.device) -> "Pack":
        """The same pack on another device."""
        if self.tokens_T.device == device:
            return self
        values: dict[str, Any] = {k: v.to(device) if isinstance(v, Tensor) else v for k, v in vars(self).items()}
        values["blocks"] = tuple(
            Block(b.index_NL.to(device), b.prompt_NL.to(device), b.branch_NL.to(device)) for b in self.blocks
        )
        return Pack(**values | {"cut": []})

    def segments(self) -> Segments:
        """What each run of tokens sees, for attention that takes segments instead of padded blocks."""
        if not self.cut:
            self.cut.append(_segments(self.positions_T))
        return self.cut[0]

    @property
    def asked(self) -> bool:
        """Whether some attention has asked what may see what."""
        return bool(self.cut) or all(block.asked for block in self.blocks)

    def sums(self, values_R: Tensor) -> Tensor:
        """Sum a value per response token over each response: [R] -> [S]."""
        zero = torch.zeros(self.responses, dtype=values_R.dtype, device=values_R.device)
        return zero.index_add(0, self.response_R, values_R)

    def lengths(self) -> Tensor:
        """Tokens in each response: [S]."""
        return torch.bincount(self.response_R, minlength=self.responses)


def pack(rows: Sequence[Tokens]) -> Pack:
    """Lay rows end to end in the order given. Every prompt and every response needs at least one token."""
    tokens: list[int] = []
    positions: list[np.ndarray] = []
    prompts: list[np.ndarray] = []
    branches: list[np.ndarray] = []
    starts: list[int] = []
    source: list[np.ndarray] = []
    place: list[np.ndarray] = []
    row_of: list[int] = []
    for number, row in enumerate(rows):
        start, prompt = len(tokens), len(row.prompt)
        if prompt == 0 or not row.responses or not all(row.responses):
            raise ValueError("a row needs a prompt and responses of at least one token each")
        starts.append(start)
        tokens.extend(row.prompt)
        positions.append(np.arange(prompt))
        prompts.append(np.zeros(prompt, dtype=np.int64))
        branches.append(np.zeros(prompt, dtype=np.int64))
        for response in row.responses:
            begin, length = len(tokens), len(response)
            tokens.extend(response)
            positions.append(np.arange(prompt, prompt + length))
            prompts.append(np.full(length, prompt))
            branches.append(np.full(length, begin - start))
            place.append(np.arange(begin, begin + length))
            source.append(np.concatenate(([start + prompt - 1], np.arange(begin, begin + length - 1))))
            row_of.append(number)
    starts.append(len(tokens))
    tokens_T, positions_T = np.array(tokens), np.concatenate(positions)
    place_R = np.concatenate(place)
    lengths_S = np.array([len(p) for p in place])
    blocks = tuple(_blocks(np.array(starts), np.concatenate(prompts), np.concatenate(branches)))
    return Pack(
        tokens_T=torch.from_numpy(tokens_T),
        positions_T=torch.from_numpy(positions_T),
        blocks=blocks,
        source_R=torch.from_numpy(np.concatenate(source)),
        target_R=torch.from_numpy(tokens_T[place_R]),
        place_R=torch.from_numpy(place_R),
        response_R=torch.from_numpy(np.repeat(np.arange(len(place)), lengths_S)),
        last_S=torch.from_numpy(place_R[np.cumsum(lengths_S) - 1]),
        row_S=torch.tensor(row_of),
        rows=len(rows),
        responses=len(place),
        attended=sum(_attended(row) for row in rows),
    )


def pack_prompts(prompts: Sequence[Sequence[int]]) -> Pack:
    """Prompts alone, end to end: `source_R` is each one's last token, which predicts what comes next."""
    lengths = np.array([len(prompt) for prompt in prompts])
    if not lengths.all():
        raise ValueError("a prompt needs at least one token")
    starts = np.concatenate(([0], lengths.cumsum()))
    nothing = np.zeros(starts[-1], dtype=np.int64)
    none = torch.empty(0, dtype=torch.long)
    return Pack(
        tokens_T=torch.tensor([token for prompt in prompts for token in prompt]),
        positions_T=torch.from_numpy(np.concatenate([np.arange(length) for length in lengths])),
        blocks=tuple(_blocks(starts, nothing, nothing)),
        source_R=torch.from_numpy(starts[1:] - 1),
        target_R=none,
        place_R=none,
        response_R=none,
        last_S=none,
        row_S=none,
        rows=len(prompts),
        responses=0,
        attended=int((lengths * (lengths + 1) // 2).sum()),
    )


def _attended(row: Tokens) -> int:
    prompt = len(row.prompt)
    return prompt * (prompt + 1) // 2 + sum(len(r) * prompt + len(r) * (len(r) + 1) // 2 for r in row.responses)


def _blocks(starts: np.ndarray, prompt_T: np.ndarray, branch_T: np.ndarray) -> Iterator[Block]:
    """Group the rows, longest first, into blocks that waste little when padded."""
    lengths = np.diff(starts)
    group: list[int] = []
    used = 0
    for row in np.argsort(-lengths, kind="stable"):
        longest = lengths[group[0]] if group else lengths[row]
        if group and longest**2 * (len(group) + 1) > BLOCK_WASTE * (used + lengths[row] ** 2):
            yield _block(group, starts, prompt_T, branch_T)
            group, used = [], 0
        group.append(int(row))
        used += lengths[row] ** 2
    yield _block(group, starts, prompt_T, branch_T)


def _block(group: list[int], starts: np.ndarray, prompt_T: np.ndarray, branch_T: np.ndarray) -> Block:
    begin = starts[group][:, None]
    length = np.diff(starts)[group][:, None]
    offset = np.arange(length.max())[None, :]
    real = offset < length
    index = np.where(real, begin + offset, 0)
    return Block(
        index_NL=torch.from_numpy(np.where(real, index, -1)),
        prompt_NL=torch.from_numpy(np.where(real, prompt_T[index], 0)),
        branch_NL=torch.from_numpy(np.where(real, branch_T[index], offset)),
    )


def _segments(positions_T: Tensor) -> Segments:
    position = positions_T.cpu().numpy()
    begin = np.flatnonzero(np.diff(position, prepend=-2) != 1)
    before, own = position[begin], np.diff(begin, append=len(position))
    row = np.maximum.accumulate(np.where(before == 0, begin, 0))  # where the segment's row begins
    count = before + own
    after = count.cumsum()
    offset = np.arange(after[-1]) - np.repeat(after - count, count)
    index = offset + np.where(
        offset < np.repeat(before, count), np.repeat(row, count), np.repeat(begin - before, count)
    )

    def on_device(values: np.ndarray) -> Tensor:
        return torch.from_numpy(values.astype(np.int32)).to(positions_T.device)

    return Segments(
        queries=on_device(np.append(begin, len(position))),
        keys=on_device(np.append(0, after)),
        index_X=on_device(index) if before.any() else None,
        longest_queries=int(own.max()),
        longest_keys=int(count.max()),
    )


def row_lengths(rows: Sequence[Tokens]) -> np.ndarray:
    """Tokens of each row: [N]. Rows on disk know theirs without being read."""
    known = getattr(rows, "lengths", None)
    return known() if known else np.array([len(row) for row in rows], dtype=np.int64)


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
