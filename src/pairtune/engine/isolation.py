"""Whether packed rows keep apart: tokens are changed, and not one bit may change where they must not be seen.

Attention that keeps to its segments passes exactly, whatever the dtype. Convolutions, state spaces, routing by capacity
and attention outside of transformers' interface do not. Where experts compute tokens in groups, the shape of the
groups moves with the tokens: there the change may be that of the same rows in another order, and no more.

Shape suffixes: T tokens of the pack, E hidden size, Q and K places of queries and keys.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from pairtune.data.pack import Pack, Tokens, pack
from pairtune.engine.attention import NotPackableError, watched_masks
from pairtune.engine.compile import plain_blocks
from pairtune.engine.own import own_response_logits, response_rows
from pairtune.engine.packed import packed_hidden_states

# Of rows with experts: how many times the change of another order is rounding, how many units in the last place are,
# and what it may be of the whole.
ORDER_TIMES, ORDER_BITS = 4, 16
ORDER_MOST = {torch.float64: 1e-6, torch.float32: 1e-4, torch.bfloat16: 0.1, torch.float16: 0.02}
# A causal model's log-probabilities may move by so much, relative, when a later token changes: shapes stay the same.
CAUSAL = 1e-4


def check_isolation(model: PreTrainedModel, rows: Sequence[Tokens]) -> None:
    """Raises NotPackableError if a segment notices another row or response, or a token a later one."""
    batch = pack(rows).to(model.device)
    before_TE = packed_hidden_states(model, batch)
    allowed = _by_order(model, rows, before_TE) if has_experts(model) else 0.0
    for name, changed_T, reached_T in _changes(batch):
        tokens_T = torch.where(changed_T, _another(batch.tokens_T), batch.tokens_T)
        after_TE = packed_hidden_states(model, replace(batch, tokens_T=tokens_T))
        moved_T = (after_TE != before_TE).any(-1)
        if not moved_T[changed_T].any():
            raise NotPackableError("packed rows do not notice their own tokens")
        stray_T = moved_T & ~reached_T
        if stray_T.any():
            most = float((after_TE - before_TE)[stray_T].abs().max())
            if not most <= allowed:
                raise NotPackableError(
                    f"packed rows are not kept apart: another {name} changes hidden states elsewhere"
                )


def check_masks(model: PreTrainedModel, row: Tokens) -> None:
    """Every window or mask that the model asks for is one that its attention is told of, in every attention layer.

    Masks are functions of places, so they are looked at far beyond the rows there are. Raises NotPackableError.
    """
    batch = pack([Tokens(row.prompt, row.responses[:1])]).to(model.device)
    with plain_blocks(model), watched_masks() as masks:
        packed_hidden_states(model, batch)
    layers = _attention_layers(model)
    if len(masks.applied) < layers:
        raise NotPackableError(
            f"only {len(masks.applied)} of {layers} attention layers go through transformers' interface"
        )
    windows = set(masks.applied)
    q_Q1, k_QK = _places(windows, model.device)
    applied = [_visible(q_Q1, k_QK, window) for window in windows]
    asked = [_evaluate(mask, q_Q1, k_QK) for mask in masks.asked]
    if not all(any(torch.equal(mask, other) for other in applied) for mask in asked):
        raise NotPackableError("the model makes a mask (a window, chunks) that its attention is not told of")
    if asked and not all(any(torch.equal(mask, other) for mask in asked) for other in applied):
        raise NotPackableError("the model tells its attention of a window that is not in its mask")


def check_own_forward(model: PreTrainedModel, rows: Sequence[Tokens], *, alone: bool) -> None:
    """Raises NotPackableError if the model's own forward predicts a token from a later one, or from a padded row's."""
    row, response = rows[0], rows[0].responses[0]
    half = len(response) // 2
    others = [] if alone else [Tokens(other.prompt, other.responses[:1]) for other in rows[1:2]]
    late = _another(torch.tensor(row.prompt + response))[len(row.prompt) + half :].tolist()
    results = []
    for tokens in (response, (*response[:half], *late)):
        batch = pack([Tokens(row.prompt, (tokens,)), *others]).to(model.device)
        results.append(torch.log_softmax(own_response_logits(model, batch, alone=alone).float(), -1))
    before_RV, after_RV = results
    moved_R = (after_RV - before_RV).abs().amax(-1)
    most = CAUSAL * max(1.0, float(before_RV.abs().max()))
    if not float(moved_R[: half + 1].max()) <= most:
        raise NotPackableError("it is not causal: a later token changes what an earlier one predicts")
    if others and not float(moved_R[len(response) :].max()) <= most:
        raise NotPackableError("padded rows are not kept apart: another row changes what a token predicts")


def has_experts(model: PreTrainedModel) -> bool:
    """Whether the model routes tokens to experts."""
    config = model.config.get_text_config()
    counts = (value for name, value in vars(config).items() if "expert" in name)
    return any(isinstance(value, int) and value > 1 for value in counts)


def _by_order(model: PreTrainedModel, rows: Sequence[Tokens], before_TE: Tensor) -> float:
    """The largest change of a hidden state when the rows change their order, and no more than a small share."""
    lengths = [len(row) for row in rows]
    states = packed_hidden_states(model, pack(rows[::-1]).to(model.device)).split(lengths[::-1])
    change = float((torch.cat(states[::-1]) - before_TE).abs().max())
    scale = float(before_TE.abs().max())
    few_bits = ORDER_BITS * torch.finfo(model.dtype).eps * scale  # a few rows in another order may change none at all
    return min(ORDER_TIMES * change + few_bits, ORDER_MOST[model.dtype] * scale)


def _changes(batch: Pack) -> Iterator[tuple[str, Tensor, Tensor]]:
    """What is changed, where, and which tokens may notice: the second halves of some segments, and what sees them."""
    index_SL, real_SL = response_rows(batch)
    lengths_S, length_S = batch.lengths(), real_SL.sum(-1)
    offset_1L = torch.arange(real_SL.shape[1], device=real_SL.device)[None]
    prompt_S1 = (length_S - lengths_S)[:, None]
    first_S = torch.cat((batch.row_S.new_tensor([-1]), batch.row_S[:-1])) != batch.row_S
    last_S = first_S.roll(-1)

    def places(chosen_SL: Tensor) -> Tensor:
        found = torch.zeros_like(batch.tokens_T, dtype=torch.bool)
        found[index_SL[chosen_SL & real_SL]] = True
        return found

    late_SL = offset_1L >= prompt_S1 + lengths_S[:, None] // 2
    for name, chosen_S in (("the first response", first_S), ("the last response", last_S)):
        changed_T = places(late_SL & chosen_S[:, None])
        yield name, changed_T, changed_T
    even_S1 = (batch.row_S % 2 == 0)[:, None]
    late_SL = offset_1L >= prompt_S1 // 2
    yield "a prompt", places(late_SL & (offset_1L < prompt_S1) & even_S1), places(late_SL & even_S1)


def _another(tokens_T: Tensor) -> Tensor:
    """Each token replaced by another one that occurs here."""
    known = tokens_T.unique()
    if len(known) == 1:
        known = torch.cat((known, (known + 1) if int(known) == 0 else (known - 1))).sort().values
    other: Tensor = known[(torch.searchsorted(known, tokens_T) + 1) % len(known)]
    return other


def _attention_layers(model: PreTrainedModel) -> int:
    config = model.config.get_text_config()
    kinds = getattr(config, "layer_types", None)
    if kinds:
        return sum("attention" in kind and "linear" not in kind for kind in kinds)
    return int(getattr(config, "num_hidden_layers", None) or 1)


def _places(windows: set[int | None], device: torch.device) -> tuple[Tensor, Tensor]:
    """Queries from the first to far away, and keys ahead of each and behind it, close by and at a window's edge."""
    far = [2**i + step for i in range(7, 21) for step in (-1, 0, 1)]
    edges = [window + step for window in windows if window for step in (-1, 0, 1)]
    q_Q1 = torch.tensor(sorted({*range(128), *far, *edges}), device=device)[:, None]
    behind_1K = torch.tensor(sorted({-9, -1, *range(128), *far, *edges}), device=device)[None]
    return q_Q1, (q_Q1 - behind_1K).clamp_min(0)


def _visible(q_Q1: Tensor, k_QK: Tensor, window: int | None) -> Tensor:
    behind = q_Q1 - k_QK
    return (behind >= 0) & (behind < (window or 2**62))


def _evaluate(mask: Callable[..., Any], q_Q1: Tensor, k_QK: Tensor) -> Tensor:
    zero = torch.zeros((), dtype=torch.long, device=q_Q1.device)
    found: Tensor = torch.as_tensor(mask(zero, zero, q_Q1, k_QK), device=q_Q1.device)
    return found.bool().expand(k_QK.shape)
