"""Held-out single responses: are the desirable ones told from the others?"""

import itertools
import math

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
        assert (found.against_chance == "above") is told


def test_what_cannot_be_measured() -> None:
    assert told_apart([1.0, 2.0], [True, True], ["a", "b"]) is None
    found = told_apart([1.0, 2.0], [True, False], ["a", "a"])
    assert found is not None
    assert found.ci95 is None


@pytest.mark.parametrize(
    ("above", "below", "told"),
    [(1, 30, False), (2, 20, False), (3, 3, False), (4, 4, True), (5, 5, True), (12, 3, True), (30, 30, True)],
)
def test_labels_in_perfect_order_are_told_where_chance_would_seldom_order_them_so(
    above: int, below: int, told: bool
) -> None:
    ratios, labels = [float(i) for i in range(above + below)], [False] * below + [True] * above
    found = told_apart(ratios, labels, ratios)
    assert found is not None
    assert found.mean == 1.0
    assert (found.against_chance == "above") is told
    if told:
        assert 2 / math.comb(above + below, above) < 0.05, "of all orders, the two that are as extreme"


def test_under_chance_labels_are_seldom_told_apart() -> None:
    generator = np.random.default_rng(5)
    told = []
    for _ in range(60):
        found = told_apart(list(generator.normal(size=24)), [i < 6 for i in range(24)], list(range(24)))
        assert found is not None
        told.append(found.against_chance != "level")
    assert np.mean(told) < 0.1
