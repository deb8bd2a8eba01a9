"""How far words alone get: a logistic regression on counted words, held against pairs of prompts it has not seen."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold

from pairtune.data.check import Finding, hashed
from pairtune.data.schema import Labelled, Pair, said
from pairtune.data.store import take
from pairtune.progress import counted

# Rows that are looked at, folds they are parted into, and the fewest prompts from which that means anything.
MOST, FOLDS, FEWEST = 20_000, 5, 50
_COUNTED = HashingVectorizer(n_features=1 << 18, alternate_sign=False, norm=None, ngram_range=(1, 2))


def bag_of_words(rows: Sequence[Pair] | Sequence[Labelled]) -> Finding | None:
    """The share of pairs whose preferred answer words tell, alone and in twos, by folds over prompts; None for too few.

    Each pair is once the difference chosen − rejected and once the opposite, and the model has no constant, so it knows
    no side. Of labelled responses the balanced accuracy: half of it is chance whatever the labels.
    """
    drawn = np.sort(np.random.default_rng(0).permutation(len(rows))[:MOST])
    some: Any = rows if len(rows) <= MOST else take(rows, drawn)
    prompts = np.array([hashed(row.prompt) for row in some], dtype=np.uint64)
    if len(np.unique(prompts)) < FEWEST:
        return None
    paired = isinstance(some[0], Pair)
    shares = _of_pairs(some, prompts) if paired else _of_labels(some, prompts)
    if not shares:
        return None
    sampled = f" of {len(rows):,}" if len(some) < len(rows) else ""
    looked_at = counted(len(some), "pair" if paired else "response")
    spread = f"{min(shares):.1%} to {max(shares):.1%} in their fifths"
    message = (
        f"a bag of words alone is right on {np.mean(shares):.1%} of {looked_at}{sampled}, by prompts it has not seen "
        f"({spread})"
    )
    return Finding("bag_of_words", len(some), (), message)


def _of_pairs(pairs: Sequence[Pair], prompt_N: np.ndarray) -> list[float]:
    """The share of each fold that a model of the others gets right; these models share pairs, so it has no interval."""
    difference = _COUNTED.transform(said(pair.chosen) for pair in pairs)
    difference = difference - _COUNTED.transform(said(pair.rejected) for pair in pairs)
    shares = []
    for train, test in GroupKFold(FOLDS).split(difference, groups=prompt_N):
        sign = np.where(np.arange(len(train)) % 2 == 0, 1, -1)
        model = LogisticRegression(fit_intercept=False, C=0.1, max_iter=200, tol=1e-2)
        model.fit(difference[train].multiply(sign[:, None]).tocsr(), sign)
        score = difference[test] @ model.coef_[0]
        shares.append(float((score > 0).mean() + 0.5 * (score == 0).mean()))
    return shares


def _of_labels(rows: Sequence[Labelled], prompt_N: np.ndarray) -> list[float]:
    """The balanced accuracy in each fold; none where a fold has one label only."""
    label = np.array([row.label for row in rows])
    words = _COUNTED.transform(said(row.response) for row in rows)
    shares = []
    for train, test in GroupKFold(FOLDS).split(words, groups=prompt_N):
        if any(label[part].all() or not label[part].any() for part in (train, test)):
            return []
        model = LogisticRegression(C=0.1, max_iter=200, tol=1e-2, class_weight="balanced").fit(
            words[train], label[train]
        )
        hit = model.predict(words[test]) == label[test]
        shares.append(float((hit[label[test]].mean() + hit[~label[test]].mean()) / 2))
    return shares
