"""The verdict: a few sentences, computed from the saved numbers and from nothing else.

A winner is named only where the interval of the paired difference excludes zero. Everywhere else the sentence
says "no detectable difference", whatever the means look like. An accuracy whose interval holds 50% is said to be one
that cannot be told from chance: an arm's, and that of what arms are judged by or trained on.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from pairtune.estimate import Estimate
from pairtune.report import figures, words
from pairtune.report.records import REFERENCE, measured


def verdict(summary: Mapping[str, Any]) -> str:
    """Which arm scores higher and at what KL, held-out accuracy, compute, what didn't work, and what was chosen.

    summary: the mapping saved as summary.json, for any list of arms. The score is the gold reward (or the
    judge's); where neither was taken, the reward model's. KeyError: a field the format promises is missing.
    """
    failed: Mapping[str, str] = summary.get("failed") or {}
    arms = [arm for arm in summary["arms"] if arm != REFERENCE and arm not in failed]
    score = _Score(summary, arms)
    arms.sort(key=score.mean, reverse=True)
    sentences = [
        score.sentence(arms),
        score.together(arms) if summary.get("differences") else "",
        score.visible(),
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
        figure = figures.score(summary) if taken else figures.figure("reward_model_score")
        self.field, self.name = figure.key, figure.title.lower()

    def mean(self, arm: str) -> float:
        found = _measured(self.summary, arm, self.field)
        return found.mean if found else float("-inf")

    def sentence(self, arms: Sequence[str]) -> str:
        if not arms:
            return "No arm finished"
        others = arms[1:] or [REFERENCE]
        compare = self._pair if len(others) == 1 else self._several
        return compare(arms[0], others) + _at_kl(self.summary, arms)

    @staticmethod
    def together(arms: Sequence[str]) -> str:
        """Of how many comparisons the intervals hold at once, where there are several."""
        count = len(arms) * (len(arms) - 1) // 2
        return f"The intervals of the {count} differences between arms hold together with 95%" if count > 1 else ""

    def visible(self) -> str:
        """How large a difference would have been seen."""
        seen = self.summary.get("smallest_difference") if self.field == "gold_score" else None
        return f"A difference of {words.decimal(seen)} would be found in 80% of such comparisons" if seen else ""

    def _pair(self, first: str, others: Sequence[str]) -> str:
        second = others[0]
        difference = _difference(self.summary, first, second, self.field)
        if difference is None:
            return f"No {self.name} was taken to compare {_name(first)} with {_name(second)}"
        if not difference.is_detectable:
            tie = ", whose means are the same" if _is_tie(difference) else ""
            return (
                f"There is no detectable difference in {self.name} "
                f"between {_name(first)} and {_name(second)}{tie} "
                f"({words.decimal(difference.mean)}, {words.sureness(difference)})"
            )
        if difference.mean < 0:
            first, second, difference = second, first, difference.negated()
        return (
            f"{_sentence_start(_name(first))} has a higher {self.name} than {_name(second)}, "
            f"by {words.decimal(difference.mean)} standard deviations ({words.sureness(difference)})"
        )

    def _several(self, first: str, others: Sequence[str]) -> str:
        found = {arm: _difference(self.summary, first, arm, self.field) for arm in others}
        compared = {arm: difference for arm, difference in found.items() if difference}
        if not compared:
            return f"No {self.name} was taken to compare {words.listed(_name(arm) for arm in (first, *others))}"
        tied = [arm for arm, difference in compared.items() if _is_tie(difference)]
        above, level = (
            [
                f"{_name(arm)} (by {words.decimal(difference.mean)}, {words.sureness(difference)})"
                for arm, difference in compared.items()
                if difference.is_detectable is wanted and arm not in tied
            ]
            for wanted in (True, False)
        )
        clauses = []
        if above:
            clauses.append(f"detectably above {words.listed(above)}")
        if level:
            clauses.append(f"with no detectable difference from {words.listed(level, 'or')}")
        missing = [_name(arm) for arm in others if arm not in compared]
        if missing:
            clauses.append(f"not compared with {words.listed(missing, 'or')}")
        leads = f"{_name(first)} has the highest mean {self.name}"
        if tied:
            leads = f"{words.listed(map(_name, (first, *tied)))} share the highest mean {self.name}"
        return ", ".join([leads, *clauses])

    def against_reference(self, arms: Sequence[str]) -> list[str]:
        """One clause: every arm that beat the reference, that did not detectably, and that fell below it."""
        found = {arm: _difference(self.summary, arm, REFERENCE, self.field) for arm in arms}
        known = {arm: difference for arm, difference in found.items() if difference}
        beat = [arm for arm, difference in known.items() if difference.is_detectable and difference.mean > 0]
        below = [arm for arm, difference in known.items() if difference.is_detectable and difference.mean < 0]
        level = [arm for arm in known if arm not in beat and arm not in below]
        if len(beat) == len(arms):
            return [f"{'Both' if len(arms) == 2 else 'All'} beat the reference"]
        clauses = []
        if beat:
            clauses.append(f"{words.listed(_name(arm) for arm in beat)} beat the reference")
        if level:
            clauses.append(f"{words.listed(_name(arm) for arm in level)} did not detectably beat the reference")
        if below:
            clauses.append(f"{words.listed(_name(arm) for arm in below)} scored below the reference")
        return clauses


def _at_kl(summary: Mapping[str, Any], arms: Sequence[str]) -> str:
    found = {arm: _measured(summary, arm, "kl_from_reference") for arm in arms}
    values = [(arm, kl.mean) for arm, kl in found.items() if kl]
    if not values:
        return ""
    if len(arms) == 1:
        return f", at a KL from the reference of {words.decimal(values[0][1])} nats per response"
    listed = words.listed([f"{words.decimal(kl)} for {_name(arm)}" for arm, kl in values])
    return f", at a KL from the reference (nats per response) of {listed}{_matched(summary, arms)}"


def _matched(summary: Mapping[str, Any], arms: Sequence[str]) -> str:
    """That methods were ended where another had come to, or that their steps did not take them there."""
    matched = summary.get("matched_kl") or {}
    if "arm" in matched:  # of an earlier version, where PPO alone was
        matched = {"ppo": matched}
    told = [(each, arm) for arm in arms if (each := matched.get(arm))]
    ended = [
        f"{_name(arm)} was ended after {each['step']} of {each['steps']} steps"
        for each, arm in told
        if each["step"] < each["steps"]
    ]
    short = [
        f"; {_name(arm)}'s {each['steps']} steps did not take it as far as {_name(each['arm'])}"
        for each, arm in told
        if each["step"] == each["steps"]
    ]
    other = _name(told[0][0]["arm"]) if told else ""
    near = f", where {words.listed(ended)} for being as far from it as {other}" if ended else ""
    return near + "".join(short)


def _accuracy_and_compute(summary: Mapping[str, Any], arms: Sequence[str]) -> str:
    return _join_clauses([*_accuracy(summary, arms), *_compute(summary, arms)])


def _accuracy(summary: Mapping[str, Any], arms: Sequence[str]) -> list[str]:
    found = {arm: _measured(summary, arm, "heldout_accuracy") for arm in arms}
    known = [(arm, accuracy) for arm, accuracy in found.items() if accuracy]
    if not known:
        return []
    first, accuracy = known[0]
    if len(arms) == 1:
        shown = f"{words.percent(accuracy.mean)} ({words.sureness(accuracy, words.percent)})"
        if accuracy.against_chance == "level":
            return [f"{_name(first)}'s held-out accuracy of {shown} {_NO_BETTER}"]
        below = ", below chance" if accuracy.against_chance == "below" else ""
        return [f"Its held-out accuracy is {shown}{below}"]
    listed, alike = [f"{words.percent(accuracy.mean)} for {_name(first)}"], []
    for arm, accuracy in known[1:]:
        difference = _difference(summary, arm, first, "heldout_accuracy")
        note = ""
        if difference and difference.is_detectable:
            word = "higher" if difference.mean > 0 else "lower"
            oriented = difference if difference.mean > 0 else difference.negated()
            note = f" ({word} by {words.points(oriented.mean)}, {words.sureness(oriented, words.points)})"
        elif difference and len(arms) == 2:
            note = f" (no detectable difference: {words.sureness(difference, words.points)})"
        elif difference:
            alike.append(_name(arm))
        listed.append(f"{words.percent(accuracy.mean)} for {_name(arm)}{note}")
    clauses = [f"Held-out accuracy is {words.listed(listed)}"]
    if alike:
        clauses.append(f"there is no detectable difference between {_name(first)} and {words.listed(alike, 'or')}")
    return clauses + _chance(known)


_NO_BETTER = "cannot be told from chance"


def _chance(known: Sequence[tuple[str, Estimate]]) -> list[str]:
    """Clauses on the accuracies of several arms that are no better than guessing."""
    clauses = []
    for standing, one, many in (("level", _NO_BETTER, _NO_BETTER), ("below", "is below chance", "are below chance")):
        found = [
            (_name(arm), f"({words.sureness(accuracy, words.percent)})")
            for arm, accuracy in known
            if accuracy.against_chance == standing
        ]
        if not found:
            continue
        if standing == "level" and len(found) == len(known) > 1:
            bounds = words.listed(f"{name} {shown}" for name, shown in found)
            clauses.append(f"{'neither' if len(found) == 2 else 'none'} can be told from chance: {bounds}")
        else:
            whose = words.listed(f"{name}'s {shown}" for name, shown in found)
            clauses.append(f"{whose} {one if len(found) == 1 else many}")
    return clauses


def _doubtful_judge(summary: Mapping[str, Any], arms: Sequence[str]) -> str:
    """Whether what the arms are judged by can judge at all."""
    scorer = summary.get("gold_scorer") or {}
    if scorer.get("kind") != "judge" or not arms:
        return ""
    return _doubtful("The judge's", scorer, "so its scores decide nothing", "so its scores mislead") or _weak(scorer)


# A judge that is right less often than this is called weak: it is wrong on one pair in four.
STRONG = 0.75


def _weak(scorer: Mapping[str, Any]) -> str:
    """A judge that is better than chance, and not much: what it cannot carry."""
    right = measured(scorer.get("heldout_accuracy"))
    if right is None or right.mean >= STRONG:
        return ""
    shown = f"{words.percent(right.mean)} of held-out pairs ({words.sureness(right, words.percent)})"
    return f"The judge is weak, right on {shown}: a difference of scores may be a difference in what it mistakes"


def _doubtful_reward(summary: Mapping[str, Any], arms: Sequence[str]) -> str:
    """Whether there was anything in the reward model for the methods that sample to learn, or to choose by."""
    obeying = [_name(arm) for arm in arms if arm in ("ppo", "rloo", "grpo") or arm.startswith("online-")]
    choosing = [_name(arm) for arm in arms if words.best_of(arm)]
    if not obeying and not choosing:
        return ""
    level, below = [], []
    if obeying:
        who = words.listed(obeying)
        level.append(f"{who} had nothing to learn from")
        below.append(f"{who} learned from a reward that prefers the wrong responses")
    if choosing:
        who = words.listed(choosing)
        level.append(f"{who} may as well be chosen by chance")
        below.append(f"{who} {'is' if len(choosing) == 1 else 'are'} rather the worst")
    whose = summary.get("reward_model") or {}
    return _doubtful("The reward model's", whose, f"so {words.listed(level)}", f"so {words.listed(below)}")


def _doubtful(whose: str, scorer: Mapping[str, Any], if_level: str, if_below: str) -> str:
    right = measured(scorer.get("heldout_accuracy"))
    if right is None or right.against_chance == "above":
        return ""
    shown = f"{whose} own accuracy of {words.percent(right.mean)} ({words.sureness(right, words.percent)})"
    return (
        f"{shown} is below chance, {if_below}"
        if right.against_chance == "below"
        else f"{shown} {_NO_BETTER}, {if_level}"
    )


def _compute(summary: Mapping[str, Any], arms: Sequence[str]) -> list[str]:
    cost = {arm: (sum(summary["arms"][arm]["seconds"].values()), float(summary["arms"][arm]["flops"])) for arm in arms}
    spent = sorted((arm for arm in arms if min(cost[arm]) > 0 and not words.best_of(arm)), key=cost.__getitem__)
    if len(arms) == 1 and spent:
        seconds, flops = cost[arms[0]]
        accuracy = _measured(summary, arms[0], "heldout_accuracy")
        who = _name(arms[0]) if accuracy and accuracy.against_chance == "level" else "it"  # as the clause before begins
        return [
            f"{who} took {words.seconds(seconds)} and {words.scientific(flops)} FLOPs",
            *_grid_compute(summary, arms),
        ]
    if len(spent) < 2:
        return []
    cheapest, *rest = spent
    clauses = []
    for arm in rest:
        ratios = [mine / base for mine, base in zip(cost[arm], cost[cheapest], strict=True)]
        in_seconds, in_flops = (words.ratio(ratio) for ratio in ratios)
        clauses.append(f"{_name(arm)} took {in_seconds} times the seconds and {in_flops} times the FLOPs")
    return [f"{words.listed(clauses)} of {_name(cheapest)}", *_grid_compute(summary, arms)]


def _grid_compute(summary: Mapping[str, Any], arms: Sequence[str]) -> list[str]:
    """What it took to have tried every value, where a method was trained at several."""
    bills = [(arm, summary["arms"][arm]) for arm in arms if summary["arms"][arm].get("grid_seconds")]
    told = [
        f"{_name(arm)} {words.seconds(of['grid_seconds'])} and {words.scientific(of['grid_flops'])} FLOPs"
        for arm, of in bills
    ]
    return [f"with every value that was tried, {words.listed(told)}"] if told else []


def _choices(summary: Mapping[str, Any], arms: Sequence[str], score: str) -> str:
    """Where arms were tried at several settings: at which they stand, and how that was chosen."""
    grid: Mapping[str, Sequence[Mapping[str, Any]]] = summary.get("grid") or {}
    chosen = [(arm, point) for arm in arms for point in grid.get(arm, []) if point["chosen"]]
    if not chosen:
        return ""
    listed = []
    for arm, point in chosen:
        names = words.varied([other["parameters"] for other in grid[arm]])
        values = ", ".join(
            f"{name} {words.setting(point['parameters'][name])}" for name in names if name in point["parameters"]
        )
        failed = sum(bool(other.get("failed")) for other in grid[arm])
        listed.append(f"{_name(arm)} at {values} (of {len(grid[arm])} tried{f', {failed} failed' if failed else ''})")
    return (
        f"Chosen by {score} on {chosen[0][1]['gold_score']['n']} validation prompts: {words.listed(listed)}"
        f"{_unequal(grid, arms)}; no held-out figure had a part in it"
    )


def _unequal(grid: Mapping[str, Sequence[Any]], arms: Sequence[str]) -> str:
    """That methods were not given the same number of tries, where they were not."""
    tries = {arm: len(grid.get(arm, [])) or 1 for arm in arms if not words.best_of(arm)}  # of n there is nothing to try
    if len(set(tries.values())) < 2:
        return ""
    listed = words.listed(f"{_name(arm)} {count}" for arm, count in tries.items())
    return f"; they were not tried equally often ({listed}), which favours those with more"


def _failures(failed: Mapping[str, str]) -> list[str]:
    reasons = {arm: " ".join(reason.split()).rstrip(".") for arm, reason in failed.items()}
    return [f"{_name(arm)} failed" + (f" ({reason})" if reason else "") for arm, reason in reasons.items()]


def _measured(summary: Mapping[str, Any], arm: str, field: str) -> Estimate | None:
    return measured(summary["arms"][arm].get(field))


def _difference(summary: Mapping[str, Any], first: str, second: str, field: str) -> Estimate | None:
    """first − second, whichever way round it was saved."""
    differences = summary.get("differences") or {}
    if found := measured((differences.get(f"{first} - {second}") or {}).get(field)):
        return found
    reverse = measured((differences.get(f"{second} - {first}") or {}).get(field))
    return reverse.negated() if reverse else None


def _is_tie(difference: Estimate) -> bool:
    return abs(difference.mean) < 1e-9  # what rounding leaves of a zero


def _name(arm: str) -> str:
    return "the reference" if arm == REFERENCE else words.arm_name(arm)


def _sentence_start(text: str) -> str:
    return text[:1].upper() + text[1:]


def _join_clauses(clauses: Sequence[str]) -> str:
    return _sentence_start("; ".join(clauses))
