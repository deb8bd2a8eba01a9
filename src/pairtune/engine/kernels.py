"""Attention and the passes between matrix products: on CPUs in C++ (attention.cpp, kernels.cpp), by way of `cpp`.

On NVIDIA GPUs what goes over logits and weights is in Triton (triton_kernels.py). Where neither is possible the torch
versions here serve (packs': varlen.by_torch); the tests hold the others against them.

Shape suffixes: T tokens, B rows being answered, H heads, K key-value heads, D head size, R rows of logits,
V vocabulary.
"""

import math
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pairtune.engine.cpp import SUFFIXES, VARIANTS, built, call, serves

# Rows of logits whose float32 softmax stays in the processor's cache, for the torch versions.
CACHE_ROWS = 16
# Logits whose float32 softmax is in memory at once on a GPU (256 MiB, and as much again for what comes between).
GPU_LOGITS = 2**26
# Tokens of the vocabulary in one block of the two-level cumulative sum.
DRAW_BLOCK = 256


def in_triton(*tensors: Tensor) -> Any:
    """The module of Triton kernels where it takes these tensors, else None."""
    fits = all(x.device.type == "cuda" and x.dtype in SUFFIXES for x in tensors)
    return _triton(tensors[0].device) if fits else None


@cache
def _triton(device: torch.device) -> Any:
    """The module if there is one (torch for other GPUs may come without) and it passes its trial on this device."""
    try:
        module = import_module("pairtune.engine.triton_kernels")
        return module if module.agrees(device) else None
    except Exception:  # whatever a driver or a compiler says: torch's versions serve
        return None


# ---- attention ---------------------------------------------------------------------------------------------------


def attends(query: Tensor, key: Tensor, value: Tensor) -> bool:
    """Whether the C++ attention takes these, [..., heads, T, D] each: of one dtype, one head size."""
    one_kind = query.dtype == key.dtype == value.dtype and query.shape[-1] == key.shape[-1] == value.shape[-1]
    return one_kind and query.device.type == "cpu" and query.dtype in SUFFIXES and built()


def attend(
    query_THD: Tensor,
    key_TKD: Tensor,
    value_TKD: Tensor,
    queries: Tensor,
    keys: Tensor,
    scale: float,
    window: int | None,
) -> tuple[Tensor, Tensor]:
    """Attention over a pack's segments, in C++ only: [T, H, D], and the log of each softmax's sum, [T, H] float32.

    `queries` and `keys` are those of `data.pack.Segments`.
    """
    out_THD = query_THD.new_empty(query_THD.shape)
    normaliser_TH = query_THD.new_empty(query_THD.shape[:2], dtype=torch.float32)
    inputs = _with_strides(query_THD, key_TKD, value_TKD)
    numbers = (float(scale), window or len(out_THD), len(queries) - 1, *_heads(query_THD, key_TKD))
    call("attend", out_THD.dtype, *inputs, queries, keys, out_THD, normaliser_TH, *numbers)
    return out_THD, normaliser_TH


def attend_gradient(
    grad_THD: Tensor,
    inputs: tuple[Tensor, Tensor, Tensor],
    given: tuple[Tensor, Tensor, Tensor, Tensor],
    scale: float,
    window: int | None,
) -> tuple[Tensor, ...]:
    """The gradients of query, key and value (the inputs) from that of what `attend` gave.

    `given`: the segments' queries and keys, and what `attend` returned.
    """
    gradients = tuple(x.new_empty(x.shape) for x in inputs)
    places = (*_with_strides(*inputs), *given, *_with_strides(grad_THD), *gradients)
    numbers = (float(scale), window or len(grad_THD), len(given[0]) - 1, *_heads(*inputs[:2]))
    call("attend_gradient", grad_THD.dtype, *places, *numbers)
    return gradients


def _heads(query_THD: Tensor, key_TKD: Tensor) -> tuple[int, int, int]:
    return query_THD.shape[1], key_TKD.shape[1], query_THD.shape[2]


def _with_strides(*tensors: Tensor) -> list[Tensor | int]:
    """Each [T, heads, D] with its strides of tokens and heads; its last dimension must lie close."""
    close = [x if x.stride(-1) == 1 else x.contiguous() for x in tensors]
    return [part for x in close for part in (x, x.stride(0), x.stride(1))]


