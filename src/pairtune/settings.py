"""What a run is: frozen dataclasses, one for each command; `pairtune.configure` reads them from what a person gives.

A section's settings are named with the section before them (`ppo_steps`, `--ppo-steps`), except those of the
command's main section, which stand alone (`beta`, `--beta`). The parameters of the objectives in the catalogue are
settings too: each objective has its own, with its own defaults.
"""

import dataclasses
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pairtune.objectives.catalog import OBJECTIVES

# A parameter's values to try: by the method they are meant for; under "", for every other method that has it.
Values = Mapping[str, tuple[float, ...]]

# The largest seed: whatever a stage multiplies it by still fits a generator's 64 bits.
LARGEST_SEED = 2**31 - 1
# What nobody means: more is a slip of the keys, told before a machine is busy with it for ever.
MOST, MOST_EPOCHS, MOST_NEW_TOKENS = 10**9, 1000, 10**5


def _setting(
    default: Any, meaning: str, *, above: float | None = None, least: float | None = None, most: float | None = None
) -> Any:
    """A field with its meaning (the flag's help) and its bounds."""
    if type(default) is int and most is None:
        most = MOST
    return field(default=default, metadata={"help": meaning, "above": above, "least": least, "most": most})


@dataclass(frozen=True, kw_only=True)
class Optimisation:
    """How weights move: the same five words for every kind of training."""

    learning_rate: float = _setting(5e-5, "peak learning rate of AdamW", above=0)
    batch_size: int = _setting(16, "examples in one optimiser step", least=1)
    warmup: float = _setting(
        0.1, "share of the steps in which the learning rate rises; then it falls to 0", least=0, most=1
    )
    max_gradient_norm: float = _setting(1.0, "gradients longer than this are scaled down to it", above=0)
    weight_decay: float = _setting(0.0, "AdamW's weight decay", least=0)


@dataclass(frozen=True, kw_only=True)
class Sft(Optimisation):
    """Supervised fine-tuning on demonstrations."""

    epochs: int = _setting(1, "passes over the demonstrations; 0 leaves the model as it is", least=0, most=MOST_EPOCHS)


@dataclass(frozen=True, kw_only=True)
class WarmStart(Sft):
    """Supervised fine-tuning before a comparison; its result is the reference."""

    demonstrations: int = _setting(512, "demonstrations to warm-start on", least=1)


@dataclass(frozen=True, kw_only=True)
class Tuning(Optimisation):
    """Preference tuning on pairs, whatever the objective."""

    epochs: int = _setting(1, "passes over the pairs", least=1, most=MOST_EPOCHS)


@dataclass(frozen=True, kw_only=True)
class Preference(Tuning):
    """Preference tuning on pairs with one objective."""

    objective: str = _setting("dpo", "an objective of `pairtune objectives`, or a sum such as dpo+0.2*sft")
    parameters: Mapping[str, float] = field(default_factory=dict)  # of the objective, by name: those not its default


@dataclass(frozen=True, kw_only=True)
class ComparedTuning(Tuning):
    """Preference tuning on pairs with several objectives, each at every value given for its parameters."""

    parameters: Mapping[str, Values] = field(default_factory=dict)  # by name: those not an objective's default


@dataclass(frozen=True, kw_only=True)
class Reward(Optimisation):
    """Training a reward model on pairs."""

    epochs: int = _setting(1, "passes over the pairs", least=1, most=MOST_EPOCHS)


