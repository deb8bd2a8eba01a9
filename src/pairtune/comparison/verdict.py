"""The verdict: a few sentences, computed from the saved numbers and from nothing else.

A winner is named only where the interval of the paired difference excludes zero. Everywhere else the sentence
says "no detectable difference", whatever the means look like. An accuracy whose interval holds 50% is said to be one
that cannot be told from chance: an arm's, and that of what arms are judged by or trained on.
"""

from collections.abc import Callable, Mapping, Sequence
from math import isfinite
from typing import Any

from pairtune.evaluation.statistics import Estimate, above_chance, below_chance, detectable
from pairtune.score import score_name
from pairtune.varied import varied

_REFERENCE = "reference"
_SPELLED = {"simpo": "SimPO"}


def verdict(summary: Mapping[str, Any]) -> str:
    """Which arm scores higher and at what KL, held-out accuracy, compute, what didn't work, and what was chosen.

    summary: the mapping saved as summary.json, for any list of arms. The score is the gold reward (or the
    judge's); where neither was taken, the reward model's. KeyError: a field the format promises is missing.
    """
    failed: Mapping[str, str] = summary.get("failed") or {}
    arms = [arm for arm in summary["arms"] if arm != _REFERENCE and arm not in failed]
    score = _Score(summary, arms)
    arms.sort(key=score.mean, reverse=True)
    sentences = [
        score.sentence(arms),
        _doubtful_judge(summary, arms),
        _accuracy_and_compute(summary, arms),
        _doubtful_reward(summary, arms),
        _join_clauses([*(score.against_reference(arms) if len(arms) > 1 else []), *_failures(failed)]),
        _choices(summary, arms, score.name),
    ]
    return " ".join(f"{sentence}." for sentence in sentences if sentence)


class _Score:
    """What the arms are ranked by: the gold reward, a judge's score, or failing both the reward model's."""

    def __init__(self, summary: Mapping[str, Any], arms: Sequence[str]) -> None:
        self.summary = summary
        taken = any(summary["arms"][arm].get("gold_score") for arm in arms)
        self.field = "gold_score" if taken else "reward_model_score"
        self.name = score_name(summary) if taken else "reward-model score"
        self.unit = " standard deviations" if taken else ""

    def mean(self, arm: str) -> float:
        measured = _measured(self.summary, arm, self.field)
        return measured.mean if measured else float("-inf")

    def sentence(self, arms: Sequence[str]) -> str:
        if not arms:
            return "No arm finished"
        others = arms[1:] or [_REFERENCE]
        compare = self._pair if len(others) == 1 else self._several
        return compare(arms[0], others) + _at_kl(self.summary, arms)

    def _pair(self, first: str, others: Sequence[str]) -> str:
        second = others[0]
        difference = _difference(self.summary, first, second, self.field)
        if difference is None:
            return f"No {self.name} was taken to compare {_name(first)} with {_name(second)}"
        if not detectable(difference):
            return (
                f"There is no detectable difference in {self.name} "
                f"between {_name(first)} and {_name(second)} "
                f"({_decimal(difference.mean)}, {_interval(difference)})"
            )
        if difference.mean < 0:
            first, second, difference = second, first, _negated(difference)
        return (
            f"{_sentence_start(_name(first))} has a higher {self.name} than {_name(second)}, "
            f"by {_decimal(difference.mean)}{self.unit} ({_interval(difference)})"
        )

    def _several(self, first: str, others: Sequence[str]) -> str:
        found = {arm: _difference(self.summary, first, arm, self.field) for arm in others}
        compared = {arm: difference for arm, difference in found.items() if difference}
        if not compared:
            return f"No {self.name} was taken to compare {_join_words([_name(arm) for arm in (first, *others)])}"
        above, level = (
            [
                f"{_name(arm)} (by {_decimal(difference.mean)}, {_interval(difference)})"
                for arm, difference in compared.items()
                if detectable(difference) is wanted
            ]
            for wanted in (True, False)
        )
        clauses = []
        if above:
            clauses.append(f"detectably above {_join_words(above)}")
        if level:
            clauses.append(f"with no detectable difference from {_join_words(level, 'or')}")
        missing = [_name(arm) for arm in others if arm not in compared]
        if missing:
            clauses.append(f"not compared with {_join_words(missing, 'or')}")
        return f"{_name(first)} has the highest mean {self.name}, {', '.join(clauses)}"

    def against_reference(self, arms: Sequence[str]) -> list[str]:
        """One clause: every arm that beat the reference, that did not detectably, and that fell below it."""
        found = {arm: _difference(self.summary, arm, _REFERENCE, self.field) for arm in arms}
        known = {arm: difference for arm, difference in found.items() if difference}
        beat = [arm for arm, difference in known.items() if detectable(difference) and difference.mean > 0]
        below = [arm for arm, difference in known.items() if detectable(difference) and difference.mean < 0]
        level = [arm for arm in known if arm not in beat and arm not in below]
        if len(beat) == len(arms):
            return [f"{'Both' if len(arms) == 2 else 'All'} beat the reference"]
        clauses = []
        if beat:
            clauses.append(f"{_join_words([_name(arm) for arm in beat])} beat the reference")
        if level:
            clauses.append(f"{_join_words([_name(arm) for arm in level])} did not detectably beat the reference")
        if below:
            clauses.append(f"{_join_words([_name(arm) for arm in below])} scored below the reference")
        return clauses


