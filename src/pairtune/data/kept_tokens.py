"""Large data sets' tokens, kept in the cache: the same rows, tokenizer and limit give them without tokenising again.

A safetensors file, named by a hash of everything that decides its content: the rows, the tokenizer with its template
and ends, the limit, the versions of the libraries and of our own sources. A hash of its content in its head shows
whether it is what was written.
"""

import hashlib
import json
import mmap
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from transformers import PreTrainedTokenizerBase

from pairtune.cache import cache_folder
from pairtune.data.store import Mapped, Texts, map_tensors
from pairtune.data.token_rows import TokenRows
from pairtune.data.writing import Remark
from pairtune.progress import counted, say

# Fewer rows are tokenised in seconds.
WORTH = 5000
# Bytes that are hashed at once.
PART = 1 << 22
# Arrays as they lie in the file: those of eight bytes first, so that each begins at a place that its numbers can have.
_TYPES: Mapping[str, tuple[type[np.generic], str]] = {
    "places": (np.int64, "I64"),
    "origins": (np.int64, "I64"),
    "weight": (np.float64, "F64"),
    "margin": (np.float64, "F64"),
    "said": (np.int64, "I64"),
    "ids": (np.int32, "I32"),
}


class Kept(NamedTuple):
    """Token rows, the source's number of each, and of every remark the numbers of its rows."""

    rows: TokenRows
    origins: np.ndarray
    remarks: Mapping[Remark, np.ndarray]


def kept(rows: Sequence[Any], tokenizer: PreTrainedTokenizerBase, max_tokens: int, make: Callable[[], Kept]) -> Kept:
    """What `make` gives, or gave to an earlier run."""
    if len(rows) < WORTH or not isinstance(rows, Texts) or not tokenizer.is_fast:
        return make()
    path = cache_folder() / "tokens" / f"{_key(rows, tokenizer, max_tokens)}.safetensors"
    if found := _read(path):
        say(f"data: the tokens of {counted(len(found.rows), 'row')} are from the cache")
        return found
    made = make()
    with suppress(OSError):  # no cache, or no room in it: the next run tokenises again
        _write(path, made)
    return made


def _key(rows: Texts[Any], tokenizer: PreTrainedTokenizerBase, max_tokens: int) -> str:
    backend: Any = tokenizer.backend_tokenizer
    about = {
        "rows": rows.digest(),
        "max_tokens": max_tokens,
        "tokenizer": [type(tokenizer).__qualname__, backend.to_str(), tokenizer.chat_template],
        "special": {name: str(token) for name, token in tokenizer.special_tokens_map.items()},
        "ends": [tokenizer.bos_token_id, tokenizer.eos_token_id, *getattr(tokenizer, "declared_ends", ())],
        "options": {name: str(value) for name, value in tokenizer.init_kwargs.items()},
        "set": {name: str(value) for name, value in sorted(vars(tokenizer).items()) if _decides(name, value)},
        "libraries": [version(name) for name in ("transformers", "tokenizers", "jinja2")],
        "sources": _sources(),
    }
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()


def _decides(name: str, value: object) -> bool:
    """Whether an attribute of a tokenizer may say how it writes: it may have been set after loading."""
    return name != "name_or_path" and isinstance(value, bool | int | float | str | None)


@cache
def _sources() -> str:
    """A hash of the sources that decide what tokens a row becomes: all that read, write and cut texts."""
    whole = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        whole.update(f"{path.name} {path.stat().st_size}\n".encode() + path.read_bytes())
    return whole.hexdigest()


def _read(path: Path) -> Kept | None:
    """What a file holds; None where there is none, or it is not what was written: that is removed."""
    try:
        with path.open("rb") as file:
            metadata, arrays = map_tensors(file)
        about = metadata["about"]
        sound = _digest(about, {name: mapped.array for name, mapped in arrays.items()}) == metadata["sha256"]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        sound = False
    if not sound:
        with suppress(OSError):
            path.unlink()
        return None
    return _kept(json.loads(about), arrays)


def _kept(about: Any, arrays: Mapping[str, Mapped]) -> Kept:
    numbers = {name: arrays[name].array for name in ("weight", "margin") if name in arrays}
    rows = TokenRows(arrays["ids"], arrays["places"].array.reshape(-1, about["parts"]), numbers)
    remarks, at = dict[Remark, np.ndarray](), 0
    for one, many, count in about["remarks"]:
        remarks[Remark(one, many)] = arrays["said"].array[at : at + count]
        at += count
    return Kept(rows, arrays["origins"].array, remarks)


def _write(path: Path, made: Kept) -> None:
    rows = made.rows
    given = {"places": rows.places, "origins": made.origins, "said": np.concatenate([[], *made.remarks.values()]),
             "ids": rows.ids.array, **rows.numbers}  # fmt: skip
    arrays = {
        name: np.ascontiguousarray(given[name], kind).ravel() for name, (kind, _) in _TYPES.items() if name in given
    }
    remarks = [[*remark, len(numbers)] for remark, numbers in made.remarks.items()]
    about = json.dumps({"parts": rows.places.shape[1], "remarks": remarks})
    head: dict[str, Any] = {"__metadata__": {"about": about, "sha256": _digest(about, arrays)}}
    at = 0
    for name, values in arrays.items():
        head[name] = {"dtype": _TYPES[name][1], "shape": [values.size], "data_offsets": [at, at + values.nbytes]}
        at += values.nbytes
    raw = json.dumps(head).encode()
    raw += b" " * (-len(raw) % 8)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial-{os.getpid()}")
    try:
        with partial.open("wb") as file:
            file.write(len(raw).to_bytes(8, "little") + raw)
            for values in arrays.values():
                for part in _parts(values):
                    file.write(part)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _digest(about: str, arrays: Mapping[str, np.ndarray]) -> str:
    """SHA-256 of everything that a file holds."""
    digest = hashlib.sha256(about.encode())
    for name, values in arrays.items():
        digest.update(f"{name} {values.size}\n".encode())
        for part in _parts(values):
            digest.update(part)
    return digest.hexdigest()


def _parts(values: np.ndarray) -> Iterator[memoryview]:
    """The array's bytes, a part at a time; what is memory-mapped is let go of behind each, or all of it would count."""
    pages: object = values
    while isinstance(pages, np.ndarray):
        pages = pages.base
    pages = pages.obj if isinstance(pages, memoryview) else pages
    for begin in range(0, values.nbytes, PART):
        yield values.view(np.uint8)[begin : begin + PART].data
        if isinstance(pages, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
            pages.madvise(mmap.MADV_DONTNEED)
