"""Prompt-shared attention on packed rows, registered with transformers as the implementation `pairtune`.

Every model whose layers call transformers' attention interface runs through `attend`; the pack travels as a keyword.
Shape suffixes: T tokens of the pack, N rows of a block, L its length, H heads, K key-value heads, D head size.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers import AttentionInterface, AttentionMaskInterface

from pairtune.data.pack import Block, Pack

NAME = "pairtune"


class NotPackableError(Exception):
    """This architecture asks of attention what packed rows cannot give; the padded path must serve."""


def attend(
    module: nn.Module,
    query_1HTD: Tensor,
    key_1KTD: Tensor,
    value_1KTD: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    pack: Pack | None = None,
    **others: object,
) -> tuple[Tensor, None]:
    """Softmax attention in which a token sees its prompt and its own response: [1, T, H, D].

    Scores and their softmax are kept in float32 where the products come out in it, else in the products' own dtype
    before the softmax. Raises NotPackableError for what it does not do (dropout, attention sinks, biases).
    """
    if pack is None:
        raise NotPackableError("the model does not hand keyword arguments on to its attention")
    if dropout or others.get("s_aux") is not None or others.get("position_bias") is not None:
        raise NotPackableError("the model's attention uses dropout, sinks or biases")
    scale = query_1HTD.shape[-1] ** -0.5 if scaling is None else scaling
    query_THD, key_TKD, value_TKD = (x[0].transpose(0, 1) for x in (query_1HTD, key_1KTD, value_1KTD))
    if query_THD.is_cuda or softcap is not None:
        out_THD = _by_autograd(query_THD, key_TKD, value_TKD, pack, scale, sliding_window, softcap)
    else:
        out_THD = _Explicit.apply(query_THD, key_TKD, value_TKD, pack, scale, sliding_window)
    return out_THD[None], None


def _by_autograd(
    query_THD: Tensor,
    key_TKD: Tensor,
    value_TKD: Tensor,
    pack: Pack,
    scale: float,
    window: int | None,
    softcap: float | None,
) -> Tensor:
    """Block by block through torch's own attention (or plain products where scores are capped): [T, H, D]."""
    heads, groups = query_THD.shape[1], key_TKD.shape[1]
    outputs = []
    for block in pack.blocks:
        query_NHLD, key_NKLD, value_NKLD = (x[block.index_NL].transpose(1, 2) for x in (query_THD, key_TKD, value_TKD))
        visible_N1LL = block.visible(window)[:, None]
        if softcap is None:
            out_NHLD = nn.functional.scaled_dot_product_attention(
                query_NHLD,
                key_NKLD,
                value_NKLD,
                attn_mask=visible_N1LL,
                scale=scale,
                enable_gqa=heads != groups,
            )
        else:
            if heads != groups:
                key_NKLD, value_NKLD = (x.repeat_interleave(heads // groups, dim=1) for x in (key_NKLD, value_NKLD))
            scores_NHLL = softcap * torch.tanh(query_NHLD @ key_NKLD.transpose(-1, -2) * scale / softcap)
            weights_NHLL = scores_NHLL.float().masked_fill(~visible_N1LL, -torch.inf).softmax(-1)
            out_NHLD = weights_NHLL.to(value_NKLD.dtype) @ value_NKLD
        outputs.append(out_NHLD.transpose(1, 2).flatten(0, 1))
    return torch.cat(outputs)[pack.slot_T]


class _Explicit(torch.autograd.Function):
    """The same as plain batched products, for the CPU, whose flash attention is slow backwards on short rows.

    Queries of the heads that share a key-value head are stacked, so keys and values are never repeated. The backward
    pass moves gradients between tokens and blocks by gathering (each token has one slot), never by scattering.
    """

    @staticmethod
    def forward(
        ctx: Any,
        query_THD: Tensor,
        key_TKD: Tensor,
        value_TKD: Tensor,
        pack: Pack,
        scale: float,
        window: int | None,
    ) -> Tensor:
        groups = key_TKD.shape[1]
        outputs, kept = [], []
        for block in pack.blocks:
            query, key, value = (_gather(x, block, groups) for x in (query_THD, key_TKD, value_TKD))
            rows, length = block.index_NL.shape
            scores = torch.bmm(query, key.transpose(1, 2)).float().mul_(scale)
            hidden = ~block.visible(window)[:, None, None]
            scores.view(rows, groups, -1, length, length).masked_fill_(hidden, -torch.inf)
            weights = scores.softmax(-1).to(query.dtype)
            outputs.append(_stack(torch.bmm(weights, value), block, groups))
            kept += [query, key, value, weights]
        ctx.save_for_backward(*kept)
        ctx.pack, ctx.scale, ctx.groups = pack, scale, groups
        return torch.cat(outputs)[pack.slot_T]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad_THD,) = grads
        gradients: tuple[list[Tensor], list[Tensor], list[Tensor]] = ([], [], [])
        for number, block in enumerate(ctx.pack.blocks):
            query, key, value, weights = ctx.saved_tensors[4 * number : 4 * number + 4]
            real_NL11 = (block.branch_NL >= 0)[:, :, None, None]
            grad = _heads_first(grad_THD[block.index_NL] * real_NL11, ctx.groups)
            grad_weights = torch.bmm(grad, value.transpose(1, 2)).float()
            weights32 = weights.float()
            # softmax: ds = w ⊙ (dw − Σ w·dw)
            grad_weights -= (weights32 * grad_weights).sum(-1, keepdim=True)
            grad_scores = grad_weights.mul_(weights32).mul_(ctx.scale).to(query.dtype)
            for place, value_of in zip(
                gradients,
                (
                    torch.bmm(grad_scores, key),
                    torch.bmm(grad_scores.transpose(1, 2), query),
                    torch.bmm(weights.transpose(1, 2), grad),
                ),
                strict=True,
            ):
                place.append(_stack(value_of, block, ctx.groups))
        query_grad, key_grad, value_grad = (torch.cat(parts)[ctx.pack.slot_T] for parts in gradients)
        return query_grad, key_grad, value_grad, None, None, None


def _gather(x_THD: Tensor, block: Block, groups: int) -> Tensor:
    """A block's rows, heads of one key-value group stacked: [T, H, D] -> [N·K, (H/K)·L, D]."""
    return _heads_first(x_THD[block.index_NL], groups)


def _heads_first(x_NLHD: Tensor, groups: int) -> Tensor:
    rows, length, heads, size = x_NLHD.shape
    return x_NLHD.transpose(1, 2).reshape(rows * groups, heads // groups * length, size)


def _stack(x: Tensor, block: Block, groups: int) -> Tensor:
    """The inverse of `_heads_first`, rows flattened: [N·K, (H/K)·L, D] -> [N·L, H, D]."""
    rows, length = block.index_NL.shape
    return x.view(rows, -1, length, x.shape[-1]).transpose(1, 2).flatten(0, 1)


def _no_mask(*_: object, **__: object) -> None:
    """Packs carry their own mask; the one transformers would build from positions is wrong for them."""
    return


AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, _no_mask)
