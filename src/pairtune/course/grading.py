"""The checks behind the course's exercises: what a reader's functions must give, from numpy, scipy and the theory."""

import itertools
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.special import expit
from scipy.stats import binom, norm

from pairtune.course.check_loss import Side, Table, check_loss, pairs
from pairtune.own import Own
from pairtune.theory.optimum import optimal_policy
from pairtune.theory.world import World, random_world

# Of a simulation, in deviations of what is simulated.
ABOUT = 0.02


class Question(NamedTuple):
    """An exercise: its number, the name that it asks for, and what is wrong with a value (nothing: it is right)."""

    number: str
    name: str
    wrong: Callable[[Any], str]


def _compared(found: Any, expected: Any, given: str, *, close: float = 1e-5) -> str:
    """What is wrong with a number or an array."""
    if found is None:
        return f"of {given} it gives None"
    try:
        found, expected = np.asarray(found, dtype=float), np.asarray(expected, dtype=float)
    except (TypeError, ValueError):
        return f"of {given} it gives {found!r}"
    if found.shape != expected.shape:
        return f"of {given} it gives the shape {list(found.shape)}, and not {list(expected.shape)}"
    if np.isfinite(found).all() and np.allclose(found, expected, rtol=close, atol=close):
        return ""
    return f"of {given} it gives {_shown(found)}, and not {_shown(expected)}"


def _shown(value: np.ndarray[Any, Any]) -> str:
    return str(np.round(value, 4).tolist())


def _first(*found: str) -> str:
    return next(filter(None, found), "")


def _win_probability(function: Any) -> str:
    first, second = np.array([0.0, 3.0, -2.0]), np.array([0.0, 1.0, 5.0])
    return _first(
        _compared(function(1.0, 0.0), expit(1.0), "1 and 0"),
        _compared(function(first, second), expit(first - second), "two arrays"),
    )


def _kl(function: Any) -> str:
    policy, reference = np.array([0.7, 0.2, 0.1]), np.array([0.2, 0.3, 0.5])
    expected = sum(p * math.log(p / q) for p, q in zip(policy, reference, strict=True))
    sure = function(np.array([0.0, 1.0]), np.array([0.5, 0.5]))
    return _first(
        _compared(function(policy, reference), expected, "two policies"),
        _compared(sure, math.log(2), "a policy that is sure of one of two"),
    )


def _best_policy(function: Any) -> str:
    for seed in range(3):
        world = random_world(np.random.default_rng(seed), prompts=1)
        found = function(world.reference_XY[0], world.reward_XY[0], world.beta)
        if wrong := _compared(found, optimal_policy(world)[0], "a random world"):
            return wrong
    far = World(prompt_X=np.ones(1), reference_XY=np.full((1, 2), 0.5), reward_XY=np.array([[2000.0, 0]]), beta=1.0)
    return _compared(function(far.reference_XY[0], far.reward_XY[0], 1.0), [1.0, 0.0], "rewards of 2000 and 0")


def _response_logprob(function: Any) -> str:
    model, (side, _) = Table(4), pairs(1)
    expected = []
    for ids, is_response in zip(side.ids.tolist(), side.is_response.tolist(), strict=True):
        logits = model(torch.tensor([ids])).logits[0].detach().double().numpy()
        places = [t for t in range(1, len(ids)) if is_response[t]]
        expected.append(sum(logits[t - 1, ids[t]] - np.logaddexp.reduce(logits[t - 1]) for t in places))
    found = function(model, Side(*side))
    return _compared(found.detach() if isinstance(found, torch.Tensor) else found, expected, "four rows", close=1e-4)


def _my_dpo(function: Any) -> str:
    own = Own("my_dpo", function, _place(function), "")
    return "; ".join(finding.found for finding in check_loss(own) if not finding.right)


def _place(function: Any) -> Path:
    return Path(getattr(getattr(function, "__code__", None), "co_filename", ""))


def _gradient_weight(function: Any) -> str:
    cases = itertools.product((-20.0, 0.0, 3.0), (0.1, 1.0))
    return _first(*(_compared(function(m, b), b * expit(-b * m), f"margin {m:g}, β {b:g}") for m, b in cases))


def _accuracy(function: Any) -> str:
    return _first(
        _compared(function([1.0, 2.0, -1.0, 0.5], [0.0, 3.0, -2.0, 0.5]), 2.5 / 4, "four pairs, one of them a tie"),
        _compared(function([0.0, 0.0], [0.0, 0.0]), 0.5, "ties alone"),
    )


def _mean_change(function: Any) -> str:
    return _compared(function([-3.0, 1.0], [10, 2]), -2 / 12, "-3 nats over 10 tokens and 1 over 2")


def _reward_loss(function: Any) -> str:
    expected = (math.log1p(math.exp(-1)) + math.log1p(math.exp(2))) / 2
    return _first(
        _compared(function([1.0, 0.0], [0.0, 2.0]), expected, "two pairs"),
        _compared(function([-1000.0], [1000.0]), 2000.0, "-1000 against 1000"),
    )


