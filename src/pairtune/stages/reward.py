"""A reward model: pairs in, a scorer out, normalised on the responses it learned from."""

from collections.abc import Sequence
from pathlib import Path

from transformers import PreTrainedModel

from pairtune import parallel
from pairtune.data.pack import Tokens
from pairtune.engine.cost import uncounted
from pairtune.engine.kernels import round_into
from pairtune.engine.sharded import sharded
from pairtune.evaluation.heldout import reward_margins
from pairtune.models import adapters
from pairtune.models.heads import ScalarModel
from pairtune.models.load import Tokenizer
from pairtune.settings import Reward
from pairtune.stages.stage import Facts
from pairtune.training.checkpoint import Journal
from pairtune.training.reward import normalise, train_reward


def reward(
    folder: Path,
    *,
    name: str = "reward",
    body: PreTrainedModel,
    tokenizer: Tokenizer,
    rows: Sequence[Tokens],
    heldout: Sequence[Tokens],
    settings: Reward,
    seed: int,
    every: float = 0.0,
    merged: Path | None = None,
    shard: str = "never",
) -> Facts:
    """Train a scalar head and its body on (chosen, rejected) rows, save both; the margins of the held-out pairs.

    name: what its records are called. merged: where the whole model goes as well, its adapters added into its weights.
    shard: as for `sharded`.
    """
    model = ScalarModel(body, seed=seed)
    journal = Journal(name, folder, every=every)
    with sharded(model, shard) as learner:
        train_reward(learner, rows, settings, seed=seed, journal=journal)
    normalise(model, rows)
    if parallel.is_first():
        model.save(folder, tokenizer)
    with uncounted():
        margins = reward_margins(model, heldout)
    if merged is not None:
        model.body = adapters.fold(model.body, round_into)
        if parallel.is_first():
            model.save(merged, tokenizer)
    return {"margins": margins} | journal.warned()
