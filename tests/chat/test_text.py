"""Raw text on every make of tokenizer: no space is invented, one BOS and one end, whoever wrote them."""

from typing import Any

import pytest

from pairtune.data.schema import Demonstration, Message
from pairtune.data.tokenize import Remarks, encode_demonstrations, encode_prompt
from pairtune.data.writing import JOINED, LOSSY, NO_TEMPLATE
from tests.chat.formats import CHATML, LLAMA2, LLAMA3, MISTRAL3, OLMO2, Format
from tests.chat.tokenizers_of import MAKES, tokenizer_of

TEXTS = [
    ('The answer is "', "yes"),
    ("The answer is", " yes"),
    ("The answer is ", "yes"),
    ("Who wrote", " Emma?\n\nJane Austen.\n"),
    ("Who wrote Em", "ma"),
    ("Why?\n", "\nI think"),
    ("Why?\n\n", "  indented\ttext  "),
    ("(", "Paris)"),
    ("Zwölf", "—十二🦆"),
    ("weather 1", "2 in Paris"),
]


def row_of(prompt: Any, response: Any, tokenizer: Any) -> tuple[list[int], list[int], Remarks]:
    encoded = encode_demonstrations([Demonstration(prompt, response, 1)], tokenizer, max_tokens=999)
    (row,) = encoded.rows
    return list(row.prompt), list(row.responses[0]), encoded.remarks


@pytest.mark.parametrize("adds_bos", [True, False])
@pytest.mark.parametrize("make", MAKES)
@pytest.mark.parametrize("form", [LLAMA2, LLAMA3], ids=lambda form: form.name)
@pytest.mark.parametrize(("prompt", "response"), TEXTS)
def test_rows_decode_to_the_text_that_was_given(
    prompt: str, response: str, form: Format, make: str, adds_bos: bool
) -> None:
    tokenizer = tokenizer_of(make, form, adds_bos=adds_bos)
    before, after, remarks = row_of(prompt, response, tokenizer)
    assert after[-1] == tokenizer.eos_token_id
    assert before[:1] == [tokenizer.bos_token_id] or not adds_bos
    assert tokenizer.decode(before[adds_bos:] + after[:-1]) == prompt + response
    whole = tokenizer(prompt + response, add_special_tokens=False)["input_ids"]
    assert (JOINED in remarks) == (before[adds_bos:] + after[:-1] != whole)
    assert LOSSY not in remarks


@pytest.mark.parametrize("make", MAKES)
def test_the_quoted_answer_has_the_tokens_of_the_whole_text(make: str) -> None:
    tokenizer = tokenizer_of(make, LLAMA2)
    before, after, remarks = row_of('The answer is "', "yes", tokenizer)
    assert before + after[:-1] == tokenizer('The answer is "yes')["input_ids"]
    assert remarks == {}


def test_what_a_tokenizer_cannot_write_is_told(tiny_tokenizer: Any) -> None:
    from tokenizers import normalizers

    tokenizer = tiny_tokenizer()
    tokenizer.backend_tokenizer.normalizer = normalizers.Lowercase()
    assert row_of("The film", " was", tokenizer)[2] == {LOSSY: (1,)}
    assert row_of("the film", " Was", tokenizer)[2] == {LOSSY: (1,)}
    assert row_of("the film", " was", tokenizer)[2] == {}


@pytest.mark.parametrize("adds_bos", [True, False])
@pytest.mark.parametrize("make", MAKES)
@pytest.mark.parametrize("form", [LLAMA2, LLAMA3, MISTRAL3, OLMO2, CHATML], ids=lambda form: form.name)
def test_one_bos_and_one_end_whoever_wrote_them(form: Format, make: str, adds_bos: bool) -> None:
    tokenizer = tokenizer_of(make, form, adds_bos=adds_bos)
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    plain = encode_prompt("Why?", tokenizer)
    assert plain.count(bos) == int(adds_bos)
    for prefix in (form.bos, form.bos * 2):
        brought = encode_prompt(f"{prefix}Why?", tokenizer)
        assert brought.count(bos) == 1
        assert brought[0] == bos
        assert tokenizer.decode(brought[1:]).strip() == "Why?"
    _, response, _ = row_of("Why?", " yes", tokenizer)
    assert response.count(eos) == 1
    for suffix in (form.eos, form.eos + "\n", form.eos * 2, form.eos + " " + form.eos):
        assert row_of("Why?", f" yes{suffix}", tokenizer)[1] == response


def test_any_end_of_the_model_is_an_end(tiny_tokenizer: Any) -> None:
    """The end of a turn, written into a text row, is the one end it has."""
    tokenizer = tokenizer_of("bytes", LLAMA3)
    _, response, _ = row_of("Why?", " yes<|eot_id|>", tokenizer)
    assert tokenizer.convert_ids_to_tokens(response[-1]) == "<|eot_id|>"
    assert tokenizer.eos_token_id not in response


def test_an_end_inside_of_a_response_is_left_alone() -> None:
    tokenizer = tokenizer_of("bytes", LLAMA2)
    _, response, _ = row_of("Why?", "</s> because", tokenizer)
    assert response[0] == response[-1] == tokenizer.eos_token_id
    assert len(response) > 2


class TestTranscripts:
    """A dialogue where there is no chat template: the space before an answer is the answer's."""

    TURNS = (Message("user", "Who wrote Emma?"),)

    @pytest.mark.parametrize("make", MAKES)
    def test_the_prompt_ends_with_a_word(self, make: str) -> None:
        tokenizer = tokenizer_of(make, LLAMA2)
        tokenizer.chat_template = None
        before, after, remarks = row_of(self.TURNS, "Jane Austen.", tokenizer)
        text = "Human: Who wrote Emma?\n\nAssistant: Jane Austen."
        assert before + after[:-1] == tokenizer(text)["input_ids"]
        assert tokenizer.decode(before[1:]) == "Human: Who wrote Emma?\n\nAssistant:"
        assert before == encode_prompt(self.TURNS, tokenizer)
        assert remarks == {}
        assert row_of(self.TURNS, "\nJane", tokenizer)[1] == row_of("Assistant:", "\nJane", tokenizer)[1]

    def test_tools_and_calls_cannot_be_written_and_that_is_told(self) -> None:
        tokenizer = tokenizer_of("bytes", LLAMA2)
        tokenizer.chat_template = None
        answer = Message("assistant", "I think", '{"tool_calls": [{"function": {"name": "weather"}}]}')
        rows = [
            Demonstration(self.TURNS, answer, 7),
            Demonstration(self.TURNS, "yes", 8, '{"tools": [{"type": "function"}]}'),
        ]
        remarks = encode_demonstrations(rows, tokenizer, max_tokens=999).remarks
        assert remarks == {NO_TEMPLATE.of("tool calls"): (7,), NO_TEMPLATE.of("tools"): (8,)}
