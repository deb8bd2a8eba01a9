"""What stands in a cell is what was meant: turns as JSON text are turns, and pictures are refused by name."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from pairtune.data.schema import Message, Pair
from pairtune.data.sources import read_demonstrations, read_pairs, read_prompts
from pairtune.errors import InputError
from tests.written import write

USER, GOOD, POOR = (
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello!"},
    {"role": "assistant", "content": "What?"},
)
HI = (Message("user", "Hi"),)
HUMAN, GPT, BAD = ({"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello!"}, {"from": "gpt", "value": "?"})


pytestmark = pytest.mark.usefixtures("inside")


def write_csv(row: dict[str, str]) -> str:
    with Path("d.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(row))
        writer.writeheader()
        writer.writerow(row)
    return "d.csv"


def write_parquet(row: dict[str, Any]) -> str:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.Table.from_pylist([row]), "d.parquet")
    return "d.parquet"


def message_of(read: Any, source: str) -> str:
    with pytest.raises(InputError) as error:
        read(source)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("container", [write, write_csv, write_parquet])
@pytest.mark.parametrize("prompt", ["Hi", json.dumps([USER]), None])
def test_turns_in_json_text_are_turns_in_every_container(container: Any, prompt: str | None) -> None:
    before = [] if prompt else [USER]
    row = {"chosen": json.dumps([*before, GOOD], indent=1), "rejected": json.dumps([*before, POOR])}
    (pair,) = read_pairs(container({"prompt": prompt, **row} if prompt else row)).rows
    assert (pair.prompt, pair.chosen, pair.rejected) == (HI, "Hello!", "What?")


def test_a_text_that_begins_like_turns_and_goes_on_is_text() -> None:
    said = '[{"role": "user", "content": "Hi"}] is what the API wants.'
    row = {"prompt": "How?", "chosen": said, "rejected": '{"role": 3}'}
    assert read_pairs(write(row)).rows == [Pair("How?", said, '{"role": 3}', 1)]


@pytest.mark.parametrize(
    "text",
    [
        "[{'role': 'user', 'content': 'Hi'}, {'role': 'assistant', 'content': 'Hello!'}]",
        "[{'content': 'Hi', 'role': 'user'}\n {'content': 'Hello!', 'role': 'assistant'}]",  # of an array of numpy's
        "array([{'from': 'human', 'value': 'Hi'}], dtype=object)",
    ],
)
def test_turns_as_python_prints_them_are_an_error_that_says_so(text: str) -> None:
    assert message_of(read_pairs, write_csv({"prompt": "Hi", "chosen": text, "rejected": "b"})) == (
        'd.csv line 2: "chosen" holds turns as Python prints them, which is not JSON; '
        "write them as JSON, with json.dumps"
    )


def test_a_column_with_an_odd_name_is_shown_safely() -> None:
    row = {"prompt": "p", "chosen": "a", "rejected": "b", "\x85\x1b": "[{'role': 'user'}]"}
    assert message_of(read_pairs, write(row)).startswith('d.jsonl line 1: "\\x85\\x1b" holds turns as Python prints')


def test_turns_in_broken_json_are_an_error() -> None:
    row = {"prompt": "Hi", "chosen": '[{"role": "assistant", "content": "a"b"}]', "rejected": "b"}
    assert '"chosen" looks like turns in JSON and is not JSON' in message_of(read_pairs, write_csv(row))


@pytest.mark.parametrize("as_text", [False, True])
def test_turns_of_from_and_value(as_text: bool) -> None:
    sides: Any = {"chosen": [HUMAN, GPT], "rejected": [HUMAN, BAD]}
    sides = {name: json.dumps(turns) for name, turns in sides.items()} if as_text else sides
    assert read_pairs(write(sides)).rows == [Pair(HI, "Hello!", "?", 1)]


def test_calls_and_what_they_brought_in_turns_of_from_and_value() -> None:
    call = {"from": "function_call", "value": '{"name": "add", "arguments": {"a": 1}}'}
    turns = [{"from": "system", "value": "Be brief."}, HUMAN, call, {"from": "observation", "value": "5"}, GPT]
    (row,) = read_demonstrations(write({"messages": turns})).rows
    function = {"name": "add", "arguments": {"a": 1}}
    assert isinstance(row.prompt, tuple)
    assert [turn.fields() for turn in row.prompt] == [
        {"role": "system", "content": "Be brief."},
        USER,
        {"role": "assistant", "tool_calls": [{"type": "function", "function": function}]},
        {"role": "tool", "content": "5"},
    ]
    assert row.response == "Hello!"


@pytest.mark.parametrize(
    ("turn", "said"),
    [
        (
            {"from": "narrator", "value": "x"},
            '"messages" turn 1 is from "narrator"; known are "human", "user", "prompter"',
        ),
        ({"from": "function_call", "value": "add(1)"}, '"messages" turn 1 is a call that is not JSON'),
        ({"from": "function_call", "value": "3"}, '"messages" turn 1 is no call; one is {"name": ..., "arguments"'),
    ],
)
def test_what_is_wrong_with_turns_of_from_and_value(turn: Any, said: str) -> None:
    assert said in message_of(read_demonstrations, write({"messages": [turn, GPT]}))


TEXT = {"prompt": "Hi", "chosen": "a", "rejected": "b"}


@pytest.mark.parametrize("name", ["images", "image", "audio", "videos", "image_url", "Images", "pixel_values"])
def test_what_is_not_text_is_refused_by_name(name: str) -> None:
    said = f'd.jsonl line 1: "{name}" is not text, and only text can be trained on; remove such rows'
    assert message_of(read_pairs, write(TEXT | {name: ["cat.png"]})) == said
    assert len(read_pairs(write(TEXT | {name: []}, TEXT | {name: None}, TEXT | {"imagery": "many words"})).rows) == 3


def test_what_is_not_text_within_a_turn_is_refused_by_name() -> None:
    turns = [{"role": "user", "content": "What is this?", "images": ["cat.png"]}, GOOD]
    said = 'd.jsonl line 1: "messages" turn 1 has "images", and only text can be trained on; remove such rows'
    assert message_of(read_demonstrations, write({"messages": turns})) == said
    turns[0]["images"] = []
    assert len(read_demonstrations(write({"messages": turns})).rows) == 1


@pytest.mark.parametrize("mark", ["<image>", "<audio>", "<video>", "<image_1>", "<|image_pad|>"])
def test_the_place_of_a_picture_is_refused(mark: str) -> None:
    said = f'd.jsonl line 1: the prompt has the place of something that is not text ("{mark}"); remove such rows'
    for prompt in (f"{mark}\nWhat is this?", f"What is this? {mark}"):
        assert message_of(read_pairs, write(TEXT | {"prompt": prompt})) == said
        turns = [{"role": "user", "content": prompt}, GOOD]
        assert message_of(read_demonstrations, write({"messages": turns})) == said
    assert len(read_pairs(write(TEXT | {"prompt": f"What does {mark} mean in SVG?"})).rows) == 1


def test_what_means_something_and_is_not_read_is_named_however_short_it_is() -> None:
    assert read_prompts(write(TEXT | {"weight": 0.5, "margin": None})).unread == ("weight",)
    assert read_pairs(write(TEXT | {"history": "Sky? Blue.", "input": ""})).unread == ("history",)
    assert read_pairs(write(TEXT | {"context": "Paris", "source": "web", "models": ["m", "n"]})).unread == ("context",)


def test_answers_and_wrapped_messages_in_json_text_are_what_they_say() -> None:
    """A CSV cell holds text; a row is read as it would be from JSON lines."""
    turns = [{"role": "user", "content": "Sky?"}]
    answers = [{"response": "Green.", "score": 1}, {"response": "Blue.", "score": 2}]
    expected = [Pair((Message("user", "Sky?"),), "Blue.", "Green.", 1)]
    openai = {
        "input": json.dumps({"messages": turns}),
        "preferred_output": json.dumps([{"role": "assistant", "content": "Blue."}]),
        "non_preferred_output": json.dumps([{"role": "assistant", "content": "Green."}]),
    }
    assert read_pairs(write(openai)).rows == expected
    assert read_pairs(write({"prompt": json.dumps(turns), "completions": json.dumps(answers)})).rows == expected
    beside = {"prompt": json.dumps(turns), "responses": '["Green.", "Blue."]', "scores": "[1, 2.5]"}
    assert read_pairs(write(beside)).rows == expected
    wrapped = {"prompt": json.dumps({"messages": turns}), "chosen": "Blue.", "rejected": "Green."}
    assert read_pairs(write(wrapped)).rows == expected


def test_an_answer_that_is_json_stays_text() -> None:
    for text in ("[1, 2]", '["a", "b"]', '{"score": 1, "response": "x"}', '{"messages": 3}', '{"messages": []}'):
        row = read_demonstrations(write({"instruction": "Give JSON.", "output": text})).rows[0]
        assert row.response == text
        pair = read_pairs(write({"prompt": "Give JSON.", "chosen": text, "rejected": "no"})).rows[0]
        assert pair.chosen == text