@dataclass(frozen=True, kw_only=True)
class PpoBase:
    """PPO with a reward model and a KL term, but for the weight of that term."""

    steps: int = _setting(50, "rounds of sampling and updating", least=1)
    batch_size: int = _setting(64, "answers sampled in one step", least=1)
    minibatches: int = _setting(2, "optimiser steps in one pass over a step's answers", least=1)
    epochs: int = _setting(2, "passes over each step's answers", least=1, most=MOST_EPOCHS)
    learning_rate: float = _setting(2e-5, "peak learning rate of the policy's Adam", above=0)
    value_learning_rate: float = _setting(2e-5, "peak learning rate of the value model's Adam", above=0)
    warmup: float = _setting(0.1, "share of the steps in which the learning rate rises; then it stays", least=0, most=1)
    max_gradient_norm: float = _setting(1.0, "gradients longer than this are scaled down to it", above=0)
    kl_target: float = _setting(
        0.0, "nats per response an adaptive KL weight steers to; 0: the weight is fixed", least=0
    )
    discount: float = _setting(1.0, "γ of generalised advantage estimation", above=0, most=1)
    gae_lambda: float = _setting(0.95, "λ of generalised advantage estimation", least=0, most=1)
    clip_ratio: float = _setting(0.2, "how far the probability ratio counts on either side of 1", above=0)
    clip_value: float = _setting(0.2, "how far a value may move from the old one before it stops counting", above=0)
    missing_end_penalty: float = _setting(1.0, "taken from the reward of an answer without end of text", least=0)
    temperature: float = _setting(1.0, "temperature of sampling, and of every log-probability of the policy", above=0)


@dataclass(frozen=True, kw_only=True)
class Ppo(PpoBase):
    """PPO with a reward model and a KL term."""

    kl_coefficient: float = _setting(0.05, "weight of the per-token KL reward (its start, if adaptive)", least=0)


@dataclass(frozen=True, kw_only=True)
class ComparedPpo(PpoBase):
    """PPO at every weight given for its KL term."""

    kl_coefficient: tuple[float, ...] = _setting((0.05,), "weights of the per-token KL reward to try", least=0)


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """How answers are drawn, but for the temperature: PPO's is one of its own settings."""

    max_new_tokens: int = _setting(32, "longest answer, in tokens", least=1, most=MOST_NEW_TOKENS)
    batch_size: int = _setting(128, "answers written side by side", least=1)


@dataclass(frozen=True, kw_only=True)
class Sampling(Drawing):
    """How answers are drawn."""

    temperature: float = _setting(1.0, "temperature of sampling", above=0)


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """How an arm is measured."""

    prompts: int = _setting(256, "held-out (or validation) prompts that are answered", least=2)


@dataclass(frozen=True, kw_only=True)
class Curves(Evaluation):
    """How an arm is measured at its end and along its training."""

    curve_points: int = _setting(5, "measurements along each arm's training, its end included", least=0)
    curve_prompts: int = _setting(
        64, "held-out prompts answered, and pairs scored, at each of them but the end", least=2
    )


@dataclass(frozen=True, kw_only=True)
class Run:
    """What every command that computes has."""

    seed: int = _setting(0, "seed of everything random", least=0, most=LARGEST_SEED)
    dtype: str = _setting("auto", "auto, bfloat16 or float32")
    trust_remote_code: bool = _setting(False, "run code that a hub model brings along")


@dataclass(frozen=True, kw_only=True)
class SftRun(Run):
    """`pairtune sft`."""

    model: str = _setting("smollm2-135m", "model to train: smollm2-135m, a folder, a .gguf file or a hub name")
    data: str = _setting("", "demonstrations: a JSONL, CSV or Parquet file, or a hub dataset")
    out: str = _setting("", "folder for the result; default runs/sft, or runs/sft-2 and so on")
    max_tokens: int = _setting(1024, "longest row in tokens; longer prompts lose their beginning", least=8)
    sft: Sft = field(default_factory=Sft)


@dataclass(frozen=True, kw_only=True)
class RewardRun(Run):
    """`pairtune reward`."""

    model: str = _setting("smollm2-135m", "model to start from: smollm2-135m, a folder, a .gguf file or a hub name")
    data: str = _setting("", "pairs: a JSONL, CSV or Parquet file, or a hub dataset")
    heldout: float = _setting(0.1, "pairs kept for measuring: a share below 1, or a number of pairs", above=0)
    out: str = _setting("", "folder for the result; default runs/reward, or runs/reward-2 and so on")
    max_tokens: int = _setting(1024, "longest row in tokens; longer prompts lose their beginning", least=8)
    reward: Reward = field(default_factory=Reward)


