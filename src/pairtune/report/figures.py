"""Every figure that is told of an arm: one entry each, which page, terminal, glossary, summary and docs read.

To add one: an entry here, and the place that computes it.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from pairtune.report import words
from pairtune.report.records import Row


@dataclass(frozen=True, kw_only=True)
class Figure:
    """What one figure is called, what it means, how it is written, and where it stands.

    key: its name in summary.json and result.json. code: what computes it. show: how one value is written. unit: what
    follows the title, where the value as written does not say it. per: what its mean is over, and so its interval
    (pairs of a prompt are drawn together); what is of the whole arm is no mean. better: where that can be said.
    """

    key: str
    title: str
    meaning: str
    code: str
    show: Callable[[float], str]
    unit: str = ""
    per: Literal["pair", "answer", "arm"] = "arm"
    better: Literal["higher", "lower", ""] = ""
    accuracy: bool = False  # a share of right ones: it has an exact interval, and stands beside the 50% of a coin
    table: Literal["quality", "cost", ""] = "quality"  # of the page
    heading: str = ""  # in the terminal's table, which has room for four
    footnote: str = ""  # below that table
    difference: Callable[[float], str] | None = None  # how a paired difference is written; None: arms are not compared
    grid: str = ""  # its title among the candidates of a grid
    curve: tuple[Literal["step", "seconds"], ...] = ()  # what it is drawn over

    @property
    def name(self) -> str:
        """Its title with its unit."""
        return ", ".join(filter(None, (self.title, self.unit)))

    @property
    def axis(self) -> str:
        """Its title with its unit, over a drawing."""
        return f"{self.title} ({self.unit})" if self.unit else self.title

    @property
    def text(self) -> str:
        """What it means, and which way is better."""
        return f"{self.meaning} {self.better.capitalize()} is better." if self.better else self.meaning


FIGURES: tuple[Figure, ...] = (
    Figure(
        key="gold_score",
        title="Gold reward",
        unit="sd",
        meaning="A score that no arm was trained on: from the scorer that labelled the pairs. In standard deviations "
        "(sd) of that score over the reference's answers, whose mean is 0.",
        code="pairtune.comparison.summary:summarise",
        show=words.decimal,
        per="answer",
        better="higher",
        heading="Gold reward",
        difference=words.decimal,
        grid="Gold reward, sd",
        curve=("step", "seconds"),
    ),
    Figure(
        key="heldout_accuracy",
        title="Held-out accuracy",
        meaning="Share of held-out pairs with a margin above zero, ties counted one half. The margin is the "
        "log-ratio of the chosen response minus that of the rejected one. The reference's own is exactly 50%, all "
        "ties. Like chance: the interval holds 50%, so that guessing may do as well.",
        code="pairtune.evaluation.heldout:wins",
        show=words.percent,
        per="pair",
        better="higher",
        accuracy=True,
        heading="Held-out %",
        difference=words.points,
        grid="Accuracy",
        curve=("step", "seconds"),
    ),
    Figure(
        key="heldout_own_accuracy",
        title="Own criterion",
        meaning="Share of held-out pairs that the method itself calls right, ties counted one half: its own loss is "
        "lower with the labels as they are than with chosen and rejected exchanged (of losses that mix the pairs of "
        "a step: the margin is above zero). PPO's criterion is its reward model, which should score the chosen "
        "response higher. Each method has another rule here, so compare the arms by their held-out accuracy.",
        code="pairtune.evaluation.objective:measure_examples",
        show=words.percent,
        per="pair",
        better="higher",
        accuracy=True,
        heading="Own %",
        footnote="Own %: by the method's own criterion.",
    ),
    Figure(
        key="kl_from_reference",
        title="KL from the reference",
        unit="nats per response",
        meaning="KL(π‖π_ref), estimated as the mean of log π(y|x) − log π_ref(y|x) over responses sampled from the "
        "policy π, each summed over its tokens with its end of text; both at the sampling temperature. How far the "
        "policy has moved. Of the best of n answers it is estimated from n and each one's probability under the "
        "reference (Beirami et al. 2024), and log n − (n − 1)/n at most.",
        code="pairtune.evaluation.policy:log_ratios_to",
        show=words.decimal,
        per="answer",
        heading="KL (nats)",
        footnote="KL is sampled, per response.",
        grid="KL, nats",
        curve=("step",),
    ),
    Figure(
        key="reward_model_score",
        title="Reward-model score",
        unit="sd",
        meaning="The score of the reward model trained on the pairs, 0 ± 1 over the training responses. PPO is "
        "trained to raise it, so it favours PPO.",
        code="pairtune.engine.value_heads:score_rewards",
        show=words.decimal,
        per="answer",
        difference=words.decimal,
        grid="Reward-model score, sd",
        curve=("step", "seconds"),
    ),
    Figure(
        key="response_tokens",
        title="Response tokens",
        meaning="Mean length of a sampled response, with its end-of-text token.",
        code="pairtune.evaluation.policy:write_answers",
        show=words.tenths,
        per="answer",
        difference=words.tenths,
        grid="Response tokens",
        curve=("step",),
    ),
    Figure(
        key="repetition",
        title="Repetition",
        meaning="Share of a sampled response's 3-grams of tokens that repeat an earlier one of the same response, on "
        "average.",
        code="pairtune.evaluation.policy:repetition",
        show=words.percent,
        per="answer",
        better="lower",
    ),
    Figure(
        key="distinct_bigrams",
        title="Distinct 2-grams",
        meaning="Of all pairs of neighbouring tokens in the arm's sampled responses, taken together, the share that "
        "differ (Li et al. 2016). Lower means more of the same, within a response or from one to the next. It also "
        "falls as more is written, so mind the lengths. One figure for all responses (n counts them), hence no "
        "interval: a resample holds answers twice.",
        code="pairtune.evaluation.diagnostics:distinct_bigrams",
        show=words.percent,
    ),
    Figure(
        key="chosen_nats_per_token",
        title="Chosen response",
        unit="nats per token",
        meaning="How training moved the chosen responses of held-out pairs: the log-ratio divided by the response's "
        "tokens, averaged over pairs. Below zero they became less probable than under the reference.",
        code="pairtune.evaluation.diagnostics:per_token",
        show=words.thousandths,
        per="pair",
        curve=("step",),
    ),
    Figure(
        key="rejected_nats_per_token",
        title="Rejected response",
        unit="nats per token",
        meaning="The same for the rejected responses.",
        code="pairtune.evaluation.diagnostics:per_token",
        show=words.thousandths,
        per="pair",
    ),
    Figure(
        key="chosen_fell",
        title="Chosen fell",
        meaning="Share of held-out pairs whose chosen response became less probable than under the reference. By "
        "itself this is no fault: most losses only ask that the rejected response falls further. Where it is large, "
        "look at what became more probable instead: the generations show it.",
        code="pairtune.evaluation.diagnostics:fell",
        show=words.percent,
        per="pair",
    ),
    Figure(
        key="margin_length_correlation",
        title="Margin and length",
        meaning="Spearman's rank correlation, over held-out pairs, of the margin with the tokens by which the chosen "
        "response is longer than the rejected one. Near 0 the two are unrelated, at 1 the longer response always has "
        "the larger margin, at −1 the shorter. Its interval has 400 resamples.",
        code="pairtune.evaluation.diagnostics:margin_length_correlation",
        show=words.decimal,
    ),
    Figure(
        key="seconds",
        title="Training time",
        meaning="Wall-clock training time, in total and by stage, without evaluation. An arm is charged for every "
        "stage it needs (a reference pass, a reward model), also where arms share one; of a grid, for the chosen "
        "candidate: the whole grid's stands beside it.",
        code="pairtune.engine.cost:measured",
        show=words.seconds,
        better="lower",
        table="cost",
    ),
    Figure(
        key="tokens_processed",
        title="Tokens",
        meaning="Tokens that passed through a model while the arm was trained, with or without gradients; a cached "
        "token counts once.",
        code="pairtune.engine.cost:count_pass",
        show=words.whole,
        better="lower",
        table="cost",
    ),
    Figure(
        key="flops",
        title="FLOPs",
        meaning="Floating-point operations of training, two for each multiplication and addition in a matrix "
        "product: twice the body's parameters a token (of a mixture of experts those that its router takes), "
        "attention over the pairs of tokens that see each other, the head at predicted tokens only; three times that "
        "where gradients are taken.",
        code="pairtune.engine.cost:count_pass",
        show=words.scientific,
        better="lower",
        table="cost",
    ),
    Figure(
        key="grid_seconds",
        title="Training time, whole grid",
        meaning="The same for a method that was trained at several values: of all of them, which is what it took to "
        "have the chosen one. A candidate whose training failed is not in it.",
        code="pairtune.comparison.summary:summarise",
        show=words.seconds,
        better="lower",
        table="cost",
    ),
    Figure(
        key="grid_flops",
        title="FLOPs, whole grid",
        meaning="Likewise.",
        code="pairtune.comparison.summary:summarise",
        show=words.scientific,
        better="lower",
        table="cost",
    ),
    Figure(
        key="peak_memory_bytes",
        title="Peak memory",
        meaning="The most memory held at once in training (of the process, looked at 20 times a second; on CUDA of "
        "the allocator); 1 GB is 10⁹ bytes.",
        code="pairtune.engine.cost:measured",
        show=words.gigabytes,
        better="lower",
        table="cost",
    ),
    Figure(
        key="models_in_memory",
        title="Models in memory",
        meaning="Networks held at the same time in training. Preference tuning: the policy, whose reference has been "
        "read before. PPO: policy, value model, reward model, reference.",
        code="pairtune.comparison.effort:effort",
        show=words.whole,
        better="lower",
        table="cost",
    ),
    Figure(
        key="settings_to_tune",
        title="Settings to tune",
        meaning="Settings of the method itself that someone must choose.",
        code="pairtune.comparison.effort:effort",
        show=words.whole,
        better="lower",
        table="cost",
    ),
    Figure(
        key="lines_of_code",
        title="Lines of code",
        meaning="Lines that hold code (no blanks, comments, docstrings) of all functions and classes that the arm's "
        "stages reach and fine-tuning on demonstrations does not.",
        code="pairtune.comparison.effort:code_lines",
        show=words.whole,
        better="lower",
        table="cost",
    ),
    Figure(
        key="heldout_loss",
        title="Held-out loss",
        meaning="`pairtune tune`: the objective's own loss on the held-out pairs or responses, all of them taken as "
        "one step.",
        code="pairtune.evaluation.objective:measure_examples",
        show=words.decimal,
        per="pair",
        better="lower",
        table="",
    ),
    Figure(
        key="heldout_own_accuracy_before",
        title="Own criterion before training",
        meaning="`pairtune tune`: the own criterion of an objective without a reference, whose pairs do not begin as "
        "ties. The change is told with the interval of the paired difference.",
        code="pairtune.evaluation.objective:measure_examples",
        show=words.percent,
        per="pair",
        accuracy=True,
        table="",
    ),
    Figure(
        key="heldout_told_apart",
        title="Labels told apart",
        meaning="`pairtune tune` on labels: how often a desirable held-out response has a higher log-ratio than an "
        "undesirable one, over all two of them, ties one half: the area under the ROC curve. 50% is chance whatever "
        "the share of the labels; n is twice the rarer label's responses.",
        code="pairtune.evaluation.heldout:told_apart",
        show=words.percent,
        better="higher",
        accuracy=True,
        table="",
    ),
)


def figure(key: str) -> Figure:
    """The entry of one figure. KeyError: there is none."""
    return {each.key: each for each in FIGURES}[key]


def of_run(summary: Row) -> list[Figure]:
    """The figures that a run's arms have, in order; the score that ranks them under its own name."""
    arms = summary["arms"].values()
    return [_named(each, summary) for each in FIGURES if any(each.key in arm for arm in arms)]


