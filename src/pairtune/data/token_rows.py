"""Token rows on disk: all ids in one memory-mapped file, and in memory where the parts of each row begin."""

from array import array
from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np

from pairtune.data.pack import Tokens
from pairtune.data.store import Mapped, OnDisk, Scratch

# Ids that are in memory at once where all are looked at.
IDS_AT_ONCE = 1 << 20


class TokenRows(OnDisk[Tokens]):
    """Token rows on disk, memory-mapped; see `store_tokens`."""

    def __init__(self, ids: Mapped, places: np.ndarray, numbers: Mapping[str, np.ndarray]) -> None:
        super().__init__(places)
        self.ids = ids
        self.numbers = numbers  #: "weight" and "margin" of each row, where rows have their own

    def take(self, which: np.ndarray | slice) -> "TokenRows":
        """The rows at these indices, in their order."""
        view = super().take(which)
        view.numbers = {name: values[which] for name, values in self.numbers.items()}
        return view

    def __getitem__(self, index: Any) -> Any:
        row = super().__getitem__(index)
        if isinstance(index, slice) or not self.numbers:
            return row
        return replace(row, **{name: float(values[index]) for name, values in self.numbers.items()})

    def item(self, place: list[int]) -> Tokens:
        """The row whose parts, prompt first and what is asked last, lie between the places; without its numbers."""
        ids = self.ids.read(place[0], place[-1]).tolist()
        parts = [tuple(ids[begin - place[0] : end - place[0]]) for begin, end in pairwise(place)]
        return Tokens(parts[0], tuple(parts[1:-1]), parts[-1])

    def lengths(self) -> np.ndarray:
        """Tokens of each row, without reading any of them."""
        found: np.ndarray = self.places[:, -2] - self.places[:, 0]
        return found

    def sequence_lengths(self) -> np.ndarray:
        """Tokens of each prompt with its longest response, without reading any of them."""
        parts = np.diff(self.places[:, :-1], axis=1)
        found: np.ndarray = parts[:, 0] + parts[:, 1:].max(1)
        return found

    def highest_id(self) -> int:
        """The largest token id in the file."""
        starts = range(0, len(self.ids.array), IDS_AT_ONCE)
        return max(int(self.ids.read(at, at + IDS_AT_ONCE).max()) for at in starts)


def store_tokens(rows: Iterable[Tokens]) -> TokenRows:
    """Write token rows to a nameless file as they come. Raises ValueError if their numbers of responses differ."""
    scratch, places, at, parts = Scratch(), array("q"), 0, 0
    weights, margins = array("d"), array("d")
    for row in rows:
        weights.append(row.weight)
        if row.margin is not None:
            margins.append(row.margin)
        if places and len(row.responses) != parts - 2:
            raise ValueError(f"a row has {len(row.responses)} responses where the first one has {parts - 2}")
        parts = 2 + len(row.responses)
        places.append(at)
        for part in (row.prompt, *row.responses, row.asked):
            scratch.file.write(array("i", part).tobytes())
            at += len(part)
            places.append(at)
    scratch.file.flush()
    if len(margins) not in (0, len(weights)):
        raise ValueError("some rows have a margin and others have none")
    numbers = {name: np.array(values) for name, values in (("weight", weights), ("margin", margins)) if len(values)}
    if len(weights) and (numbers["weight"] == 1).all():
        del numbers["weight"]
    return TokenRows(Mapped(scratch.file, np.int32, count=at), np.array(places).reshape(-1, parts + 1), numbers)
