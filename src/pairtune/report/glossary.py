"""What each figure of the report means, in the words of the page."""

from dataclasses import dataclass

from pairtune.report import words
from pairtune.report.records import Row
from pairtune.score import score_name


@dataclass(frozen=True)
class Term:
    """One entry; key is the name of the field in summary.json where there is one."""

    key: str
    name: str
    meaning: str


def glossary(summary: Row) -> tuple[Term, ...]:
    """The terms of a run's page: its score under its own name, and none for what the run has not."""
    arms = summary["arms"].values()
    rewarded = any("reward_model_score" in arm for arm in arms)
    known = tuple(term for term in GLOSSARY if rewarded or term.key != "reward_model_score")
    grid = (_grid(summary),) if summary.get("grid") else ()
    return (*known[:2], _score(summary), *known[2:], *grid)


def _score(summary: Row) -> Term:
    judged = score_name(summary) == "judge score"
    whence = (
        "from a judge, a reward model fitted on pairs kept apart, which can be wrong as any model can: how often it is "
        "right stands at the top"
        if judged
        else "from the scorer that labelled the pairs"
    )
    unit = "In standard deviations (sd) of that score over the reference's answers, whose mean is 0."
    return Term("gold_score", words.gold_name(summary), f"A score that no arm was trained on: {whence}. {unit}")


def _grid(summary: Row) -> Term:
    return Term(
        "grid",
        "Grid, validation split",
        "A method trained at several values gives several candidates. All are measured on the validation split: "
        "pairs that nothing is trained on and that no held-out figure uses. The one with the highest mean "
        f"{score_name(summary)} there is chosen. The best of several looks a little better on the split that "
        "chose it than it is; the held-out figures of the arms are free of that.",
    )


# What means the same in every run.
GLOSSARY = (
    Term(
        "interval",
        "95% interval, n",
        "n counts the values behind a mean. The interval is a percentile bootstrap over prompts: "
        "whole prompts are drawn again, with all their values. It covers the choice of prompts and "
        "samples, but not another training seed.",
    ),
    Term(
        "difference",
        "Paired difference",
        "First minus second on the same prompts, subtracted before averaging. Where its interval "
        "holds zero, there is no detectable difference.",
    ),
    Term(
        "reward_model_score",
        "Reward-model score",
        "The score of the reward model trained on the pairs. PPO is trained to raise it, so it favours PPO.",
    ),
    Term(
        "heldout_accuracy",
        "Held-out accuracy",
        "Share of held-out pairs with a margin above zero, ties counted one half. The margin is the "
        "log-ratio of the chosen response minus that of the rejected one. The reference's own is "
        "exactly 50%, all ties. Like chance: the interval holds 50%, so that guessing may do as well.",
    ),
    Term(
        "heldout_own_accuracy",
        "Own criterion",
        "Share of held-out pairs that the method itself calls right, ties counted one half: its own loss is lower "
        "with the labels as they are than with chosen and rejected exchanged. PPO's criterion is its reward model, "
        "which should score the chosen response higher. Each method has another rule here, so compare the arms by "
        "their held-out accuracy.",
    ),
    Term(
        "log_ratio",
        "Log-ratio",
        "log π(y|x) − log π_ref(y|x), in nats, summed over the response's tokens.",
    ),
    Term(
        "kl_from_reference",
        "KL from the reference",
        "KL(π‖π_ref), estimated as the mean log-ratio of responses sampled from the policy π; nats per response.",
    ),
    Term(
        "response_tokens",
        "Response tokens",
        "Mean length of a sampled response, with its end-of-text token.",
    ),
    Term(
        "repetition",
        "Repetition",
        "How much of a sampled response repeats itself, on average: 0 is nothing.",
    ),
    Term(
        "distinct_bigrams",
        "Distinct 2-grams",
        "Of all pairs of neighbouring tokens in the arm's sampled responses, taken together, the share that differ. "
        "Lower means more of the same, within a response or from one to the next. It also falls as more is "
        "written, so mind the lengths. One figure for all responses (n counts them), hence no interval.",
    ),
    Term(
        "chosen_nats_per_token",
        "Chosen, nats per token",
        "How training moved the chosen responses of held-out pairs: the log-ratio divided by the response's tokens, "
        "averaged over pairs. Below zero they became less probable than under the reference.",
    ),
    Term(
        "rejected_nats_per_token",
        "Rejected, nats per token",
        "The same for the rejected responses.",
    ),
    Term(
        "chosen_fell",
        "Chosen fell",
        "Share of held-out pairs whose chosen response became less probable than under the reference. By itself "
        "this is no fault: most losses only ask that the rejected response falls further. Where it "
        "is large, look at what became more probable instead: the generations show it.",
    ),
    Term(
        "margin_length_correlation",
        "Margin and length",
        "Spearman's rank correlation, over held-out pairs, of the margin with the tokens by which the chosen "
        "response is longer than the rejected one. Near 0 the two are unrelated, at 1 the longer response always "
        "has the larger margin, at −1 the shorter.",
    ),
    Term(
        "parameters",
        "Settings of the objective",
        "The values that the arm was trained with. Where several were tried, those chosen in the grid.",
    ),
    Term(
        "seconds",
        "Seconds",
        "Wall-clock training time, in total and by stage, without evaluation. An arm is charged for "
        "every stage it needs, also where arms share one; of a grid, for the chosen candidate.",
    ),
    Term("tokens_processed", "Tokens", "Tokens that passed through a model while the arm was trained."),
    Term("flops", "FLOPs", "Floating-point operations of training."),
    Term("peak_memory_bytes", "Peak memory", "The most memory held at once in training; 1 GB is 10⁹ bytes."),
    Term("models_in_memory", "Models in memory", "Networks held at the same time in training."),
    Term("settings_to_tune", "Settings to tune", "Settings of the method itself that someone must choose."),
    Term("lines_of_code", "Lines of code", "Lines of code that belong to this arm."),
)
