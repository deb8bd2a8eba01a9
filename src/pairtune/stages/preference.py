"""Preference tuning: pairs, or responses with labels, and any objective in, a policy out."""

from pathlib import Path

from transformers import PreTrainedModel

from pairtune import parallel
from pairtune.engine.examples import Examples
from pairtune.engine.sharded import sharded
from pairtune.models.load import Tokenizer, save_model
from pairtune.objectives.loss import Loss
from pairtune.settings import Tuning
from pairtune.stages.stage import Facts
from pairtune.training.checkpoint import Journal
from pairtune.training.first_loss import check_first_loss
from pairtune.training.loop import Measure
from pairtune.training.preference import train_preference


def tune(
    folder: Path,
    *,
    name: str,
    model: PreTrainedModel,
    tokenizer: Tokenizer,
    examples: Examples,
    loss: Loss,
    settings: Tuning,
    seed: int,
    every: float = 0.0,
    measure: Measure | None = None,
    shard: str = "never",
) -> Facts:
    """Tune a model that still is the reference, and save it. Its last step, and the seconds of all its steps.

    name: what its records are called. shard: as for `sharded`.
    """
    if examples.reference is not None:
        check_first_loss(model, examples.rows, examples.reference, loss)
    journal = Journal(name, folder, every=every)
    with sharded(model, shard) as learner:
        train_preference(learner, examples, loss, settings, seed=seed, journal=journal, measure=measure)
    if parallel.is_first():
        save_model(model, tokenizer, folder)
    return journal.end()
