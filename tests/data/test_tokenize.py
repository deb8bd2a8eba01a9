"""The boundary between prompt and response, end of text, one BOS, and truncation that is never silent."""

from typing import Any

import pytest
from tokenizers.processors import TemplateProcessing

from pairtune import progress
from pairtune.data import pieces
from pairtune.data.pack import Tokens
from pairtune.data.schema import Demonstration, Message, Pair
from pairtune.data.tokenize import encode_demonstrations, encode_pairs, encode_prompt, encode_response
from pairtune.errors import InputError

BOS, EOS = 0, 1
DIALOGUE = (Message("system", "Be brief."), Message("user", "Who wrote Emma?"))


@pytest.fixture
def tokenizer(tiny_tokenizer: Any) -> Any:
    return tiny_tokenizer()


def with_specials(tokenizer: Any, template: Any) -> Any:
    """The same tokenizer, adding special tokens around every text as `template` says."""
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=template, special_tokens=[("<s>", BOS), ("</s>", EOS)]
    )
    return tokenizer


def ids(tokenizer: Any, text: Any) -> Any:
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def test_a_response_ends_with_one_end_of_text(tokenizer: Any) -> None:
    assert encode_response(" Jane Austen.", tokenizer) == [*ids(tokenizer, " Jane Austen."), EOS]
    assert encode_response("", tokenizer) == [EOS]
    assert encode_response("x", with_specials(tokenizer, "<s> $A </s>")) == [*ids(tokenizer, "x"), EOS]


def test_the_boundary_is_where_the_sampler_sees_it(tokenizer: Any) -> None:
    """A prompt and its response are tokenised apart: their tokens do not merge across the boundary."""
    assert ids(tokenizer, "The film") != [*ids(tokenizer, "The fi"), *ids(tokenizer, "lm")]
    (row,) = encode_pairs([Pair("The fi", "lm", "x", 1)], tokenizer, max_tokens=99).rows
    assert row.prompt == tuple(encode_prompt("The fi", tokenizer))
    assert row.responses[0] == (*ids(tokenizer, "lm"), EOS)


def test_a_text_prompt_keeps_the_one_bos_of_its_tokenizer_and_no_eos(tokenizer: Any) -> None:
    plain = ids(tokenizer, "The film")
    assert encode_prompt("The film", tokenizer) == plain
    assert encode_prompt("The film", with_specials(tokenizer, "<s> $A")) == [BOS, *plain]
    assert encode_prompt("The film", with_specials(tokenizer, "<s> $A </s>")) == [BOS, *plain]
    assert encode_prompt("The film", with_specials(tokenizer, "$A </s>")) == plain


@pytest.mark.parametrize(("template", "expected"), [(None, [BOS]), ("<s> $A </s>", [BOS]), ("$A </s>", [EOS])])
def test_an_empty_prompt_is_one_token_to_predict_from(tokenizer: Any, template: Any, expected: Any) -> None:
    if template:
        tokenizer = with_specials(tokenizer, template)
    assert encode_prompt("", tokenizer) == expected


def test_without_a_bos_an_empty_prompt_is_the_end_of_text(tokenizer: Any) -> None:
    tokenizer.bos_token = None
    assert encode_prompt("", tokenizer) == [EOS]


def test_a_dialogue_goes_through_the_chat_template_with_no_second_bos(tiny_tokenizer: Any) -> None:
    tokenizer = with_specials(tiny_tokenizer(chat=True), "<s> $A </s>")
    expected = "<s>system: Be brief.</s><s>user: Who wrote Emma?</s><s>assistant: "
    assert encode_prompt(DIALOGUE, tokenizer) == ids(tokenizer, expected)
    assert encode_prompt(DIALOGUE, tokenizer)[:2].count(BOS) == 1


def test_without_a_template_a_dialogue_is_a_transcript(tokenizer: Any) -> None:
    turns = (*DIALOGUE, Message("assistant", "Austen."), Message("user", "When?"))
    expected = "System: Be brief.\n\nHuman: Who wrote Emma?\n\nAssistant: Austen.\n\nHuman: When?\n\nAssistant:"
    assert encode_prompt(turns, tokenizer) == ids(tokenizer, expected)
    with_both = with_specials(tokenizer, "<s> $A </s>")
    assert encode_prompt(turns, with_both) == [BOS, *ids(tokenizer, expected)], "text that goes on does not end"


def test_pairs_and_demonstrations_keep_their_order_and_row_numbers(tokenizer: Any) -> None:
    pairs = [Pair("The film", " was dull", " was warm", 7), Pair("Emma", " is", " was", 3)]
    encoded = encode_pairs(pairs, tokenizer, max_tokens=99)
    assert encoded.origins == (7, 3)
    assert encoded.rows[0].prompt == tuple(ids(tokenizer, "The film"))
    assert encoded.rows[1].responses == tuple((*ids(tokenizer, text), EOS) for text in (" is", " was"))
    assert (encoded.shortened, encoded.cut, encoded.dropped) == ((), (), ())
    encoded = encode_demonstrations([Demonstration("Emma", " is", 4)], tokenizer, max_tokens=99)
    assert encoded.rows == (Tokens(tuple(ids(tokenizer, "Emma")), ((*ids(tokenizer, " is"), EOS),)),)
    assert encoded.origins == (4,)


