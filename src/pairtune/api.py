"""The commands as Python functions: each takes the command's settings as keywords and returns what it made.

A keyword is a flag without its dashes, `pairtune.tune(model="...", data="pairs.jsonl", beta=0.1, epochs=2)`,
`pairtune.compare(ppo_steps=20)`. `config` is a YAML file of settings, over which keywords win. What a person can mend
raises `pairtune.InputError`, with the sentence that the command line would print.
"""

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pairtune import commands
from pairtune.configure import settings_from_keywords
from pairtune.runs import (
    CheckLossRun,
    CompareRun,
    EvaluateRun,
    GenerateRun,
    GrpoRun,
    LogProbsRun,
    OnlineDpoRun,
    PpoRun,
    RewardRun,
    RlooRun,
    SampleRun,
    SftRun,
    TuneRun,
)


def compare(*, config: str | None = None, **settings: Any) -> Path:
    """Train every method on the same pairs and measure them alike. Returns the run's folder (summary.json, report)."""
    folder: Path = _run("compare", CompareRun, settings, config)
    return folder


def sft(*, config: str | None = None, **settings: Any) -> Path:
    """Fine-tune a model on demonstrations. Returns the folder of the result, an ordinary Hugging Face folder."""
    folder: Path = _run("sft", SftRun, settings, config)
    return folder


def reward(*, config: str | None = None, **settings: Any) -> Path:
    """Train a reward model on preference pairs. Returns the folder of the result."""
    folder: Path = _run("reward", RewardRun, settings, config)
    return folder


def tune(*, config: str | None = None, **settings: Any) -> Path:
    """Tune a model on preference pairs. Returns the folder of the result, an ordinary Hugging Face folder."""
    folder: Path = _run("tune", TuneRun, settings, config)
    return folder


def ppo(*, config: str | None = None, **settings: Any) -> Path:
    """Train a model against a reward model with PPO. Returns the folder of the result."""
    folder: Path = _run("ppo", PpoRun, settings, config)
    return folder


def rloo(*, config: str | None = None, **settings: Any) -> Path:
    """Train a model against a reward model with RLOO. Returns the folder of the result."""
    folder: Path = _run("rloo", RlooRun, settings, config)
    return folder


def grpo(*, config: str | None = None, **settings: Any) -> Path:
    """Train a model against a reward model with GRPO. Returns the folder of the result."""
    folder: Path = _run("grpo", GrpoRun, settings, config)
    return folder


def online_dpo(*, config: str | None = None, **settings: Any) -> Path:
    """Tune a model on pairs of its own answers, by a reward model. Returns the folder of the result."""
    folder: Path = _run("online-dpo", OnlineDpoRun, settings, config)
    return folder


def generate(*, config: str | None = None, **settings: Any) -> list[str]:
    """Answer a prompt, or the prompts of a file. Returns the answers."""
    answers: list[str] = _run("generate", GenerateRun, settings, config)
    return answers


def sample(*, config: str | None = None, **settings: Any) -> Path:
    """Answer prompts several times, score the answers, write pairs or scored answers. Returns the file."""
    file: Path = _run("sample", SampleRun, settings, config)
    return file


def evaluate(*, config: str | None = None, **settings: Any) -> dict[str, Any]:
    """Measure a tuned model on held-out pairs. Returns its figures, each a mean with n and a 95% interval."""
    figures: dict[str, Any] = _run("evaluate", EvaluateRun, settings, config)
    return figures


def log_probs(*, config: str | None = None, **settings: Any) -> list[dict[str, float]]:
    """log π of the chosen and the rejected response of each pair, sums over their tokens: to hold one's own against.

    `dtype="float32"` where that is to more than bfloat16's rounding, some hundredths of a nat a token.
    """
    found: list[dict[str, float]] = _run("log_probs", LogProbsRun, settings, config)
    return found


def check_loss(loss: str | Callable[..., Any]) -> bool:
    """Hold a DPO loss, FILE.py:FUNCTION or the function itself, against the theory; print what is right and wrong.

    It takes (policy, reference, chosen, rejected, beta), as `pairtune.course.check_loss` says. Returns whether it is
    right in everything.
    """
    if isinstance(loss, str):
        right: bool = _run("check-loss", CheckLossRun, {"loss": loss}, None)
        return right
    from pairtune.commands.check_loss import show
    from pairtune.own import Own

    return show(Own(loss.__name__, loss, Path(inspect.getsourcefile(loss) or ""), ""))


def _run(command: str, kind: type, keywords: Mapping[str, Any], config: str | None) -> Any:
    settings: Any = settings_from_keywords(kind, keywords, config=config)
    return commands.run(command, settings)
