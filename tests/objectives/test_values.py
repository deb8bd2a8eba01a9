"""A value of every objective, worked out by hand from its equation with Python's own floats."""

from math import exp, log, log1p, sqrt
from typing import Any

import pytest
import torch

from pairtune.objectives.catalog import OBJECTIVES
from pairtune.objectives.pairwise import dpo
from pairtune.objectives.reward import bradley_terry


def nls(x: float) -> float:
    """−log σ(x)."""
    return log1p(exp(-x))


def sigma(x: float) -> float:
    return 1 / (1 + exp(-x))


W, L = [2.0], [-1.0]  # log-ratios of a chosen and a rejected response: a margin of 3
NOISY = {"beta": 0.5, "label_smoothing": 0.1}
Q = sigma(1.5)

# name: (what the loss is given, its parameters, one loss per example)
BY_HAND: dict[str, tuple[list[Any], dict[str, float], list[float]]] = {
    "dpo": ([[2.0, 0, -1], [-1.0, 0, 2]], {"beta": 0.5}, [nls(1.5), log(2), nls(1.5) + 1.5]),
    "cdpo": ([W, L], NOISY, [0.9 * nls(1.5) + 0.1 * nls(-1.5)]),
    "robust-dpo": ([W, L], NOISY, [(0.9 * nls(1.5) - 0.1 * nls(-1.5)) / 0.8]),
    "ipo": ([[2.0, 1.5, 0], [-1.0, -0.5, 0]], {"beta": 0.25}, [1.0, 0.0, 4.0]),
    "hinge": ([[2.0, 5, 0], [-1.0, -1, 0]], {"beta": 0.25}, [0.25, 0.0, 1.0]),
    "exo": ([W, L], NOISY, [Q * log(Q / 0.9) + (1 - Q) * log((1 - Q) / 0.1)]),
    "discopop": ([W, L], {"beta": 0.5, "tau": 0.5}, [(1 - sigma(3)) * nls(1.5) + sigma(3) * exp(-1.5)]),
    # margins 3 and 1 against a past of 1: β' = 0.5·(1 + 0.6·(2 − 1)) = 0.8
    "beta-dpo": ([[2.0, 1], [-1.0, 0], 1.0], {"beta": 0.5, "alpha": 0.6}, [nls(2.4), nls(0.8)]),
    "sppo": ([W, L], {"beta": 0.25}, [(2 - 2) ** 2 + (-1 + 2) ** 2]),
    "nca": ([W, L], {"beta": 0.5}, [nls(1) + 0.5 * nls(-1) + 0.5 * nls(0.5)]),
    "apo-zero": ([W, L], {"beta": 0.5}, [1 - sigma(1) + sigma(-0.5)]),
    "apo-down": ([W, L], {"beta": 0.5}, [sigma(1) + 1 - sigma(1.5)]),
    # the second has lost 2 nats: 0.5·(3 − 0.5·2) = 1
    "dpop": ([[2.0, -2], [-1.0, -5]], {"beta": 0.5, "penalty": 0.5}, [nls(1.5), nls(1)]),
    "cal-dpo": ([W, L], {"beta": 0.25}, [nls(3) + (2 - 2) ** 2 + (-1 + 2) ** 2]),
    "rpo": ([W, L, [-6.0], [3]], {"beta": 0.5, "alpha": 0.4}, [6 / 3 + 0.4 * nls(1.5)]),
    # density ratios of 2 and ½
    "fdpo-forward-kl": ([[log(2)], [-log(2)]], {"beta": 0.5}, [nls(0.5 * (2 - 1 / 2))]),
    "fdpo-js": ([[log(2)], [-log(2)]], {"beta": 0.5}, [nls(0.5 * (log(4 / 3) - log(2 / 3)))]),
    "fdpo-alpha": ([[log(2)], [-log(2)]], {"beta": 0.5, "alpha": 0.5}, [nls(0.5 * (sqrt(2) - sqrt(1 / 2)) / 0.5)]),
    "dpo-norm": ([W, L, [4], [2]], {"beta": 2.0}, [nls(2 * (2 / 4 + 1 / 2))]),
    "r-dpo": ([W, L, [4], [9]], {"beta": 0.5, "alpha": 0.1}, [nls(1.5 - 0.1 * 5)]),
    # three tokens against one, then one against two: 1 + ½·(0.5 + 2) + 1 = 3.25, and 3 − (1 − ½·4) = 4
    "ld-dpo": (
        [[1.0, 0.5, 2, 3], [-1.0, 1, -4], [3, 1], [1, 2]],
        {"beta": 0.5, "alpha": 0.5},
        [nls(0.5 * 3.25), nls(0.5 * 4)],
    ),
    # mean excess over a usual draw: −1 and −1 nats; then far above it, where the weight stops at 1
    "wpo": (
        [[2.0, 2], [-1.0, -1], [-6.0, -6], [-4.0, -4], [-3.0, -12], [-2.0, -12], [3, 3], [2, 2]],
        {"beta": 0.5},
        [exp(-2) * nls(1.5), nls(1.5)],
    ),
    # gaps 2 and −1 of the policy, 0 and 2 of the reference: sorted (−1, 2) and (0, 2)
    "aot-paired": (
        [[-1.0, -2], [-3.0, -1], [-2.0, -2], [-2.0, -4]],
        NOISY,
        [0.9 * nls(-0.5) + 0.1 * nls(0.5), log(2)],
    ),
    # sorted (−1, 2) and (−3, 1)
    "aot-unpaired": ([[2.0, -1], [1.0, -3]], {"beta": 0.5, "label_smoothing": 0.0}, [nls(1), nls(0.5)]),
    "kto": (
        [[2.0, -1], [True, False], 0.5],
        {"beta": 0.5, "desirable_weight": 2.0, "undesirable_weight": 3.0},
        [2 * (1 - sigma(0.5 * (2 - 0.5))), 3 * (1 - sigma(0.5 * (0.5 + 1)))],
    ),
    "bco": ([[2.0, -1], [True, False], 0.5], {"beta": 0.5}, [nls(0.5 * 1.5), nls(0.5 * 1.5)]),
    "simpo": ([[-4.0], [-6.0], [4], [2]], {"beta": 2.0, "gamma": 1.0}, [nls(2 * (-1 + 3) - 1)]),
    # two tokens in a chosen response, so 2 nats a token
    "cpo": ([[-4.0], [-6.0], 2.0], {"beta": 0.5, "sft_weight": 0.1}, [nls(1) + 0.1 * 2]),
    # probabilities ½ and ¼ per token, so odds 1 and ⅓
    "orpo": ([[2 * log(0.5)], [log(0.25)], [2], [1]], {"odds_weight": 0.5}, [log(2) + 0.5 * nls(log(3))]),
    "slic": ([[-4.0, -1], [-3.5, -3]], {"delta": 1.0, "sft_weight": 0.1}, [1.5 + 0.4, 0.1]),
    # two and six tokens, four on average: their mean is the 16 nats of 8 tokens
    "sft": ([[-4.0, -12.0], 4.0], {}, [1.0, 3.0]),
    # rejected tokens of probability ½ and ¾, then of ¼: −log of what is left
    "unlikelihood": (
        [[-4.0, -1], [log(0.5), log(0.75), log(0.25)], [2, 1], 2.0],
        {"alpha": 0.5},
        [(4 + 0.5 * (log(2) + log(4))) / 2, (1 + 0.5 * log(4 / 3)) / 2],
    ),
}


