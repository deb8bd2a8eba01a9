"""The built-in task is a completion task, also on a chat model: its token rows are what they have always been."""

import hashlib
import json
from typing import Any

import numpy as np
import pytest

from pairtune.comparison.pairs import sample_review_pairs
from pairtune.data.reviews import Review, demonstrations, prompts
from pairtune.sampling.sampler import sample, stream_seed

EOS = 1
# SHA-256 of the rows as JSON, by the code from before chat templates had any say in how text becomes tokens.
DEMONSTRATIONS = "7eb416b0a3143d7f"
PROMPTS = "99c331fc6a63f03e"


def digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content).encode("ascii")).hexdigest()[:16]


def by_length(texts: list[str]) -> Any:
    """A gold reward that anybody can compute."""
    return np.array([len(text) * 0.37 % 1 - 0.5 for text in texts])


@pytest.fixture(scope="module")
def synthetic() -> list[Review]:
    words = ("wonderful", "warm", "dull", "awful", "small", "long")
    return [
        Review(
            f"{i * 37 % 90}, so {words[i % 6]} a film, I found. And a {words[i * 7 % 6]} plot {i}? It went.", i % 2 == 0
        )
        for i in range(90)
    ]


@pytest.mark.parametrize("chat", [False, True])
def test_the_rows_of_the_reviews(synthetic: list[Review], tiny_tokenizer: Any, chat: bool) -> None:
    tokenizer = tiny_tokenizer(chat=chat)
    rows = demonstrations(synthetic, tokenizer, by_length, count=20, max_new_tokens=50, seed=3)  # type: ignore[arg-type]
    assert digest([[row.prompt, row.responses] for row in rows]) == DEMONSTRATIONS
    assert digest(prompts(synthetic, tokenizer, seed=3)) == PROMPTS


@pytest.mark.parametrize("chat", [False, True])
def test_the_sampled_pairs(
    synthetic: list[Review], tiny_run: Any, tiny_tokenizer: Any, tiny_model: Any, chat: bool
) -> None:
    """Those that the sampler alone gives, ended by the tokenizer's end of text and by nothing else."""
    tokenizer, settings = tiny_tokenizer(chat=chat), tiny_run(pairs=16, heldout=8, sampling_max_new_tokens=8)
    model, asked = tiny_model(), prompts(synthetic, tokenizer, seed=3)
    found, _ = sample_review_pairs(model, tokenizer, by_length, asked, settings)  # type: ignore[arg-type]
    drawn = sample(
        model,
        [prompt for prompt in asked[:24] for _ in range(2)],
        end_ids=[EOS],
        max_new_tokens=8,
        temperature=settings.sampling.temperature,
        batch_size=settings.sampling.batch_size,
        seed=stream_seed(settings.seed, "pairs", 0),
    )
    answers = [answer.response for answer in drawn]
    rows = [*found.train, *found.heldout]
    assert [row.prompt for row in rows] == asked[:24]
    assert [set(row.responses) for row in rows] == [set(pair) for pair in zip(answers[::2], answers[1::2], strict=True)]
