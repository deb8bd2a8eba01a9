"""Supervised fine-tuning: demonstrations in, a model out."""

from collections.abc import Sequence
from pathlib import Path

from transformers import PreTrainedModel

from pairtune import parallel
from pairtune.data.pack import Tokens
from pairtune.engine.kernels import round_into
from pairtune.engine.sharded import sharded
from pairtune.models import adapters
from pairtune.models.load import Tokenizer, save_model
from pairtune.settings import Sft
from pairtune.stages.stage import Facts
from pairtune.training.checkpoint import Journal
from pairtune.training.sft import train_sft


def sft(
    folder: Path,
    *,
    model: PreTrainedModel,
    tokenizer: Tokenizer,
    rows: Sequence[Tokens],
    settings: Sft,
    seed: int,
    every: float = 0.0,
    whole: bool = False,
    shard: str = "never",
) -> Facts:
    """Fine-tune a model that has been checked, and save it; with 0 epochs as it is.

    whole: adapters are added into the weights, and a whole model is saved. shard: as for `sharded`.
    """
    journal = Journal("sft", folder, every=every)
    if settings.epochs > 0:
        with sharded(model, shard) as learner:
            train_sft(learner, rows, settings, seed=seed, journal=journal)
    if whole and adapters.wrapper_of(model) is not None:
        model = adapters.fold(model, round_into)
    if parallel.is_first():
        save_model(model, tokenizer, folder)
    return {"demonstrations": len(rows)} | journal.warned()
