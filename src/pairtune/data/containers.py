"""Rows as they come: JSON lines, JSON, CSV, Parquet and Arrow files, zipped or not, or a dataset on the hub.

Rows keep their order and their 1-based line (JSON lines, CSV) or row (the others). Nothing here unpickles or runs code
that came with the data. Whether a file is zipped is told by its content, not by its name.
"""

import bz2
import csv
import gzip
import io
import json
import lzma
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import BinaryIO, NamedTuple, TypeAlias, cast

from pairtune import hub
from pairtune.data.asked import Asked
from pairtune.data.files import KNOWN, SUFFIX, name_of
from pairtune.data.turns import Columns
from pairtune.data.wording import escaped, quoted
from pairtune.errors import InputError
from pairtune.progress import counted


class Record(NamedTuple):
    """One row as it came: its number, what that number counts ("line" or "row"), its columns, and its file."""

    unit: str
    number: int
    columns: Columns
    file: str


# A row of a file: what its number counts, its number, its columns.
Row: TypeAlias = tuple[str, int, Columns]
Reader: TypeAlias = Callable[[BinaryIO, str], Iterator[Row]]

# The first bytes of zipped content, and what unpacks it.
_PACKED: dict[bytes, Callable[[BinaryIO], BinaryIO]] = {
    b"\x1f\x8b": lambda file: cast(BinaryIO, gzip.GzipFile(fileobj=file)),
    b"BZh": lambda file: cast(BinaryIO, bz2.BZ2File(file)),
    b"\xfd7zXZ\0": lambda file: _xz(file),
    b"\x28\xb5\x2f\xfd": lambda file: _zstd(file),
}
# Rows after which it is told how much of a file has been read.
ROWS = 256
# What people call the list of rows in a JSON object.
_LISTS = ("data", "rows", "examples", "instances", "train")


def of_file(path: Path, read: Callable[[int], None] = lambda size: None) -> Iterator[Record]:
    """The rows of a file, by its suffix; `read` is told now and then how many bytes more of it have been read."""
    match, name = SUFFIX.search(path.name), escaped(name_of(path))
    assert match is not None
    try:
        with path.open("rb") as file:
            start = file.peek(6)[:6] if isinstance(file, io.BufferedReader) else b""
            unpack = next((unpack for mark, unpack in _PACKED.items() if start.startswith(mark)), None)
            content = unpack(file) if unpack else file
            before = 0
            for count, row in enumerate(_READERS[match[1].lower()](content, name)):
                if row[0] == "line" and count % ROWS == 0:  # the other kinds of file are not read from top to bottom
                    read(file.tell() - before)
                    before = file.tell()
                yield Record(*row, name)
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        said = getattr(error, "strerror", None) or error
        raise InputError(f"{name}: cannot be read ({escaped(str(said))}); check or replace the file") from None


def _xz(file: BinaryIO) -> BinaryIO:
    return cast(BinaryIO, lzma.LZMAFile(file))


def _zstd(file: BinaryIO) -> BinaryIO:
    stream = import_module("pyarrow").CompressedInputStream(file, "zstd")
    return cast(BinaryIO, io.BufferedReader(stream))


def _json_lines(file: BinaryIO, name: str) -> Iterator[Row]:
    return _parse_lines(_lines(file, name), name)


def _json(file: BinaryIO, name: str) -> Iterator[Row]:
    """One array of objects, an object of columns or with a list of rows, or, as often under this suffix, JSON lines."""
    lines = list(_lines(file, name))
    whole = "".join(lines)
    if not whole.lstrip().startswith("["):
        rows = _rows_of_object(lines, whole)
        if rows is None:
            yield from _parse_lines(lines, name)
            return
    else:
        rows = cast(list[object], _decode_json(whole, name, 1))
    for number, item in enumerate(rows, 1):
        yield "row", number, _object(item, f"{name} row {number}")


