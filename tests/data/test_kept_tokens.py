"""Tokens that are kept: the very same again, and made anew for anything that decides them."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from pairtune.cache import cache_folder, entries
from pairtune.data import kept_tokens
from pairtune.data.prompt_format import in_turns
from pairtune.data.schema import Pair
from pairtune.data.store import Texts, store_texts
from pairtune.data.tokenize import Encoded, encode_pairs
from pairtune.data.writing import Writer

PAIRS = [
    Pair("The film", " was warm.", " was dull.", 1, weight=2.0, margin=0.5),
    Pair(
        "I watched it", " with my wife, and we both loved the acting of it all.", " alone.", 3, weight=1.0, margin=1.5
    ),
    Pair("Who", " wrote Emma?", " wrote Emma?", 4, weight=1.0, margin=1.0),
]


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_tokens, "WORTH", 1)


def stored(pairs: list[Pair] = PAIRS) -> Texts[Pair]:
    return store_texts(Pair, pairs)


def files() -> list[Path]:
    return sorted((cache_folder() / "tokens").glob("*.safetensors"))


def same(one: Encoded, other: Encoded) -> bool:
    return (list(one.rows), one.origins, one.remarks) == (list(other.rows), other.origins, other.remarks)


Tokenizers = Callable[..., PreTrainedTokenizerFast]


def test_the_second_time_they_are_read(tiny_tokenizer: Tokenizers, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = tiny_tokenizer()
    first = encode_pairs(stored(), tokenizer, max_tokens=16)
    assert first.shortened or first.cut
    assert first.dropped == (4,)
    assert [row.weight for row in first.rows] == [2.0, 1.0]
    monkeypatch.setattr(Writer, "fitted", lambda *_: pytest.fail("tokenised again"))
    assert same(encode_pairs(stored(), tokenizer, max_tokens=16), first)
    assert [entry.kind for entry in entries()] == ["tokens"]


def test_it_is_a_safetensors_file_of_the_rows_ids(tiny_tokenizer: Tokenizers) -> None:
    from safetensors.numpy import load_file

    encoded = encode_pairs(stored(), tiny_tokenizer(), max_tokens=99)
    found = load_file(files()[0])
    row = encoded.rows[0]
    assert found["ids"][: len(row)].tolist() == [*row.prompt, *row.responses[0], *row.responses[1]]
    assert found["weight"].tolist() == [2.0, 1.0]
    assert found["origins"].tolist() == [1, 3]


def test_everything_that_decides_them_has_a_file_of_its_own(tiny_tokenizer: Tokenizers) -> None:
    plain, chat, other = tiny_tokenizer(), tiny_tokenizer(chat=True), tiny_tokenizer(chat=True)
    other.chat_template = f"{other.chat_template} "
    more_ends, otherwise = tiny_tokenizer(), tiny_tokenizer()
    more_ends.declared_ends = (2,)
    otherwise.split_special_tokens = True
    other_word = [replace(PAIRS[0], chosen=" was Warm."), *PAIRS[1:]]
    made = [
        (stored(), plain, 99),
        (stored(), plain, 98),
        (stored(), chat, 99),
        (stored(), other, 99),
        (stored(), more_ends, 99),
        (stored(), otherwise, 99),
        (stored().changed(in_turns), chat, 99),
        (stored(other_word), plain, 99),
        (stored([replace(PAIRS[0], weight=3.0), *PAIRS[1:]]), plain, 99),
        (stored(PAIRS[::-1]), plain, 99),
        (stored()[:2], plain, 99),
    ]
    for count, (rows, tokenizer, most) in enumerate(made, 1):
        encoded = encode_pairs(rows, tokenizer, max_tokens=most)
        assert len(files()) == count
        assert same(encode_pairs(list(rows), tokenizer, max_tokens=most), encoded)  # a list's are never kept


def test_a_change_of_our_own_sources_makes_them_anew(
    tiny_tokenizer: Tokenizers, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode_pairs(stored(), tiny_tokenizer(), max_tokens=99)
    monkeypatch.setattr(kept_tokens, "_sources", lambda: "others")
    encode_pairs(stored(), tiny_tokenizer(), max_tokens=99)
    assert len(files()) == 2


def test_what_is_damaged_is_made_again(tiny_tokenizer: Tokenizers) -> None:
    tokenizer = tiny_tokenizer()
    whole = encode_pairs(stored(), tokenizer, max_tokens=99)
    (path,) = files()
    sound = path.read_bytes()
    for place in range(len(sound)):
        path.write_bytes(sound[:place] + bytes([sound[place] ^ 1]) + sound[place + 1 :])
        found = kept_tokens._read(path)
        if found is not None:  # a tensor's shape, which says nothing that its place does not
            assert list(found.rows) == list(whole.rows), f"byte {place}"
            assert (*found.origins.tolist(),) == whole.origins, f"byte {place}"
    path.write_bytes(sound[:-3])
    assert same(encode_pairs(stored(), tokenizer, max_tokens=99), whole)
    assert path.read_bytes() == sound
    path.write_bytes(b"")
    assert same(encode_pairs(stored(), tokenizer, max_tokens=99), whole)


def test_without_a_cache_they_are_made(tiny_tokenizer: Tokenizers, tmp_path: Path) -> None:
    cache_folder().mkdir(parents=True, exist_ok=True)
    (cache_folder() / "tokens").write_text("a file in the way")
    assert len(encode_pairs(stored(), tiny_tokenizer(), max_tokens=99).rows) == 2
