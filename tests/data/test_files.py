"""What a source's name means, and what its files are told to be by their content."""

import bz2
import gzip
import io
import json
import lzma
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pairtune.data import files
from pairtune.data.asked import Asked
from pairtune.data.files import data_hash
from pairtune.data.left_out import FILE, write_left_out
from pairtune.data.schema import Pair
from pairtune.data.sources import has_labels, read_pairs
from pairtune.errors import InputError

ROWS = [{"prompt": f"Sky {i}?", "chosen": "Blue.", "rejected": "Green,\tgrey; or so."} for i in range(4)]
PAIRS = [Pair(f"Sky {i}?", "Blue.", "Green,\tgrey; or so.", i + 1) for i in range(4)]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()


pytestmark = pytest.mark.usefixtures("inside")


def message_of(source: str, **options: Any) -> str:
    with pytest.raises(InputError) as error:
        read_pairs(source, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def texts(source: str) -> list[tuple[Any, ...]]:
    return [(pair.prompt, pair.chosen, pair.rejected) for pair in read_pairs(source).rows]


EXPECTED = [(pair.prompt, pair.chosen, pair.rejected) for pair in PAIRS]


def zstd(content: bytes) -> bytes:
    pyarrow = pytest.importorskip("pyarrow")
    sink = pyarrow.BufferOutputStream()
    with pyarrow.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    return bytes(sink.getvalue().to_pybytes())


@pytest.mark.parametrize(
    "pack", [gzip.compress, bz2.compress, lzma.compress, zstd, bytes], ids=lambda pack: pack.__name__
)
@pytest.mark.parametrize("name", ["a.jsonl", "a.ndjson", "a.jsonl.gz", "a.jsonl.zst", "a.json.xz", "a.JSONL.bz2"])
def test_what_is_zipped_is_told_by_content(pack: Any, name: str) -> None:
    Path(name).write_bytes(pack(LINES))
    assert read_pairs(name).rows == PAIRS


@pytest.mark.parametrize("pack", [bz2.compress, lzma.compress, zstd], ids=lambda pack: pack.__name__)
def test_a_zipped_file_that_is_cut_is_an_error(pack: Any) -> None:
    Path("a.jsonl").write_bytes(pack(LINES)[:-12])
    assert message_of("a.jsonl").startswith("a.jsonl: cannot be read (")


@pytest.mark.parametrize(
    "content",
    [
        ROWS,
        {"data": ROWS},
        {"version": "1.0", "rows": ROWS},
        {name: [row[name] for row in ROWS] for name in ROWS[0]},
        {name: {str(i): row[name] for i, row in enumerate(ROWS)} for name in ROWS[0]},  # as pandas writes it
    ],
)
@pytest.mark.parametrize("indent", [None, 1])
def test_the_forms_of_a_json_file(content: Any, indent: int | None) -> None:
    Path("a.json").write_text(json.dumps(content, indent=indent), encoding="utf-8")
    assert read_pairs("a.json").rows == PAIRS


def test_one_row_alone_in_a_json_file_is_no_table() -> None:
    turns = [[{"role": "user", "content": "Sky?"}, {"role": "assistant", "content": text}] for text in ("Blue.", "No.")]
    row = {"chosen": turns[0], "rejected": turns[1]}
    for indent in (None, 2):
        Path("a.json").write_text(json.dumps(row, indent=indent), encoding="utf-8")
        (pair,) = read_pairs("a.json").rows
        assert (pair.chosen, pair.rejected) == ("Blue.", "No.")


@pytest.mark.parametrize(("name", "separator"), [("a.tsv", "\t"), ("a.csv", ";"), ("a.csv", "\t"), ("a.csv", "|")])
def test_separated_by_something_else(name: str, separator: str) -> None:
    rows = [["prompt", "chosen", "rejected"], *([text.replace("\t", " ") for text in row.values()] for row in ROWS)]
    text = "".join(separator.join(f'"{cell}"' if separator in cell else cell for cell in row) + "\n" for row in rows)
    Path(name).write_text(text, encoding="utf-8")
    assert texts(name) == [(prompt, chosen, rejected.replace("\t", " ")) for prompt, chosen, rejected in EXPECTED]


@pytest.mark.parametrize("stream", [True, False])
def test_arrow(stream: bool) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    table = pyarrow.Table.from_pylist(ROWS)
    make = pyarrow.ipc.new_stream if stream else pyarrow.ipc.new_file
    with make("a.arrow", table.schema) as writer:
        writer.write_table(table, max_chunksize=2)
    assert read_pairs("a.arrow").rows == PAIRS
    Path("b.arrow").write_bytes(b"not at all")
    assert message_of("b.arrow").startswith("b.arrow: not a sound Arrow file (")


def test_what_datasets_saved_to_disk(capsys: pytest.CaptureFixture[str]) -> None:
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    whole = datasets.Dataset.from_list(ROWS)
    whole.save_to_disk("one", num_shards=2)
    datasets.DatasetDict({"train": whole, "test": whole.select([0])}).save_to_disk("parts")
    datasets.DatasetDict({"a": whole, "b": whole}).save_to_disk("others")
    assert texts("one") == texts("parts") == EXPECTED
    assert 'data: of "train", "test" in "parts", "train" is read' in capsys.readouterr().err
    assert message_of("others") == 'folder "others" holds the parts "a", "b"; give one of them'
    assert texts("others/b") == EXPECTED
    assert data_hash("parts") != data_hash("one")


@pytest.mark.parametrize(
    "state",
    ["[]", "{}", '{"_data_files": 3}', '{"_data_files": ["a"]}', '{"_data_files": [{"filename": "/etc/hosts"}]}'],
)
def test_a_saved_dataset_that_names_no_files_of_its_own(state: str) -> None:
    Path("set").mkdir()
    Path("set/state.json").write_text(state, encoding="utf-8")
    assert message_of("set") == 'folder "set" names files that are not in it; save the dataset again'
    Path("set/state.json").write_text("{", encoding="utf-8")
    assert message_of("set").startswith('"set/state.json" cannot be read (')
    Path("set/dataset_dict.json").write_text('{"splits": "train"}', encoding="utf-8")
    assert message_of("set").startswith('folder "set" holds the parts ; give')


def shards(folder: str, *names: str) -> None:
    Path(folder).mkdir(parents=True, exist_ok=True)
    for i, name in enumerate(names):
        Path(folder, name).write_bytes(b"".join(LINES.splitlines(keepends=True)[2 * i : 2 * i + 2]))


@pytest.mark.parametrize("folder", ["set", "set/data"])
def test_a_folder_of_shards(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    shards(folder, "train-00000-of-00002.jsonl", "train-00001-of-00002.jsonl")
    Path(folder, "test-00000-of-00001.jsonl").write_bytes(LINES)
    rows = read_pairs("set").rows
    assert [(pair.prompt, pair.row) for pair in rows] == [(f"Sky {i}?", i + 1) for i in range(4)]
    assert 'data: "test-00000-of-00001.jsonl" of folder' in capsys.readouterr().err
    assert not has_labels("set")
    Path(folder, "train-00001-of-00002.jsonl").write_text('{"prompt": 1}\n', encoding="utf-8")
    assert message_of("set").startswith(f'{folder}/train-00001-of-00002.jsonl line 1: no column "chosen"')


def test_a_folder_of_a_file_for_measuring_alone() -> None:
    shards("set", "test.jsonl")
    assert texts("set") == EXPECTED[:2]


def test_a_pattern() -> None:
    shards("set", "b.jsonl", "c.jsonl")
    shards("set/deep", "a.jsonl")
    assert texts("set/*.jsonl") == EXPECTED
    assert len(texts("set/**/*.jsonl")) == 6
    assert message_of("set/*.csv") == '"set/*.csv" matches no file; check the pattern'
    Path("set/b.txt").touch()
    assert message_of("set/b*").startswith('"set/b.txt" is not a kind of file that can be read')
    before = data_hash("set/*.jsonl")
    Path("set/c.jsonl").write_bytes(LINES)
    assert data_hash("set/*.jsonl") != before


@pytest.mark.parametrize("content", [LINES, json.dumps(ROWS).encode(), gzip.compress(LINES)])
def test_standard_input_may_be_read_more_than_once(content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(content)))
    files._standard_input.cache_clear()
    assert not has_labels("-")
    read = read_pairs("-")
    assert read.rows == PAIRS
    assert read.rows.origin.startswith("standard input ")  # type: ignore[attr-defined]
    assert len(data_hash("-")) == 64
    files._standard_input.cache_clear()


def test_rows_that_cannot_be_used_are_left_out_and_listed(tmp_path: Path) -> None:
    many = [{"prompt": f"{i}?", "chosen": "x", "rejected": "y"} for i in range(40)]
    many[6]["rejected"], many[29]["chosen"] = " ", ""
    Path("a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in many), encoding="utf-8")
    read = read_pairs("a.jsonl")
    assert len(read.rows) == 38
    write_left_out(tmp_path, read.skipped)
    assert [json.loads(line) for line in (tmp_path / FILE).read_text(encoding="utf-8").splitlines()] == [
        {"file": "a.jsonl", "line": 7, "reason": '"rejected" is empty'},
        {"file": "a.jsonl", "line": 30, "reason": '"chosen" is empty'},
    ]
    many[31]["prompt"] = ""  # 3 of 40
    Path("a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in many), encoding="utf-8")
    assert message_of("a.jsonl") == (
        'a.jsonl line 7: "rejected" is empty; every response needs text - remove the row or fill it in '
        "(and 2 other rows)"
    )


def test_nothing_is_left_out_where_it_is_to_be_strict() -> None:
    rows = [{"prompt": f"{i}?", "chosen": "x", "rejected": "y" if i != 30 else ""} for i in range(40)]
    Path("a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert message_of("a.jsonl", asked=Asked(strict=True)).startswith('a.jsonl line 31: "rejected" is empty')
    votes = [{"prompt": f"{i}?", "response_a": "x", "response_b": "y", "winner": "ab"[i % 2]} for i in range(4)]
    Path("b.jsonl").write_text("".join(json.dumps(r | {"winner": "tie"}) + "\n" + json.dumps(r) + "\n" for r in votes))
    assert len(read_pairs("b.jsonl", asked=Asked(strict=True)).rows) == 4, "a tie is no mistake"
