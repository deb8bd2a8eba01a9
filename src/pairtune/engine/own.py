"""A pack's numbers by the model's own forward and head, whatever its architecture: padded rows, or one row at a time.

The safety net for models that packed rows would make wrong, and what packed rows are held against.
Shape suffixes: T tokens of the pack, S responses, L padded length, R response tokens, N tokens of all rows, V
vocabulary, E hidden size.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from pairtune.data.pack import Pack
from pairtune.engine.cost import count_pass
from pairtune.engine.path import settle_rope
from pairtune.models.body import final_states, hooked, own_logits


def own_hidden_states(model: PreTrainedModel, pack: Pack, *, alone: bool) -> Tensor:
    """The last hidden state of every token of the pack, in the pack's layout: [T, E]."""
    index_SL, real_SL = response_rows(pack)
    _count(model, real_SL, predicted=0)
    parts = [
        final_states(model, pack.tokens_T[index], None if alone else real.long())[real]
        for index, real in _passes(model, index_SL, real_SL, alone=alone)
    ]
    # A prompt's states are the same in each of its rows: every token takes its first.
    place_N = index_SL[real_SL]
    slot_T = place_N.new_full(pack.tokens_T.shape, len(place_N))
    slot_T = slot_T.scatter_reduce(0, place_N, torch.arange(len(place_N), device=place_N.device), "amin")
    return torch.cat(parts)[slot_T]


def own_response_logits(model: PreTrainedModel, pack: Pack, *, alone: bool) -> Tensor:
    """The logits that each response token is predicted by: [R, V], with all that the model does to them."""
    index_SL, real_SL = response_rows(pack)
    _count(model, real_SL, predicted=len(pack.target_R))
    length_S, lengths_S = real_SL.sum(-1), pack.lengths()
    offset_1L = torch.arange(real_SL.shape[1], device=real_SL.device)[None]
    asked_SL = (offset_1L >= (length_S - lengths_S - 1)[:, None]) & (offset_1L < (length_S - 1)[:, None])
    parts, first = [], 0
    for index, real in _passes(model, index_SL, real_SL, alone=alone):
        asked = asked_SL[first : first + len(index), : index.shape[1]]
        parts.append(_asked_logits(model, pack.tokens_T[index], None if alone else real.long(), asked))
        first += len(index)
    return torch.cat(parts)


def logits_logprobs(logits_RV: Tensor, target_R: Tensor, temperature: float) -> Tensor:
    """log softmax(logits / t) at the targets: [R], float32, differentiable."""
    return torch.log_softmax(logits_RV.float() / temperature, dim=-1).gather(-1, target_R[:, None])[:, 0]


def response_rows(pack: Pack) -> tuple[Tensor, Tensor]:
    """Each response after its prompt: their places in the pack, 0 where padded [S, L], and where they are real."""
    lengths_S = pack.lengths()
    first_S = pack.last_S + 1 - lengths_S
    prompt_S = pack.positions_T[first_S]  # a response's first position is its prompt's length
    start_S = pack.source_R[lengths_S.cumsum(0) - lengths_S] + 1 - prompt_S
    offset_1L = torch.arange(int((prompt_S + lengths_S).max()), device=pack.tokens_T.device)[None]
    of_prompt_SL = offset_1L < prompt_S[:, None]
    real_SL = offset_1L < (prompt_S + lengths_S)[:, None]
    index_SL = offset_1L + torch.where(of_prompt_SL, start_S[:, None], (first_S - prompt_S)[:, None])
    return index_SL.masked_fill(~real_SL, 0), real_SL


def _asked_logits(model: PreTrainedModel, input_SL: Tensor, mask_SL: Tensor | None, asked_SL: Tensor) -> Tensor:
    """The asked-for rows of the logits, the others not computed where the head lets itself be asked: [R, V]."""
    head = model.get_output_embeddings()
    if head is None:
        return own_logits(model, input_SL, mask_SL)[asked_SL]

    def only_asked(_: Any, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        if len(inputs) == 1 and inputs[0].shape[:2] == asked_SL.shape:
            return (inputs[0][asked_SL][None],)
        return None

    with hooked(head, only_asked):
        logits = own_logits(model, input_SL, mask_SL)
    if logits.shape[:2] == (1, int(asked_SL.sum())):  # never what is not asked for: a prompt's first token never is
        return logits[0]
    return (logits if logits.shape[:2] == asked_SL.shape else own_logits(model, input_SL, mask_SL))[asked_SL]


def _passes(
    model: PreTrainedModel, index_SL: Tensor, real_SL: Tensor, *, alone: bool
) -> Iterator[tuple[Tensor, Tensor]]:
    """The rows of each forward pass: all of them, or each one by itself without padding."""
    if not alone:
        settle_rope(model)
        yield index_SL, real_SL
        return
    for index_L, real_L in zip(index_SL, real_SL, strict=True):
        settle_rope(model)
        length = int(real_L.sum())
        yield index_L[None, :length], real_L[None, :length]


def _count(model: PreTrainedModel, real_SL: Tensor, *, predicted: int) -> None:
    length_S = real_SL.sum(-1)
    attended = int((length_S * (length_S + 1) // 2).sum())
    count_pass(model, tokens=int(length_S.sum()), attended=attended, predicted=predicted)
