"""A prompt that ends with the assistant's turn has begun the answer, which goes on with that turn."""

import json
from pathlib import Path
from typing import Any

import pytest

from pairtune.data.check import check_pairs
from pairtune.data.schema import Message, Prompt
from pairtune.data.sources import read_demonstrations, read_labelled, read_pairs, read_prompts
from pairtune.data.tokenize import encode_demonstrations, encode_pairs, encode_prompts
from pairtune.data.writing import NO_TEMPLATE, PARTED, SHORTENED
from pairtune.errors import InputError
from tests.chat.dialogues import ANSWER, ASK, CALL, SYSTEM, TOOLS, WEATHER, WHY
from tests.chat.formats import CHATML, FORMATS, GEMMA1, LLAMA2, QWEN3, QWEN25, Format
from tests.chat.tokenizers_of import MAKES, tokenizer_of

BEGUN = {"role": "assistant", "content": "That was"}
REST = [" Jane Austen.", " Emma's author?\n\nI do not know."]


def truth(tokenizer: Any, messages: list[dict[str, Any]], **more: Any) -> list[int]:
    """The ids of the chat template, by transformers alone."""
    return list(tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False, **more))


def written(*rows: dict[str, Any]) -> str:
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return "rows.jsonl"


def as_answer(text: str) -> list[dict[str, Any]]:
    return [{"role": "assistant", "content": text}]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("make", MAKES)
@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
def test_the_answer_is_the_rest_of_the_turn(form: Format, make: str) -> None:
    """In every format, and alike in pairs, demonstrations, labelled responses and prompts."""
    tokenizer = tokenizer_of(make, form)
    asked = [ASK, ANSWER, WHY, BEGUN]
    given = {"prompt": asked, "chosen": as_answer(REST[0]), "rejected": as_answer(REST[1])}
    encoded = encode_pairs(read_pairs(written(given)).rows, tokenizer, max_tokens=999)
    (row,) = encoded.rows
    begun = truth(tokenizer, asked, continue_final_message=True)
    assert list(row.prompt) == begun
    assert encoded.remarks == {}
    for rest, response in zip(REST, row.responses, strict=True):
        whole = truth(tokenizer, [ASK, ANSWER, WHY, *as_answer(BEGUN["content"] + rest)])
        assert [*row.prompt, *response] == whole[: len(row.prompt) + len(response)]
        assert tokenizer.convert_ids_to_tokens(response[-1]) == form.turn_end
    assert encode_prompts(read_prompts(written({"prompt": asked})).rows, tokenizer, max_tokens=999) == ([begun], {})
    single = written({"prompt": asked, "response": REST[0], "label": True})
    for read in (read_demonstrations, read_labelled):
        (other,) = encode_demonstrations(read(single).rows, tokenizer, max_tokens=999).rows
        assert (other.prompt, other.responses) == (row.prompt, row.responses[:1])


def test_two_turns_of_a_whole_dialogue_are_two() -> None:
    """Where the two sides of a pair, or a file's dialogue, have one assistant's turn after another."""
    tokenizer = tokenizer_of("bytes", CHATML)
    sides = [[ASK, BEGUN, *as_answer(text)] for text in ("Jane Austen.", "Jane Eyre.")]
    pair = {"chosen": sides[0], "rejected": sides[1]}
    for given in (pair, {"prompt": [ASK], **pair}, {"prompt": [ASK, BEGUN], **pair}):
        (row,) = encode_pairs(read_pairs(written(given)).rows, tokenizer, max_tokens=999).rows
        assert list(row.prompt) == truth(tokenizer, [ASK, BEGUN], add_generation_prompt=True)
        for side, response in zip(sides, row.responses, strict=True):
            whole = truth(tokenizer, side)
            assert [*row.prompt, *response] == whole[: len(row.prompt) + len(response)]
    ((prompt,), _) = encode_prompts(read_prompts(written({"messages": sides[0]})).rows, tokenizer, max_tokens=999)
    assert prompt == list(row.prompt)


def test_a_common_beginning_within_the_answers_is_no_prompt() -> None:
    tokenizer = tokenizer_of("bytes", CHATML)
    sides = [[ASK, *as_answer(f"That was {name}")] for name in ("Jane Austen.", "Jane Eyre.")]
    (row,) = encode_pairs(
        read_pairs(written({"chosen": sides[0], "rejected": sides[1]})).rows, tokenizer, max_tokens=999
    ).rows
    assert list(row.prompt) == truth(tokenizer, [ASK], add_generation_prompt=True)


