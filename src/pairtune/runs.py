"""What a run is: frozen dataclasses, one for each command; `pairtune.configure` reads them from what a person gives.

What people call each setting, `pairtune.settings_list` says.
"""

from dataclasses import dataclass, field
from typing import Any

from pairtune.settings import (
    FILE,
    FOLDER,
    LARGEST_SEED,
    MODEL,
    MOST_WORLDS,
    NAME,
    TEXT,
    WORD,
    Adapting,
    ComparedOnline,
    ComparedPpo,
    ComparedTuning,
    Curves,
    Drawing,
    Evaluation,
    Grpo,
    OnlinePreference,
    Ppo,
    Preference,
    Reward,
    Rloo,
    Sampling,
    Sft,
    WarmStart,
    setting,
)

# What may score answers.
_SCORER = (
    "of `pairtune reward`, a sequence classifier with one label, or FILE.py:FUNCTION from lists of prompts and answers "
    "to numbers (required)"
)


def _model(meaning: str) -> Any:
    """The field of a model that has a default."""
    return setting("smollm2-135m", f"{meaning}: smollm2-135m, a folder, a .gguf file or a hub name", MODEL, common=True)


def _data(meaning: str, *, required: bool = True) -> Any:
    """The field of a command's rows."""
    kinds = "a file or folder (JSONL, CSV, Parquet, ...), a hub dataset, - or FILE.py:FUNCTION that gives rows"
    return setting("", f"{meaning}: {kinds}{' (required)' if required else ''}", FILE, common=True)


def _out(command: str) -> Any:
    """The field of a result's folder."""
    meaning = f"folder for the result (default: runs/{command}, or runs/{command}-2 and so on)"
    return setting("", meaning, FOLDER, common=True)


def _overwrite() -> Any:
    """The field of a command whose result is a file."""
    return setting(False, "write over a file that exists; never over one that is read")


def _max_tokens(what: str) -> Any:
    return setting(1024, f"longest {what} in tokens; longer prompts lose their beginning", least=8)


@dataclass(frozen=True, kw_only=True)
class Run:
    """What every command has."""

    seed: int = setting(0, "seed of everything random", least=0, most=LARGEST_SEED)
    dtype: str = setting("auto", "auto (bfloat16 where the machine has it), bfloat16 or float32", "TYPE")
    trust_remote_code: bool = setting(False, "run code that a hub model brings along")


@dataclass(frozen=True, kw_only=True)
class Keeping:
    """What is kept of a training under way."""

    checkpoint_every: float = setting(
        0.0, "seconds of work between checkpoints; 0: 30, or as many as keep saving below 2% of the time", least=0
    )


@dataclass(frozen=True, kw_only=True)
class Training(Keeping):
    """What a training that is a command by itself may be told beside."""

    tokens_per_pass: int = setting(
        0,
        "tokens in one pass forward and backward; 0: 3072 on a processor, 16384 on a GPU; halved where memory runs out",
        least=0,
    )
    resume_anyway: bool = setting(
        False, "go on with what --out holds, although it was begun with other settings, data, model or code"
    )


@dataclass(frozen=True, kw_only=True)
class Sharing(Training):
    """What a training that several processes do together may be told beside."""

    shard: str = setting(
        "auto",
        "under torchrun, whether each process holds a part of weights, gradients and moments (always) or all (never); "
        "auto: a part where all would take more than half of its memory",
        "WORD",
        choices=("auto", "always", "never"),
    )


@dataclass(frozen=True, kw_only=True)
class Merging(Adapting):
    """Adapters (LoRA)."""

    merge: bool = setting(False, "write the whole model as well, adapters added into its weights, in merged/")


@dataclass(frozen=True, kw_only=True)
class RowsRead:
    """How rows are read."""

    prompt_format: str = setting(
        "auto",
        "what a prompt that is plain text is to a model with a chat template: chat, what its user says; text, what the "
        "answer goes on from; auto: chat, unless the file is written to be gone on from",
        "WORD",
        choices=("auto", "chat", "text"),
    )
    data_config: str = setting("", "configuration of a hub dataset", NAME)
    data_split: str = setting("train", "split of a hub dataset, as datasets writes it: train_prefs, test[:1000]", NAME)
    data_revision: str = setting("", "branch, tag or commit of a hub dataset", NAME)
    format: str = setting("auto", "shape of the rows, one of `pairtune formats`; auto: by columns and values", NAME)
    columns: tuple[str, ...] = setting((), "columns by other names, OURS=THEIRS: prompt=question chosen=best", NAME)
    pair_up: str = setting(
        "best-worst",
        "pairs of several answers to a prompt: best-worst, all, adjacent (in the order of their scores) or best-rest",
        NAME,
        choices=("best-worst", "all", "adjacent", "best-rest"),
    )
    weight: str = setting(
        "prompt",
        "pairs made of one row's several answers count as one together (prompt) or as one each (pair); how often a row "
        "counts, its column `weight` says",
        "WORD",
        choices=("prompt", "pair"),
    )
    min_margin: float = setting(0.0, "scores, or a verdict's strength, no further apart than this are a tie", least=0)
    label_threshold: float = setting(
        0.0, "labels that are numbers are desirable from here on; 0: labels are true or false", least=0
    )
    strict: bool = setting(False, "no row may be left out: the first that cannot be used is an error")