def _rows_of_object(lines: list[str], whole: str) -> list[object] | None:
    """The rows of one object that holds a table; None if the text is no such object."""
    filled = [line for line in lines if line.strip()]
    if len(filled) > 1 and _is_json(filled[0]):
        return None
    try:
        found = json.loads(whole, object_pairs_hook=_without_duplicates)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    tables = [name for name in _LISTS if isinstance(found.get(name), list)]
    if len(tables) == 1 and all(isinstance(row, dict) for row in found[tables[0]]):
        return cast(list[object], found[tables[0]])
    values = list(found.values())
    if values and all(isinstance(value, dict) for value in values) and len({tuple(value) for value in values}) == 1:
        values = [list(value.values()) for value in values]  # as pandas writes a table
    columns = all(isinstance(value, list) for value in values) and len({len(value) for value in values}) == 1
    if not columns or any(_like_turns(value) for value in values):
        return [found] if len(filled) > 1 else None
    return [dict(zip(found, row, strict=True)) for row in zip(*values, strict=True)]


def _is_json(line: str) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _like_turns(value: object) -> bool:
    """Whether a list is one dialogue rather than a column of values."""
    return isinstance(value, list) and any(isinstance(turn, Mapping) for turn in value)


def _separated(file: BinaryIO, name: str, separator: str = "") -> Iterator[Row]:
    lines = _lines(file, name)
    header_line = next(lines, "")
    separator = separator or _separator(header_line)
    reader = csv.reader(_again(header_line, lines), strict=True, delimiter=separator)
    limit = csv.field_size_limit(2**31 - 1)  # a dialogue may be longer than the module's 131,072 characters
    start = 1
    try:
        header = next(reader, [])
        _no_duplicates(header, f"{name} line 1")
        start = reader.line_num + 1
        for fields in reader:
            if fields and len(fields) != len(header):
                raise InputError(
                    f"{name} line {start}: {counted(len(fields), 'field')} where the header has {len(header)}; "
                    "put quotes around text that holds commas or line breaks"
                )
            if fields:
                yield "line", start, dict(zip(header, fields, strict=True))
            start = reader.line_num + 1
    except csv.Error as error:
        raise InputError(f"{name} line {start}: not CSV ({error}); check the quotes from there on") from None
    finally:
        csv.field_size_limit(limit)


def _separator(header: str) -> str:
    """A comma, unless the header has none and something else that separates."""
    return "," if "," in header else max(",;\t|", key=header.count)


def _again(first: str, rest: Iterator[str]) -> Iterator[str]:
    if first:
        yield first
    yield from rest


def _parquet(file: BinaryIO, name: str) -> Iterator[Row]:
    parquet = import_module("pyarrow.parquet")  # comes with datasets; slow to import
    with _sound(name, "Parquet"):
        table = parquet.ParquetFile(file if file.seekable() else io.BytesIO(file.read()))
        _no_duplicates(table.schema_arrow.names, name)
        yield from _batches(table.iter_batches(batch_size=1024))


def _arrow(file: BinaryIO, name: str) -> Iterator[Row]:
    """A stream, as datasets writes it, or a file."""
    pyarrow, ipc = import_module("pyarrow"), import_module("pyarrow.ipc")
    with _sound(name, "Arrow"):
        if file.read(6) == b"ARROW1":
            file.seek(0)
            table = ipc.open_file(file)
            batches: Iterable[object] = (table.get_batch(i) for i in range(table.num_record_batches))
        else:
            file.seek(0)
            table = batches = ipc.open_stream(pyarrow.PythonFile(file))
        _no_duplicates(table.schema.names, name)
        yield from _batches(batches)


def _batches(batches: Iterable[object]) -> Iterator[Row]:
    number = 0
    for batch in batches:
        for columns in batch.to_pylist():  # type: ignore[attr-defined]
            number += 1
            yield "row", number, _without_absent(columns)


@contextmanager
def _sound(name: str, kind: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, NotImplementedError) as error:  # pyarrow's errors derive from these
        said = escaped(str(error).splitlines()[0][:120]) if str(error) else type(error).__name__
        raise InputError(f"{name}: not a sound {kind} file ({said}); write it again") from None


_READERS: dict[str, Reader] = {
    **dict.fromkeys(("jsonl", "ndjson"), _json_lines),
    "json": _json,
    "csv": _separated,
    "tsv": lambda file, name: _separated(file, name, "\t"),
    "parquet": _parquet,
    "arrow": _arrow,
}


