"""Every format people have is read; what is wrong with a file is told in one sentence that says where."""

import csv
import gzip
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pairtune import progress
from pairtune.data import files
from pairtune.data.asked import Asked
from pairtune.data.check import check_unread
from pairtune.data.files import KNOWN, data_hash
from pairtune.data.schema import Demonstration, Labelled, Message, Pair, Prompt, Rows, Skipped
from pairtune.data.sources import has_labels, read_demonstrations, read_labelled, read_pairs, read_prompts
from pairtune.data.wording import quoted
from pairtune.errors import InputError

TEXT = {"prompt": "The film", "chosen": " was good.", "rejected": " was bad.\u2028Very."}
USER, GOOD, POOR = (
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello!"},
    {"role": "assistant", "content": "What?"},
)
HI = (Message("user", "Hi"),)
HH = "\n\nHuman: Hi\n\nAssistant: Hello!\n\nHuman: Why?\n\nAssistant:"
WHY = (Message("user", "Hi"), Message("assistant", "Hello!"), Message("user", "Why?"))


pytestmark = pytest.mark.usefixtures("inside")


def write_lines(path: Any, *rows: Any) -> Any:
    text = "".join((row if isinstance(row, str) else json.dumps(row, ensure_ascii=False)) + "\n" for row in rows)
    with open(path, "wb") as file:
        file.write(text.encode("utf-8"))
    return str(path)


def message_of(read: Any, *arguments: Any, **options: Any) -> Any:
    with pytest.raises(InputError) as error:
        read(*arguments, **options)
    return str(error.value)


# ---- the formats


@pytest.mark.parametrize(
    ("row", "pair"),
    [
        (TEXT, Pair("The film", " was good.", " was bad.\u2028Very.", 1)),
        ({"chosen": HH + " Because.", "rejected": HH + "No. \n"}, Pair(WHY, "Because.", "No.", 1)),
        (
            {"chosen": "Human: Hi\r\n\r\nAssistant: A", "rejected": "\n\nHuman: Hi\n\nAssistant: B\n\nC"},
            Pair(HI, "A", "B\n\nC", 1),
        ),
        ({"chosen": [USER, GOOD], "rejected": [USER, POOR]}, Pair(HI, "Hello!", "What?", 1)),
        (
            {"prompt": "Hi", "chosen": [USER, GOOD], "rejected": [USER, POOR], "score": 3},
            Pair(HI, "Hello!", "What?", 1),
        ),
        ({"prompt": "Hi", "chosen": [GOOD], "rejected": [POOR]}, Pair(HI, "Hello!", "What?", 1)),
        ({"prompt": [USER], "chosen": [GOOD], "rejected": [POOR]}, Pair(HI, "Hello!", "What?", 1)),
        (
            {"prompt": [USER], "chosen": [USER, GOOD], "rejected": [USER, POOR]},
            Pair(HI, "Hello!", "What?", 1),
        ),
        ({"prompt": [USER], "chosen": "Hello!", "rejected": "What?"}, Pair(HI, "Hello!", "What?", 1)),
        (
            {
                "prompt": "Hi",
                "chosen": [USER, POOR, {"role": "user", "content": "Hm"}, GOOD],
                "rejected": [USER, POOR, {"role": "user", "content": "Hm"}, POOR],
            },
            Pair((*HI, Message("assistant", "What?"), Message("user", "Hm")), "Hello!", "What?", 1),
        ),
    ],
)
def test_formats_of_pairs(row: Any, pair: Any) -> None:
    source = write_lines("d.jsonl", row)
    assert read_pairs(source) == Rows((pair,), ())
    assert read_demonstrations(source).rows == (Demonstration(pair.prompt, pair.chosen, 1),)
    assert read_prompts(source).rows == (Prompt(pair.prompt, 1),)