@dataclass(frozen=True, kw_only=True)
class DataRun(RowsRead, Run):
    """What every command has that reads rows and runs on them."""


@dataclass(frozen=True, kw_only=True)
class CheckRun(RowsRead):
    """`pairtune check`."""

    data: str = _data("pairs, or responses with labels")
    model: str = setting("", "a model whose tokenizer and chat template read them", MODEL, common=True)
    against: str = setting("", "prompts that must not be among them: a benchmark's, say", FILE, common=True)
    fix: str = setting("", "JSONL file for the rows that are worth training on; beside it, what went and why", FILE)
    html: str = setting("", "HTML file for what is found, as one page", FILE)
    json: bool = setting(False, "print what is found as JSON", common=True)
    overwrite: bool = _overwrite()
    max_tokens: int = _max_tokens("row")
    trust_remote_code: bool = setting(False, "run code that a hub model brings along")


@dataclass(frozen=True, kw_only=True)
class SftRun(Merging, Sharing, DataRun):
    """`pairtune sft`."""

    model: str = _model("model to train")
    data: str = _data("demonstrations")
    out: str = _out("sft")
    max_tokens: int = _max_tokens("row")
    sft: Sft = field(default_factory=Sft)


@dataclass(frozen=True, kw_only=True)
class RewardRun(Merging, Sharing, DataRun):
    """`pairtune reward`."""

    model: str = _model("model to start from")
    data: str = _data("pairs")
    out: str = _out("reward")
    heldout: float = setting(0.1, "pairs kept for measuring: a share below 1, or a number of pairs", above=0)
    max_tokens: int = _max_tokens("row")
    reward: Reward = field(default_factory=Reward)


@dataclass(frozen=True, kw_only=True)
class TuneRun(Merging, Sharing, DataRun):
    """`pairtune tune`."""

    model: str = _model("model to tune")
    data: str = _data("pairs, or responses with labels")
    out: str = _out("tune")
    heldout: float = setting(0.1, "pairs kept for measuring: a share below 1, or a number of pairs", above=0)
    max_tokens: int = _max_tokens("row")
    preference: Preference = field(default_factory=Preference)


@dataclass(frozen=True, kw_only=True)
class OnlineRun(Merging, Training, DataRun):
    """What the commands share that sample from the policy, score and update."""

    model: str = _model("policy to train")
    reward_model: str = setting("", f"reward model: {_SCORER}", MODEL, common=True)
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
    prompt: str = setting(
        "", "one prompt, answered on the terminal; for a chat model, what its user says", TEXT, common=True
    )
    data: str = _data("prompts to answer instead of --prompt", required=False)
    out: str = setting("", "JSONL file for the answers; without it they are printed", FILE, common=True)
    overwrite: bool = _overwrite()
    system: str = setting("", "what the system turn before --prompt says", TEXT)
    max_tokens: int = _max_tokens("prompt")
    sampling: Sampling = field(default_factory=Sampling)