def test_each_is_of_an_objective() -> None:
    assert set(BY_HAND) <= set(OBJECTIVES)


def test_by_hand(name: str) -> None:
    if name not in BY_HAND:
        pytest.skip(f"nobody has worked out a value of {name} by hand; see CONTRIBUTING.md")
    given, parameters, expected = BY_HAND[name]
    tensors = [torch.tensor(x, dtype=None if is_whole(x) else torch.float64) for x in given]
    assert OBJECTIVES[name].parameters.keys() == parameters.keys()
    assert OBJECTIVES[name].loss(*tensors, **parameters).tolist() == pytest.approx(expected, rel=1e-12, abs=1e-14)


def is_whole(x: Any) -> bool:
    """Whether these are lengths or labels."""
    return isinstance(x, list) and all(isinstance(each, int) for each in x)


def test_bradley_terry_by_hand() -> None:
    found = bradley_terry(torch.tensor([1.0, 5, 0]).double(), torch.tensor([0.0, 5, 1]).double())
    assert found.tolist() == pytest.approx([nls(1), log(2), nls(-1)], rel=1e-12)


def test_the_gradient_of_dpo_is_that_of_the_paper() -> None:
    """-beta * sigmoid(-beta * margin) on the chosen log-ratio, the opposite on the rejected one."""
    chosen = torch.tensor([2.0, -3.0], dtype=torch.float64, requires_grad=True)
    rejected = torch.tensor([-1.0, 4.0], dtype=torch.float64, requires_grad=True)
    dpo(chosen, rejected, beta=0.5).sum().backward()
    expected = [-0.5 * sigma(-0.5 * margin) for margin in (3, -7)]
    assert chosen.grad is not None
    assert rejected.grad is not None
    assert chosen.grad.tolist() == pytest.approx(expected, rel=1e-12)
    assert rejected.grad.tolist() == pytest.approx([-x for x in expected], rel=1e-12)


def test_the_ends_of_alpha_are_the_two_kls() -> None:
    chosen, rejected = torch.tensor([1.5, -0.3]).double(), torch.tensor([-0.7, 0.4]).double()
    alpha = OBJECTIVES["fdpo-alpha"].loss
    near = alpha(chosen, rejected, beta=0.5, alpha=1e-7)
    torch.testing.assert_close(near, OBJECTIVES["dpo"].loss(chosen, rejected, beta=0.5), rtol=1e-6, atol=0)
    whole = OBJECTIVES["fdpo-forward-kl"].loss(chosen, rejected, beta=0.5)
    torch.testing.assert_close(alpha(chosen, rejected, beta=0.5, alpha=1.0), whole)
