"""What each figure of the report means, in the words of the page."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Term:
    """One entry; key is the name of the field in summary.json where there is one."""

    key: str
    name: str
    meaning: str


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
        "gold_score",
        "Gold reward",
        "A score that no arm was trained on: from the scorer that labelled the pairs, or from a judge "
        "fitted on other pairs. In standard deviations (sd) of that score over the reference's "
        "answers.",
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
        "exactly 50%.",
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
        "seconds",
        "Seconds",
        "Wall-clock training time, in total and by stage, without evaluation. An arm is charged for "
        "every stage it needs, also where arms share one.",
    ),
    Term("tokens_processed", "Tokens", "Tokens that passed through a model while the arm was trained."),
    Term("flops", "FLOPs", "Floating-point operations of training."),
    Term("peak_memory_bytes", "Peak memory", "The most memory held at once in training; 1 GB is 10⁹ bytes."),
    Term("models_in_memory", "Models in memory", "Networks held at the same time in training."),
    Term("settings_to_tune", "Settings to tune", "Settings of the method itself that someone must choose."),
    Term("lines_of_code", "Lines of code", "Lines of code that belong to this arm."),
)