def _at_kl(summary: Mapping[str, Any], arms: Sequence[str]) -> str:
    measured = {arm: _measured(summary, arm, "kl_from_reference") for arm in arms}
    values = [(arm, kl.mean) for arm, kl in measured.items() if kl]
    if not values:
        return ""
    if len(arms) == 1:
        return f", at a KL from the reference of {_decimal(values[0][1])} nats per response"
    listed = _join_words([f"{_decimal(kl)} for {_name(arm)}" for arm, kl in values])
    return f", at a KL from the reference (nats per response) of {listed}"


def _accuracy_and_compute(summary: Mapping[str, Any], arms: Sequence[str]) -> str:
    return _join_clauses([*_accuracy(summary, arms), *_compute(summary, arms)])


def _accuracy(summary: Mapping[str, Any], arms: Sequence[str]) -> list[str]:
    measured = {arm: _measured(summary, arm, "heldout_accuracy") for arm in arms}
    known = [(arm, accuracy) for arm, accuracy in measured.items() if accuracy]
    if not known:
        return []
    first, accuracy = known[0]
    if len(arms) == 1:
        shown = f"{_percent(accuracy.mean)} ({_interval(accuracy, _percent)})"
        level = _is_level(accuracy)
        below = ", below chance" if below_chance(accuracy) else ""
        whose = f"{_name(first)}'s held-out accuracy of {shown} {_NO_BETTER}"
        return [whose if level else f"Its held-out accuracy is {shown}{below}"]
    listed, alike = [f"{_percent(accuracy.mean)} for {_name(first)}"], []
    for arm, accuracy in known[1:]:
        difference = _difference(summary, arm, first, "heldout_accuracy")
        note = ""
        if difference and detectable(difference):
            word = "higher" if difference.mean > 0 else "lower"
            oriented = difference if difference.mean > 0 else _negated(difference)
            note = f" ({word} by {_points(oriented.mean)} points, {_interval(oriented, _points)})"
        elif difference and len(arms) == 2:
            note = f" (no detectable difference: {_interval(difference, _points)})"
        elif difference:
            alike.append(_name(arm))
        listed.append(f"{_percent(accuracy.mean)} for {_name(arm)}{note}")
    clauses = [f"Held-out accuracy is {_join_words(listed)}"]
    if alike:
        clauses.append(f"there is no detectable difference between {_name(first)} and {_join_words(alike, 'or')}")
    return clauses + _chance(known)


_NO_BETTER = "cannot be told from chance"


def _is_level(accuracy: Estimate) -> bool:
    return not above_chance(accuracy) and not below_chance(accuracy)


def _chance(known: Sequence[tuple[str, Estimate]]) -> list[str]:
    """Clauses on the accuracies of several arms that are no better than guessing."""
    clauses = []
    for holds, one, many in (
        (_is_level, _NO_BETTER, _NO_BETTER),
        (below_chance, "is below chance", "are below chance"),
    ):
        found = [(_name(arm), f"({_interval(accuracy, _percent)})") for arm, accuracy in known if holds(accuracy)]
        if not found:
            continue
        if holds is _is_level and len(found) == len(known) > 1:
            bounds = _join_words([f"{name} {shown}" for name, shown in found])
            clauses.append(f"{'neither' if len(found) == 2 else 'none'} can be told from chance: {bounds}")
        else:
            whose = _join_words([f"{name}'s {shown}" for name, shown in found])
            clauses.append(f"{whose} {one if len(found) == 1 else many}")
    return clauses


def _doubtful_judge(summary: Mapping[str, Any], arms: Sequence[str]) -> str:
    """Whether what the arms are judged by can judge at all."""
    scorer = summary.get("gold_scorer") or {}
    if scorer.get("kind") != "judge" or not arms:
        return ""
    return _doubtful("The judge's", scorer, "so its scores decide nothing", "so its scores mislead")


def _doubtful_reward(summary: Mapping[str, Any], arms: Sequence[str]) -> str:
    """Whether there was anything in the reward model for PPO to learn."""
    if "ppo" not in arms:
        return ""
    level, below = "so PPO had nothing to learn from", "so PPO learned from a reward that prefers the wrong responses"
    return _doubtful("The reward model's", summary.get("reward_model") or {}, level, below)