@pytest.mark.parametrize(
    ("row", "demonstration"),
    [
        ({"prompt": "p", "response": " r", "chosen": "c"}, Demonstration("p", " r", 1)),
        ({"prompt": "p", "completion": "r"}, Demonstration("p", "r", 1)),
        ({"prompt": [USER], "completion": [GOOD]}, Demonstration(HI, "Hello!", 1)),
        ({"messages": [USER, GOOD]}, Demonstration(HI, "Hello!", 1)),
        ({"prompt": "Hi", "messages": [USER, GOOD]}, Demonstration(HI, "Hello!", 1)),
    ],
)
def test_formats_of_demonstrations(row: Any, demonstration: Any) -> None:
    assert read_demonstrations(write_lines("d.jsonl", row)) == Rows((demonstration,), ())


@pytest.mark.parametrize(
    ("row", "label"),
    [
        ({"prompt": "Hi", "response": "Hello!", "label": True}, True),
        ({"prompt": "Hi", "completion": "Hello!", "label": 0}, False),
        ({"prompt": [USER], "completion": [GOOD], "label": False}, False),
        ({"prompt": "Hi", "response": "Hello!", "label": "True"}, True),
        ({"prompt": "Hi", "response": "Hello!", "label": "0"}, False),
        ({"prompt": "Hi", "response": "Hello!", "label": 1.0}, True),
        ({"prompt": "Hi", "response": "Hello!", "label": 0.0}, False),
        ({"prompt": "Hi", "response": "Hello!", "label": "1.0"}, True),
        ({"prompt": "Hi", "response": "Hello!", "label": -1.0}, False),
        ({"prompt": "Hi", "response": "Hello!", "label": "+1"}, True),
        ({"prompt": "Hi", "response": "Hello!", "label": "thumbs_down"}, False),
    ],
)
def test_formats_of_labelled_responses(row: Any, label: Any) -> None:
    source = write_lines("d.jsonl", row)
    prompt = HI if isinstance(row["prompt"], list) else "Hi"
    assert read_labelled(source) == Rows((Labelled(prompt, "Hello!", label, 1),), ())
    assert has_labels(source)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "p", "response": "r"}, 'no column "label"; the columns are "prompt", "response"'),
        ({"prompt": "p", "text": "r", "label": True}, 'no column "response" or "completion"'),
        (
            {"prompt": "p", "response": "r", "label": "grand"},
            '"label" is "grand"; it must be true (desirable) or false',
        ),
        ({"prompt": "p", "response": "r", "label": 2}, '"label" is 2; it must be true'),
        ({"prompt": "p", "response": "r", "label": 0.5}, '"label" is 0.5; it must be true'),
        ({"prompt": "p", "response": "r", "label": None}, '"label" is null; it must be true'),
        ({"prompt": "p", "response": "r", "label": [True]}, '"label" is a list; it must be true'),
        ({"prompt": "p", "response": " ", "label": True}, '"response" is empty'),
    ],
)
def test_what_is_wrong_with_a_labelled_row(row: Any, message: Any) -> None:
    assert message in message_of(read_labelled, write_lines("d.jsonl", row))


def test_pairs_are_not_taken_for_labelled_responses() -> None:
    assert not has_labels(write_lines("d.jsonl", {"prompt": "p", "chosen": "a", "rejected": "b", "label": True}))
    assert not has_labels(write_lines("e.jsonl", {"prompt": "p", "response": "a"}))


@pytest.mark.parametrize(
    ("row", "prompt"),
    [({"prompt": "p"}, "p"), ({"prompt": [USER], "label": None}, HI), ({"messages": [USER, GOOD]}, HI)],
)
def test_formats_of_prompts(row: Any, prompt: Any) -> None:
    assert read_prompts(write_lines("d.jsonl", row)) == Rows((Prompt(prompt, 1),), ())


CALL = {
    "role": "assistant",
    "content": None,
    "tool_calls": [{"function": {"name": "f", "arguments": {"b": 1, "a": [2]}}}],
}
TOOL = {"type": "function", "function": {"name": "f"}}


