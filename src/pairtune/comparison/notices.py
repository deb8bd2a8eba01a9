"""What to watch, in words: an arm past a stated threshold, and what that does and does not mean.

A threshold is crossed by a figure of the summary, and chance must not explain it: the interval of the figure, or of
its paired difference from the reference's, must exclude zero. Distinct 2-grams have no interval.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pairtune.estimate import Estimate
from pairtune.evaluation.best_of import kl_bound
from pairtune.evaluation.statistics import paired_difference
from pairtune.report import words
from pairtune.report.words import best_of

# Chosen responses: the share of pairs whose chosen response fell, and the mean fall in nats per token.
FELL_SHARE, FELL_NATS = 0.5, 0.1
# Answers' mean length against the reference's, as a share of it.
LENGTH_DRIFT = 0.25
# Rank correlation of margin and difference of length, either way.
CORRELATION = 0.5
# Share of repeated 3-grams above the reference's.
REPETITION = 0.1
# Distinct 2-grams as a share of the reference's.
DISTINCT = 0.5


def notices(summary: Mapping[str, Any], values: Mapping[str, Mapping[str, Sequence[float]]]) -> list[dict[str, str]]:
    """One {"arm", "figure", "text"} for each threshold that an arm has crossed.

    summary: with its "arms" and, where there are any, its "differences". values: of every arm, its response tokens and
    repetition, answer by answer.
    """
    found = []
    for arm, figures in summary["arms"].items():
        if arm != "reference":
            gained = (summary.get("differences") or {}).get(f"{arm} - reference", {}).get("gold_score")
            every = _of_arm(arm, figures, summary["arms"]["reference"], values[arm], values["reference"], gained)
            found += [{"arm": arm, "figure": figure, "text": text} for figure, text in every]
    return found


def _of_arm(
    arm: str,
    figures: Mapping[str, Any],
    reference: Mapping[str, Any],
    values: Mapping[str, Sequence[float]],
    reference_values: Mapping[str, Sequence[float]],
    gained: Mapping[str, Any] | None,
) -> Iterator[tuple[str, str]]:
    if n := best_of(arm):
        yield "kl_from_reference", _of_best(n, figures)
    fallen = figures.get("chosen_fell") or {"mean": 0.0}  # best of n has no figures of pairs
    share, nats = fallen["mean"], (figures.get("chosen_nats_per_token") or fallen)["mean"]
    if share > FELL_SHARE and nats < -FELL_NATS and _excludes_zero(figures["chosen_nats_per_token"]):
        rejected = figures["rejected_nats_per_token"]["mean"]
        yield (
            "chosen_fell",
            f"The chosen response became less probable than under the reference on {share:.1%} of the held-out pairs "
            f"(told above {FELL_SHARE:.0%}); over all pairs the mean change is {words.decimal(nats)} nats a token "
            f"(told below {words.decimal(-FELL_NATS)}), of the rejected {words.decimal(rejected)}. Alone this is not "
            "degeneration: many losses look at the margin only. The generations show what became more probable.",
        )
    length, before = figures["response_tokens"]["mean"], reference["response_tokens"]["mean"]
    drift = length / before - 1 if before > 0 else 0.0
    if abs(drift) > LENGTH_DRIFT and _differs("response_tokens", values, reference_values):
        yield (
            "response_tokens",
            f"Answers are {abs(drift):.0%} {'longer' if drift > 0 else 'shorter'} than the reference's, {length:.1f} "
            f"tokens against {before:.1f} (told above {LENGTH_DRIFT:.0%})."
            + _said_of(gained is None or _is_gain(gained), " Length alone may have gained some score."),
        )
    correlation = figures["margin_length_correlation"]
    if correlation and abs(correlation["mean"]) > CORRELATION and _excludes_zero(correlation):
        word = "longer" if correlation["mean"] > 0 else "shorter"
        right = figures.get("heldout_accuracy")
        yield (
            "margin_length_correlation",
            f"The margin grows the {word} the chosen response is beside the rejected one: their rank correlation is "
            f"{words.decimal(correlation['mean'])} (told beyond ±{CORRELATION})."
            + _said_of(
                right is None or Estimate.from_json(right).against_chance == "above",
                f" Part of the held-out accuracy may be a preference for {word} responses.",
            ),
        )
    repetition, usual = figures["repetition"]["mean"], reference["repetition"]["mean"]
    if repetition - usual > REPETITION and _differs("repetition", values, reference_values):
        yield (
            "repetition",
            f"Answers repeat themselves: {repetition:.0%} of their 3-grams came before in the same answer, against "
            f"{usual:.0%} in the reference's (told above {100 * REPETITION:.0f} points more). This is a sign of "
            "degeneration.",
        )
    distinct, usually = figures["distinct_bigrams"]["mean"], reference["distinct_bigrams"]["mean"]
    if 0 < distinct < DISTINCT * usually:
        yield (
            "distinct_bigrams",
            f"The same pairs of neighbouring tokens come again and again, within an answer or from one to the next: "
            f"{distinct:.0%} of all 2-grams are distinct, against {usually:.0%} in the reference's (told below "
            f"{DISTINCT:.0%} of that). Longer answers lower it too.",
        )


def _of_best(n: int, figures: Mapping[str, Any]) -> str:
    """What is not as it is with arms that learn: the KL, and what the costs are of."""
    prompts = words.whole(figures["response_tokens"]["n"])
    return (
        f"Nothing is trained. The KL is estimated from n and each answer's probability under the reference; it is at "
        f"most log n − (n − 1)/n = {words.decimal(kl_bound(n))} nats. Time and FLOPs are those of the reward model, "
        f"and of drawing and scoring {n} answers to each of the {prompts} prompts measured on: each answer in use "
        "costs as much again. What it makes of given responses nobody knows, so it has no held-out accuracy."
    )


def _differs(name: str, values: Mapping[str, Sequence[float]], reference: Mapping[str, Sequence[float]]) -> bool:
    return paired_difference(values[name], reference[name]).is_detectable


def _excludes_zero(figure: Mapping[str, Any]) -> bool:
    return Estimate.from_json(figure).is_detectable


def _is_gain(difference: Mapping[str, Any]) -> bool:
    return difference["mean"] > 0 and _excludes_zero(difference)


def _said_of(holds: bool, explanation: str) -> str:
    """What may explain a gain is said only where there is one."""
    return explanation if holds else ""