def attend_one(
    query_BHD: Tensor,
    key_BKD: Tensor,
    value_BKD: Tensor,
    keys: Tensor,
    values: Tensor,
    slot_B: Tensor,
    length_B: Tensor,
    scale: float,
    *,
    window: int | None,
    softcap: float | None,
) -> Tensor:
    """Attention of one new token a row, [B, H, D]: its key and value are written behind the `length_B` before them.

    Row b's keys and values lie at `slot_B[b]` of the buffers [slots, K, longest, D]; slots ascend. On CUDA the buffers
    must be finite where nothing is written yet.
    """
    heads, groups, longest = query_BHD.shape[1], keys.shape[1], keys.shape[2]
    if serves(query_BHD, key_BKD, value_BKD) and softcap is None and key_BKD.shape == value_BKD.shape:
        out = query_BHD.new_empty(query_BHD.shape)
        shape = (len(out), heads, groups, out.shape[-1], longest)
        places = (keys, values, slot_B, length_B, out)
        new = _with_strides(query_BHD, key_BKD, value_BKD)
        call("attend_one", out.dtype, *new, *places, float(scale), window or longest, *shape)
        return out
    keys[slot_B, :, length_B], values[slot_B, :, length_B] = key_BKD, value_BKD
    if query_BHD.is_cuda and softcap is None:
        return attend_one_masked(query_BHD, keys, values, slot_B, length_B, scale, window)
    # To ask a GPU for the longest row would be to wait for it, in every layer of every token.
    seen = longest if length_B.is_cuda else int(length_B.max()) + 1
    place = torch.arange(seen, device=length_B.device)
    hidden = place > length_B[:, None]
    if window is not None:
        hidden |= place <= length_B[:, None] - window
    stacked = query_BHD.unflatten(1, (groups, heads // groups)).float()
    scores = stacked @ keys[slot_B, :, :seen].float().transpose(2, 3) * scale
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    weights = scores.masked_fill_(hidden[:, None, None], -torch.inf).softmax(-1)
    seen_values = values[slot_B, :, :seen].masked_fill_(hidden[:, None, :, None], 0)  # unwritten: 0·NaN would be NaN
    mixed_BHD: Tensor = (weights @ seen_values.float()).flatten(1, 2)
    return mixed_BHD.to(query_BHD.dtype)


def attend_one_masked(
    query_BHD: Tensor, keys: Tensor, values: Tensor, slot_B: Tensor, length_B: Tensor, scale: float, window: int | None
) -> Tensor:
    """The same once the new key and value are written, by torch's fused attention: caches are read in their own dtype.

    The queries that share a key stand as rows of one product: with `enable_gqa` and a mask no fused kernel serves, and
    torch would fall back to repeating the caches.
    """
    place = torch.arange(keys.shape[2], device=keys.device)
    visible_BL = place <= length_B[:, None]
    if window is not None:
        visible_BL &= place > length_B[:, None] - window
    if len(slot_B) < len(keys):  # else every slot is taken, each by its own row
        keys, values = keys[slot_B], values[slot_B]
    mixed = torch.nn.functional.scaled_dot_product_attention(
        query_BHD.unflatten(1, (keys.shape[1], -1)), keys, values, attn_mask=visible_BL[:, None, None], scale=scale
    )
    return mixed.flatten(1, 2).contiguous()  # the kernels lay it out as they like, but compiled blocks count on this


# ---- the head ----------------------------------------------------------------------------------------------------


def logprobs(logits_RV: Tensor, target_R: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """log softmax(logits / t) at the targets, and the log of each row's normaliser: two [R], float32."""
    if serves(logits_RV):
        logprob_R = torch.empty(len(logits_RV), dtype=torch.float32)
        normaliser_R = torch.empty_like(logprob_R)
        logits_RV, target_R = logits_RV.contiguous(), target_R.contiguous()
        arguments = (logits_RV, target_R, 1 / temperature, logprob_R, normaliser_R, *logits_RV.shape)
        call("logprobs", logits_RV.dtype, *arguments)
        return logprob_R, normaliser_R
    if triton := in_triton(logits_RV):
        found: tuple[Tensor, Tensor] = triton.logprobs(logits_RV, target_R, temperature)
        return found
    return logprobs_by_torch(logits_RV, target_R, temperature)


def logprobs_by_torch(logits_RV: Tensor, target_R: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    logprob_R = torch.empty(len(logits_RV), dtype=torch.float32, device=logits_RV.device)
    normaliser_R = torch.empty_like(logprob_R)
    for rows in _cached_rows(logits_RV):
        scaled = logits_RV[rows].float() / temperature
        normaliser_R[rows] = scaled.logsumexp(-1)
        logprob_R[rows] = scaled.gather(-1, target_R[rows, None])[:, 0] - normaliser_R[rows]
    return logprob_R, normaliser_R


def logprobs_gradient(
    logits_RV: Tensor, target_R: Tensor, normaliser_R: Tensor, grad_R: Tensor, temperature: float
) -> None:
    """Write the logits' gradient over them: (one-hot − softmax) / t, times the incoming gradient."""
    if serves(logits_RV) and logits_RV.is_contiguous():
        small = (target_R.contiguous(), normaliser_R.contiguous(), grad_R.contiguous())
        arguments = (logits_RV, *small, 1 / temperature, *logits_RV.shape)
        call("logprobs_gradient", logits_RV.dtype, *arguments)
        return
    if (triton := in_triton(logits_RV)) and logits_RV.is_contiguous():
        triton.logprobs_gradient(logits_RV, target_R, normaliser_R, grad_R, temperature)
        return
    logprobs_gradient_by_torch(logits_RV, target_R, normaliser_R, grad_R, temperature)


def logprobs_gradient_by_torch(
    logits_RV: Tensor, target_R: Tensor, normaliser_R: Tensor, grad_R: Tensor, temperature: float
) -> None:
    for rows in _cached_rows(logits_RV):
        scale = grad_R[rows, None] / temperature
        softmax = (logits_RV[rows].float() / temperature - normaliser_R[rows, None]).exp_()
        softmax.mul_(-scale).scatter_add_(-1, target_R[rows, None], scale)
        logits_RV[rows] = softmax.to(logits_RV.dtype)


def _cached_rows(logits_RV: Tensor) -> list[slice]:
    rows = CACHE_ROWS if logits_RV.device.type == "cpu" else max(1, GPU_LOGITS // logits_RV.shape[1])
    return [slice(at, at + rows) for at in range(0, len(logits_RV), rows)]


# ---- sampling ----------------------------------------------------------------------------------------------------


def draw(logits_BV: Tensor, uniform_B: Tensor, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    """One token a row by inverting the cumulative distribution at one uniform number: ids [B] and log-probs [B].

    The vocabulary is summed in blocks and only the block in which the number falls is summed token by token.
    """
    if serves(logits_BV):
        logits_BV, uniform_B = logits_BV.contiguous(), uniform_B.double().contiguous()
        token_B = torch.empty(len(logits_BV), dtype=torch.long)
        logprob_B = torch.empty(len(logits_BV), dtype=torch.float32)
        call("draw", logits_BV.dtype, logits_BV, uniform_B, 1 / temperature, token_B, logprob_B, *logits_BV.shape)
        return token_B, logprob_B
    parts = [_draw(logits_BV[rows], uniform_B[rows], temperature) for rows in _cached_rows(logits_BV)]
    return torch.cat([token for token, _ in parts]), torch.cat([logprob for _, logprob in parts])


def _draw(logits_BV: Tensor, uniform_B: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    weight_BV = logits_BV.float()  # a copy, or the very logits where they are float32: nothing below writes into it
    weight_BV = torch.sub(weight_BV, weight_BV.amax(-1, keepdim=True)).div_(temperature).exp_()
    if weight_BV.shape[1] % DRAW_BLOCK:
        weight_BV = torch.nn.functional.pad(weight_BV, (0, -weight_BV.shape[1] % DRAW_BLOCK))
    blocks = weight_BV.view(len(weight_BV), -1, DRAW_BLOCK)
    upto = blocks.sum(-1, dtype=torch.float64).cumsum(-1)
    level_B = uniform_B.to(upto.dtype) * upto[:, -1]
    block_B = _first_above(upto, level_B)
    rows = torch.arange(len(blocks), device=blocks.device)
    within = blocks[rows, block_B].double().cumsum(-1)
    before_B = upto[rows, block_B] - within[:, -1]
    token_B = block_B * DRAW_BLOCK + _first_above(within, level_B - before_B)
    return token_B, (weight_BV[rows, token_B].double() / upto[:, -1]).log().float()


def _first_above(upto: Tensor, level_B: Tensor) -> Tensor:
    """Where each row's running sum first exceeds the level; where rounding keeps it below, where the sum is reached."""
    found_B = torch.searchsorted(upto, level_B[:, None], right=True)[:, 0]
    return torch.minimum(found_B, (upto < upto[:, -1:]).sum(-1))


# ---- the optimiser -----------------------------------------------------------------------------------------------

PLACES = 1 << 22  # after so many, a weight's thresholds begin again


def adamw(
    master: Tensor,
    mean: Tensor,
    square: Tensor,
    grad: Tensor,
    weight: Tensor,
    *,
    step: int,
    learning_rate: float,
    clip: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
) -> None:
    """AdamW (Loshchilov & Hutter 2019) in place on a float32 master copy and its moments.

    `weight` is then the master's rounding by `round_into`.

    `clip` is what the gradient is multiplied by, `step` counts from 1. All five have one shape, and may lie in memory
    as they like; `weight` may be `master` itself.
    """
    correction1, correction2 = 1 - betas[0] ** step, (1 - betas[1] ** step) ** 0.5
    laid = _as_it_lies(master, mean, square, grad, weight)  # C++ goes through memory from one end to the other
    close = all(x.is_contiguous() for i, x in enumerate(laid) if i != 3)  # the gradient is only read
    if close and serves(master, grad, weight) and (grad.dtype, weight.dtype) in VARIANTS["adamw"]:
        tensors = (*laid[:3], laid[3].contiguous(), laid[4])
        rises = (1 - betas[0], betas[1], 1 - betas[1], correction1, correction2)
        scalars = (learning_rate, clip, *rises, eps, weight_decay)
        call("adamw", (grad.dtype, weight.dtype), *tensors, *(float(x) for x in scalars), master.numel())
        return
    shrink, pace = 1 - learning_rate * weight_decay, learning_rate / correction1
    by = AdamwStep(clip, shrink, pace, *betas, correction2, eps)
    if close and (triton := in_triton(master, grad, weight)):
        triton.adamw(*laid[:3], laid[3].contiguous(), laid[4], by)
        return
    adamw_by_torch(master, mean, square, grad, weight, by)


class AdamwStep(NamedTuple):
    """The numbers of a step: master ← master·shrink − pace·mean / (√square / correction2 + eps); clip the gradient."""

    clip: float
    shrink: float
    pace: float
    beta1: float
    beta2: float
    correction2: float
    eps: float


def adamw_by_torch(master: Tensor, mean: Tensor, square: Tensor, grad: Tensor, weight: Tensor, by: AdamwStep) -> None:
    """One step of AdamW in place, both moments first."""
    grad = grad.float() * by.clip
    mean.lerp_(grad, 1 - by.beta1)
    square.mul_(by.beta2).addcmul_(grad, grad, value=1 - by.beta2)
    master.mul_(by.shrink)
    master.addcdiv_(mean, (square.sqrt() / by.correction2).add_(by.eps), value=-by.pace)
    if weight is not master:
        round_into(weight, master)


def round_into(weight: Tensor, master: Tensor) -> None:
    """Copy a float32 master into the model's weight, of any layout; to bfloat16 without bias.

    Each place has a threshold of its own, fixed for good, and is rounded up where the bits that bfloat16 drops pass it:
    over many places the weights move as far as their masters did, from the first step on, and what bfloat16 holds
    exactly stays. (Rounded to nearest, a weight that starts on bfloat16's grid stays put until half a step of the grid
    has gathered, so that a short training at a small learning rate was partly undone: docs/decisions.md 65.)
    """
    if weight.dtype != torch.bfloat16:
        weight.copy_(master)
        return
    laid, laid_weight = _as_it_lies(master, weight)
    flat = laid.contiguous().flatten()
    rounded = torch.empty_like(flat, dtype=torch.bfloat16)
    thresholds = _thresholds(master.device)
    for values, into in zip(flat.split(PLACES), rounded.split(PLACES), strict=True):
        up = (values.view(torch.int32) + thresholds[: len(values)]) & -0x10000
        into.copy_(torch.where(values.isnan(), values, up.view(torch.float32)))
    laid_weight.copy_(rounded.view(laid.shape))


@cache
def _thresholds(device: torch.device) -> Tensor:
    """Of each place, from 0 to 65535: a hash of its number, as in numbers.h."""
    mixed = (torch.arange(PLACES, device=device) * 0x9E3779B1) & 0xFFFFFFFF
    mixed = ((mixed ^ (mixed >> 15)) * 0x85EBCA77) & 0xFFFFFFFF
    return ((mixed ^ (mixed >> 13)) & 0xFFFF).int()


def _as_it_lies(*tensors: Tensor) -> list[Tensor]:
    """The tensors, of one shape, with their dimensions in the order in which the first one lies in memory."""
    first = tensors[0]
    order = sorted(range(first.dim()), key=lambda i: -first.stride()[i])
    return [x.permute(order) for x in tensors]


def total_norm(tensors: Sequence[Tensor]) -> float:
    """√Σ x² over all of them, in float32 or better; a GPU is waited for once."""
    if tensors and tensors[0].is_cuda:
        return float(torch.stack([torch.linalg.vector_norm(x, dtype=torch.float32) for x in tensors]).norm())
    return math.sqrt(sum(map(square_sum, tensors)))


def square_sum(values: Tensor) -> float:
    """Σ x², in float32 or better."""
    if serves(values):
        out = torch.empty(1, dtype=torch.float64)
        call("square_sum", values.dtype, values.contiguous(), out, values.numel())
        return float(out)
    return float(torch.linalg.vector_norm(values, dtype=torch.float32)) ** 2