def test_turns_keep_all_their_fields() -> None:
    """A call may stand for the answer's text; null fields are none."""
    turns = [USER | {"name": "Ann", "weight": None}, CALL, {"role": "tool", "content": "5", "tool_call_id": "1"}]
    answer = GOOD | {"reasoning_content": "Hm. é"}
    source = write_lines("d.jsonl", {"messages": [*turns, answer], "tools": [TOOL]}, {"messages": [USER, CALL]})
    first, second = read_demonstrations(source).rows
    assert [turn.fields() for turn in first.prompt] == [
        USER | {"name": "Ann"},
        {"role": "assistant", "tool_calls": CALL["tool_calls"]},
        turns[2],
    ]
    assert first.response.fields() == answer
    assert json.loads(first.beside) == {"tools": [TOOL]}
    assert second.response.fields() == {"role": "assistant", "tool_calls": CALL["tool_calls"]}
    assert second.beside == ""
    assert read_prompts(source).rows[0] == Prompt(first.prompt, 1, first.beside)


def test_pairs_whose_prompts_differ_in_a_call_only_are_not_of_one_prompt() -> None:
    other = CALL | {"tool_calls": [{"function": {"name": "g", "arguments": {}}}]}
    turn = {"role": "tool", "content": "5"}
    sides = {"chosen": [USER, CALL, turn, GOOD], "rejected": [USER, other, turn, POOR]}
    assert "different prompts" in message_of(read_pairs, write_lines("d.jsonl", sides))


@pytest.mark.parametrize(
    ("row", "prompt"),
    [
        (
            {"system": "Be brief.", "prompt": "Hi", "chosen": "a", "rejected": "b"},
            (Message("system", "Be brief."), *HI),
        ),
        (
            {"system": "Be brief.", "prompt": [USER], "chosen": "a", "rejected": "b"},
            (Message("system", "Be brief."), *HI),
        ),
        (
            {"system": "Be brief.", "chosen": [USER, GOOD], "rejected": [USER, POOR]},
            (Message("system", "Be brief."), *HI),
        ),
        ({"system": "Be brief.", "chosen": HH + " A", "rejected": HH + " B"}, (Message("system", "Be brief."), *WHY)),
        (
            {
                "system": "Be brief.",
                "prompt": [{"role": "system", "content": "Be brief."}, USER],
                "chosen": "a",
                "rejected": "b",
            },
            (Message("system", "Be brief."), *HI),
        ),
        ({"system": None, "prompt": "Hi", "chosen": "a", "rejected": "b"}, HI),
        (
            {"system_prompt": "Be brief.", "prompt": "Hi", "chosen": "a", "rejected": "b"},
            (Message("system", "Be brief."), *HI),
        ),
        ({"tools": None, "prompt": "Hi", "chosen": "a", "rejected": "b"}, HI),
    ],
)
def test_a_system_column_is_the_first_turn(row: Any, prompt: Any) -> None:
    source = write_lines("d.jsonl", row)
    assert read_pairs(source).rows[0].prompt == prompt
    assert read_demonstrations(source).rows[0].prompt == prompt
    assert read_prompts(source).rows[0].prompt == prompt


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {"system": "A", "prompt": [{"role": "system", "content": "B"}, USER], "chosen": "a", "rejected": "b"},
            'there is a "system" column and a system turn, and they differ; keep one of them',
        ),
        (TEXT | {"system": 3}, '"system" is a number where text belongs; make it a string'),
        (TEXT | {"tools": "search"}, '"tools" is text that is not JSON; give a list of tools'),
        (TEXT | {"tools": {"a": 1}}, '"tools" is no list of tools; a tool is an object, as a chat template takes it'),
        (TEXT | {"tools": [3]}, '"tools" is no list of tools; a tool is an object, as a chat template takes it'),
        (
            '{"prompt": [{"role": "user", "content": "x", "name": "\\ud800"}], "chosen": "a", "rejected": "b"}',
            '"prompt" turn 1 holds something that JSON cannot; make it text, numbers and lists',
        ),
    ],
)
def test_what_is_wrong_with_system_and_tools(row: Any, message: Any) -> None:
    assert message_of(read_pairs, write_lines("d.jsonl", row)) == f"d.jsonl line 1: {message}"


