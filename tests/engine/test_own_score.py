"""A score of a person's own: given the texts that its rows are made of, held to one finite number an answer."""

import sys
from pathlib import Path
from typing import Any

import pytest

from pairtune.data.pack import Tokens
from pairtune.engine.own_score import OwnScore
from pairtune.errors import InputError


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))


def rows(tokenizer: Any) -> list[Tokens]:
    def ids(text: str) -> tuple[int, ...]:
        return tuple(tokenizer(text, add_special_tokens=False)["input_ids"])

    end = (tokenizer.eos_token_id,)
    return [
        Tokens(ids("The film was"), (ids(" good.") + end, ids(" long and dull") + end)),
        Tokens(ids("I saw"), (ids(" it"),)),
    ]


def score(text: str, tiny_tokenizer: Any) -> list[list[float]]:
    Path("mine.py").write_text(text, encoding="utf-8")
    tokenizer = tiny_tokenizer()
    return OwnScore("mine.py:score", tokenizer).score(rows(tokenizer))


def test_it_reads_prompts_and_answers_as_text(tiny_tokenizer: Any) -> None:
    lines = [
        "def score(prompts, answers):",
        "import pathlib",
        "pathlib.Path('seen').write_text(repr(list(zip(prompts, answers))))",
        "return [1, 2, 3]",
    ]
    seen = "\n    ".join(lines)
    assert score(seen, tiny_tokenizer) == [[1.0, 2.0], [3.0]]
    texts = [("The film was", " good."), ("The film was", " long and dull"), ("I saw", " it")]
    assert Path("seen").read_text() == repr(texts)


@pytest.mark.parametrize(
    "returned",
    [
        "[1, 2.0, True]",
        "(1.0, 2.0, 1.0)",
        "__import__('torch').tensor([1, 2, 1])",
        "__import__('numpy').array([1, 2, 1])",
    ],
)
def test_lists_tensors_and_arrays_are_taken(returned: str, tiny_tokenizer: Any) -> None:
    assert score(f"def score(prompts, answers): return {returned}", tiny_tokenizer) == [[1.0, 2.0], [1.0]]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def score(answers): return [0.0] * len(answers)", "it must take two arguments, prompts and answers"),
        ("def score(prompts, answers): return 1.0", "it returned a float for 3 answers"),
        ("def score(prompts, answers): return [1.0]", "it returned 1 values for 3 answers"),
        (
            "def score(prompts, answers): return [1.0, float('nan'), 0.0]",
            "its score of answer 2 is nan; it must be a fin",
        ),
        ("def score(prompts, answers): return [1.0, 0.0, float('inf')]", "its score of answer 3 is inf"),
        ("def score(prompts, answers): return [1.0, '2', 0.0]", "its score of answer 2 is '2'"),
        ("def score(prompts, answers): return [[1.0]] * 3", "its score of answer 1 is [1.0]"),
        ("def score(prompts, answers):\n    return [prompts[9]]", "mine.py:score failed at line 2: IndexError"),
    ],
)
def test_what_is_wrong_with_it_is_one_line(text: str, said: str, tiny_tokenizer: Any) -> None:
    with pytest.raises(InputError) as caught:
        score(text, tiny_tokenizer)
    assert said in str(caught.value)
    assert str(caught.value).startswith("mine.py:score")
    assert "\n" not in str(caught.value)