def of_hub(source: str, name: str, asked: Asked) -> Iterator[Record]:
    """The rows of a dataset on the hub. Raises InputError if it cannot be loaded."""
    of = {"name": asked.data_config, "revision": asked.data_revision}
    reachable = hub.look(source, "dataset")
    datasets = import_module("datasets")  # slow to import
    if not reachable and not (Path(datasets.config.HF_DATASETS_CACHE) / source.replace("/", "___")).is_dir():
        raise hub.unreachable(source, "dataset")
    try:
        with _no_bars():
            rows = datasets.load_dataset(source, split=asked.data_split, **{k: v for k, v in of.items() if v})
    except Exception as error:  # no network, no such name, a closed door, no such split: all one here
        said = f"{type(error).__name__}: {error}".splitlines()[0][:160]
        raise InputError(
            f"{name}, split {quoted(asked.data_split)}, cannot be loaded ({escaped(said)}); "
            f"check its name, the split and the network, or give {KNOWN}"
        ) from None
    for number, columns in enumerate(rows, 1):
        yield Record("row", number, _without_absent(columns), name)


def _without_absent(columns: Columns) -> Columns:
    """Columns whose turns, tools and calls lack what these containers put there as null, for all have one's keys."""
    return {name: _present(value) if isinstance(value, list | dict) else value for name, value in columns.items()}


def _present(value: object) -> object:
    if isinstance(value, list):
        return [_present(item) for item in value]
    if isinstance(value, dict):
        return {key: _present(item) for key, item in value.items() if item is not None or key == "content"}
    return value


@contextmanager
def _no_bars() -> Iterator[None]:
    """The bars of datasets off inside, and afterwards as they were."""
    bars = sys.modules.get("datasets.utils")
    if bars is None or bars.are_progress_bars_disabled():
        yield
        return
    bars.disable_progress_bars()
    try:
        yield
    finally:
        bars.enable_progress_bars()


def _lines(file: BinaryIO, name: str) -> Iterator[str]:
    """The lines of a UTF-8 file, each with its end; cut at line feeds only, never at the likes of U+2028."""
    offset = 0
    for number, raw in enumerate(file, 1):
        try:
            line = raw.decode("utf-8")
        except UnicodeDecodeError as error:
            at = offset + error.start
            raise InputError(
                f"{name} line {number}: not UTF-8 (byte 0x{raw[error.start]:02x} at offset {at}); "
                "save the file as UTF-8"
            ) from None
        offset += len(raw)
        yield line.removeprefix("\ufeff") if number == 1 else line


def _parse_lines(lines: Iterable[str], name: str) -> Iterator[Row]:
    for number, line in enumerate(lines, 1):
        if line.strip():
            where = f"{name} line {number}"
            yield "line", number, _object(_decode_json(line, name, number), where)


def _decode_json(text: str, name: str, first_line: int) -> object:
    try:
        return json.loads(text, object_pairs_hook=_without_duplicates)
    except json.JSONDecodeError as error:
        line = first_line + error.lineno - 1
        said = f"{escaped(error.msg)} at column {error.colno}"
        raise InputError(f"{name} line {line}: not JSON ({said}); mend or remove it") from None
    except (ValueError, RecursionError) as error:  # two keys of one name, a number too long, lists too deep
        said = escaped(str(error))
        raise InputError(f"{name} line {first_line}: not usable JSON ({said}); mend or remove it") from None


def _without_duplicates(items: list[tuple[str, object]]) -> dict[str, object]:
    fields = dict(items)
    if len(fields) != len(items):
        names = [key for key, _ in items]
        twice = next(key for key in fields if names.count(key) > 1)
        raise ValueError(f"{quoted(twice)} stands there twice")
    return fields


def _object(value: object, where: str) -> Columns:
    if isinstance(value, dict):
        return value
    raise InputError(f'{where}: not a JSON object; a row looks like {{"prompt": "...", "chosen": "..."}}')


def _no_duplicates(header: list[str], where: str) -> None:
    twice = [name for name in dict.fromkeys(header) if header.count(name) > 1]
    if twice:
        raise InputError(f"{where}: two columns are named {quoted(twice[0])}; rename or remove one")
