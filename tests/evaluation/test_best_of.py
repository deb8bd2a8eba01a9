"""The KL of best of n, held to a world whose answers can be counted out."""

import math

import numpy as np
import pytest

from pairtune.evaluation.best_of import kl_bound, kl_estimate


def counted_out(probability_Y: np.ndarray, n: int) -> tuple[np.ndarray, float]:
    """The law of the best of n answers, the last the highest, and its KL: every outcome of n draws is enumerated."""
    best_Y = np.zeros(len(probability_Y))
    for index in np.ndindex(*[len(probability_Y)] * n):
        best_Y[max(index)] += probability_Y[list(index)].prod()
    return best_Y, float((best_Y * np.log(best_Y / probability_Y)).sum())


@pytest.mark.parametrize("n", [2, 3, 4])
def test_kl_lies_between_the_exact_one_and_the_bound(n: int) -> None:
    generator = np.random.default_rng(n)
    for spread in (0.1, 1.0, 10.0):
        for _ in range(4):
            probability_Y = generator.dirichlet(np.full(6, spread)) + 1e-6
            probability_Y /= probability_Y.sum()
            best_Y, exact = counted_out(probability_Y, n)
            expected = sum(p * kl_estimate(math.log(q), n) for p, q in zip(best_Y, probability_Y, strict=True))
            assert exact - 1e-9 <= expected <= kl_bound(n) + 1e-9


@pytest.mark.parametrize("n", [2, 16])
def test_kl_is_the_bound_where_no_answer_comes_twice(n: int) -> None:
    size = 400_000  # equally probable: F(y) = y/size
    top = np.arange(1, size + 1) / size
    best_Y = top**n - (top - 1 / size) ** n
    exact = float((best_Y * np.log(best_Y * size)).sum())
    assert exact == pytest.approx(kl_bound(n), abs=1e-4)
    assert kl_estimate(-math.log(size), n) == pytest.approx(exact, abs=1e-3)
    for logprob in (-50.0, -800.0):  # also where e^logprob is 0
        assert kl_estimate(logprob, n) == pytest.approx(kl_bound(n), abs=1e-12)
    assert kl_estimate(0.0, n) == 0.0  # the one answer there is


def test_kl_by_hand() -> None:
    """Two answers of one half each, n = 2: (1/4)(ln 2 + ln ½ − ½) + (3/4) ln(3/2)."""
    assert kl_estimate(math.log(0.5), 2) == pytest.approx(-1 / 8 + 0.75 * math.log(1.5), abs=1e-12)
    assert kl_bound(4) == pytest.approx(0.6362943611198906, abs=1e-15)