def letters(count: Any, start: Any = 0) -> Any:
    """A text of that many tokens: what the tiny tokenizer never merges."""
    return "".join("QZXJ"[(start + i) % 4] for i in range(count))


class TestTruncation:
    """At most `max_tokens` for the prompt and its longest response."""

    def encode(self, tokenizer: Any, prompt: Any, chosen: Any, rejected: Any, max_tokens: Any = 10) -> Any:
        pair = Pair(letters(prompt), letters(chosen, 1), letters(rejected, 2), 5)
        assert len(ids(tokenizer, pair.prompt)) == prompt
        encoded = encode_pairs([pair], tokenizer, max_tokens=max_tokens)
        return (
            encoded,
            ids(tokenizer, pair.prompt),
            [encode_response(x, tokenizer) for x in (pair.chosen, pair.rejected)],
        )

    def test_what_fits_exactly_is_left_alone(self, tokenizer: Any) -> None:
        encoded, prompt, responses = self.encode(tokenizer, 4, 5, 2)  # 4 + 5 + the end of text
        assert encoded.rows == (Tokens(tuple(prompt), tuple(map(tuple, responses))),)
        assert (encoded.shortened, encoded.cut) == ((), ())

    def test_the_prompt_gives_way_first_from_its_beginning(self, tokenizer: Any) -> None:
        encoded, prompt, responses = self.encode(tokenizer, 9, 3, 2)
        assert encoded.rows == (Tokens(tuple(prompt[-6:]), tuple(map(tuple, responses))),)
        assert (encoded.shortened, encoded.cut) == ((5,), ())

    def test_then_responses_lose_their_end_and_end_of_text(self, tokenizer: Any) -> None:
        encoded, prompt, responses = self.encode(tokenizer, 9, 12, 2)
        assert encoded.rows == (Tokens(tuple(prompt[-5:]), (tuple(responses[0][:5]), tuple(responses[1]))),)
        assert (encoded.shortened, encoded.cut) == ((5,), (5,))

    def test_a_short_prompt_leaves_its_room_to_the_responses(self, tokenizer: Any) -> None:
        encoded, prompt, responses = self.encode(tokenizer, 2, 12, 2)
        assert encoded.rows == (Tokens(tuple(prompt), (tuple(responses[0][:8]), tuple(responses[1]))),)
        assert (encoded.shortened, encoded.cut) == ((), (5,))

    def test_the_least_room_keeps_a_token_of_each(self, tokenizer: Any) -> None:
        encoded, prompt, responses = self.encode(tokenizer, 9, 3, 2, max_tokens=2)
        assert encoded.rows == (Tokens(tuple(prompt[-1:]), tuple((response[0],) for response in responses)),)
        with pytest.raises(ValueError, match="max_tokens"):
            self.encode(tokenizer, 9, 3, 2, max_tokens=1)

    def test_a_shortened_prompt_keeps_its_bos(self, tokenizer: Any) -> None:
        tokenizer = with_specials(tokenizer, "<s> $A")
        pair = Pair(letters(9), letters(3, 1), letters(2, 2), 5)
        (row,) = encode_pairs([pair], tokenizer, max_tokens=10).rows
        assert row.prompt == (BOS, *ids(tokenizer, letters(9))[-5:])

    def test_responses_made_equal_are_dropped_and_told(self, tokenizer: Any) -> None:
        pairs = [
            Pair("Q", letters(12), letters(12) + "Q", 5),  # equal in all that is kept
            Pair("Q", "same", "same", 6),
            Pair("Q", "this", "that", 7),
        ]
        encoded = encode_pairs(pairs, tokenizer, max_tokens=10)
        assert (encoded.dropped, encoded.origins) == ((5, 6), (7,))
        assert encoded.cut == (5,)

    def test_no_row_left_is_an_error(self, tokenizer: Any) -> None:
        with pytest.raises(InputError, match=r"no row is left.*two responses are the same"):
            encode_pairs([Pair("Q", "same", "same", 6)], tokenizer, max_tokens=10)
        with pytest.raises(InputError, match=r"no row is left.*there was none"):
            encode_demonstrations([], tokenizer, max_tokens=10)


def test_how_far_it_is_is_told(
    tokenizer: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "LINE_EVERY", 0)
    monkeypatch.setattr(pieces, "PIECE", 1)
    encode_pairs([Pair("x", "a", "b", row) for row in range(3)], tokenizer, max_tokens=64)
    told = [line.split(",")[0].strip() for line in capsys.readouterr().err.splitlines()]
    assert told == ["tokenising 1/3", "tokenising 2/3"]
