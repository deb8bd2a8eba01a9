"""By which way a model's numbers are computed, once its check has said which one is right.

`packed`: flat rows with shared prompts. `padded`: the model's own forward on padded rows. `alone`: its own forward on
one sequence at a time, which is what the other two are held against.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

from transformers import PreTrainedModel

Engine = Literal["packed", "padded", "alone"]
# How answers are drawn: with the engine's own buffers, with transformers' cache, or with no cache at all.
Sampler = Literal["packed", "cached", "recomputed"]

_PATHS = "_pairtune_paths"


@dataclass
class Paths:
    """What is known of a model, or of all models of one run; None is what no check has told yet."""

    engine: Engine | None = None
    sampler: Sampler | None = None
    told: int = 0  # the longest row beyond the model's positions that a person was told of


def paths_of(model: PreTrainedModel) -> Paths:
    """The model's paths; a copy of the model takes them along."""
    known: Paths | None = getattr(model, _PATHS, None)
    if known is None:
        known = Paths()
        setattr(model, _PATHS, known)
    return known


def use_paths(model: PreTrainedModel, paths: Paths) -> None:
    """Let a model go the ways of another one of its architecture, today's and what will be found out."""
    setattr(model, _PATHS, paths)


def rope_switch(model: PreTrainedModel) -> float:
    """The length beyond which rotary frequencies depend on the longest row of a pass; infinite for most models.

    LongRoPE changes all of a row's frequencies beyond the length it was pretrained at, dynamic scaling beyond
    `max_position_embeddings`: there a row's numbers are those of the row by itself.
    """
    config = model.config.get_text_config()
    parameters = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    kinds = [value for value in (parameters, *parameters.values()) if isinstance(value, dict)]
    lengths = [_switch(config, kind) for kind in kinds]
    return min(lengths, default=math.inf)


def _switch(config: Any, parameters: dict[str, Any]) -> float:
    kind = parameters.get("rope_type") or parameters.get("type") or ""
    original = parameters.get("original_max_position_embeddings") or getattr(
        config, "original_max_position_embeddings", None
    )
    if kind == "longrope":
        return int(original or config.max_position_embeddings)
    return int(config.max_position_embeddings) if "dynamic" in str(kind) else math.inf


def settle_rope(model: PreTrainedModel) -> None:
    """Forget the longest row that dynamically scaled frequencies have seen: a row's numbers have no history."""
    if rope_switch(model) == math.inf:
        return
    for module in model.modules():
        original = getattr(module, "original_max_seq_len", None)
        if original is None:
            continue
        for name in [name for name in vars(module) if name.endswith("max_seq_len_cached")]:
            if int(getattr(module, name)) > original:
                prefix = name.removesuffix("max_seq_len_cached")
                frequencies = getattr(module, f"{prefix}original_inv_freq")
                module.register_buffer(f"{prefix}inv_freq", frequencies.clone(), persistent=False)
                setattr(module, name, original)
