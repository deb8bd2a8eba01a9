"""What a model can be given: token ids that it has a vector for, rows no longer than its table of positions."""

import math
from collections.abc import Sequence

from transformers import PreTrainedModel

from pairtune.engine.path import paths_of
from pairtune.errors import InputError
from pairtune.progress import say

# What configurations call the number of positions.
POSITIONS = ("max_position_embeddings", "n_positions", "max_seq_len", "max_target_positions", "n_ctx")
# Some tables of positions begin with rows that are never read.
SPARE_ROWS = 2


def check_ids(model: PreTrainedModel, highest: int) -> None:
    """Raises InputError if a token id has no row in the model's embedding (or in its head)."""
    rows = _embedded(model)
    if rows is not None and highest >= rows:
        raise InputError(
            f"the tokenizer gives token id {highest} and the model has embeddings for {rows} tokens; give the "
            "tokenizer that belongs to the model, or resize its embeddings"
        )


def check_ends(model: PreTrainedModel, ends: Sequence[int]) -> None:
    """Raises InputError if the model can write none of these tokens: no answer of it would ever end."""
    rows = _embedded(model)
    if rows is not None and ends and min(ends) >= rows:
        raise InputError(
            f"an answer ends with token {min(ends)} and the model has embeddings for {rows} tokens; set the eos_token "
            "of its tokenizer and the eos_token_id of its generation_config.json"
        )


def check_length(model: PreTrainedModel, longest: int) -> None:
    """Raises InputError for rows longer than a table of positions; says once where a model goes beyond its training."""
    positions = _positions(model)
    if positions is None or longest <= positions:
        return
    if longest > table_rows(model):
        raise InputError(
            f"a row is {longest} tokens long and the model has {positions} positions; lower --max-tokens, or what is "
            "left for the answer (--sampling-max-new-tokens)"
        )
    paths = paths_of(model)
    if longest > paths.told:
        say(f"engine: rows of up to {longest} tokens, where the model was made for {positions}")
        paths.told = longest


def table_rows(model: PreTrainedModel) -> float:
    """The longest row that a table of positions allows; infinite without one."""
    positions = _positions(model)
    return math.inf if positions is None or not _has_table(model, positions) else positions


def _embedded(model: PreTrainedModel) -> int | None:
    """Token ids that the model reads and predicts; None if it does not show its embedding."""
    try:
        tables = (model.get_input_embeddings(), model.get_output_embeddings())
    except (NotImplementedError, AttributeError):
        return None
    weights = [weight for weight in (getattr(table, "weight", None) for table in tables) if weight is not None]
    return min((int(weight.shape[0]) for weight in weights if weight.dim() == 2), default=None)


def _positions(model: PreTrainedModel) -> int | None:
    config = model.config.get_text_config()
    values = (getattr(config, name, None) for name in POSITIONS)
    return next((int(value) for value in values if isinstance(value, int) and value > 0), None)


def _has_table(model: PreTrainedModel, positions: int) -> bool:
    """Whether places beyond `positions` have no vector: a table, learned or not, with as many rows."""
    embeddings = model.get_input_embeddings()
    tokens = {id(weight) for weight in (getattr(embeddings, "weight", None),) if weight is not None}
    tables = [*model.named_parameters(), *model.named_buffers()]
    return any(
        value.dim() == 2
        and positions <= value.shape[0] <= positions + SPARE_ROWS
        and id(value) not in tokens
        and any(sign in name for sign in ("position", "wpe", "pos_emb"))
        for name, value in tables
    )
