"""What a run is: frozen dataclasses, one for each command; `pairtune.configure` reads them from what a person gives.

What people call each of them, `pairtune.settings_list` says.
"""

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


# What may score answers.
_SCORER = (
    "of `pairtune reward`, a sequence classifier with one label, or FILE.py:FUNCTION from lists of prompts and answers "
    "to numbers (required)"
)
# What `--help` shows for a value.
MODEL, FILE, FOLDER, TEXT, NAME, NUMBER = "MODEL", "FILE", "FOLDER", "TEXT", "NAME", "N"
WORD = "DIR"  # of a command that takes one, without a flag


def _setting(
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


def _model(meaning: str) -> Any:
    """The field of a model that has a default."""
    return _setting(
        "smollm2-135m", f"{meaning}: smollm2-135m, a folder, a .gguf file or a hub name", MODEL, common=True
    )


def _data(meaning: str, *, required: bool = True) -> Any:
    """The field of a command's rows."""
    kinds = "a file or folder (JSONL, CSV, Parquet, ...), a hub dataset, - or FILE.py:FUNCTION that gives rows"
    return _setting("", f"{meaning}: {kinds}{' (required)' if required else ''}", FILE, common=True)


def _out(command: str) -> Any:
    """The field of a result's folder."""
    meaning = f"folder for the result (default: runs/{command}, or runs/{command}-2 and so on)"
    return _setting("", meaning, FOLDER, common=True)


def _overwrite() -> Any:
    """The field of a command whose result is a file."""
    return _setting(False, "write over a file that exists; never over one that is read")


def _max_tokens(what: str) -> Any:
    return _setting(1024, f"longest {what} in tokens; longer prompts lose their beginning", least=8)


@dataclass(frozen=True, kw_only=True)
class Optimisation:
    """How weights move: the same five words for every kind of training."""

    learning_rate: float = _setting(5e-5, "peak learning rate of AdamW", above=0)
    batch_size: int = _setting(
        16,
        "examples in one optimiser step, in as many passes as memory asks for: nothing is to be accumulated",
        least=1,
    )
    warmup: float = _setting(0.1, "share of the steps in which the learning rate rises", least=0, most=1)
    schedule: str = _setting(
        "linear",
        "what the learning rate does after that: linear or cosine, down to 0, or constant",
        "WORD",
        choices=("linear", "cosine", "constant"),
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

    objective: str = _setting(
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

    epochs: int = _setting(1, "passes over the pairs", least=1, most=MOST_EPOCHS)


@dataclass(frozen=True, kw_only=True)
class Online:
    """Rounds of sampling, scoring and updating: what PPO, RLOO, GRPO and online preference tuning share."""

    steps: int = _setting(50, "rounds of sampling and updating", least=1)
    batch_size: int = _setting(64, "answers sampled in one step", least=1)
    minibatches: int = _setting(2, "optimiser steps in one pass over a step's answers", least=1)
    epochs: int = _setting(2, "passes over each step's answers", least=1, most=MOST_EPOCHS)
    learning_rate: float = _setting(2e-5, "peak learning rate of the policy's Adam", above=0)
    warmup: float = _setting(0.1, "share of the steps in which the learning rate rises; then it stays", least=0, most=1)
    max_gradient_norm: float = _setting(1.0, "gradients longer than this are scaled down to it", above=0)
    kl_stop: float = _setting(
        0.0,
        "nats per response from the reference at which training ends, steps left or not; 0: nowhere",
        least=0,
    )
    missing_end_penalty: float = _setting(1.0, "taken from the reward of an answer without end of text", least=0)
    temperature: float = _setting(1.0, "temperature of sampling, and of every log-probability of the policy", above=0)


@dataclass(frozen=True, kw_only=True)
class PolicyGradient(Online):
    """A clipped policy gradient with a KL term, but for the weight of that term."""

    kl_target: float = _setting(
        0.0, "nats per response an adaptive KL weight steers to; 0: the weight is fixed", least=0
    )
    clip_ratio: float = _setting(0.2, "how far the probability ratio counts on either side of 1", above=0)


@dataclass(frozen=True, kw_only=True)
class PpoBase(PolicyGradient):
    """PPO with a reward model and a KL term, but for the weight of that term."""

    value_learning_rate: float = _setting(2e-5, "peak learning rate of the value model's Adam", above=0)
    discount: float = _setting(1.0, "γ of generalised advantage estimation", above=0, most=1)
    gae_lambda: float = _setting(0.95, "λ of generalised advantage estimation", least=0, most=1)
    clip_value: float = _setting(0.2, "how far a value may move from the old one before it stops counting", above=0)


@dataclass(frozen=True, kw_only=True)
class Ppo(PpoBase):
    """PPO with a reward model and a KL term."""

    kl_coefficient: float = _setting(0.05, "weight of the per-token KL reward (its start, if adaptive)", least=0)


@dataclass(frozen=True, kw_only=True)
class ComparedPpo(PpoBase):
    """PPO at every weight given for its KL term."""

    kl_coefficient: tuple[float, ...] = _setting((0.05,), "weights of the per-token KL reward to try", least=0)


def _answers_per_prompt() -> Any:
    return _setting(4, "answers to each prompt; --batch-size is a multiple of it", least=2, most=10_000)


def _normalise() -> Any:
    return _setting(
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
    kl_coefficient: float = _setting(0.05, "weight of the KL in an answer's reward (its start, if adaptive)", least=0)


@dataclass(frozen=True, kw_only=True)
class Grpo(PolicyGradient):
    """GRPO, an answer against the mean of those to its prompt."""

    answers_per_prompt: int = _answers_per_prompt()
    kl_coefficient: float = _setting(0.05, "weight of the KL term in the loss (its start, if adaptive)", least=0)
    normalise: str = _normalise()


@dataclass(frozen=True, kw_only=True)
class OnlinePreference(Online):
    """Online preference tuning, a prompt's best and worst answer a pair."""

    answers_per_prompt: int = _answers_per_prompt()
    objective: str = _setting(
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
    kl_coefficient: tuple[float, ...] = _setting((0.05,), "weights of RLOO's and GRPO's KL to try", least=0)
    normalise: str = _normalise()


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """How answers are drawn.

    The temperature is one of the method's own settings.
    """

    max_new_tokens: int = _setting(32, "longest answer, in tokens", least=1, most=MOST_NEW_TOKENS)
    batch_size: int = _setting(128, "answers written side by side", least=1)


@dataclass(frozen=True, kw_only=True)
class Sampling(Drawing):
    """How answers are drawn."""

    temperature: float = _setting(1.0, "temperature of sampling", above=0)


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """How a policy is measured."""

    prompts: int = _setting(256, "held-out prompts that are answered", least=2)


@dataclass(frozen=True, kw_only=True)
class Curves(Evaluation):
    """How an arm is measured at its end and along its training."""

    prompts: int = _setting(
        256, "held-out prompts that are answered; where there is a choice, validation prompts", least=2
    )
    curve_points: int = _setting(5, "measurements along each arm's training, its end included", least=0)
    curve_prompts: int = _setting(
        64, "held-out prompts answered, and pairs scored, at each of them but the end", least=2
    )


@dataclass(frozen=True, kw_only=True)
class Run:
    """What every command has."""

    seed: int = _setting(0, "seed of everything random", least=0, most=LARGEST_SEED)
    dtype: str = _setting("auto", "auto (bfloat16 where the machine has it), bfloat16 or float32", "TYPE")
    trust_remote_code: bool = _setting(False, "run code that a hub model brings along")


@dataclass(frozen=True, kw_only=True)
class Keeping:
    """What is kept of a training under way."""

    checkpoint_every: float = _setting(
        0.0, "seconds of work between checkpoints; 0: 30, or as many as keep saving below 2% of the time", least=0
    )


@dataclass(frozen=True, kw_only=True)
class Training(Keeping):
    """What a training that is a command by itself may be told beside."""

    tokens_per_pass: int = _setting(
        0,
        "tokens in one pass forward and backward; 0: 3072 on a processor, 16384 on a GPU; halved where memory runs out",
        least=0,
    )
    resume_anyway: bool = _setting(
        False, "go on with what --out holds, although it was begun with other settings, data, model or code"
    )


@dataclass(frozen=True, kw_only=True)
class Adapting:
    """Adapters (LoRA)."""

    lora: bool = _setting(False, "train low-rank adapters beside the linear layers; the weights stay as they are")
    lora_rank: int = _setting(16, "rank of the adapters", least=1, most=4096)
    lora_alpha: float = _setting(32.0, "adapters count alpha / rank", above=0)
    lora_dropout: float = _setting(0.0, "dropout of adapters: 0 only, or a policy would differ from itself", least=0)
    lora_targets: tuple[str, ...] = _setting((), "linear layers that get adapters (default: all but the head)", NAME)


@dataclass(frozen=True, kw_only=True)
class Merging(Adapting):
    """Adapters (LoRA)."""

    merge: bool = _setting(False, "write the whole model as well, adapters added into its weights, in merged/")


@dataclass(frozen=True, kw_only=True)
class RowsRead:
    """How rows are read."""

    prompt_format: str = _setting(
        "auto",
        "what a prompt that is plain text is to a model with a chat template: chat, what its user says; text, what the "
        "answer goes on from; auto: chat, unless the file is written to be gone on from",
        "WORD",
        choices=("auto", "chat", "text"),
    )
    data_config: str = _setting("", "configuration of a hub dataset", NAME)
    data_split: str = _setting("train", "split of a hub dataset, as datasets writes it: train_prefs, test[:1000]", NAME)
    data_revision: str = _setting("", "branch, tag or commit of a hub dataset", NAME)
    format: str = _setting("auto", "shape of the rows, one of `pairtune formats`; auto: by columns and values", NAME)
    columns: tuple[str, ...] = _setting((), "columns by other names, OURS=THEIRS: prompt=question chosen=best", NAME)
    pair_up: str = _setting(
        "best-worst",
        "pairs of several answers to a prompt: best-worst, all, adjacent (in the order of their scores) or best-rest",
        NAME,
        choices=("best-worst", "all", "adjacent", "best-rest"),
    )
    weight: str = _setting(
        "prompt",
        "pairs made of one row's several answers count as one together (prompt) or as one each (pair); how often a row "
        "counts, its column `weight` says",
        "WORD",
        choices=("prompt", "pair"),
    )
    min_margin: float = _setting(0.0, "scores, or a verdict's strength, no further apart than this are a tie", least=0)
    label_threshold: float = _setting(
        0.0, "labels that are numbers are desirable from here on; 0: labels are true or false", least=0
    )
    strict: bool = _setting(False, "no row may be left out: the first that cannot be used is an error")


@dataclass(frozen=True, kw_only=True)
class DataRun(RowsRead, Run):
    """What every command has that reads rows and runs on them."""


@dataclass(frozen=True, kw_only=True)
class CheckRun(RowsRead):
    """`pairtune check`."""

    data: str = _data("pairs, or responses with labels")
    model: str = _setting("", "a model whose tokenizer and chat template read them", MODEL, common=True)
    against: str = _setting("", "prompts that must not be among them: a benchmark's, say", FILE, common=True)
    fix: str = _setting("", "JSONL file for the rows that are worth training on; beside it, what went and why", FILE)
    html: str = _setting("", "HTML file for what is found, as one page", FILE)
    json: bool = _setting(False, "print what is found as JSON", common=True)
    overwrite: bool = _overwrite()
    max_tokens: int = _max_tokens("row")
    trust_remote_code: bool = _setting(False, "run code that a hub model brings along")


@dataclass(frozen=True, kw_only=True)
class SftRun(Merging, Training, DataRun):
    """`pairtune sft`."""

    model: str = _model("model to train")
    data: str = _data("demonstrations")
    out: str = _out("sft")
    max_tokens: int = _max_tokens("row")
    sft: Sft = field(default_factory=Sft)


@dataclass(frozen=True, kw_only=True)
class RewardRun(Merging, Training, DataRun):
    """`pairtune reward`."""

    model: str = _model("model to start from")
    data: str = _data("pairs")
    out: str = _out("reward")
    heldout: float = _setting(0.1, "pairs kept for measuring: a share below 1, or a number of pairs", above=0)
    max_tokens: int = _max_tokens("row")
    reward: Reward = field(default_factory=Reward)


@dataclass(frozen=True, kw_only=True)
class TuneRun(Merging, Training, DataRun):
    """`pairtune tune`."""

    model: str = _model("model to tune")
    data: str = _data("pairs, or responses with labels")
    out: str = _out("tune")
    heldout: float = _setting(0.1, "pairs kept for measuring: a share below 1, or a number of pairs", above=0)
    max_tokens: int = _max_tokens("row")
    preference: Preference = field(default_factory=Preference)


@dataclass(frozen=True, kw_only=True)
class OnlineRun(Merging, Training, DataRun):
    """What the commands share that sample from the policy, score and update."""

    model: str = _model("policy to train")
    reward_model: str = _setting("", f"reward model: {_SCORER}", MODEL, common=True)
    data: str = _data("prompts (pairs serve)")
    out: str = _out("the command's name")
    max_tokens: int = _max_tokens("prompt")
    sampling: Drawing = field(default_factory=Drawing)


@dataclass(frozen=True, kw_only=True)
class PpoRun(OnlineRun):
    """`pairtune ppo`."""

    out: str = _out("ppo")
    ppo: Ppo = field(default_factory=Ppo)


@dataclass(frozen=True, kw_only=True)
class RlooRun(OnlineRun):
    """`pairtune rloo`."""

    out: str = _out("rloo")
    rloo: Rloo = field(default_factory=Rloo)


@dataclass(frozen=True, kw_only=True)
class GrpoRun(OnlineRun):
    """`pairtune grpo`."""

    out: str = _out("grpo")
    grpo: Grpo = field(default_factory=Grpo)


@dataclass(frozen=True, kw_only=True)
class OnlineDpoRun(OnlineRun):
    """`pairtune online-dpo`."""

    out: str = _out("online-dpo")
    online: OnlinePreference = field(default_factory=OnlinePreference)


@dataclass(frozen=True, kw_only=True)
class GenerateRun(DataRun):
    """`pairtune generate`."""

    model: str = _model("model that answers")
    prompt: str = _setting(
        "", "one prompt, answered on the terminal; for a chat model, what its user says", TEXT, common=True
    )
    data: str = _data("prompts to answer instead of --prompt", required=False)
    out: str = _setting("", "JSONL file for the answers; without it they are printed", FILE, common=True)
    overwrite: bool = _overwrite()
    system: str = _setting("", "what the system turn before --prompt says", TEXT)
    max_tokens: int = _max_tokens("prompt")
    sampling: Sampling = field(default_factory=Sampling)


@dataclass(frozen=True, kw_only=True)
class SampleRun(DataRun):
    """`pairtune sample`."""

    model: str = _model("model that answers")
    reward_model: str = _setting("", f"what scores the answers: {_SCORER}", MODEL, common=True)
    data: str = _data("prompts (pairs serve)")
    out: str = _setting("", "JSONL file for the pairs, or the scored answers (required)", FILE, common=True)
    answers_per_prompt: int = _setting(4, "answers to each prompt", least=2, most=10_000, common=True)
    write: str = _setting(
        "pairs",
        "pairs: of each prompt's answers the best and the worst; scores: all of them with their scores",
        "WORD",
        common=True,
        choices=("pairs", "scores"),
    )
    overwrite: bool = _overwrite()
    max_tokens: int = _max_tokens("prompt")
    sampling: Sampling = field(default_factory=Sampling)


@dataclass(frozen=True, kw_only=True)
class EvaluateRun(DataRun):
    """`pairtune evaluate`."""

    model: str = _model("policy to measure")
    reference: str = _setting(
        "",
        "the model it was tuned from: smollm2-135m, a folder, a .gguf file or a hub name (required)",
        MODEL,
        common=True,
    )
    data: str = _data("held-out pairs")
    out: str = _setting(
        "", "JSON file for the figures in full; a table of them is printed in any case", FILE, common=True
    )
    overwrite: bool = _overwrite()
    reward_model: str = _setting("", "a reward model that scores the answers, or FILE.py:FUNCTION as for ppo", MODEL)
    max_tokens: int = _max_tokens("row")
    evaluation: Evaluation = field(default_factory=Evaluation)
    sampling: Sampling = field(default_factory=Sampling)


@dataclass(frozen=True, kw_only=True)
class CompareRun(Adapting, Keeping, DataRun):
    """`pairtune compare`."""

    model: str = _model("the model that every arm starts from")
    data: str = _setting(
        "reviews",
        "reviews (the built-in task), or pairs: a file or folder, a hub dataset, - or FILE.py:FUNCTION that gives rows",
        FILE,
        common=True,
    )
    out: str = _setting(
        "",
        "folder for everything the run leaves behind (default: runs/ and the preset's name, or -2 and so on)",
        FOLDER,
        common=True,
    )
    methods: tuple[str, ...] = _setting(
        ("dpo", "ppo"),
        "the arms: ppo, rloo, grpo, objectives of `pairtune objectives`, FILE.py:FUNCTION of your own, sums; "
        "online-dpo and the like: an objective on answers that are sampled as it goes",
        NAME,
        common=True,
    )
    preset: str = _setting(
        "quick",
        "sizes of the run. quick: minutes on two cores; chapter: the exercise to the letter (5,000 pairs, 3 epochs of "
        "DPO, a reward model, 50 steps of PPO), half an hour. Flags and --config win over it; the defaults here are "
        "quick's",
        NAME,
        common=True,
    )
    judge: str = _setting(
        "",
        "for pairs of one's own: a reward model that scores the arms' answers, or FILE.py:FUNCTION from lists of "
        "prompts and answers to numbers (default: a reward model trained on pairs kept apart)",
        MODEL,
    )
    match_kl: bool = _setting(
        False,
        "end each method that samples once its answers are as far from the reference as those of the first preference "
        "method",
    )
    pairs: int = _setting(640, "training pairs; of one's own data at most so many, as they allow", least=2)
    heldout: int = _setting(400, "held-out pairs; likewise", least=2)
    validation: int = _setting(200, "pairs to choose by, where a method has several values; likewise", least=2)
    max_tokens: int = _max_tokens("row")
    sft: WarmStart = field(default_factory=WarmStart)
    preference: ComparedTuning = field(default_factory=ComparedTuning)
    reward: Reward = field(default_factory=Reward)
    ppo: ComparedPpo = field(default_factory=ComparedPpo)
    online: ComparedOnline = field(default_factory=ComparedOnline)
    sampling: Sampling = field(default_factory=Sampling)
    evaluation: Curves = field(default_factory=Curves)
    # Not a setting: the keys of those that were not given. With one's own data `comparison.sizes` settles some of them.
    not_given: frozenset[str] = field(default=frozenset(), compare=False, metadata={"internal": True})


@dataclass(frozen=True, kw_only=True)
class ReportRun:
    """`pairtune report DIR`."""

    folder: str = _setting("", "folder that `pairtune compare` left", WORD, common=True)
    figure: str = _setting("", "PNG file for a picture of the run", FILE, common=True)
    overwrite: bool = _setting(False, "write over a picture that exists", common=True)


@dataclass(frozen=True, kw_only=True)
class VerifyRun:
    """`pairtune verify DIR`."""

    folder: str = _setting("", "folder that a training or a comparison left", WORD, common=True)


@dataclass(frozen=True, kw_only=True)
class CacheRun:
    """`pairtune cache`."""

    clear: bool = _setting(False, "remove what is listed", common=True)


@dataclass(frozen=True, kw_only=True)
class ObjectivesRun:
    """`pairtune objectives`."""

    json: bool = _setting(False, "print them as JSON", common=True)


@dataclass(frozen=True, kw_only=True)
class FormatsRun:
    """`pairtune formats`."""


@dataclass(frozen=True, kw_only=True)
class DeriveRun:
    """`pairtune derive`."""

    json: bool = _setting(False, "print the steps as JSON", common=True)
    seed: int = _setting(0, "seed of the random worlds", common=True, least=0, most=LARGEST_SEED)
    worlds: int = _setting(20, "random worlds that each step is checked in", common=True, least=1, most=MOST_WORLDS)