@dataclass(frozen=True, kw_only=True)
class TuneRun(Run):
    """`pairtune tune`."""

    model: str = _setting("smollm2-135m", "model to tune: smollm2-135m, a folder, a .gguf file or a hub name")
    data: str = _setting("", "pairs, or responses with labels: a JSONL, CSV or Parquet file, or a hub dataset")
    heldout: float = _setting(0.1, "pairs kept for measuring: a share below 1, or a number of pairs", above=0)
    out: str = _setting("", "folder for the result; default runs/tune, or runs/tune-2 and so on")
    max_tokens: int = _setting(1024, "longest row in tokens; longer prompts lose their beginning", least=8)
    preference: Preference = field(default_factory=Preference)


@dataclass(frozen=True, kw_only=True)
class PpoRun(Run):
    """`pairtune ppo`."""

    model: str = _setting("smollm2-135m", "policy to train: smollm2-135m, a folder, a .gguf file or a hub name")
    reward_model: str = _setting("", "reward model: of `pairtune reward`, or a sequence classifier with one label")
    data: str = _setting("", "prompts (pairs serve): a JSONL, CSV or Parquet file, or a hub dataset")
    out: str = _setting("", "folder for the result; default runs/ppo, or runs/ppo-2 and so on")
    max_tokens: int = _setting(1024, "longest prompt in tokens; longer prompts lose their beginning", least=8)
    ppo: Ppo = field(default_factory=Ppo)
    sampling: Drawing = field(default_factory=Drawing)


@dataclass(frozen=True, kw_only=True)
class GenerateRun(Run):
    """`pairtune generate`."""

    model: str = _setting("smollm2-135m", "model that answers: smollm2-135m, a folder, a .gguf file or a hub name")
    prompt: str = _setting("", "one prompt, answered on the terminal; for a chat model, what its user says")
    system: str = _setting("", "what the system turn before --prompt says")
    raw: bool = _setting(False, "continue --prompt as text, though the model has a chat template")
    data: str = _setting("", "prompts to answer instead: a JSONL, CSV or Parquet file, or a hub dataset")
    out: str = _setting("", "JSONL file for the answers; without it they are printed")
    max_tokens: int = _setting(1024, "longest prompt in tokens; longer prompts lose their beginning", least=8)
    sampling: Sampling = field(default_factory=Sampling)


@dataclass(frozen=True, kw_only=True)
class EvaluateRun(Run):
    """`pairtune evaluate`."""

    model: str = _setting("smollm2-135m", "policy to measure: smollm2-135m, a folder, a .gguf file or a hub name")
    reference: str = _setting("", "the reference it was tuned from: a folder, a hub name, or smollm2-135m")
    reward_model: str = _setting("", "a reward model that scores the answers, if there is one: ours or another's")
    data: str = _setting("", "held-out pairs: a JSONL, CSV or Parquet file, or a hub dataset")
    out: str = _setting("", "JSON file for the figures in full; a table of them is printed in any case")
    max_tokens: int = _setting(1024, "longest row in tokens; longer prompts lose their beginning", least=8)
    evaluation: Evaluation = field(default_factory=Evaluation)
    sampling: Sampling = field(default_factory=Sampling)


@dataclass(frozen=True, kw_only=True)
class CompareRun(Run):
    """`pairtune compare`."""

    preset: str = _setting(
        "quick",
        "sizes of the run. quick: minutes on two cores; chapter: the exercise to the letter (5,000 pairs, 3 epochs of "
        "DPO, a reward model, 50 steps of PPO), half an hour",
    )
    model: str = _setting("smollm2-135m", "the model: smollm2-135m, a folder, a .gguf file or a hub name")
    data: str = _setting("reviews", "reviews (the built-in task), a file of pairs, or a hub dataset")
    judge: str = _setting(
        "",
        "for a file of pairs: a reward model that scores the arms' answers; default: one trained on pairs kept apart",
    )
    methods: tuple[str, ...] = _setting(("dpo", "ppo"), "the arms: ppo, and objectives of the catalogue")
    pairs: int = _setting(640, "training pairs; of one's own data at most so many, as they allow", least=2)
    heldout: int = _setting(400, "held-out pairs; likewise", least=2)
    validation: int = _setting(200, "pairs to choose by, where a method has several values; likewise", least=2)
    max_tokens: int = _setting(1024, "longest row in tokens; longer prompts lose their beginning", least=8)
    out: str = _setting("", "folder for everything the run leaves behind; default runs/<preset>, or -2 and so on")
    sft: WarmStart = field(default_factory=WarmStart)
    preference: ComparedTuning = field(default_factory=ComparedTuning)
    reward: Reward = field(default_factory=Reward)
    ppo: ComparedPpo = field(default_factory=ComparedPpo)
    sampling: Sampling = field(default_factory=Sampling)
    evaluation: Curves = field(default_factory=Curves)
    # No setting: those that nobody gave, by key. With one's own data `comparison.sizes` settles some of them.
    not_given: frozenset[str] = field(default=frozenset(), compare=False, metadata={"internal": True})