@dataclass(frozen=True, kw_only=True)
class SampleRun(DataRun):
    """`pairtune sample`."""

    model: str = _model("model that answers")
    reward_model: str = setting("", f"what scores the answers: {_SCORER}", MODEL, common=True)
    data: str = _data("prompts (pairs serve)")
    out: str = setting("", "JSONL file for the pairs, or the scored answers (required)", FILE, common=True)
    answers_per_prompt: int = setting(4, "answers to each prompt", least=2, most=10_000, common=True)
    write: str = setting(
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
    reference: str = setting(
        "",
        "the model it was tuned from: smollm2-135m, a folder, a .gguf file or a hub name (required)",
        MODEL,
        common=True,
    )
    data: str = _data("held-out pairs")
    out: str = setting(
        "", "JSON file for the figures in full; a table of them is printed in any case", FILE, common=True
    )
    overwrite: bool = _overwrite()
    reward_model: str = setting("", "a reward model that scores the answers, or FILE.py:FUNCTION as for ppo", MODEL)
    max_tokens: int = _max_tokens("row")
    evaluation: Evaluation = field(default_factory=Evaluation)
    sampling: Sampling = field(default_factory=Sampling)


@dataclass(frozen=True, kw_only=True)
class LogProbsRun(DataRun):
    """`pairtune.log_probs`."""

    model: str = _model("model that the responses' log-probabilities are of")
    data: str = _data("pairs")
    max_tokens: int = _max_tokens("row")


@dataclass(frozen=True, kw_only=True)
class CompareRun(Adapting, Keeping, DataRun):
    """`pairtune compare`."""

    model: str = _model("the model that every arm starts from")
    data: str = setting(
        "reviews",
        "reviews (the built-in task), or pairs: a file or folder, a hub dataset, - or FILE.py:FUNCTION that gives rows",
        FILE,
        common=True,
    )
    out: str = setting(
        "",
        "folder for everything the run leaves behind (default: runs/ and the preset's name, or -2 and so on)",
        FOLDER,
        common=True,
    )
    methods: tuple[str, ...] = setting(
        ("dpo", "ppo"),
        "the arms: ppo, rloo, grpo, objectives of `pairtune objectives`, FILE.py:FUNCTION of your own, sums; "
        "online-dpo and the like: an objective on answers that are sampled as it goes; best-of-4 and the like: no "
        "training, of so many answers of the reference the reward model's best",
        NAME,
        common=True,
    )
    preset: str = setting(
        "quick",
        "sizes of the run. quick: minutes on two cores; chapter: the exercise to the letter (5,000 pairs, 3 epochs of "
        "DPO, a reward model, 50 steps of PPO), half an hour. Flags and --config win over it; the defaults here are "
        "quick's",
        NAME,
        common=True,
    )
    judge: str = setting(
        "",
        "for pairs of one's own: a reward model that scores the arms' answers, or FILE.py:FUNCTION from lists of "
        "prompts and answers to numbers (default: a reward model trained on pairs kept apart)",
        MODEL,
    )
    match_kl: bool = setting(
        False,
        "end each method that samples once its answers are as far from the reference as those of the first preference "
        "method",
    )
    pairs: int = setting(640, "training pairs; of one's own data at most so many, as they allow", least=2)
    heldout: int = setting(400, "held-out pairs; likewise", least=2)
    validation: int = setting(200, "pairs to choose by, where a method has several values; likewise", least=2)
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

    folder: str = setting("", "folder that `pairtune compare` left", WORD, common=True)
    figure: str = setting("", "PNG file for a picture of the run", FILE, common=True)
    overwrite: bool = setting(False, "write over a picture that exists", common=True)


@dataclass(frozen=True, kw_only=True)
class VerifyRun:
    """`pairtune verify DIR`."""

    folder: str = setting("", "folder that a training or a comparison left", WORD, common=True)


@dataclass(frozen=True, kw_only=True)
class CacheRun:
    """`pairtune cache`."""

    clear: bool = setting(False, "remove what is listed", common=True)


@dataclass(frozen=True, kw_only=True)
class ObjectivesRun:
    """`pairtune objectives`."""

    json: bool = setting(False, "print them as JSON", common=True)


@dataclass(frozen=True, kw_only=True)
class FormatsRun:
    """`pairtune formats`."""


@dataclass(frozen=True, kw_only=True)
class CheckLossRun:
    """`pairtune check-loss`."""

    loss: str = setting(
        "", "FILE.py:FUNCTION, a DPO loss of (policy, reference, chosen, rejected, beta)", FILE, common=True
    )


@dataclass(frozen=True, kw_only=True)
class GradeRun:
    """`pairtune grade`."""

    notebook: str = setting("", "a notebook of the course, .py or .ipynb, with your own functions", FILE, common=True)
    json: bool = setting(False, "print what is found as JSON", common=True)


@dataclass(frozen=True, kw_only=True)
class DeriveRun:
    """`pairtune derive`."""

    json: bool = setting(False, "print the steps as JSON", common=True)
    seed: int = setting(0, "seed of the random worlds", common=True, least=0, most=LARGEST_SEED)
    worlds: int = setting(20, "random worlds that each step is checked in", common=True, least=1, most=MOST_WORLDS)
