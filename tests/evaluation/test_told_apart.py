"""Held-out single responses: are the desirable ones told from the others?"""

import itertools

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from pairtune.evaluation.heldout import told_apart


def by_counting(ratios: list[float], labels: list[bool]) -> float:
    above = [ratio for ratio, label in zip(ratios, labels, strict=True) if label]
    below = [ratio for ratio, label in zip(ratios, labels, strict=True) if not label]
    scores = [1.0 if a > b else 0.5 if a == b else 0.0 for a, b in itertools.product(above, below)]
    return sum(scores) / len(scores)


def test_it_is_the_share_of_all_comparisons() -> None:
    ratios, labels = [0.5, -1.0, 0.5, 2.0, 0.0], [True, True, False, False, False]
    found = told_apart(ratios, labels, [*"abcde"])
    assert found is not None
    assert found.mean == pytest.approx(by_counting(ratios, labels))
    assert found.n == 4  # two desirable ones: no more than two independent comparisons each way


def test_it_is_the_area_under_the_roc_curve_and_its_interval_holds_chance() -> None:
    generator = np.random.default_rng(0)
    labels = generator.random(200) < 0.9  # chance is 50% whatever the share of the labels
    for shift, told in ((0.0, False), (2.0, True)):
        ratios = generator.normal(size=200) + shift * labels
        found = told_apart(ratios.tolist(), labels.tolist(), list(range(200)))
        assert found is not None
        assert found.mean == pytest.approx(roc_auc_score(labels, ratios))
        assert (found.ci95[0] > 0.5) is told


def test_what_cannot_be_measured() -> None:
    assert told_apart([1.0, 2.0], [True, True], ["a", "b"]) is None
    found = told_apart([1.0, 2.0], [True, False], ["a", "a"])
    assert found is not None
    assert not np.isfinite(found.ci95).any()