MAIN_SECTION: dict[type, str] = {
    SftRun: "sft",
    RewardRun: "reward",
    TuneRun: "preference",
    PpoRun: "ppo",
    GenerateRun: "sampling",
    EvaluateRun: "evaluation",
    CompareRun: "preference",
}


@dataclass(frozen=True)
class Setting:
    """One setting of a command: where it lies (`ppo.steps`), what people call it (`ppo_steps`), its type and bounds.

    A parameter of objectives has no default and no bounds here: each objective has its own.
    """

    key: str
    name: str
    kind: Any
    meaning: str
    default: Any
    above: float | None
    least: float | None
    most: float | None


def settings_of(command: type) -> list[Setting]:
    """Every setting of a command, in the order of its class."""
    return list(_settings_of(command, command, ""))


def _settings_of(command: type, section: type, prefix: str) -> Iterator[Setting]:
    for entry in dataclasses.fields(section):
        if entry.metadata.get("internal"):
            continue
        kind = typing.get_type_hints(section)[entry.name]
        if dataclasses.is_dataclass(kind):
            yield from _settings_of(command, typing.cast(type, kind), f"{prefix}{entry.name}.")
        elif is_parameters(kind):
            value_kind = typing.get_args(kind)[1]
            for name, meaning in parameters().items():
                yield Setting(prefix + name, _name(command, prefix + name), value_kind, meaning, None, None, None, None)
        else:
            key = prefix + entry.name
            bounds = {bound: entry.metadata[bound] for bound in ("above", "least", "most")}
            yield Setting(key, _name(command, key), kind, entry.metadata["help"], entry.default, **bounds)


def is_parameters(kind: Any) -> bool:
    """Whether a field of this type holds an objective's parameters."""
    return typing.get_origin(kind) is Mapping and kind != Values


def _name(command: type, key: str) -> str:
    return key.removeprefix(f"{MAIN_SECTION[command]}.").replace(".", "_")


def parameters() -> dict[str, str]:
    """Every parameter that an objective of the catalogue has, and which have it."""
    having: dict[str, list[str]] = {}
    for objective in OBJECTIVES.values():
        for name in objective.parameters:
            having.setdefault(name, []).append(objective.name)
    return {
        name: f"parameter of {', '.join(names[:4])}{f' and {len(names) - 4} more' if len(names) > 4 else ''}"
        for name, names in having.items()
    }


def to_mapping(settings: Any) -> dict[str, Any]:
    """The settings as nested plain values, ready for YAML or JSON."""
    mapping: dict[str, Any] = {}
    for entry in dataclasses.fields(settings):
        if entry.metadata.get("internal"):
            continue
        value = getattr(settings, entry.name)
        if dataclasses.is_dataclass(value):
            mapping[entry.name] = to_mapping(value)
        elif isinstance(value, Mapping):
            mapping |= {name: _plain(each) for name, each in value.items()}
        else:
            mapping[entry.name] = _plain(value)
    return mapping


def _plain(value: Any) -> Any:
    """Lists for tuples; a parameter's values as they are given: 0.1, or [0.1, 0.3, "simpo=2"]."""
    if isinstance(value, Mapping):
        return _plain(tuple(f"{of}={each:.10g}" if of else each for of, values in value.items() for each in values))
    if isinstance(value, tuple):
        return value[0] if len(value) == 1 and isinstance(value[0], float) else list(value)
    return value
