"""Every chat format on every make of tokenizer: rows are the tokens that the chat template writes, to the last end."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pairtune.data.ends import end_ids
from pairtune.data.sources import read_demonstrations, read_pairs, read_prompts
from pairtune.data.tokenize import Remarks, encode_demonstrations, encode_pairs, encode_prompts
from pairtune.data.writing import LOST, PARTED
from pairtune.errors import InputError
from tests.chat.dialogues import ANSWER, ASK, CALL, PLAIN, SYSTEM, THINKING, TOOLS, WITH_SYSTEM, WITH_TOOLS
from tests.chat.formats import (
    DEEPSEEK_R1,
    FORMATS,
    GEMMA1,
    HARMONY,
    LLAMA2,
    MISTRAL1,
    MISTRAL3,
    MISTRAL7,
    QWEN3,
    R1_KEEPING,
    ZEPHYR,
    Format,
)
from tests.chat.tokenizers_of import MAKES, tokenizer_of

Write = Callable[..., str]
MOST = 4096


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    monkeypatch.chdir(tmp_path)

    def to_file(*rows: dict[str, Any]) -> str:
        Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return "rows.jsonl"

    return to_file


def dialogues_of(form: Format) -> dict[str, list[dict[str, Any]]]:
    """The dialogues that the format takes."""
    return {
        **PLAIN,
        **(WITH_SYSTEM if form.system else {}),
        **(WITH_TOOLS if form.tools else {}),
        **(THINKING if form.thinking else {}),
    }


def truth(tokenizer: Any, messages: list[dict[str, Any]], **more: Any) -> list[int]:
    """The ids of the chat template, by transformers alone."""
    return list(tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False, **more))


@pytest.mark.parametrize("make", MAKES)
@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
def test_rows_are_what_the_template_writes(form: Format, make: str, write: Write) -> None:
    tokenizer, dialogues = tokenizer_of(make, form), dialogues_of(form)
    tools = {"tools": TOOLS} if form.tools else {}
    source = write(*({"messages": messages, **tools} for messages in dialogues.values()))
    encoded = encode_demonstrations(read_demonstrations(source).rows, tokenizer, max_tokens=MOST)
    asked, _ = encode_prompts(read_prompts(source).rows, tokenizer, max_tokens=MOST)
    for row, prompt, (name, messages) in zip(encoded.rows, asked, dialogues.items(), strict=True):
        begun = truth(tokenizer, messages[:-1], add_generation_prompt=True, **tools)
        whole = truth(tokenizer, messages, **tools)
        (response,) = row.responses
        assert prompt == begun, name
        assert [*row.prompt, *response] == whole[: len(row)], name
        end = form.call_end if form.call_end and "tool_calls" in messages[-1] else form.turn_end
        assert tokenizer.convert_ids_to_tokens(response[-1]) == end, name
        after = tokenizer.decode(whole[len(row) :])
        assert after.replace(form.eos, "").strip() == "", name
        if whole[: len(begun)] == begun:
            assert list(row.prompt) == begun, name
        else:
            shared = next(i for i, (a, b) in enumerate(zip(begun, whole, strict=False)) if a != b)
            if form in (MISTRAL3, MISTRAL7):  # they part within the question, which is not the answer's
                said = tokenizer.decode(list(response)).lstrip()
                assert said.startswith(messages[-1]["content"].strip()), name
                assert "Paris?" not in said, name
            else:
                assert len(row.prompt) == shared, name
    if form.parted:
        assert encoded.remarks[PARTED] == tuple(range(1, len(dialogues) + 1))


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
def test_answers_end_at_what_is_declared_and_at_the_turns_end(form: Format) -> None:
    tokenizer = tokenizer_of("bytes", form)
    expected = {form.eos, form.turn_end, *form.declared}
    assert {tokenizer.convert_ids_to_tokens(i) for i in end_ids(tokenizer)} == expected
    tokenizer.chat_template = None
    expected = {form.eos, *form.declared}
    assert {tokenizer.convert_ids_to_tokens(i) for i in end_ids(tokenizer)} == expected


@pytest.mark.parametrize("make", MAKES)
@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
def test_a_pair_shares_one_prompt_and_each_side_is_the_templates(form: Format, make: str, write: Write) -> None:
    tokenizer = tokenizer_of(make, form)
    other = {"role": "assistant", "content": "\n\nNo idea."}
    source = write({"prompt": [ASK], "chosen": [ANSWER], "rejected": [other]})
    (row,) = encode_pairs(read_pairs(source).rows, tokenizer, max_tokens=MOST).rows
    for response, answer in zip(row.responses, (ANSWER, other), strict=True):
        whole = truth(tokenizer, [ASK, answer])
        assert [*row.prompt, *response] == whole[: len(row.prompt) + len(response)]
        assert tokenizer.convert_ids_to_tokens(response[-1]) == form.turn_end


def encoded(tokenizer: Any, source: str) -> tuple[str, str, Remarks]:
    """The first row's prompt and response as text, and what is said of the rows."""
    found = encode_demonstrations(read_demonstrations(source).rows, tokenizer, max_tokens=MOST)
    row = found.rows[0]
    return tokenizer.decode(list(row.prompt)), tokenizer.decode(list(row.responses[0])), found.remarks


