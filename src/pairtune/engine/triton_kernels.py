"""The passes between matrix products on an NVIDIA GPU, each reading and writing once, in Triton (which torch brings).

What they compute is said by the torch versions in `kernels.py`, which serve where there is no Triton; the tests hold
the two together.
"""

from typing import Any

import torch
import triton  # type: ignore[import-not-found,unused-ignore]
import triton.language as tl  # type: ignore[import-not-found,unused-ignore]
from torch import Tensor

from pairtune.engine.cpp import SUFFIXES
from pairtune.engine.kernels import PLACES, AdamwStep, adamw_by_torch, logprobs_by_torch, logprobs_gradient_by_torch

# Numbers that one program works on at a time.
LOGITS, WEIGHTS = 4096, 1024


@triton.jit  # type: ignore[untyped-decorator]
def _logprobs(logits, target, logprob, normaliser, inverse, size, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    row = tl.program_id(0).to(tl.int64)
    top = tl.full([BLOCK], -3e38, tl.float32)
    total = tl.zeros([BLOCK], tl.float32)
    for begin in range(0, size, BLOCK):
        place = begin + tl.arange(0, BLOCK)
        x = tl.load(logits + row * size + place, mask=place < size, other=float("-inf")).to(tl.float32) * inverse
        higher = tl.maximum(top, x)
        total = total * tl.exp(top - higher) + tl.exp(x - higher)
        top = higher
    highest = tl.max(top, 0)
    found = highest + tl.log(tl.sum(total * tl.exp(top - highest), 0))
    chosen = tl.load(logits + row * size + tl.load(target + row)).to(tl.float32) * inverse
    tl.store(normaliser + row, found)
    tl.store(logprob + row, chosen - found)


@triton.jit  # type: ignore[untyped-decorator]
def _logprobs_gradient(logits, target, normaliser, grad, inverse, size, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    row = tl.program_id(0).to(tl.int64)
    place = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = place < size
    at = logits + row * size + place
    softmax = tl.exp(tl.load(at, mask=inside, other=0.0).to(tl.float32) * inverse - tl.load(normaliser + row))
    hit = tl.where(place == tl.load(target + row), 1.0, 0.0)
    slope = (hit - softmax) * (tl.load(grad + row) * inverse)
    tl.store(at, slope.to(logits.dtype.element_ty), mask=inside)


@triton.jit  # type: ignore[untyped-decorator]
def _adamw(  # type: ignore[no-untyped-def]
    master, mean, square, grad, weight, count, clip, shrink, pace, rise1, beta2, rise2, correction2, eps,
    ROUNDED: tl.constexpr, PLACES: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = place < count
    g = tl.load(grad + place, mask=inside, other=0.0).to(tl.float32) * clip
    m = tl.load(mean + place, mask=inside, other=0.0)
    v = tl.load(square + place, mask=inside, other=0.0)
    w = tl.load(master + place, mask=inside, other=0.0)
    m += (g - m) * rise1
    v = v * beta2 + g * g * rise2
    w = w * shrink - pace * m / (tl.sqrt(v) / correction2 + eps)
    tl.store(mean + place, m, mask=inside)
    tl.store(square + place, v, mask=inside)
    tl.store(master + place, w, mask=inside)
    if ROUNDED:  # as `kernels.round_into`
        mixed = (place % PLACES).to(tl.uint32) * 0x9E3779B1
        mixed = (mixed ^ (mixed >> 15)) * 0x85EBCA77
        mixed = (mixed ^ (mixed >> 13)) & 0xFFFF
        up = ((w.to(tl.uint32, bitcast=True) + mixed) & 0xFFFF0000).to(tl.float32, bitcast=True)
        tl.store(weight + place, tl.where(w != w, w, up).to(tl.bfloat16), mask=inside)


def logprobs(logits_RV: Tensor, target_R: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """log softmax(logits / t) at the targets, and the log of each row's normaliser: two [R], float32."""
    logits_RV, target_R = logits_RV.contiguous(), target_R.contiguous()
    logprob_R = torch.empty(len(logits_RV), dtype=torch.float32, device=logits_RV.device)
    normaliser_R = torch.empty_like(logprob_R)
    if len(logits_RV):
        arguments = (logits_RV, target_R, logprob_R, normaliser_R, 1 / temperature, logits_RV.shape[1])
        _run(_logprobs, (len(logits_RV),), *arguments, BLOCK=LOGITS)
    return logprob_R, normaliser_R


def logprobs_gradient(
    logits_RV: Tensor, target_R: Tensor, normaliser_R: Tensor, grad_R: Tensor, temperature: float
) -> None:
    """Write the logits' gradient over them, which lie close: (one-hot − softmax) / t, times the incoming gradient."""
    rows, size = logits_RV.shape
    if rows:
        small = (x.contiguous() for x in (target_R, normaliser_R, grad_R))
        _run(_logprobs_gradient, (rows, triton.cdiv(size, LOGITS)), logits_RV, *small, 1 / temperature, size,
             BLOCK=LOGITS)  # fmt: skip


def adamw(master: Tensor, mean: Tensor, square: Tensor, grad: Tensor, weight: Tensor, by: AdamwStep) -> None:
    """One step of AdamW in place. All five lie close."""
    count, rounded = master.numel(), weight.dtype == torch.bfloat16
    if count:
        numbers = (by.clip, by.shrink, by.pace, 1 - by.beta1, by.beta2, 1 - by.beta2, by.correction2, by.eps)
        arguments = (master, mean, square, grad, weight, count, *numbers)
        _run(_adamw, (triton.cdiv(count, WEIGHTS),), *arguments, ROUNDED=rounded, PLACES=PLACES, BLOCK=WEIGHTS)


def agrees(device: torch.device) -> bool:
    """Whether these kernels give on this device what torch's versions give, on small random numbers in either dtype."""
    generator = torch.Generator(device).manual_seed(0)  # its own: a run's random numbers stay what they are

    def numbers(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, device=device)

    grad, target = numbers(5), torch.arange(5, device=device)
    start = [numbers(3001), numbers(3001), numbers(3001).square()]
    by = AdamwStep(clip=0.5, shrink=0.99, pace=0.1, beta1=0.9, beta2=0.999, correction2=0.1, eps=1e-8)
    pairs: list[tuple[Tensor, Tensor]] = []
    for dtype in SUFFIXES:
        logits, steps = (4 * numbers(5, 5003)).to(dtype), numbers(3001).to(dtype)
        pairs += zip(logprobs(logits, target, 0.7), theirs := logprobs_by_torch(logits, target, 0.7), strict=True)
        slopes, states = [], []
        ways: list[tuple[Any, Any]] = [
            (logprobs_gradient, adamw),
            (logprobs_gradient_by_torch, adamw_by_torch),
        ]
        for write, step in ways:
            slopes.append(logits.clone())
            write(slopes[-1], target, theirs[1], grad, 0.7)
            states.append([x.clone() for x in (*start, start[0].bfloat16())])
            step(*states[-1][:3], steps, states[-1][3], by)
        pairs += [(slopes[0], slopes[1]), *zip(*states, strict=True)]
    return all(
        float((one.float() - other.float()).norm() / other.float().norm()) <= max(1e-5, torch.finfo(other.dtype).eps)
        for one, other in pairs
    )


def _run(kernel: Any, grid: tuple[int, ...], first: Tensor, *arguments: Any, **constants: Any) -> None:
    """Launch on the device of the first argument, whichever is current."""
    if first.is_cuda:
        with torch.cuda.device(first.device):
            kernel[grid](first, *arguments, **constants)
    else:  # Triton's interpreter
        kernel[grid](first, *arguments, **constants)
