"""A text prompt is what a user says to a chat model, unless the file is written to be gone on from; it is said."""

from typing import Any

import pytest

from pairtune.data.prompt_format import in_format
from pairtune.data.schema import Message, Pair
from pairtune.data.sources import read_demonstrations, read_labelled, read_pairs, read_prompts
from pairtune.data.tokenize import encode_pairs
from tests.chat.formats import CHATML, FORMATS, LLAMA2
from tests.chat.tokenizers_of import tokenizer_of
from tests.written import write

pytestmark = pytest.mark.usefixtures("inside")


def pair(prompt: str, space: str = "") -> dict[str, str]:
    return {"prompt": prompt, "chosen": f"{space}Jane Austen.", "rejected": f"{space}No idea."}


def first(prompt: Any, *rows: Any, asked: str = "auto", template: bool = True) -> Any:
    tokenizer = tokenizer_of("bytes", CHATML)
    if not template:
        tokenizer.chat_template = None
    return in_format(read_pairs(write(*rows)), tokenizer, asked).rows[0].prompt == prompt


ASKED = "Who wrote Emma?"
TURN = (Message("user", ASKED),)


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
def test_texts_are_turns_to_a_chat_model_and_get_the_templates_tokens(form: Any) -> None:
    tokenizer = tokenizer_of("bytes", form)
    turns = {"prompt": [{"role": "user", "content": ASKED}]}
    as_text = in_format(read_pairs(write(pair(ASKED))), tokenizer, "auto")
    as_turns = in_format(read_pairs(write(pair(ASKED) | turns)), tokenizer, "text")
    assert as_text.rows == as_turns.rows
    assert (as_text.prompt_format, as_turns.prompt_format) == ("chat", ""), "turns are turns whatever is asked for"
    one, other = (encode_pairs(data.rows, tokenizer, max_tokens=999).rows for data in (as_text, as_turns))
    assert one == other


def test_texts_stay_texts_to_a_model_without_a_template() -> None:
    assert first(ASKED, pair(ASKED), template=False)
    assert first(TURN, pair(ASKED), template=False, asked="chat")


@pytest.mark.parametrize(
    "row",
    [
        pair("Emma is by", " "),
        pair("Emma is by", "\n"),
        pair("Question: Who wrote Emma?\nAnswer:"),
        pair("Question: Who wrote Emma? A: "),
        pair("Shorten this. TL;DR:"),
        pair("<|im_start|>user\nWho wrote Emma?<|im_end|>\n<|im_start|>assistant\n"),
        pair("user\nWho wrote Emma?<|im_end|>\n<|im_start|>assistant\n"),
    ],
)
def test_texts_to_be_gone_on_from_stay_as_they_are(row: Any) -> None:
    assert first(row["prompt"], row)
    assert first((Message("user", row["prompt"]),), row, asked="chat")


@pytest.mark.parametrize(
    "row",
    [
        pair(ASKED) | {"chosen": " Jane Austen."},  # one side only: a model's habit
        pair("What follows after this line:"),
        pair("Tell me about the Bahama:"),
    ],
)
def test_what_is_no_sign(row: Any) -> None:
    assert first((Message("user", row["prompt"]),), row)
    assert first(row["prompt"], row, asked="text")


def test_half_of_the_texts_decide_and_it_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    chat, text = pair(ASKED), pair("Emma is by", " ")
    assert first(ASKED, chat, text)
    assert capsys.readouterr().err == (
        "data: text prompts stay text that the answer goes on from (1 of 2 have responses that begin with a space); "
        "--prompt-format chat for what a user says\n"
    )
    assert first(TURN, chat, text, pair("Why?"))
    assert capsys.readouterr().err == (
        "data: text prompts are what the user says, in the model's chat template, though 1 of 3 have responses that "
        "begin with a space; --prompt-format text for texts that answers go on from\n"
    )
    assert first(ASKED, pair(ASKED), template=False)
    assert capsys.readouterr().err == "", "where there is no choice nothing is said"


def test_a_transcript_is_the_turns_it_holds() -> None:
    """As in Anthropic's files whose prompt stands apart; the answers lose the space that stood between."""
    asked = "\n\nHuman: Hi\n\nAssistant: Hello!\n\nHuman: Who wrote Emma?\n\nAssistant:"
    data = in_format(read_pairs(write(pair(asked, " "))), tokenizer_of("bytes", CHATML), "auto")
    turns = (Message("user", "Hi"), Message("assistant", "Hello!"), Message("user", ASKED))
    assert data.rows == [Pair(turns, "Jane Austen.", "No idea.", 1)]
    assert first("Human: Hi", pair("Human: Hi"), asked="text")
    assert first((Message("user", "Human: Hi"),), pair("Human: Hi"))


def test_other_kinds_of_rows() -> None:
    tokenizer = tokenizer_of("first", LLAMA2)
    source = write({"prompt": ASKED, "response": " Jane Austen.", "label": True})
    for read in (read_demonstrations, read_labelled):
        data: Any = read(source)
        assert in_format(data, tokenizer, "auto").rows[0].prompt == ASKED, "its one response begins with a space"
    prompts = in_format(read_prompts(source), tokenizer, "auto").rows
    assert prompts[0].prompt == ASKED, "a file means the same to who reads its prompts only"
    assert in_format(read_prompts(write({"prompt": ASKED})), tokenizer, "auto").rows[0].prompt == TURN


def test_a_file_of_pairs_means_the_same_to_who_reads_its_prompts() -> None:
    tokenizer = tokenizer_of("bytes", CHATML)
    for rows in ([pair(ASKED)], [pair("Emma is by", " ")], [pair("Who? Answer:")], [pair(ASKED), pair("It was", "\n")]):
        pairs, prompts = (in_format(read(write(*rows)), tokenizer, "auto") for read in (read_pairs, read_prompts))
        assert [row.prompt for row in pairs.rows] == [row.prompt for row in prompts.rows]
