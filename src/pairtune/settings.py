"""What each training, sampling and measuring is told: frozen dataclasses; `pairtune.runs` makes commands of them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

# A parameter's values to try: by the method they are meant for; under "", for every other method that has it.
Values = Mapping[str, tuple[float, ...]]

# The largest seed: whatever a stage multiplies it by still fits a generator's 64 bits.
LARGEST_SEED = 2**31 - 1
# More than these is a typing error, refused before a machine is busy with it for ever.
LARGEST = 1e12
MOST, MOST_EPOCHS, MOST_NEW_TOKENS, MOST_WORLDS = 10**9, 1000, 10**5, 10**5


# What `--help` shows for a value.
MODEL, FILE, FOLDER, TEXT, NAME, NUMBER = "MODEL", "FILE", "FOLDER", "TEXT", "NAME", "N"
WORD = "DIR"  # of a command that takes one, without a flag


def setting(
    default: Any,
    meaning: str,
    value: str = NUMBER,
    *,
    common: bool = False,
    above: float | None = None,
    least: float | None = None,
    most: float | None = None,
    choices: tuple[str, ...] = (),
) -> Any:
    """A field with its meaning (the flag's help), what its value is called there, its bounds or the words it takes.

    `common` ones stand first in the help, in the order of the class.
    """
    if most is None:
        kind = type(default[0]) if isinstance(default, tuple) and default else type(default)
        most = {int: MOST, float: LARGEST}.get(kind)
    bounds = {"above": above, "least": least, "most": most, "choices": choices}
    return field(default=default, metadata={"help": meaning, "value": value, "common": common, **bounds})


@dataclass(frozen=True, kw_only=True)
class Optimisation:
    """How weights move: the same five words for every kind of training."""

    learning_rate: float = setting(5e-5, "peak learning rate of AdamW", above=0)
    batch_size: int = setting(
        16,
        "examples in one optimiser step, in as many passes as memory asks for: nothing is to be accumulated",
        least=1,
    )
    warmup: float = setting(0.1, "share of the steps in which the learning rate rises", least=0, most=1)
    schedule: str = setting(
        "linear",
        "what the learning rate does after that: linear or cosine, down to 0, or constant",
        "WORD",
        choices=("linear", "cosine", "constant"),
    )
    max_gradient_norm: float = setting(1.0, "gradients longer than this are scaled down to it", above=0)
    weight_decay: float = setting(0.0, "AdamW's weight decay", least=0)


@dataclass(frozen=True, kw_only=True)
class Sft(Optimisation):
    """Supervised fine-tuning on demonstrations."""

    epochs: int = setting(1, "passes over the demonstrations; 0 leaves the model as it is", least=0, most=MOST_EPOCHS)


@dataclass(frozen=True, kw_only=True)
class WarmStart(Sft):
    """Supervised fine-tuning before a comparison; its result is the reference."""

    demonstrations: int = setting(512, "demonstrations to warm-start on", least=1)


@dataclass(frozen=True, kw_only=True)
class Tuning(Optimisation):
    """Preference tuning on pairs, whatever the objective."""

    epochs: int = setting(1, "passes over the pairs", least=1, most=MOST_EPOCHS)


@dataclass(frozen=True, kw_only=True)
class Preference(Tuning):
    """Preference tuning on pairs with one objective."""

    objective: str = setting(
        "dpo",
        "an objective of `pairtune objectives`, FILE.py:FUNCTION of your own, or a sum such as dpo+0.2*sft",
        NAME,
        common=True,
    )
    parameters: Mapping[str, float] = field(default_factory=dict)  # of the objective, by name: those not its default


@dataclass(frozen=True, kw_only=True)
class ComparedTuning(Tuning):
    """Preference tuning on pairs.

    With several objectives, each at every value given for its parameters.
    """

    parameters: Mapping[str, Values] = field(default_factory=dict)  # by name: those not an objective's default


@dataclass(frozen=True, kw_only=True)
class Reward(Optimisation):
    """Training a reward model on pairs."""

    epochs: int = setting(1, "passes over the pairs", least=1, most=MOST_EPOCHS)


@dataclass(frozen=True, kw_only=True)
class Online:
    """Rounds of sampling, scoring and updating: what PPO, RLOO, GRPO and online preference tuning share."""

    steps: int = setting(50, "rounds of sampling and updating", least=1)
    batch_size: int = setting(64, "answers sampled in one step", least=1)
    minibatches: int = setting(2, "optimiser steps in one pass over a step's answers", least=1)
    epochs: int = setting(2, "passes over each step's answers", least=1, most=MOST_EPOCHS)
    learning_rate: float = setting(2e-5, "peak learning rate of the policy's Adam", above=0)
    warmup: float = setting(0.1, "share of the steps in which the learning rate rises; then it stays", least=0, most=1)
    max_gradient_norm: float = setting(1.0, "gradients longer than this are scaled down to it", above=0)
    kl_stop: float = setting(
        0.0,
        "nats per response from the reference at which training ends, steps left or not; 0: nowhere",
        least=0,
    )
    missing_end_penalty: float = setting(1.0, "taken from the reward of an answer without end of text", least=0)
    temperature: float = setting(1.0, "temperature of sampling, and of every log-probability of the policy", above=0)


@dataclass(frozen=True, kw_only=True)
class PolicyGradient(Online):
    """A clipped policy gradient with a KL term, but for the weight of that term."""

    kl_target: float = setting(
        0.0, "nats per response an adaptive KL weight steers to; 0: the weight is fixed", least=0
    )
    clip_ratio: float = setting(0.2, "how far the probability ratio counts on either side of 1", above=0)


@dataclass(frozen=True, kw_only=True)
class PpoBase(PolicyGradient):
    """PPO with a reward model and a KL term, but for the weight of that term."""

    value_learning_rate: float = setting(2e-5, "peak learning rate of the value model's Adam", above=0)
    discount: float = setting(1.0, "γ of generalised advantage estimation", above=0, most=1)
    gae_lambda: float = setting(0.95, "λ of generalised advantage estimation", least=0, most=1)
    clip_value: float = setting(0.2, "how far a value may move in a step, in deviations of returns", above=0)


@dataclass(frozen=True, kw_only=True)
class Ppo(PpoBase):
    """PPO with a reward model and a KL term."""

    kl_coefficient: float = setting(0.05, "weight of the per-token KL reward (its start, if adaptive)", least=0)


@dataclass(frozen=True, kw_only=True)
class ComparedPpo(PpoBase):
    """PPO at every weight given for its KL term."""

    kl_coefficient: tuple[float, ...] = setting((0.05,), "weights of the per-token KL reward to try", least=0)


def _answers_per_prompt() -> Any:
    return setting(4, "answers to each prompt; --batch-size is a multiple of it", least=2, most=10_000)


def _normalise() -> Any:
    return setting(
        "both",
        "what GRPO divides by: deviation, of a prompt's rewards; length, of each answer; both, as published; none, as "
        "in Dr. GRPO",
        "WORD",
        choices=("both", "deviation", "length", "none"),
    )


@dataclass(frozen=True, kw_only=True)
class Rloo(PolicyGradient):
    """RLOO, an answer against the others to its prompt."""

    answers_per_prompt: int = _answers_per_prompt()
    kl_coefficient: float = setting(0.05, "weight of the KL in an answer's reward (its start, if adaptive)", least=0)


@dataclass(frozen=True, kw_only=True)
class Grpo(PolicyGradient):
    """GRPO, an answer against the mean of those to its prompt."""

    answers_per_prompt: int = _answers_per_prompt()
    kl_coefficient: float = setting(0.05, "weight of the KL term in the loss (its start, if adaptive)", least=0)
    normalise: str = _normalise()


@dataclass(frozen=True, kw_only=True)
class OnlinePreference(Online):
    """Online preference tuning, a prompt's best and worst answer a pair."""

    answers_per_prompt: int = _answers_per_prompt()
    objective: str = setting(
        "dpo",
        "an objective of `pairtune objectives` on the log-ratios of a pair, FILE.py:FUNCTION of your own, or a sum",
        NAME,
        common=True,
    )
    parameters: Mapping[str, float] = field(default_factory=dict)  # of the objective, by name: those not its default


@dataclass(frozen=True, kw_only=True)
class ComparedOnline(PolicyGradient):
    """RLOO, GRPO and online preference tuning, where they are among the methods.

    The KL's weight and the clipping are RLOO's and GRPO's; an online objective has its own parameters.
    """

    answers_per_prompt: int = _answers_per_prompt()
    kl_coefficient: tuple[float, ...] = setting((0.05,), "weights of RLOO's and GRPO's KL to try", least=0)
    normalise: str = _normalise()


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """How answers are drawn.

    The temperature is one of the method's own settings.
    """

    max_new_tokens: int = setting(32, "longest answer, in tokens", least=1, most=MOST_NEW_TOKENS)
    batch_size: int = setting(128, "answers written side by side", least=1)


@dataclass(frozen=True, kw_only=True)
class Sampling(Drawing):
    """How answers are drawn."""

    temperature: float = setting(1.0, "temperature of sampling", above=0)


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """How a policy is measured."""

    prompts: int = setting(256, "held-out prompts that are answered", least=2)


@dataclass(frozen=True, kw_only=True)
class Curves(Evaluation):
    """How an arm is measured at its end and along its training."""

    prompts: int = setting(
        256, "held-out prompts that are answered; where there is a choice, validation prompts", least=2
    )
    curve_points: int = setting(5, "measurements along each arm's training, its end included", least=0)
    curve_prompts: int = setting(
        64, "held-out prompts answered, and pairs scored, at each of them but the end", least=2
    )


@dataclass(frozen=True, kw_only=True)
class Adapting:
    """Adapters (LoRA)."""

    lora: bool = setting(False, "train low-rank adapters beside the linear layers; the weights stay as they are")
    lora_rank: int = setting(16, "rank of the adapters", least=1, most=4096)
    lora_alpha: float = setting(32.0, "adapters count alpha / rank", above=0)
    lora_dropout: float = setting(0.0, "dropout of adapters: 0 only, or a policy would differ from itself", least=0)
    lora_targets: tuple[str, ...] = setting((), "linear layers that get adapters (default: all but the head)", NAME)
