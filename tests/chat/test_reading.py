"""What a person is shown of an answer: what is said, without the marks around it."""

import json
from typing import Any

import pytest

from pairtune.data.reading import Reader
from pairtune.data.schema import Demonstration, Message
from pairtune.data.tokenize import encode_demonstrations
from tests.chat.dialogues import PLAIN, THINKING
from tests.chat.formats import FORMATS, HARMONY, LLAMA2, QWEN3, Format
from tests.chat.tokenizers_of import MAKES, tokenizer_of


def row_of(messages: list[dict[str, Any]], tokenizer: Any) -> Any:
    turns = tuple(Message(m["role"], m["content"]) for m in messages[:-1])
    last = messages[-1]
    more = json.dumps({key: value for key, value in last.items() if key not in ("role", "content")})
    row = Demonstration(turns, Message("assistant", last["content"], more), 1)
    return encode_demonstrations([row], tokenizer, max_tokens=999).rows[0]


@pytest.mark.parametrize("make", MAKES)
@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
def test_answers_read_back(form: Format, make: str) -> None:
    tokenizer = tokenizer_of(make, form)
    for messages in PLAIN.values():
        row = row_of(messages, tokenizer)
        read = Reader(tokenizer).answer(row.prompt, row.responses[0])
        assert read.removeprefix("</think>").strip() == messages[-1]["content"].strip()


def test_thoughts_are_shown_and_channels_are_not() -> None:
    tokenizer = tokenizer_of("bytes", HARMONY)
    row = row_of(THINKING["a thought beside"], tokenizer)
    assert Reader(tokenizer).answer(row.prompt, row.responses[0]) == "Jane Austen."
    tokenizer = tokenizer_of("bytes", QWEN3)
    row = row_of(THINKING["a thought beside"], tokenizer)
    assert "Emma is by Austen." in Reader(tokenizer).answer(row.prompt, row.responses[0])


@pytest.mark.parametrize("make", MAKES)
@pytest.mark.parametrize("response", [" yes", "yes", "\n\nyes ", " Paris, 12"])
def test_text_goes_on_with_its_spaces(make: str, response: str) -> None:
    tokenizer = tokenizer_of(make, LLAMA2)
    row = encode_demonstrations([Demonstration("The answer is", response, 1)], tokenizer, max_tokens=99).rows[0]
    assert Reader(tokenizer).continuation(row.prompt, row.responses[0]) == response