def score(summary: Row) -> Figure:
    """The score that ranks all arms: the gold reward where it is what the labels were made from, else a judge's."""
    return _named(figure("gold_score"), summary)


def score_name(summary: Row) -> str:
    """That score's name in running text."""
    return score(summary).title.lower()


def scorer_name(summary: Row) -> str:
    """Who gives it."""
    return "Judge" if _has_judge(summary) else "Gold scorer"


def _named(entry: Figure, summary: Row) -> Figure:
    if entry.key != "gold_score" or not _has_judge(summary):
        return entry
    meaning = (
        "A score that no arm was trained on: from a judge (a reward model fitted on pairs kept apart, unless one was "
        "given), which can be wrong as any model can: how often it is right stands at the top. In standard deviations "
        "(sd) of that score over the reference's answers, whose mean is 0."
    )
    return replace(entry, title="Judge score", heading="Judge score", grid="Judge score, sd", meaning=meaning)


def _has_judge(summary: Row) -> bool:
    return (summary.get("gold_scorer") or {}).get("kind") == "judge"


def as_table() -> str:
    """All figures as a table of docs/metrics.md."""
    rows = ["| name | what it is | unit | mean over | code |", "|---|---|---|---|---|"]
    for each in FIGURES:
        over = {"pair": "pairs", "answer": "answers", "arm": ""}[each.per]
        cells = (f"`{each.key}`", f"**{each.title}.** {each.text}", each.unit, over, f"`{each.code}`")
        rows.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(rows)