def test_columns_that_look_like_content_and_are_not_read_are_named_once() -> None:
    row = TEXT | {"input": "A whole text.", "history": "Some.", "id": "x1", "score": 3, "source": "web", "notes": ""}
    reading = read_pairs(write_lines("d.jsonl", row, TEXT | {"context": "More text."}, row))
    assert reading.unread == ("input", "history", "context")
    (finding,) = check_unread(reading.unread)
    assert finding.message == (
        'columns "input", "history", "context" are not read; what belongs to the prompt has to stand in it'
    )
    same = [{"role": "user", "content": TEXT["prompt"]}, GOOD]
    assert read_pairs(write_lines("e.jsonl", TEXT | {"label": True, "messages": same})).unread == ()
    assert read_pairs(
        write_lines("e.jsonl", TEXT | {"messages": [{"role": "user", "content": "Else?"}, GOOD]})
    ).unread == ("messages",)


def test_rows_of_dialogues_that_cannot_be_used_are_left_out_and_told() -> None:
    whole = {"chosen": HH + " Because.", "rejected": HH + " No."}
    source = write_lines(
        "hh.jsonl",
        whole,
        whole | {"rejected": "\n\nHuman: Hey\n\nAssistant: No."},
        whole | {"chosen": HH + " "},
        whole | {"rejected": HH + " No.\n\nHuman: Oh"},
        {"chosen": "\n\nAssistant: Because.", "rejected": "\n\nAssistant: No."},
        whole | {"chosen": None},
        whole,
    )
    reading = read_pairs(source)
    assert [pair.row for pair in reading.rows] == [1, 7]
    assert reading.skipped == (
        Skipped(2, '"chosen" and "rejected" have different prompts'),
        Skipped(3, 'the last answer in "chosen" is empty'),
        Skipped(4, '"rejected" does not end with an assistant turn'),
        Skipped(5, '"chosen" has no prompt before the answer'),
        Skipped(6, '"chosen" is null'),
    )
    assert [prompt.row for prompt in read_prompts(source).rows] == [1, 7]
    assert [row.row for row in read_demonstrations(source).rows] == [1, 2, 4, 7]  # "rejected" does not matter


def test_nothing_left_is_an_error() -> None:
    source = write_lines("hh.jsonl", {"chosen": HH, "rejected": HH + " No."})
    assert message_of(read_pairs, source) == (
        'hh.jsonl: its one row cannot be used (row 1: the last answer in "chosen" is empty); give another source'
    )


# ---- the containers


def write_json(path: Any, rows: Any) -> None:
    with open(path, "w", encoding="utf-8") as file:
        json.dump(rows, file, indent=1)


def write_gzip(path: Any, rows: Any) -> None:
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def write_csv(path: Any, rows: Any) -> None:
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def write_parquet(path: Any, rows: Any) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.Table.from_pylist(rows), path)


@pytest.mark.parametrize(
    ("name", "write", "rows"),
    [
        ("a.jsonl", lambda path, rows: write_lines(path, *rows), [1, 2]),
        ("a.JSONL.gz", write_gzip, [1, 2]),
        ("a.json", write_json, [1, 2]),
        ("lines.json", lambda path, rows: write_lines(path, *rows), [1, 2]),
        ("a.csv", write_csv, [2, 4]),  # the first row holds a line break
        ("a.parquet", write_parquet, [1, 2]),
    ],
)
def test_containers(name: Any, write: Any, rows: Any, tmp_path: Path) -> None:
    write(tmp_path / name, [TEXT | {"prompt": "Two\nlines, é"}, TEXT])
    first, second = read_pairs(name).rows
    assert first == Pair("Two\nlines, é", TEXT["chosen"], TEXT["rejected"], rows[0])
    assert second == Pair(*TEXT.values(), rows[1])
    assert read_pairs(".").rows == (first, second)  # a folder that holds one file


