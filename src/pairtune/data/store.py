"""Rows on disk that read like a list: they lie in a nameless file, and memory holds where each begins.

So a run over 50,000 pairs needs hardly more memory than a run over 1,000. Texts are here; token rows, which are
memory-mapped, in `data/token_rows.py`.
"""

import copy
import dataclasses
import hashlib
import json
import mmap
import operator
import os
import weakref
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, BinaryIO, Generic, TypeVar, overload

import numpy as np

from pairtune.cache import scratch_file
from pairtune.data.schema import Message, Row

# A read makes up to 64 KiB of a mapped file count as this process's memory: 16 MiB are kept at most.
READS_KEPT = 256

# Of a turn, in their order; `dataclasses.astuple` copies deeply, and takes a fifth of all the time of reading.
_FIELDS = operator.attrgetter(*(field.name for field in dataclasses.fields(Message)))

Item = TypeVar("Item")
Self = TypeVar("Self", bound="OnDisk[Any]")


class OnDisk(Sequence[Item], Generic[Item]):
    """A sequence whose items are made as they are asked for. `places[i]`, a row of integers, says where item i lies.

    A slice, or the items that `take` takes, are another view of the same files. It equals any sequence of equal items.
    """

    def __init__(self, places: np.ndarray) -> None:
        self.places = places

    def item(self, place: list[int]) -> Item:
        """The item that lies there."""
        raise NotImplementedError

    def take(self: Self, which: np.ndarray | slice) -> Self:
        """The items at these indices, in their order."""
        view = copy.copy(self)
        view.places = self.places[which]
        return view

    def __len__(self) -> int:
        return len(self.places)

    @overload
    def __getitem__(self, index: int) -> Item: ...
    @overload
    def __getitem__(self: Self, index: slice) -> Self: ...
    def __getitem__(self, index: int | slice) -> Any:
        return self.take(index) if isinstance(index, slice) else self.item(self.places[index].tolist())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(mine == theirs for mine, theirs in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]


def take(rows: Sequence[Item], which: np.ndarray) -> Sequence[Item]:
    """The rows at these indices: a view of rows on disk, a list of others."""
    return rows.take(which) if isinstance(rows, OnDisk) else [rows[i] for i in which.tolist()]


class Scratch:
    """A nameless file that lives as long as this object, and can be read in several processes at once."""

    def __init__(self) -> None:
        self.file = scratch_file()
        weakref.finalize(self, self.file.close)

    def read(self, begin: int, end: int) -> bytes:
        """The bytes from `begin` to `end`."""
        return os.pread(self.file.fileno(), end - begin, begin)


class Mapped:
    """A file's numbers, memory-mapped. What has been read is let go of now and then, so the process does not grow."""

    def __init__(self, file: BinaryIO, dtype: type[np.generic], *, offset: int = 0, count: int) -> None:
        self.pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if count else None
        self.array = np.frombuffer(self.pages, dtype, count, offset) if self.pages else np.empty(0, dtype)
        self.reads = 0

    def read(self, begin: int, end: int) -> np.ndarray:
        """The numbers from `begin` to `end`."""
        self.reads += 1
        if self.reads % READS_KEPT == 0 and self.pages is not None and hasattr(mmap, "MADV_DONTNEED"):
            self.pages.madvise(mmap.MADV_DONTNEED)  # they stay in the system's cache, not in the process's memory
        return self.array[begin:end]


# Numbers as safetensors calls them.
_NAMES: Mapping[str, type[np.generic]] = {
    "U8": np.uint8, "I32": np.int32, "I64": np.int64, "F32": np.float32, "F64": np.float64,
}  # fmt: skip


def map_tensors(file: BinaryIO) -> tuple[dict[str, str], dict[str, Mapped]]:
    """The metadata of a safetensors file, and its tensors, flat and memory-mapped, in the order they lie in.

    Raises ValueError, KeyError, TypeError or OSError for a file that is none.
    """
    size = int.from_bytes(file.read(8), "little")  # a length, a head in JSON, the tensors
    if size > os.fstat(file.fileno()).st_size:
        raise ValueError("the head is longer than the file")
    head = json.loads(file.read(size))
    metadata = head.pop("__metadata__", {})
    found = {}
    for name, about in sorted(head.items(), key=lambda item: item[1]["data_offsets"]):
        begin, end = about["data_offsets"]
        dtype = _NAMES[about["dtype"]]
        count = (end - begin) // np.dtype(dtype).itemsize
        found[name] = Mapped(file, dtype, offset=8 + size + begin, count=count)
    return metadata, found


class Texts(OnDisk[Row]):
    """Pairs, demonstrations or prompts on disk; see `store_texts`."""

    def __init__(self, kind: type[Row], scratch: Scratch, places: np.ndarray) -> None:
        super().__init__(places)
        self.kind: Any = kind
        self.scratch = scratch
        self.origin = "row"  # what a row's number counts, and where: "pairs.jsonl line"
        self.change: Callable[[Row], Row] | None = None

    def item(self, place: list[int]) -> Row:
        """The row in the bytes from place[0] to place[1]."""
        fields: list[Any] = json.loads(self.scratch.read(*place))
        made: Row = self.kind(*map(_from_fields, fields))
        return self.change(made) if self.change else made

    def changed(self, change: Callable[[Row], Row]) -> "Texts[Row]":
        """The same rows, each changed as it is read."""
        view = copy.copy(self)
        view.change = change
        return view

    def digest(self) -> str:
        """SHA-256 of all rows in their order, and of what changes them."""
        digest = hashlib.sha256(f"{self.kind.__name__} {self.change.__qualname__ if self.change else ''}\n".encode())
        for begin, end in self.places.tolist():
            digest.update((end - begin).to_bytes(8, "little") + self.scratch.read(begin, end))
        return digest.hexdigest()


def origin(rows: object) -> str:
    """What the rows' numbers count, for messages: "pairs.jsonl line"."""
    return rows.origin if isinstance(rows, Texts) else "row"


def store_texts(kind: type[Row], rows: Iterable[Row]) -> Texts[Row]:
    """Write rows to a nameless file as they come."""
    scratch, ends = Scratch(), array("q", [0])
    names = [field.name for field in dataclasses.fields(kind)]
    for row in rows:
        raw = json.dumps([_to_fields(getattr(row, name)) for name in names]).encode("ascii")
        scratch.file.write(raw)
        ends.append(ends[-1] + len(raw))
    scratch.file.flush()
    return Texts(kind, scratch, np.stack([ends[:-1], ends[1:]], axis=1))


def _to_fields(value: object) -> object:
    """Turns as lists of their fields."""
    if isinstance(value, tuple):
        return [_to_fields(turn) for turn in value]
    return [*_FIELDS(value)] if isinstance(value, Message) else value


def _from_fields(value: Any) -> object:
    if not isinstance(value, list):
        return value
    return Message(*value) if isinstance(value[0], str) else tuple(Message(*turn) for turn in value)