class TestThoughts:
    """As the template renders them, wherever the file has them."""

    @pytest.mark.parametrize("name", ["a thought beside", "a thought in the text"])
    def test_they_are_written_once(self, name: str, write: Write) -> None:
        source = write({"messages": THINKING[name]})
        thought = "Emma is by Austen.\n</think>\n\nJane Austen."
        prompt, response, _ = encoded(tokenizer_of("bytes", QWEN3), source)
        assert prompt.endswith("assistant\n")
        assert response == f"<think>\n{thought}<|im_end|>"
        prompt, response, _ = encoded(tokenizer_of("bytes", R1_KEEPING), source)
        assert prompt.endswith("<|Assistant|><think>\n")
        assert response == f"{thought}<|end_of_sentence|>"

    def test_an_empty_block_is_the_answers(self, write: Write) -> None:
        prompt, response, _ = encoded(tokenizer_of("bytes", QWEN3), write({"messages": [ASK, ANSWER]}))
        assert prompt.endswith("assistant\n")
        assert response == "<think>\n\n</think>\n\nJane Austen.<|im_end|>"

    def test_what_a_template_leaves_out_is_told(self, write: Write) -> None:
        for name, what in (
            ("a thought beside", "the answer's reasoning"),
            ("a thought in the text", "a part of the answer (its reasoning, or white space)"),
        ):
            prompt, response, remarks = encoded(tokenizer_of("bytes", DEEPSEEK_R1), write({"messages": THINKING[name]}))
            assert prompt.endswith("<|Assistant|>")
            assert response.strip() == "Jane Austen.<|end_of_sentence|>"
            assert remarks == {LOST.of(what): (1,), PARTED: (1,)}

    def test_harmony_has_them_in_a_channel(self, write: Write) -> None:
        thinking = ANSWER | {"thinking": "Emma is by Austen."}  # its own name, which every transformers leaves as it is
        _, response, remarks = encoded(tokenizer_of("bytes", HARMONY), write({"messages": [ASK, thinking]}))
        assert response == (
            "<|channel|>analysis<|message|>Emma is by Austen.<|end|><|start|>assistant"
            "<|channel|>final<|message|>Jane Austen.<|return|>"
        )
        assert remarks == {}


class TestTools:
    """Handed to the template; what it does not write is told."""

    def test_a_template_that_knows_none(self, write: Write) -> None:
        rows = [
            {"messages": [ASK, ANSWER], "tools": TOOLS},
            {"messages": [ASK, CALL | {"content": "One moment."}]},
        ]
        _, _, remarks = encoded(tokenizer_of("bytes", ZEPHYR), write(*rows))
        assert remarks == {LOST.of("tools"): (1,), LOST.of("tool calls"): (2,)}

    def test_turns_that_a_template_passes_over(self, write: Write) -> None:
        tokenizer = tokenizer_of("bytes", MISTRAL1)
        tokenizer.chat_template = (
            "{% for m in messages %}{% if m.role == 'user' %}{{ '[INST] ' + m.content + ' [/INST]' }}"
            "{% elif m.role == 'assistant' %}{{ m.content + eos_token }}{% endif %}{% endfor %}"
        )
        _, _, remarks = encoded(tokenizer, write({"messages": [SYSTEM, ASK, ANSWER]}))
        assert remarks == {LOST.of("system turns"): (1,)}

    def test_tools_are_a_part_of_the_prompt_and_may_be_json_text(self, write: Write) -> None:
        form = next(form for form in FORMATS if form.name == "qwen2.5")
        tokenizer, turn = tokenizer_of("bytes", form), {"prompt": "Who wrote Emma?", "response": "Jane Austen."}
        source = write(turn | {"tools": TOOLS}, turn | {"tools": json.dumps(TOOLS)}, turn | {"tools": []})
        given, as_text, none = encode_demonstrations(read_demonstrations(source).rows, tokenizer, max_tokens=MOST).rows
        assert given == as_text != none
        assert list(given.prompt) == truth(tokenizer, [ASK], tools=TOOLS, add_generation_prompt=True)
        assert list(none.prompt) == truth(tokenizer, [ASK], add_generation_prompt=True)


class TestRefusals:
    """One line with the file, the row and the template's own words."""

    @pytest.mark.parametrize("encode", [encode_demonstrations, encode_prompts])
    def test_a_template_that_raises(self, encode: Any, write: Write) -> None:
        read = read_demonstrations if encode is encode_demonstrations else read_prompts
        source = write({"messages": [ASK, ANSWER]}, {"messages": [SYSTEM, ASK, ANSWER]})
        with pytest.raises(InputError) as error:
            encode(read(source).rows, tokenizer_of("bytes", GEMMA1), max_tokens=MOST)
        assert str(error.value) == (
            'rows.jsonl line 2: the chat template refuses this dialogue: "System role not supported"; '
            "change the row or remove it"
        )

    @pytest.mark.parametrize(
        ("template", "words"),
        [
            (LLAMA2.template, "Conversation roles must alternate user/assistant/user/assistant/..."),
            ("{% for m in messages %}{{ m.content + m.nothing }}{% endfor %}", "has no attribute 'nothing'"),
            ("{% for m in messages %}{{ m.content ", "unexpected end of template"),
            ("{{ 1 // 0 }}", "division"),
            ("{{ messages[7].content.strip() }}", "list object has no element 7"),
            ("the same for all", "it writes no answer after its prompt"),
        ],
    )
    def test_every_way_to_raise(self, template: str, words: str, write: Write) -> None:
        tokenizer = tokenizer_of("bytes", LLAMA2)
        tokenizer.chat_template = template
        source = write({"messages": [ASK, ASK, ANSWER]})
        with pytest.raises(InputError, match=r"^rows.jsonl line 1: the chat template refuses this dialogue: ") as error:
            encode_demonstrations(read_demonstrations(source).rows, tokenizer, max_tokens=MOST)
        assert words in str(error.value)
        assert "\n" not in str(error.value)