def test_parquet_drops_what_the_container_put_into_turns() -> None:
    """All structs of a column have the same keys there; what a turn or an argument has not is null."""
    call = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": {"a": 1}}}]}
    other = {"role": "assistant", "content": "x", "tool_calls": [{"function": {"name": "g", "arguments": {"b": 2}}}]}
    write_parquet("a.parquet", [{"messages": [USER, call, other, GOOD]}])
    (demonstration,) = read_demonstrations("a.parquet").rows
    assert [turn.fields() for turn in demonstration.prompt] == [USER, call, other]


def test_parquet_keeps_messages(tmp_path: Path) -> None:
    write_parquet("a.parquet", [{"prompt": "Hi", "chosen": [USER, GOOD], "rejected": [USER, POOR]}] * 3)
    assert read_pairs("a.parquet").rows == tuple(Pair(HI, "Hello!", "What?", row) for row in (1, 2, 3))


def test_a_byte_order_mark_blank_lines_and_windows_line_ends_are_tolerated(tmp_path: Path) -> None:
    line = json.dumps(TEXT).encode()
    (tmp_path / "a.jsonl").write_bytes(b"\xef\xbb\xbf" + line + b"\r\n\r\n" + line)
    (tmp_path / "a.csv").write_bytes(b"\xef\xbb\xbfprompt,chosen,rejected\r\n\r\nx,a,b\r\n")
    assert [pair.row for pair in read_pairs("a.jsonl").rows] == [1, 3]
    assert read_pairs("a.csv").rows == (Pair("x", "a", "b", 3),)


def test_a_long_csv_field_is_read_and_the_limit_put_back(tmp_path: Path) -> None:
    before = csv.field_size_limit(1000)
    (tmp_path / "a.csv").write_text(f"prompt,chosen,rejected\nx,{'a' * 200_000},b\n", encoding="utf-8")
    assert len(read_pairs("a.csv").rows[0].chosen) == 200_000
    assert csv.field_size_limit(before) == 1000


# ---- what is wrong with a row


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            TEXT | {"rejected": " \n"},
            '"rejected" is empty; every response needs text - remove the row or fill it in',
        ),
        (TEXT | {"prompt": ""}, '"prompt" is empty; every row needs a prompt - remove the row or fill it in'),
        (
            TEXT | {"prompt": []},
            '"prompt" is an empty list; a dialogue needs turns - remove the row or fill it in',
        ),
        (
            TEXT | {"chosen": None},
            '"chosen" is null; every row needs text there - remove the row or fill it in',
        ),
        (TEXT | {"chosen": 3}, '"chosen" is a number where text belongs; make it a string'),
        (TEXT | {"chosen": True}, '"chosen" is true or false where text belongs; make it a string'),
        (TEXT | {"chosen": {"a": 1}}, '"chosen" is an object where text belongs; make it a string'),
        (TEXT | {"chosen": [GOOD]}, '"chosen" is a list but "rejected" is text; give both the same form'),
        (
            '{"prompt": "p", "chosen": "\\ud800", "rejected": "b"}',
            '"chosen" has half a surrogate pair (\\ud800), which no tokenizer can read',
        ),
        (
            {"prompt": "p", "chosn": "a", "rejected": "b"},
            'no column "chosen"; the columns are "prompt", "chosn", "rejected" '
            '- if it is "chosn": --columns chosen=chosn',
        ),
        ({"a\x1b[31m": 1}, 'no column "chosen"; the columns are "a\\x1b[31m"'),
        ({}, 'no column "chosen"; the columns are none'),
        (
            {"chosen": "a", "rejected": "b"},
            'no column "prompt", and "chosen" is not a dialogue that starts with "Human:"; the columns are '
            '"chosen", "rejected" - add the prompt to every row',
        ),
        (
            {"chosen": ["a"], "rejected": [USER]},
            '"chosen" turn 1 is text; a turn is {"role": ..., "content": ...}',
        ),
        (
            {"chosen": [USER, {"from": "gpt", "words": "x"}], "rejected": [USER]},
            '"chosen" turn 2 has no "role"; its keys are "from", "words"',
        ),
        (
            {"chosen": [USER, GOOD | {"content": ["x"]}], "rejected": [USER, POOR]},
            '"chosen" turn 2 content part 1 is no part; one is {"type": "text", "text": ...}',
        ),
        (
            {"prompt": "Bye", "chosen": [USER, GOOD], "rejected": [USER, POOR]},
            '"chosen" does not contain its "prompt"; a dialogue starts with its prompt (--columns other=prompt takes '
            "the dialogues alone) - remove the row or fill it in",
        ),
        ('["a"]', 'not a JSON object; a row looks like {"prompt": "...", "chosen": "..."}'),
        ('{"prompt": "p" "chosen"}', "not JSON (Expecting ',' delimiter at column 16); mend or remove it"),
        (
            '{"prompt": "p", "prompt": "q"}',
            'not usable JSON ("prompt" stands there twice); mend or remove it',
        ),
    ],
)
def test_what_is_wrong_with_a_row_names_its_line_and_field(row: Any, message: Any) -> None:
    assert message_of(read_pairs, write_lines("pairs.jsonl", TEXT, "", row)) == f"pairs.jsonl line 3: {message}"


