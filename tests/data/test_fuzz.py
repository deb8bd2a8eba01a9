"""Files that something is wrong with give rows or one clear line, never a traceback, and no row is lost uncounted.

A file is made of rows as people have them, in one of the shapes, then changed at random: a value, a name, a row or a
byte. What is right is read as it was written, in every shape and container.
PAIRTUNE_FUZZ sets how many files are tried (a few hundred otherwise).
"""

import csv
import gzip
import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as some

from pairtune.data.check import check_pairs
from pairtune.data.check_labels import check_labelled
from pairtune.data.check_texts import check_texts
from pairtune.data.examples import EXAMPLES
from pairtune.data.schema import Labelled, Message, Pair
from pairtune.data.sources import has_labels, read_demonstrations, read_labelled, read_pairs, read_prompts
from pairtune.errors import InputError

pytestmark = pytest.mark.usefixtures("inside")

FILES = int(os.environ.get("PAIRTUNE_FUZZ", "250"))
tried = settings(
    max_examples=FILES,
    deadline=None,
    database=None,
    derandomize="PAIRTUNE_FUZZ" not in os.environ,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
READERS: tuple[Callable[..., Any], ...] = (read_pairs, read_labelled, read_demonstrations, read_prompts)
ROWS = [[json.loads(line) for line in lines] for lines in EXAMPLES.values()]

ODD = ("", " ", "nan", "None", "[]", '[{"role": "user"}]', "[{'role': 'user'}]", "\x00", "\ud800", "Human: x")
texts = some.text(max_size=12) | some.sampled_from([*ODD, "\n\nHuman: a\n\nAssistant: b"])
numbers = some.integers(-3, 3) | some.floats(allow_nan=True) | some.sampled_from([10**400, 1e308, -0.0])
scalars = some.none() | some.booleans() | numbers | texts
values = some.recursive(
    scalars,
    lambda inner: some.lists(inner, max_size=3) | some.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
KNOWN = {name for rows in ROWS for row in rows for name in row} | {"system", "tools", "weight", "margin", "label"}
names = some.sampled_from(sorted(KNOWN))


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of everything inside."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, item in inside for place in places(item, (*path, key)))]


def put(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    key, *rest = path
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[key] = put(value[key], tuple(rest), new)
    return copy


@some.composite
def changed_rows(draw: Any) -> list[Any]:
    """Rows of one shape, or of several, of which some have other values, names, or nothing."""
    rows = [row for _ in range(draw(some.integers(1, 3))) for row in draw(some.sampled_from(ROWS))]
    for _ in range(draw(some.integers(0, 3))):
        at = draw(some.integers(0, len(rows) - 1))
        what = draw(some.sampled_from(["value", "name", "new", "gone", "row", "twin"]))
        if what == "value":
            rows[at] = put(rows[at], draw(some.sampled_from(places(rows[at]))), draw(values))
        elif not isinstance(rows[at], dict) or not rows[at]:
            continue
        elif what == "name":
            old = draw(some.sampled_from(sorted(rows[at])))
            rows[at] = {draw(names) if name == old else name: value for name, value in rows[at].items()}
        elif what == "new":
            rows[at] = rows[at] | {draw(names): draw(values)}
        elif what == "gone":
            gone = draw(some.sampled_from(sorted(rows[at])))
            rows[at] = {name: value for name, value in rows[at].items() if name != gone}
        else:
            rows.insert(at, rows[at] if what == "twin" else draw(values))
    return rows


def as_lines(rows: list[Any]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def as_csv(rows: list[Any]) -> bytes:
    dictionaries = [row for row in rows if isinstance(row, dict)]
    file = io.StringIO()
    writer = csv.DictWriter(file, list(dict.fromkeys(name for row in dictionaries for name in row)) or ["x"])
    writer.writeheader()
    for row in dictionaries:
        writer.writerow({k: v if isinstance(v, str | int | float) else json.dumps(v) for k, v in row.items()})
    return file.getvalue().encode("utf-8", "surrogatepass")


def as_columns(rows: list[Any]) -> bytes:
    filled = [row for row in rows if isinstance(row, dict)]
    return json.dumps({name: [row.get(name) for row in filled] for name in ("prompt", "chosen", "rejected")}).encode()


CONTAINERS: dict[str, Callable[[list[Any]], bytes]] = {
    "d.jsonl": as_lines,
    "d.json": lambda rows: json.dumps(rows).encode(),
    "c.json": as_columns,
    "d.csv": as_csv,
    "d.tsv": as_csv,
    "d.jsonl.gz": lambda rows: gzip.compress(as_lines(rows)),
    "d.parquet": as_lines,
}
BYTES = [b"", b"\x00", b"\xff", b"\n", b'"', b"{", b"[", b"\xef\xbb\xbf", b",", b"\r\n"]


@some.composite
def changed_files(draw: Any) -> tuple[str, bytes, list[Any]]:
    """A file's name, its bytes, and the rows it was made of; its bytes may be cut, doubled or others."""
    rows, name = draw(changed_rows()), draw(some.sampled_from(sorted(CONTAINERS)))
    content = CONTAINERS[name](rows)
    for _ in range(draw(some.integers(0, 2))):
        at = draw(some.integers(0, max(0, len(content) - 1)))
        other = content[:at] + draw(some.sampled_from(BYTES)) + content[at + 1 :]
        content = draw(some.sampled_from([other, content[:at], content + content[at:]]))
    return name, content, rows


def read(reader: Callable[..., Any], name: str) -> Any:
    """What is read; None if there is one clear line instead."""
    try:
        return reader(name)
    except InputError as error:
        line = str(error)
    assert line.strip()
    assert len(line.splitlines()) == 1
    assert len(line) < 1000
    return None


@tried
@given(changed_files())
def test_a_file_gives_rows_or_one_line(file: tuple[str, bytes, list[Any]]) -> None:
    name, content, _ = file
    Path(name).write_bytes(content)
    read(has_labels, name)
    for reader in READERS:
        found = read(reader, name)
        if found is not None:
            rows = list(found.rows)
            check_pairs(row for row in rows if isinstance(row, Pair))
            check_labelled(row for row in rows if isinstance(row, Labelled))
            check_texts([row for row in rows if isinstance(row, Pair)])


@tried
@given(changed_rows())
def test_no_row_is_lost_without_being_counted(rows: list[Any]) -> None:
    """Every line is in the rows read or in those left out; of gathered rows the first stands for all."""
    Path("d.jsonl").write_bytes(as_lines(rows))
    for reader in READERS:
        found = read(reader, "d.jsonl")
        assume(found is None or "one prompt together" not in found.told)
        if found is not None:
            numbers = {row.row for row in found.rows} | {skip.row for skip in found.skipped}
            assert numbers == set(range(1, len(rows) + 1))
            assert not {row.row for row in found.rows} & {skip.row for skip in found.skipped}


# ---- what is right is read as it stands ----------------------------------------------------------------------------

letters = some.text(some.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20)
answers = letters.filter(lambda text: text.strip() and not text.lstrip().startswith(("[", "{", "Human:")))


@some.composite
def dialogues(draw: Any) -> tuple[tuple[Message, ...], str, str]:
    turns = draw(some.integers(0, 2))
    said = [Message(("user", "assistant")[i % 2], draw(answers)) for i in range(2 * turns + 1)]
    system = [Message("system", draw(answers))] if draw(some.booleans()) else []
    chosen, rejected = draw(answers), draw(answers)
    return (*system, *said), chosen, rejected


def turns_of(prompt: tuple[Message, ...]) -> list[dict[str, str]]:
    return [{"role": turn.role, "content": turn.content} for turn in prompt]


def a_turn(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


SPEAKERS = {"user": "human", "assistant": "gpt", "system": "system"}
WRITERS: dict[str, Callable[[Any, str, str], dict[str, Any]]] = {
    "pairs": lambda p, c, r: {"prompt": turns_of(p), "chosen": [a_turn(c)], "rejected": [a_turn(r)]},
    "dialogues": lambda p, c, r: {"chosen": [*turns_of(p), a_turn(c)], "rejected": [*turns_of(p), a_turn(r)]},
    "sharegpt": lambda p, c, r: {
        "conversations": [{"from": SPEAKERS[turn.role], "value": turn.content} for turn in p],
        "chosen": {"from": "gpt", "value": c},
        "rejected": {"from": "gpt", "value": r},
    },
    "openai": lambda p, c, r: {
        "input": {"messages": turns_of(p)},
        "preferred_output": [a_turn(c)],
        "non_preferred_output": [a_turn(r)],
    },
    "swift": lambda p, c, r: {"messages": [*turns_of(p), a_turn(c)], "rejected_response": r},
    "verdict": lambda p, c, r: {"messages": turns_of(p), "response_a": r, "response_b": c, "winner": "b"},
    "answers": lambda p, c, r: {
        "prompt": turns_of(p), "completions": [{"response": r, "score": 1}, {"response": c, "score": 2}]
    },
}  # fmt: skip


@pytest.mark.parametrize("shape", WRITERS)
@pytest.mark.parametrize("name", ["d.jsonl", "d.json", "d.jsonl.gz", "d.csv"])
def test_every_shape_in_every_container_is_read_as_it_was_written(shape: str, name: str) -> None:
    @settings(tried, max_examples=max(8, FILES // 30))
    @given(some.lists(dialogues(), min_size=1, max_size=3))
    def holds(pairs: list[tuple[tuple[Message, ...], str, str]]) -> None:
        Path(name).write_bytes(CONTAINERS[name]([WRITERS[shape](*pair) for pair in pairs]))
        assert [(row.prompt, row.chosen, row.rejected) for row in read_pairs(name).rows] == pairs

    holds()
