"""Simulated comparisons: what the verdict says of arms that are equal, and what choosing does to a figure."""

from itertools import combinations
from typing import Any

import numpy as np
import pytest
from scipy import stats

from pairtune.comparison.arms import Arms, Trial
from pairtune.comparison.summary import differences, smallest_difference
from pairtune.engine.cost import Cost
from pairtune.grid import Candidate
from pairtune.objectives.loss import loss_of
from pairtune.report.verdict import verdict
from pairtune.stages.stage import Done

SIMULATED, PROMPTS = 200, 40
# What 5% gives in so many comparisons, but for one time in a thousand.
ALLOWED = int(stats.binom.isf(0.001, SIMULATED, 0.05))


def said(scores_AN: np.ndarray) -> str:
    """The verdict on arms with these scores, prompt by prompt."""
    names = [f"arm{i}" for i in range(len(scores_AN))]
    values = {name: {"gold_score": list(scores)} for name, scores in zip(names, scores_AN, strict=True)}
    free: dict[str, Any] = {"seconds": {}, "flops": 0}
    arms = {name: free | {"gold_score": {"mean": float(np.mean(of["gold_score"])), "n": PROMPTS, "ci95": None}}
            for name, of in values.items()}  # fmt: skip
    return verdict({"gold_scorer": {"kind": "gold"}, "arms": {"reference": free, **arms}} | {
        "differences": differences(values, [])
    })  # fmt: skip


@pytest.mark.parametrize("arms", [2, 3, 5, 8])
def test_of_equal_arms_the_verdict_calls_one_better_in_no_more_than_five_of_a_hundred(arms: int) -> None:
    generator, named = np.random.default_rng(arms), 0
    for _ in range(SIMULATED):
        # Prompts are hard for all arms alike, and each arm's noise is skewed.
        told = said(generator.normal(size=PROMPTS) + generator.gumbel(size=(arms, PROMPTS)))
        named += "detectably above" in told or "has a higher" in told
        assert named or "no detectable difference" in told
    assert named <= ALLOWED
    better = generator.gumbel(size=(arms, PROMPTS))
    better[0] += 3
    assert said(better).lower().startswith("arm0 has"), "and what is far better is called so"


def test_what_is_chosen_on_validation_prompts_is_no_better_on_held_out_ones_than_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Six candidates that are equal: the best on validation looks better there by chance, and nowhere else."""
    generator = np.random.default_rng(5)
    several = [Candidate("dpo", f"dpo@beta={i}", loss_of("dpo")) for i in range(6)]
    seen, held = [], []
    arms: Any = object.__new__(Arms)
    arms.context = type("Context", (), {"candidates": {"dpo": several}})()

    def tried(candidate: Candidate, *, validate: bool) -> Trial:
        assert validate
        drawn = {"gold": generator.normal(size=PROMPTS).tolist(), "heldout": generator.normal(size=PROMPTS).tolist()}
        return Trial(candidate, validated=Done("", None, drawn, Cost()))  # type: ignore[arg-type]

    monkeypatch.setattr(arms, "_try", tried)
    for _ in range(SIMULATED):
        facts = arms._train_method("dpo").chosen.validated.facts
        seen.append(np.mean(facts["gold"]))
        held.append(np.mean(facts["heldout"]))
    error = 1 / (PROMPTS * SIMULATED) ** 0.5
    assert abs(np.mean(held)) < 3.3 * error
    assert np.mean(seen) > 10 * error, "the curse is there to be free of"


def test_the_smallest_difference_is_of_the_two_arms_that_differ_most() -> None:
    scores = dict(
        zip(("dpo", "ipo", "ppo"), np.random.default_rng(0).normal(size=(3, 200)) * [[1], [1], [3]], strict=True)
    )
    values = {name: {"gold_score": list(each)} for name, each in (scores | {"reference": 9 * scores["ppo"]}).items()}
    widest = max(float(np.std(a - b, ddof=1)) for a, b in combinations(scores.values(), 2))
    normal = stats.studentized_range.ppf(0.95, 3, np.inf) / 2**0.5  # what three arms need; 80% lie 0.84 above it
    expected = (stats.t.isf(stats.norm.sf(normal), 199) + stats.norm.ppf(0.8)) / 200**0.5 * widest
    assert smallest_difference(values) == pytest.approx(expected, rel=0.01)
    assert smallest_difference({name: values[name] for name in ("reference", "dpo")}) is None