def _doubtful(whose: str, scorer: Mapping[str, Any], if_level: str, if_below: str) -> str:
    saved = scorer.get("heldout_accuracy")
    right = Estimate.from_json(saved) if saved else None
    if right is None or above_chance(right):
        return ""
    shown = f"{whose} own accuracy of {_percent(right.mean)} ({_interval(right, _percent)})"
    return f"{shown} is below chance, {if_below}" if below_chance(right) else f"{shown} {_NO_BETTER}, {if_level}"


def _compute(summary: Mapping[str, Any], arms: Sequence[str]) -> list[str]:
    cost = {arm: (sum(summary["arms"][arm]["seconds"].values()), float(summary["arms"][arm]["flops"])) for arm in arms}
    spent = sorted((arm for arm in arms if min(cost[arm]) > 0), key=cost.__getitem__)
    if len(arms) == 1 and spent:
        seconds, flops = cost[arms[0]]
        accuracy = _measured(summary, arms[0], "heldout_accuracy")
        who = _name(arms[0]) if accuracy and _is_level(accuracy) else "it"  # as the clause before begins
        return [f"{who} took {_significant(seconds)} seconds and {flops:.1e} FLOPs"]
    if len(spent) < 2:
        return []
    cheapest, *rest = spent
    clauses = []
    for arm in rest:
        ratios = [mine / base for mine, base in zip(cost[arm], cost[cheapest], strict=True)]
        in_seconds, in_flops = (_significant(ratio) for ratio in ratios)
        clauses.append(f"{_name(arm)} took {in_seconds} times the seconds and {in_flops} times the FLOPs")
    return [f"{_join_words(clauses)} of {_name(cheapest)}"]


def _choices(summary: Mapping[str, Any], arms: Sequence[str], score: str) -> str:
    """Where arms were tried at several settings: at which they stand, and how that was chosen."""
    grid: Mapping[str, Sequence[Mapping[str, Any]]] = summary.get("grid") or {}
    chosen = [(arm, point) for arm in arms for point in grid.get(arm, []) if point["chosen"]]
    if not chosen:
        return ""
    listed = []
    for arm, point in chosen:
        names = varied([other["parameters"] for other in grid[arm]])
        values = ", ".join(f"{name} {point['parameters'][name]:g}" for name in names if name in point["parameters"])
        failed = sum(bool(other.get("failed")) for other in grid[arm])
        listed.append(f"{_name(arm)} at {values} (of {len(grid[arm])} tried{f', {failed} failed' if failed else ''})")
    return f"Chosen by {score} on {chosen[0][1]['gold_score']['n']} validation prompts: {_join_words(listed)}"


def _failures(failed: Mapping[str, str]) -> list[str]:
    reasons = {arm: " ".join(reason.split()).rstrip(".") for arm, reason in failed.items()}
    return [f"{_name(arm)} failed" + (f" ({reason})" if reason else "") for arm, reason in reasons.items()]


def _measured(summary: Mapping[str, Any], arm: str, field: str) -> Estimate | None:
    measured = summary["arms"][arm].get(field)
    return Estimate.from_json(measured) if measured else None


def _difference(summary: Mapping[str, Any], first: str, second: str, field: str) -> Estimate | None:
    """first − second, whichever way round it was saved."""
    differences = summary.get("differences") or {}
    saved = (differences.get(f"{first} - {second}") or {}).get(field)
    if saved:
        return Estimate.from_json(saved)
    reverse = (differences.get(f"{second} - {first}") or {}).get(field)
    return _negated(Estimate.from_json(reverse)) if reverse else None


def _negated(difference: Estimate) -> Estimate:
    low, high = difference.ci95
    return Estimate(mean=-difference.mean, n=difference.n, ci95=(-high, -low))


def _name(arm: str) -> str:
    if arm == _REFERENCE:
        return "the reference"
    return _SPELLED.get(arm, arm.upper() if arm.isalpha() and len(arm) <= 4 else arm)


def _sentence_start(words: str) -> str:
    return words[:1].upper() + words[1:]


def _decimal(value: float) -> str:
    """Two decimals, or two significant digits where those would read as zero."""
    text = f"{value:.2f}" if abs(value) >= 0.005 or value == 0 else f"{value:.2g}"
    return text.replace("-", "−")


def _points(share: float) -> str:
    """Hundredths, to one decimal or to two significant digits where that would read as zero."""
    points = 100 * share
    return f"{points:.1f}".replace("-", "−") if abs(points) >= 0.05 else _decimal(points)


def _percent(share: float) -> str:
    return f"{_points(share)}%"


def _significant(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 1 else f"{value:.2g}"


def _interval(estimate: Estimate, show: Callable[[float], str] = _decimal) -> str:
    low, high = estimate.ci95
    bounds = f"95% interval {show(low)} to {show(high)}" if isfinite(low) else "too few prompts for an interval"
    return f"{bounds}, n = {estimate.n}"


def _join_words(words: Sequence[str], last: str = "and") -> str:
    return f" {last} ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def _join_clauses(clauses: Sequence[str]) -> str:
    return _sentence_start("; ".join(clauses))