def test_a_call_is_a_turn_by_itself() -> None:
    tokenizer = tokenizer_of("bytes", QWEN25)
    given = {"prompt": [WEATHER, CALL], "response": "It rains.", "tools": TOOLS}
    (row,) = encode_demonstrations(read_demonstrations(written(given)).rows, tokenizer, max_tokens=999).rows
    assert list(row.prompt) == truth(tokenizer, [WEATHER, CALL], tools=TOOLS, add_generation_prompt=True)


def test_a_thought_and_a_call_belong_to_the_one_turn() -> None:
    tokenizer = tokenizer_of("bytes", QWEN3)
    begun = BEGUN | {"reasoning_content": "Emma is by Austen."}
    given = {"prompt": [ASK, begun], "response": [CALL], "tools": TOOLS}
    (row,) = encode_demonstrations(read_demonstrations(written(given)).rows, tokenizer, max_tokens=999).rows
    assert list(row.prompt) == truth(tokenizer, [ASK, begun], tools=TOOLS, continue_final_message=True)
    whole = truth(tokenizer, [ASK, {**CALL, **begun}], tools=TOOLS)
    assert [*row.prompt, *row.responses[0]] == whole[: len(row)]


@pytest.mark.parametrize("make", MAKES)
def test_an_end_within_a_token_is_told(make: str) -> None:
    """A space that the answer's first word takes up: the row has the template's tokens, the question its own."""
    tokenizer = tokenizer_of(make, CHATML)
    begun = BEGUN | {"content": "That was "}
    given = {"prompt": [ASK, begun], "response": "Jane Austen."}
    encoded = encode_demonstrations(read_demonstrations(written(given)).rows, tokenizer, max_tokens=999)
    (row,) = encoded.rows
    whole = truth(tokenizer, [ASK, *as_answer("That was Jane Austen.")])
    assert [*row.prompt, *row.responses[0]] == whole[: len(row)]
    asked = truth(tokenizer, [ASK, begun], continue_final_message=True)
    assert (list(row.prompt) != asked) == (PARTED in encoded.remarks)
    assert whole[: len(row.prompt)] == asked[: len(row.prompt)]
    assert len(asked) - len(row.prompt) <= 1


def test_a_template_that_alters_what_was_begun_is_one_line() -> None:
    tokenizer = tokenizer_of("bytes", CHATML)
    tokenizer.chat_template = CHATML.template.replace("m.content", "(m.content | upper)")
    source = written({"prompt": [ASK, BEGUN], "response": REST[0]})
    for encode, read in ((encode_demonstrations, read_demonstrations), (encode_prompts, read_prompts)):
        with pytest.raises(InputError) as error:
            encode(read(source).rows, tokenizer, max_tokens=999)  # type: ignore[operator]
        assert str(error.value) == (
            "rows.jsonl line 1: the chat template refuses this dialogue: "
            '"it does not write the beginning of an answer that the prompt ends with"; change the row or remove it'
        )


@pytest.mark.parametrize("make", MAKES)
def test_without_a_template_it_goes_on_likewise(make: str) -> None:
    tokenizer = tokenizer_of(make, LLAMA2)
    tokenizer.chat_template = None
    given = {"prompt": [SYSTEM, ASK, BEGUN], "response": REST[0]}
    encoded = encode_demonstrations(read_demonstrations(written(given)).rows, tokenizer, max_tokens=999)
    (row,) = encoded.rows
    text = "System: Be brief.\n\nHuman: Who wrote Emma?\n\nAssistant: That was"
    assert list(row.prompt) == tokenizer(text)["input_ids"]
    assert [*row.prompt, *row.responses[0][:-1]] == tokenizer(text + REST[0])["input_ids"]
    assert not {PARTED, *(NO_TEMPLATE.of(what) for what in ("tools", "reasoning"))} & {*encoded.remarks}


def test_what_is_shortened_still_ends_with_it() -> None:
    tokenizer = tokenizer_of("bytes", GEMMA1)
    whole = (*(Message(**turn) for turn in (ASK, ANSWER, WHY)), Message(**BEGUN, unfinished=True))
    expected = truth(tokenizer, [WHY, BEGUN], continue_final_message=True)
    (ids,), remarks = encode_prompts([Prompt(whole, 1)], tokenizer, max_tokens=len(expected))
    assert ids == expected
    assert remarks == {SHORTENED: (1,)}


def test_it_is_no_fault_of_the_data() -> None:
    given = {"prompt": [ASK, BEGUN], "chosen": as_answer(REST[0]), "rejected": as_answer(REST[1])}
    assert "turns" not in {finding.name for finding in check_pairs(read_pairs(written(given)).rows)}
