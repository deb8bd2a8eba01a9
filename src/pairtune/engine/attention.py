"""Prompt-shared attention on packed rows, registered with transformers as the implementation `pairtune`.

Every model whose layers call transformers' attention interface runs through `attend`; the pack travels as a keyword.
Shape suffixes: T tokens of the pack, N rows of a block, L its length, H heads, K key-value heads, D head size.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers import AttentionInterface, AttentionMaskInterface

from pairtune.data.pack import Pack
from pairtune.engine import kernels, varlen

NAME = "pairtune"


class NotPackableError(Exception):
    """This architecture asks of attention what packed rows cannot give; the padded path must serve."""


@torch.compiler.disable  # type: ignore[untyped-decorator]  # a compiled block calls it as it stands
def attend(
    module: nn.Module,
    query_1HTD: Tensor,
    key_1KTD: Tensor,
    value_1KTD: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
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
    refuse(others)
    scale = query_1HTD.shape[-1] ** -0.5 if scaling is None else scaling
    query_THD, key_TKD, value_TKD = (x[0].transpose(0, 1) for x in (query_1HTD, key_1KTD, value_1KTD))
    kernel = varlen.kernel_for(query_THD, key_TKD, sliding_window) if softcap is None else None
    if kernel is not None:
        out_THD = varlen.attend(kernel, query_THD, key_TKD, value_TKD, pack.segments(), scale, sliding_window)
    elif query_THD.is_cuda or softcap is not None:
        out_THD = _by_autograd(query_THD, key_TKD, value_TKD, pack, scale, sliding_window, softcap)
    else:
        out_THD = _Explicit.apply(query_THD, key_TKD, value_TKD, pack, scale, sliding_window)
    return out_THD[None], None


def refuse(others: Mapping[str, object]) -> None:
    """Raise NotPackableError for keywords that ask of attention what is not done here."""
    if others.get("dropout") or others.get("s_aux") is not None or others.get("position_bias") is not None:
        raise NotPackableError("the model's attention uses dropout, sinks or biases")


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
    out_THD = query_THD.new_zeros(query_THD.shape)
    for block in pack.blocks:
        index_NL = block.index_NL.clamp_min(0)
        query_NHLD, key_NKLD, value_NKLD = (x[index_NL].transpose(1, 2) for x in (query_THD, key_TKD, value_TKD))
        visible_N1LL = kernels.visible(block.seen(window))[:, None]
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
        real_NL = block.index_NL >= 0
        out_THD = out_THD.index_copy(0, block.index_NL[real_NL], out_NHLD.transpose(1, 2)[real_NL])
    return out_THD


class _Explicit(torch.autograd.Function):
    """The same as plain batched products, for the CPU, whose flash attention is slow backwards on short rows.

    Queries of the heads that share a key-value head are stacked, so keys and values are never repeated: heads H of a
    block's N rows are K groups of H/K, and [N, H, L, D] is [N·K, (H/K)·L, D] without moving anything.
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
        out_THD = query_THD.new_empty(query_THD.shape)
        kept = []
        for block in pack.blocks:
            query, key, value = (kernels.heads_first(x, block.index_NL) for x in (query_THD, key_TKD, value_TKD))
            rows, heads, length, _ = query.shape
            query, key, value = (_by_group(x, key.shape[1]) for x in (query, key, value))
            scores = torch.bmm(query, key.transpose(1, 2))
            weights = kernels.softmax_seen(scores.view(rows, heads, length, length), block.seen(window), scale)
            out = torch.bmm(weights.view_as(scores), value)
            kernels.tokens_first(out.view(rows, heads, length, -1), block.index_NL, out_THD)
            kept += [query, key, value, weights]
        ctx.save_for_backward(*kept)
        ctx.pack, ctx.scale, ctx.window = pack, scale, window
        return out_THD

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad_THD,) = grads
        gradients: list[Tensor] = []
        for number, block in enumerate(ctx.pack.blocks):
            query, key, value, weights = ctx.saved_tensors[4 * number : 4 * number + 4]
            rows, heads, length, _ = weights.shape
            groups = len(key) // rows
            if not gradients:
                tokens, size = len(grad_THD), key.shape[-1]
                gradients = [query.new_empty(tokens, count, size) for count in (heads, groups, groups)]
            grad = _by_group(kernels.heads_first(grad_THD, block.index_NL), groups)
            grad_weights = torch.bmm(grad, value.transpose(1, 2)).view_as(weights)
            grad_scores = kernels.softmax_seen_gradient(grad_weights, weights, block.seen(ctx.window), ctx.scale)
            grad_scores, weights = (_by_group(x, groups) for x in (grad_scores, weights))
            for place, found in zip(
                gradients,
                (
                    torch.bmm(grad_scores, key),
                    torch.bmm(grad_scores.transpose(1, 2), query),
                    torch.bmm(weights.transpose(1, 2), grad),
                ),
                strict=True,
            ):
                kernels.tokens_first(found.view(rows, -1, length, found.shape[-1]), block.index_NL, place)
        return *gradients, None, None, None


def _by_group(x_NHLD: Tensor, groups: int) -> Tensor:
    """Heads of one key-value group stacked: [N, H, L, D] -> [N·K, (H/K)·L, D]."""
    rows, heads, length, size = x_NHLD.shape
    return x_NHLD.view(rows * groups, heads // groups * length, size)


def no_mask(*_: object, **__: object) -> None:
    """Packs carry their own mask; the one transformers would build from positions is wrong for them."""
    return


AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, no_mask)
