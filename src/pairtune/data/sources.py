"""Where rows come from: JSON lines, JSON, CSV and Parquet files, or a dataset on the hub.

What a row's columns mean is told in :mod:`pairtune.data.formats`. Rows keep their order and their 1-based
line (JSON lines, CSV) or row (JSON arrays, Parquet, the hub). Nothing here unpickles or runs code that came
with the data.

A row that has a known format but nothing to learn from (an empty response, two sides with different prompts)
is an error in a file with a ``prompt`` column, which its owner can mend. In whole dialogues and in hub
datasets, mostly other people's, such rows are left out and returned as ``skipped``.
"""

import csv
import gzip
import json
import re
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import BinaryIO, NamedTuple, TypeAlias, cast

from pairtune import hub, own
from pairtune.data.cells import read_cells
from pairtune.data.formats import to_demonstration, to_labelled, to_pair, to_prompt, unread
from pairtune.data.schema import Demonstration, Labelled, Pair, Prompt, Row, Rows, Skipped
from pairtune.data.store import store_texts
from pairtune.data.turns import Columns, MalformedError, UnusableError
from pairtune.data.wording import escaped, listed, quoted
from pairtune.errors import InputError
from pairtune.hints import near_path
from pairtune.progress import counted

KNOWN = "a .jsonl, .json, .csv (each also .gz) or .parquet file"
_SUFFIX = re.compile(r"\.(?:(jsonl|json|csv)(?:\.gz)?|(parquet))\Z", re.IGNORECASE)


class Record(NamedTuple):
    """One row as it came: its number, what that number counts ("line" or "row"), and its columns."""

    unit: str
    number: int
    columns: Columns


Reader: TypeAlias = Callable[[BinaryIO, str], Iterator[Record]]


def read_pairs(source: str, *, split: str = "train") -> Rows[Pair]:
    """The pairs of a file, a folder that holds one file, or a hub dataset.

    Each row has ``chosen`` and ``rejected``, and most have ``prompt``: all three as text; or both sides as
    whole dialogues in hh-rlhf's raw text; or both as lists of messages, whole or only the answer.

    Raises InputError, one sentence that names the file, the line and the field, when the source cannot be
    read, a row has none of the formats, or no row is left.
    """
    return _read(source, split, Pair, to_pair)


def has_labels(source: str, *, split: str = "train") -> bool:
    """Whether the source holds single responses with labels and no pairs, by the columns of its first row.

    Raises InputError if the source cannot be read.
    """
    first = next(_records(source, split)[1], None)
    return first is not None and "label" in first.columns and "chosen" not in first.columns


def read_labelled(source: str, *, split: str = "train") -> Rows[Labelled]:
    """The labelled responses of a file, a folder that holds one file, or a hub dataset.

    Each row has a ``response`` (or ``completion``) and a ``label``, true where the response is desirable. Formats and
    errors are otherwise those of :func:`read_pairs`.
    """
    return _read(source, split, Labelled, to_labelled)


def read_demonstrations(source: str, *, split: str = "train") -> Rows[Demonstration]:
    """The demonstrations of a file, a folder that holds one file, or a hub dataset.

    The response is the first of the columns ``response``, ``completion``, ``messages`` and ``chosen``; pairs
    serve as they are, and ``rejected`` is then ignored. Formats and errors are those of :func:`read_pairs`.
    """
    return _read(source, split, Demonstration, to_demonstration)


def read_prompts(source: str, *, split: str = "train") -> Rows[Prompt]:
    """The prompts of a file, a folder that holds one file, or a hub dataset.

    A ``prompt`` column (text or messages) is enough; otherwise the prompt of the row's pair or of its
    ``messages``, which may end before the answer. Formats and errors are those of :func:`read_pairs`.
    """
    return _read(source, split, Prompt, to_prompt)


def _read(source: str, split: str, kind: type[Row], parse: Callable[[Columns, int], Row]) -> Rows[Row]:
    name, records, is_a_hubs = _records(source, split)
    skipped: list[Skipped] = []
    ignored: dict[str, None] = {}
    unit = "row"

    def usable() -> Iterator[Row]:
        nonlocal unit
        for unit, number, columns in records:
            try:
                columns = read_cells(columns)
                ignored.update(dict.fromkeys(unread(columns)))
                yield parse(columns, number)
            except MalformedError as error:
                raise InputError(f"{name} {unit} {number}: {error}") from None
            except UnusableError as error:
                if not is_a_hubs and "prompt" in columns:
                    raise InputError(
                        f"{name} {unit} {number}: {error.reason}; {error.need} - remove the row or fill it in"
                    ) from None
                skipped.append(Skipped(number, error.reason))

    rows = store_texts(kind, usable())
    rows.origin = f"{name} {unit}"
    if skipped and not rows:
        first = f"row {skipped[0].row}: {skipped[0].reason}"
        none = "its one row cannot" if len(skipped) == 1 else f"none of the {len(skipped):,} rows can"
        raise InputError(f"{name}: {none} be used ({first}); give another source")
    if not rows:
        raise InputError(f"{name}: there are no rows in it; give a source that has some")
    return Rows(rows, tuple(skipped), tuple(ignored))


def _records(source: str, split: str) -> tuple[str, Iterator[Record], bool]:
    """What a source is called, its rows as they came, and whether they are a hub's."""
    path = local_file(source)
    name = escaped(str(path or source))
    is_a_hubs = not path and not own.is_own(source)
    if is_a_hubs:
        name = f"dataset {quoted(source, 80)}"
        return name, _hub(source, name, split), True
    if split != "train":
        raise InputError(f'{name}: a file has no split {quoted(split)}; leave it at "train" or give another file')
    return name, _open(path, name) if path else _own(source), False