def _token_rewards(function: Any) -> str:
    found = function(2.0, [-1.0, -0.5, -2.0], [-1.5, -0.5, -1.0], 0.1)
    return _compared(found, [-0.05, 0.0, 2.1], "a score of 2 over three tokens")


def _gae(function: Any) -> str:
    random = np.random.default_rng(0)
    rewards, values = random.normal(size=(2, 5))
    following = np.append(values[1:], 0)
    delta = rewards + 0.9 * following - values
    expected = [sum((0.9 * 0.8) ** (k - t) * delta[k] for k in range(t, 5)) for t in range(5)]
    return _compared(function(rewards, values, 0.9, 0.8), expected, "five random tokens, γ 0.9, λ 0.8")


def _clipped_loss(function: Any) -> str:
    ratio, advantage = np.array([1.5, 1.5, 0.5, 0.5, 1.1]), np.array([1.0, -1.0, 1.0, -1.0, 2.0])
    return _compared(function(ratio, advantage, 0.2), [-1.2, 1.5, -0.5, 0.8, -2.2], "five tokens, ε 0.2")


def _paired_interval(function: Any) -> str:
    first, second = np.random.default_rng(3).normal(size=(2, 50))
    difference = second - first
    error = 1.96 * math.sqrt(sum((difference - difference.mean()) ** 2) / 49 / 50)
    expected = [difference.mean() - error, difference.mean() + error]
    return _compared(function(first, second), expected, "fifty prompts", close=1e-3)


def _chance_of(function: Any) -> str:
    cases = ((19, 30), (5, 5), (0, 4))
    return _first(*(_compared(function(k, n), binom.sf(k - 1, n, 0.5), f"{k} of {n}") for k, n in cases))


def _winners_curse(function: Any) -> str:
    grid = np.linspace(-8, 8, 20001)
    found = []
    for candidates in (1, 5):
        density = candidates * norm.cdf(grid) ** (candidates - 1) * norm.pdf(grid)
        exact = float((grid * density).sum() * (grid[1] - grid[0]))
        value = function(candidates, 2.0)
        right = isinstance(value, float | int) and abs(float(value) - 2 * exact) < 2 * ABOUT
        found.append("" if right else f"of {candidates} candidates it gives {value!r}, and not about {2 * exact:.2f}")
    return _first(*found)


def _ipo(function: Any) -> str:
    chosen, rejected = torch.tensor([1.0, -2.0]), torch.tensor([0.0, 3.0])
    return _compared(function(chosen, rejected, 0.25), [1.0, 49.0], "margins of 1 and -5, β 0.25")


def _features(function: Any) -> str:
    w = np.asarray(function(), dtype=float)
    if w.shape != (3, 2):
        return f"it gives the shape {list(w.shape)}, and not [3, 2]"
    step = w @ (0.01 * 0.5 * (w[0] - w[1]))  # from θ = 0 the loss falls along W[0] - W[1], half as steeply
    after = np.exp(step) / np.exp(step).sum()
    return "" if after[0] < 1 / 3 - 1e-9 else f"the chosen answer goes from 0.3333 to {after[0]:.4f}"


def _my_objective(function: Any) -> str:
    chosen, rejected = torch.tensor([1.0, -2.0]), torch.tensor([0.0, 3.0])
    expected = [math.log1p(math.exp(-0.1)), math.log1p(math.exp(0.5)) + 1.0]
    return _compared(function(chosen, rejected, beta=0.1, penalty=0.5), expected, "two pairs")


QUESTIONS: Mapping[str, tuple[Question, ...]] = {
    "1_preferences": (
        Question("1.1", "win_probability", _win_probability),
        Question("1.2", "kl", _kl),
        Question("1.3", "best_policy", _best_policy),
    ),
    "2_dpo": (
        Question("2.1", "response_logprob", _response_logprob),
        Question("2.2", "my_dpo", _my_dpo),
        Question("2.3", "gradient_weight", _gradient_weight),
    ),
    "3_train": (Question("3.1", "accuracy", _accuracy), Question("3.2", "mean_change", _mean_change)),
    "4_rlhf": (
        Question("4.1", "reward_loss", _reward_loss),
        Question("4.2", "token_rewards", _token_rewards),
        Question("4.3", "gae", _gae),
        Question("4.4", "clipped_loss", _clipped_loss),
    ),
    "5_compare": (
        Question("5.1", "paired_interval", _paired_interval),
        Question("5.2", "chance_of", _chance_of),
        Question("5.3", "winners_curse", _winners_curse),
    ),
    "6_variants": (
        Question("6.1", "ipo", _ipo),
        Question("6.2", "features", _features),
        Question("6.3", "my_objective", _my_objective),
    ),
}