@pytest.mark.parametrize(
    ("read", "message"),
    [
        (
            read_demonstrations,
            'no column "response" or "completion" or "messages" or "chosen"; the columns are "promt", "answer"',
        ),
        (
            read_prompts,
            'no column "prompt"; the columns are "promt", "answer" - if it is "promt": --columns prompt=promt',
        ),
    ],
)
def test_missing_columns_of_the_other_readers(read: Any, message: Any) -> None:
    source = write_lines("d.jsonl", {"promt": "p", "answer": "a"})
    assert message_of(read, source) == f"d.jsonl line 1: {message}"


def test_json_nested_too_deep_is_one_sentence() -> None:
    said = message_of(read_pairs, write_lines("deep.jsonl", "[" * 200_000))
    assert said.startswith("deep.jsonl line 1: not usable JSON (maximum recursion depth exceeded")
    assert "\n" not in said


# ---- what is wrong with a file


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("e.jsonl", b"", "e.jsonl: there are no rows in it; give a source that has some"),
        ("e.json", b"[]", "e.json: there are no rows in it; give a source that has some"),
        ("e.csv", b"", "e.csv: there are no rows in it; give a source that has some"),
        ("e.csv", b"prompt,chosen,rejected\n", "e.csv: there are no rows in it; give a source that has some"),
        (
            "u.jsonl",
            b'{"prompt": "p", "chosen": "a", "rejected": "b"}\n{"prompt": "\xff"}\n',
            "u.jsonl line 2: not UTF-8 (byte 0xff at offset 60); save the file as UTF-8",
        ),
        (
            "a.json",
            b'[{"prompt": "p", "chosen": "a", "rejected": "b"},\n 3]',
            'a.json row 2: not a JSON object; a row looks like {"prompt": "...", "chosen": "..."}',
        ),
        (
            "a.json",
            b"[\n{},\n}",
            "a.json line 3: not JSON (Expecting value at column 1); mend or remove it",
        ),
        (
            "d.csv",
            b"prompt,chosen,chosen\nx,a,b\n",
            'd.csv line 1: two columns are named "chosen"; rename or remove one',
        ),
        (
            "d.csv",
            b"prompt,chosen,rejected\nx,a,b\ny,a,b,c\n",
            "d.csv line 3: 4 fields where the header has 3; put quotes around text that holds commas or line breaks",
        ),
        (
            "d.csv",
            b'prompt,chosen,rejected\nx,a,b\ny,"a,b\nz,a,b\n',
            "d.csv line 3: not CSV (unexpected end of data); check the quotes from there on",
        ),
        (
            "d.csv",
            b'prompt,chosen,rejected\n"x\ny",a,\n',
            'd.csv line 2: "rejected" is empty; every response needs text - remove the row or fill it in',
        ),
        (
            "g.jsonl.gz",
            b"plain",  # what is zipped is told by the content
            "g.jsonl.gz line 1: not JSON (Expecting value at column 1); mend or remove it",
        ),
        (
            "g.jsonl.gz",
            gzip.compress(b'{"prompt": "p", "chosen": "a", "rejected": "b"}\n', mtime=0)[:-12],
            "g.jsonl.gz: cannot be read (Compressed file ended before the end-of-stream marker was reached); "
            "check or replace the file",
        ),
        ("t.txt", b"x", f'"t.txt" is not a kind of file that can be read; give {KNOWN}'),
    ],
)
def test_what_is_wrong_with_a_file(name: Any, content: Any, message: Any, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    assert message_of(read_pairs, name) == message


def test_a_file_that_is_not_parquet(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    (tmp_path / "a.parquet").write_bytes(b"no such thing here")
    said = message_of(read_pairs, "a.parquet")
    assert said.startswith("a.parquet: not a sound Parquet file (")
    assert "\n" not in said


def test_a_number_in_a_parquet_column() -> None:
    write_parquet("a.parquet", [TEXT, TEXT])
    write_parquet("b.parquet", [TEXT | {"chosen": 1}])
    said = message_of(read_pairs, "b.parquet")
    assert said == 'b.parquet row 1: "chosen" is a number where text belongs; make it a string'


@pytest.mark.parametrize("source", ["gone.jsonl", "./gone", "/gone/too", "a/b/c", "gone.csv.gz", "-x"])
def test_a_path_that_does_not_exist_never_reaches_the_hub(source: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)  # importing it would fail
    expected = f'"{source}" does not exist; check the path (it is relative to the current folder)'
    assert message_of(read_pairs, source) == expected


def test_a_misspelt_path_is_told_with_its_neighbour(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    (tmp_path / "data").mkdir()
    write_lines("data/pairs.jsonl", TEXT)
    for source in ("data/pair.jsonl", "data/pairs", "data/Pairs.json"):  # below a folder that is here: no hub name
        assert message_of(read_pairs, source) == f'"{source}" does not exist; did you mean "data/pairs.jsonl"?'
    assert message_of(read_pairs, "date/pairs.jsonl").endswith('did you mean "data"?')


def test_a_hub_that_does_not_answer_is_asked_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = []

    def ask(self: Any, name: Any, timeout: Any) -> None:
        asked.append((name, timeout))
        raise OSError("no route to the hub")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", ask)
    config = SimpleNamespace(HF_DATASETS_CACHE=tmp_path / "cache")
    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(config=config, load_dataset=lambda *_, **__: [TEXT]))
    write_lines("mine.jsonl", TEXT)
    said = 'dataset "mine" is no file or folder here, and the hub cannot be reached; did you mean "mine.jsonl"?'
    assert message_of(read_pairs, "mine") == said
    assert asked == [("mine", 10.0)]
    (tmp_path / "cache" / "a___b").mkdir(parents=True)  # downloaded before
    assert len(read_pairs("a/b").rows) == 1


def test_folders(tmp_path: Path) -> None:
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "README.md").write_text("x", encoding="utf-8")
    assert message_of(read_pairs, "f") == f'folder "f" holds no data; give {KNOWN}'
    for name in ("b.csv", "a.jsonl"):
        (tmp_path / "f" / name).write_text("", encoding="utf-8")
    said = message_of(read_pairs, "f")
    assert said == 'folder "f" holds 2 data files ("a.jsonl", "b.csv"); give one of them'


@pytest.mark.parametrize("what", ["config", "split", "revision"])
def test_a_file_has_nothing_that_only_the_hub_has(what: str) -> None:
    source = write_lines("a.jsonl", TEXT)
    assert message_of(read_pairs, source, asked=Asked(**{f"data_{what}": "test"})) == (
        f'a.jsonl: only a hub dataset has a {what} ("test"); leave out --data-{what}'
    )


@pytest.mark.parametrize("source", ["", "  ", "a\0b"])
def test_what_is_no_name_at_all(source: Any) -> None:
    said = message_of(read_pairs, source)
    assert said == f"{quoted(source)} is not a data source; give {KNOWN}, or the name of a hub dataset"


# ---- the hub


def put_hub(monkeypatch: pytest.MonkeyPatch, load: Any) -> None:
    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load))


