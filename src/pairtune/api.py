"""The commands as Python functions: each takes the command's settings as keywords and returns what it made.

A keyword is a flag without its dashes, `pairtune.tune(model="...", data="pairs.jsonl", beta=0.1, epochs=2)`; a name
with a dot is given as `**{"ppo.steps": 20}`. `config` is a YAML file of settings, over which keywords win. What a
person can mend raises `pairtune.InputError`, with the sentence that the command line would print.
"""

from pathlib import Path
from typing import Any

from pairtune.configure import settings_from_keywords
from pairtune.settings import CompareRun, EvaluateRun, GenerateRun, PpoRun, RewardRun, SftRun, TuneRun


def compare(*, config: str | None = None, **settings: Any) -> Path:
    """Train every method on the same pairs and measure them alike. Returns the run's folder (summary.json, report)."""
    chosen = settings_from_keywords(CompareRun, settings, config=config)
    from pairtune.commands.compare import run

    return run(chosen)


def sft(*, config: str | None = None, **settings: Any) -> Path:
    """Fine-tune a model on demonstrations. Returns the folder of the result, an ordinary Hugging Face folder."""
    chosen = settings_from_keywords(SftRun, settings, config=config)
    from pairtune.commands.sft import run

    return run(chosen)


def reward(*, config: str | None = None, **settings: Any) -> Path:
    """Train a reward model on preference pairs. Returns the folder of the result."""
    chosen = settings_from_keywords(RewardRun, settings, config=config)
    from pairtune.commands.reward import run

    return run(chosen)


def tune(*, config: str | None = None, **settings: Any) -> Path:
    """Tune a model on preference pairs. Returns the folder of the result, an ordinary Hugging Face folder."""
    chosen = settings_from_keywords(TuneRun, settings, config=config)
    from pairtune.commands.tune import run

    return run(chosen)


def ppo(*, config: str | None = None, **settings: Any) -> Path:
    """Train a model against a reward model with PPO. Returns the folder of the result."""
    chosen = settings_from_keywords(PpoRun, settings, config=config)
    from pairtune.commands.ppo import run

    return run(chosen)


def generate(*, config: str | None = None, **settings: Any) -> list[str]:
    """Answer a prompt, or the prompts of a file. Returns the answers."""
    chosen = settings_from_keywords(GenerateRun, settings, config=config)
    from pairtune.commands.generate import run

    return run(chosen)


def evaluate(*, config: str | None = None, **settings: Any) -> dict[str, Any]:
    """Measure a tuned model on held-out pairs. Returns its figures, each a mean with n and a 95% interval."""
    chosen = settings_from_keywords(EvaluateRun, settings, config=config)
    from pairtune.commands.evaluate import run

    return run(chosen)
