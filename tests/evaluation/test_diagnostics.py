"""What is watched on held-out pairs: per-token change, who fell, margins against length, distinct 2-grams."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from pairtune.data.pack import Tokens
from pairtune.evaluation.diagnostics import distinct_bigrams, fell, margin_length_correlation, per_token


def pair(prompt: int, chosen: int, rejected: int) -> Tokens:
    return Tokens((prompt,), ((7,) * chosen, (8,) * rejected))


def test_log_ratios_are_taken_per_token_of_their_own_response() -> None:
    rows, ratios = [pair(0, 4, 2), pair(1, 1, 5)], [[-2.0, -3.0], [0.5, 1.0]]
    assert per_token(ratios, rows, 0) == [-0.5, 0.5]
    assert per_token(ratios, rows, 1) == [-1.5, 0.2]
    assert fell(ratios) == [1.0, 0.0]
    assert fell([[0.0, 0.0]]) == [0.0]  # the reference itself has not fallen


def test_margins_made_of_length_are_found_and_margins_without_it_are_not() -> None:
    generator = np.random.default_rng(0)
    rows = [pair(i, *generator.integers(1, 30, size=2)) for i in range(300)]
    longer = np.array([len(row.responses[0]) - len(row.responses[1]) for row in rows])
    of_length = [[0.1 * value + generator.normal(scale=0.5), 0.0] for value in longer]
    found = margin_length_correlation(of_length, rows)
    assert found is not None
    assert found.mean == pytest.approx(spearmanr([chosen for chosen, _ in of_length], longer).statistic)
    assert 0.7 < found.ci95[0] < found.mean < found.ci95[1] < 1
    assert found.n == 300
    free = margin_length_correlation([[generator.normal(), 0.0] for _ in rows], rows)
    assert free is not None
    assert free.ci95[0] < 0 < free.ci95[1]


def test_pairs_of_one_prompt_are_drawn_together() -> None:
    generator = np.random.default_rng(1)
    rows = [pair(i, *generator.integers(1, 30, size=2)) for i in range(40)]
    ratios = [[generator.normal() + 0.03 * len(row.responses[0]), 0.0] for row in rows]
    alone = margin_length_correlation(ratios, rows)
    copied = margin_length_correlation(ratios * 5, rows * 5)  # five times the pairs, no more prompts
    assert alone is not None
    assert copied is not None
    assert copied.ci95 == pytest.approx(alone.ci95, abs=0.05)


def test_there_is_no_correlation_with_what_does_not_vary() -> None:
    assert margin_length_correlation([[1.0, 0.0], [2.0, 0.0]], [pair(0, 3, 2), pair(1, 5, 4)]) is None
    assert margin_length_correlation([[0.0, 0.0], [0.0, 0.0]], [pair(0, 3, 2), pair(1, 9, 4)]) is None
    found = margin_length_correlation([[1.0, 0.0], [2.0, 0.0]], [pair(0, 3, 2), pair(1, 9, 4)], interval=False)
    assert found is not None
    assert found.to_json() == {"mean": pytest.approx(1.0), "n": 2, "ci95": None}


def test_distinct_bigrams_count_over_all_answers() -> None:
    assert distinct_bigrams([[1, 2, 3], [1, 2, 4]]).to_json() == {"mean": 3 / 4, "n": 2, "ci95": None}
    assert distinct_bigrams([[1, 2, 3]] * 4).mean == 2 / 8
    assert distinct_bigrams([[1], []]).mean == 0
