"""`pairtune derive`."""

import json
from dataclasses import asdict

from rich.console import Console

from pairtune.progress import say, task
from pairtune.runs import DeriveRun
from pairtune.theory.derivation import CLAIMS, derive
from pairtune.theory.walkthrough import show


def run(settings: DeriveRun) -> bool:
    """Print the derivation's steps. Returns whether every one holds within its tolerance."""
    with task("worlds, each for every step", settings.worlds * len(CLAIMS)) as progress:
        steps = derive(worlds=settings.worlds, seed=settings.seed, tried=progress.advance)
    if settings.json:
        print(json.dumps([asdict(step) for step in steps], indent=2, ensure_ascii=False))
    else:
        show(steps, Console())
        say("next: `pairtune compare` trains DPO and PPO side by side")
    return all(step.residual <= step.tolerance for step in steps)