def test_a_hub_dataset_is_asked_for_by_what_was_said_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    put_hub(monkeypatch, lambda *names, **options: asked.append((names, options)) or [TEXT])
    assert read_pairs("someone/pairs", asked=Asked(data_split="test[:1]")).rows == (Pair(*TEXT.values(), 1),)
    read_pairs("someone/pairs", asked=Asked(data_config="en", data_revision="v1.0"))
    assert asked == [
        (("someone/pairs",), {"split": "test[:1]"}),
        (("someone/pairs",), {"split": "train", "name": "en", "revision": "v1.0"}),
    ]


def test_what_of_a_hub_dataset_is_read_is_a_part_of_its_hash() -> None:
    ways = [{}, {"data_config": "en"}, {"data_split": "en"}, {"data_revision": "en"}]
    hashes = [data_hash("someone/pairs", Asked(**way)) for way in ways]
    assert len(set(hashes)) == 4
    assert hashes[0] == data_hash("someone/pairs") == "hub:someone/pairs"


def test_rows_of_a_hub_dataset_that_cannot_be_used_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    put_hub(monkeypatch, lambda *_, **__: [TEXT, TEXT | {"chosen": ""}, TEXT | {"rejected": None}])
    reading = read_pairs("pairs")
    assert [pair.row for pair in reading.rows] == [1]
    assert reading.skipped == (Skipped(2, '"chosen" is empty'), Skipped(3, '"rejected" is null'))


