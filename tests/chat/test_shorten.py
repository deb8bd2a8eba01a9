"""Prompts that are too long lose whole turns first, then words, and only then tokens; and that is told."""

import re
from itertools import pairwise
from typing import Any

import pytest

from pairtune.data.preflight import say_truncation
from pairtune.data.schema import Demonstration, Message, Pair, Prompt
from pairtune.data.tokenize import Remarks, encode_demonstrations, encode_pairs, encode_prompt, encode_prompts
from pairtune.data.writing import SHORTENED
from tests.chat.formats import CHATML, FORMATS, LLAMA2, SMOLLM, Format
from tests.chat.tokenizers_of import MAKES, tokenizer_of

SYSTEM = Message("system", "Be brief.")
TURNS = tuple(
    Message(role, f"{role} number {i}, which says {'quince ' * i}")
    for i in range(1, 5)
    for role in ("user", "assistant")
)[:-1]


def prompt_in(room: int, turns: Any, tokenizer: Any) -> tuple[list[int], Remarks]:
    """A prompt in a row that leaves it that much room, and what is said of it."""
    size = len(encode_demonstrations([Demonstration("x", "yes", 1)], tokenizer, max_tokens=99).rows[0].responses[0])
    row = Demonstration(turns, "yes", 7)
    encoded = encode_demonstrations([row], tokenizer, max_tokens=room + size)
    return list(encoded.rows[0].prompt), encoded.remarks


class TestDialogues:
    """By whole turns; the system turn stays."""

    @pytest.mark.parametrize("form", [form for form in FORMATS if not form.parted], ids=lambda form: form.name)
    def test_they_begin_with_a_later_turn_of_the_users(self, form: Format) -> None:
        tokenizer = tokenizer_of("bytes", form)
        opening = (SYSTEM,) if form.system else ()
        whole = (*opening, *TURNS)
        parts = [encode_prompt((*opening, *TURNS[start:]), tokenizer) for start in range(0, len(TURNS), 2)]
        for room in range(len(parts[-1]), len(parts[0]) + 2, 7):
            ids, remarks = encode_prompts([Prompt(whole, 7)], tokenizer, max_tokens=room)
            assert ids == [next(part for part in parts if len(part) <= room)]
            assert remarks == ({} if room >= len(parts[0]) else {SHORTENED: (7,)})

    @pytest.mark.parametrize("make", MAKES)
    @pytest.mark.parametrize("form", [CHATML, LLAMA2], ids=lambda form: form.name)
    def test_the_last_turn_alone_loses_words(self, form: Format, make: str) -> None:
        tokenizer = tokenizer_of(make, form)
        words = " ".join(f"word{i}" for i in range(30))
        asked = (SYSTEM, *TURNS[:2], Message("user", words))
        parts = [
            encode_prompt((SYSTEM, Message("user", words[m.start() :])), tokenizer) for m in re.finditer("w", words)
        ]
        for room in range(len(parts[-1]), len(parts[0]), 7):
            (ids,), _ = encode_prompts([Prompt(asked, 7)], tokenizer, max_tokens=room)
            assert ids == next(part for part in parts if len(part) <= room)

    def test_rows_are_shortened_like_prompts_and_keep_the_templates_response(self) -> None:
        tokenizer = tokenizer_of("bytes", CHATML)
        pair = Pair((SYSTEM, *TURNS), "yes", "no, never", 7)
        whole = encode_pairs([pair], tokenizer, max_tokens=9999).rows[0]
        room = len(whole.prompt) - 10
        longest = max(map(len, whole.responses))
        encoded = encode_pairs([pair], tokenizer, max_tokens=room + longest)
        ((asked,), _) = encode_prompts([Prompt(pair.prompt, 7)], tokenizer, max_tokens=room)
        assert list(encoded.rows[0].prompt) == asked
        assert encoded.rows[0].responses == whole.responses
        assert encoded.shortened == (7,)
        assert encoded.cut == ()

    def test_a_bos_that_is_a_turns_mark_never_stands_twice(self) -> None:
        tokenizer = tokenizer_of("bytes", SMOLLM)
        bos = tokenizer.bos_token_id
        least = len(encode_prompt((SYSTEM, Message("user", "")), tokenizer))
        for room in range(2, 160, 3):
            (ids,), _ = encode_prompts([Prompt((SYSTEM, *TURNS), 7)], tokenizer, max_tokens=room)
            assert len(ids) <= room
            assert (bos, bos) not in pairwise(ids)
            assert ids[0] == bos or room < least
            pair = Pair((SYSTEM, *TURNS), "yes", "no", 1)
            encode_pairs([pair], tokenizer, max_tokens=2 * room)  # which would refuse two


class TestText:
    """At a word; at a token where there is none."""

    @pytest.mark.parametrize("make", MAKES)
    def test_text_begins_with_a_word_and_the_one_bos(self, make: str) -> None:
        tokenizer = tokenizer_of(make, LLAMA2)
        text = "Quince is sharper than marmalade,\nand " + " ".join(f"word{i}" for i in range(20))
        parts = [encode_prompt(text[match.start() :], tokenizer) for match in re.finditer(r"\S+", text)]
        one_word = max(len(part) - len(rest) for part, rest in pairwise(parts))
        for room in range(len(parts[-1]), len(parts[0]) + 1, 5):
            (ids,), _ = encode_prompts([Prompt(text, 7)], tokenizer, max_tokens=room)
            assert ids in parts
            assert room - 2 * one_word < len(ids) <= room
            assert prompt_in(room, text, tokenizer)[0] == ids

    def test_languages_without_spaces_lose_characters(self) -> None:
        tokenizer = tokenizer_of("bytes", LLAMA2)
        text = "人工知能は人間の知能を模倣する。"
        (ids,), _ = encode_prompts([Prompt(text, 1)], tokenizer, max_tokens=20)
        shown = tokenizer.decode(ids[1:])
        assert text.endswith(shown)
        assert len(ids) > 15

    def test_a_word_that_is_too_long_loses_tokens_and_bos_stays(self) -> None:
        tokenizer = tokenizer_of("bytes", LLAMA2)
        whole = encode_prompt("q" * 50, tokenizer)
        (ids,), remarks = encode_prompts([Prompt("q" * 50, 3)], tokenizer, max_tokens=10)
        assert ids == [tokenizer.bos_token_id, *whole[-9:]]
        assert remarks == {SHORTENED: (3,)}


def test_what_is_said_names_rows_and_the_way_out(capsys: pytest.CaptureFixture[str]) -> None:
    say_truncation({SHORTENED: (7,)})
    assert capsys.readouterr().err == (
        "data: 1 prompt lost its beginning to --max-tokens; raise it to keep it whole (row 7)\n"
    )
    say_truncation({SHORTENED: (7, 9)})
    assert capsys.readouterr().err == (
        "data: 2 prompts lost their beginning to --max-tokens; raise it to keep them whole (rows 7, 9)\n"
    )