def _own(source: str) -> Iterator[Record]:
    """The rows that a person's own function gives, with the columns that a file's rows have."""
    return (Record("row", number, row) for number, row in enumerate(own.rows(source), 1))


def local_file(source: str) -> Path | None:
    """The file that ``source`` names, None for a hub's dataset or a function; InputError if it is not there."""
    shown = quoted(source, 80)
    if own.is_own(source):
        own.sha256(source)
        return None
    if not source.strip() or "\0" in source:
        raise InputError(f"{shown} is not a data source; give {KNOWN}, or the name of a hub dataset")
    path = Path(source).expanduser()
    try:
        if path.is_dir():
            return _only_file(path)
        exists = path.exists()
    except OSError as error:
        raise InputError(f"{shown} cannot be read: {error.strerror or error}") from None
    if exists and not _SUFFIX.search(path.name):
        raise InputError(f"{shown} is not a kind of file that can be read; give {KNOWN}")
    if exists:
        return path
    if _SUFFIX.search(source) or hub.is_path(source):
        hint = near_path(path) or "; check the path (it is relative to the current folder)"
        raise InputError(f"{shown} does not exist{hint}")
    return None


def _only_file(folder: Path) -> Path:
    files = sorted(path for path in folder.iterdir() if path.is_file() and _SUFFIX.search(path.name))
    if len(files) == 1:
        return files[0]
    if not files:
        raise InputError(f"folder {quoted(str(folder), 80)} holds no data; give {KNOWN}")
    names = listed((path.name for path in files), limit=4)
    raise InputError(f"folder {quoted(str(folder), 80)} holds {len(files)} data files ({names}); give one of them")


def _open(path: Path, name: str) -> Iterator[Record]:
    """The rows of a file, by its suffix."""
    match = _SUFFIX.search(path.name)
    assert match is not None
    reader = _READERS[(match[1] or match[2]).lower()]
    try:
        zipped = path.name.lower().endswith(".gz")
        with cast(BinaryIO, gzip.open(path)) if zipped else path.open("rb") as file:
            yield from reader(file, name)
    except (OSError, EOFError, zlib.error) as error:
        said = getattr(error, "strerror", None) or error
        raise InputError(f"{name}: cannot be read ({escaped(str(said))}); check or replace the file") from None


def _json_lines(file: BinaryIO, name: str) -> Iterator[Record]:
    return _parse_lines(_lines(file, name), name)


def _json(file: BinaryIO, name: str) -> Iterator[Record]:
    """One array of objects, or, as often happens under this suffix, JSON lines."""
    lines = list(_lines(file, name))
    if not "".join(lines[:64]).lstrip().startswith("["):
        yield from _parse_lines(lines, name)
        return
    array = _decode_json("".join(lines), name, 1)
    for number, item in enumerate(cast(list[object], array), 1):
        yield Record("row", number, _object(item, f"{name} row {number}"))


def _csv(file: BinaryIO, name: str) -> Iterator[Record]:
    reader = csv.reader(_lines(file, name), strict=True)
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
                yield Record("line", start, dict(zip(header, fields, strict=True)))
            start = reader.line_num + 1
    except csv.Error as error:
        raise InputError(f"{name} line {start}: not CSV ({error}); check the quotes from there on") from None
    finally:
        csv.field_size_limit(limit)


def _parquet(file: BinaryIO, name: str) -> Iterator[Record]:
    parquet = import_module("pyarrow.parquet")  # comes with datasets; slow to import
    try:
        table = parquet.ParquetFile(file)
        _no_duplicates(table.schema_arrow.names, name)
        number = 0
        for batch in table.iter_batches(batch_size=1024):
            for columns in batch.to_pylist():
                number += 1
                yield Record("row", number, _without_absent(columns))
    except (OSError, ValueError, NotImplementedError) as error:  # pyarrow's errors derive from these
        said = escaped(str(error).splitlines()[0][:120]) if str(error) else type(error).__name__
        raise InputError(f"{name}: not a sound Parquet file ({said}); write it again") from None


_READERS: dict[str, Reader] = {"jsonl": _json_lines, "json": _json, "csv": _csv, "parquet": _parquet}


def _hub(source: str, name: str, split: str) -> Iterator[Record]:
    reachable = hub.look(source, "dataset")
    datasets = import_module("datasets")  # slow to import
    if not reachable and not (Path(datasets.config.HF_DATASETS_CACHE) / source.replace("/", "___")).is_dir():
        raise hub.unreachable(source, "dataset")
    try:
        with _no_bars():
            rows = datasets.load_dataset(source, split=split)
    except Exception as error:  # no network, no such name, a closed door, no such split: all one here
        said = f"{type(error).__name__}: {error}".splitlines()[0][:160]
        raise InputError(
            f"{name}, split {quoted(split)}, cannot be loaded ({escaped(said)}); "
            f"check its name, the split and the network, or give {KNOWN}"
        ) from None
    for number, columns in enumerate(rows, 1):
        yield Record("row", number, _without_absent(columns))


def _without_absent(columns: Columns) -> Columns:
    """Columns whose turns, tools and calls lack what these containers put there as null, for all have one's keys."""
    return {name: _present(value) if isinstance(value, list) else value for name, value in columns.items()}


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


def _parse_lines(lines: Iterable[str], name: str) -> Iterator[Record]:
    for number, line in enumerate(lines, 1):
        if line.strip():
            where = f"{name} line {number}"
            yield Record("line", number, _object(_decode_json(line, name, number), where))


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