def test_what_is_malformed_on_the_hub_names_the_dataset_and_the_row(monkeypatch: pytest.MonkeyPatch) -> None:
    put_hub(monkeypatch, lambda *_, **__: [TEXT, TEXT | {"chosen": 1}])
    expected = 'dataset "a/b" row 2: "chosen" is a number where text belongs; make it a string'
    assert message_of(read_pairs, "a/b") == expected


def test_a_hub_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: Any, **__: Any) -> None:
        raise ConnectionError("no route\x1b[31m\nand more")

    put_hub(monkeypatch, load)
    assert message_of(read_pairs, "a/b") == (
        'dataset "a/b", split "train", cannot be loaded (ConnectionError: no route\\x1b[31m); '
        f"check its name, the split and the network, or give {KNOWN}"
    )


# ---- hostile text in messages


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain é", '"plain é"'),
        ('a"b\\n', '"a\\"b\\\\n"'),
        ("\x1b[31m\n\u202e\x00", '"\\x1b[31m\\n\\u202e\\x00"'),
        ("\ud800", '"\\ud800"'),
        ("x" * 41, '"' + "x" * 37 + '..."'),
    ],
)
def test_quoted_text_is_short_and_printable(text: Any, shown: Any) -> None:
    assert quoted(text) == shown
    assert shown.isprintable()


def test_how_far_reading_is_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "LINE_EVERY", 0)
    path = tmp_path / "pairs.jsonl"
    row = json.dumps({"prompt": "Q" * 3900, "chosen": "this", "rejected": "that"})
    path.write_text(f"{row}\n" * 1000, encoding="utf-8")
    size = path.stat().st_size
    assert len(read_pairs(str(path)).rows) == 1000
    told = [line.split()[2].split("/") for line in capsys.readouterr().err.splitlines() if "reading, kB" in line]
    done = [int(part.rstrip(",")) for part, _ in told]
    assert {int(total.rstrip(",")) for _, total in told} == {size // 1000}
    assert done == sorted(done)
    assert done[-1] == pytest.approx(size * 769 / 1000 / 1000, rel=0.02)  # told at rows 1, 257, 513 and 769


def test_several_ranks_cannot_share_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    files._standard_input.cache_clear()
    with pytest.raises(InputError, match="several ranks cannot read standard input together"):
        files.local_files("-")
