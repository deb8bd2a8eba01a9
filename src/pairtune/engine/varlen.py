"""Attention on packed rows by a flash kernel for segments of any lengths, on CUDA; and by torch where none serves.

The queries are the pack's tokens as they lie; keys and values are gathered once, so that every response after the first
has its prompt's before its own (`data.pack.Segments`). With a causal mask aligned to the bottom right, that is all a
response's tokens should see. No kernel's word is taken for it: each one is tried on the device it will run on, against
`plainly`, before its first use.

Shape suffixes: T tokens of the pack, X keys of all segments, H heads, K key-value heads, D head size.
"""

import inspect
from collections.abc import Callable, Iterator
from functools import cache
from importlib import import_module
from itertools import pairwise

import torch
from torch import Tensor
from transformers import PreTrainedModel

from pairtune.data.pack import Segments, Tokens, pack
from pairtune.models.body import layer_configs

# (query_THD, key_XKD, value_XKD, segments, scale, window) -> [T, H, D]
Kernel = Callable[[Tensor, Tensor, Tensor, Segments, float, int | None], Tensor]

# What the flash kernels multiply.
DTYPES = (torch.bfloat16, torch.float16)
# Lengths on either side of the kernels' tiles (64 to 128 tokens), with responses of one token and of several tiles.
TRIAL_ROWS = tuple(
    Tokens((0,) * prompt, tuple((0,) * length for length in lengths))
    for prompt, lengths in ((5, (3,)), (130, (70, 2, 65)), (2, (140, 1)), (64, (64, 64)))
)
TRIAL_WINDOW = 40
# Error allowed in the trial, of the whole. bfloat16 rounds the weights, their gradients and what comes out by up to
# 2^-9 each; a mask that is wrong by one token is wrong by a tenth.
TRIAL_ERROR = 0.02


def attend(
    kernel: Kernel,
    query_THD: Tensor,
    key_TKD: Tensor,
    value_TKD: Tensor,
    cut: Segments,
    scale: float,
    window: int | None,
) -> Tensor:
    """Softmax attention of each segment's queries over its keys, the last `window` of them at most: [T, H, D]."""
    query_THD, key_TKD, value_TKD = (
        x if x.stride(-1) == 1 else x.contiguous() for x in (query_THD, key_TKD, value_TKD)
    )
    if cut.index_X is not None:
        key_TKD, value_TKD = (_gather(x, cut.index_X) for x in (key_TKD, value_TKD))
    return kernel(query_THD, key_TKD, value_TKD, cut, scale, window)


def _gather(x_TKD: Tensor, index_X: Tensor) -> Tensor:
    """Tokens by index, some of them several times; their gradients are added up in float32 and rounded once."""
    return x_TKD.float().index_select(0, index_X).to(x_TKD.dtype)


def plainly(
    query_THD: Tensor,
    key_XKD: Tensor,
    value_XKD: Tensor,
    cut: Segments,
    scale: float,
    window: int | None,
    softcap: float | None = None,
) -> Tensor:
    """What a kernel must give, segment by segment with a mask that can be read off: [T, H, D]. Slow.

    Scores are `softcap`·tanh(scores / softcap) where they are capped (Gemma 2).
    """
    shared = query_THD.shape[1] // key_XKD.shape[1]
    out = []
    for queries, keys, visible in _masks(cut, window):
        query, key, value = (
            x.transpose(0, 1).float()
            for x in (query_THD[queries], *(x[keys].repeat_interleave(shared, dim=1) for x in (key_XKD, value_XKD)))
        )
        scores = query @ key.transpose(1, 2) * scale
        if softcap is not None:
            scores = softcap * torch.tanh(scores / softcap)
        out.append((scores.masked_fill(~visible, -torch.inf).softmax(-1) @ value).transpose(0, 1))
    return torch.cat(out).to(query_THD.dtype)


def by_torch(
    query_THD: Tensor, key_XKD: Tensor, value_XKD: Tensor, cut: Segments, scale: float, window: int | None
) -> Tensor:
    """The same by torch's own attention, for devices and dtypes that no kernel takes: [T, H, D]."""
    grouped = query_THD.shape[1] != key_XKD.shape[1]
    out = []
    for queries, keys, visible in _masks(cut, window):
        query, key, value = (x.transpose(0, 1)[None] for x in (query_THD[queries], key_XKD[keys], value_XKD[keys]))
        mixed = torch.nn.functional.scaled_dot_product_attention(
            query, key, value, attn_mask=visible, scale=scale, enable_gqa=grouped
        )
        out.append(mixed[0].transpose(0, 1))
    return torch.cat(out)


def _masks(cut: Segments, window: int | None) -> Iterator[tuple[slice, slice, Tensor]]:
    """Each segment's queries, its keys, and which of them each query sees."""
    for (begin, end), (first, last) in zip(pairwise(cut.queries.tolist()), pairwise(cut.keys.tolist()), strict=True):
        place = torch.arange(last - first, device=cut.queries.device)
        behind = place[begin - end :, None] - place  # how far each key lies behind each query
        yield slice(begin, end), slice(first, last), (behind >= 0) & (behind < (window or last))


# ---- which kernel ------------------------------------------------------------------------------------------------


def kernel_for(query_THD: Tensor, key_TKD: Tensor, window: int | None) -> Kernel | None:
    """The kernel that serves these tensors; None where none does."""
    if not query_THD.is_cuda:
        return None
    _, heads, size = query_THD.shape
    return choose(query_THD.device, query_THD.dtype, heads, key_TKD.shape[1], size, window is not None)[0]


def shared_kernel(model: PreTrainedModel) -> Kernel | None:
    """The kernel that may stand in the graph of every compiled block of this model, on CUDA; else None."""
    layers = layer_configs(model)
    alike = bool(layers) and all(layer is layers[0] for layer in layers)
    if not alike or model.device.type != "cuda":
        return None
    kernel, _ = _chosen(model)
    return kernel if kernel is not None and stands_in_a_graph(kernel, model.device, *_kind(model)) else None


@cache
def stands_in_a_graph(
    kernel: Kernel, device: torch.device, dtype: torch.dtype, heads: int, groups: int, size: int, windowed: bool
) -> bool:
    """Whether the kernel passes its trial when torch's compiler has taken it into a graph."""
    compiled = torch.compile(attend, dynamic=True)
    try:  # a model with a window may have layers without
        return all(
            trial(kernel, device, dtype, heads, groups, size, window, attend=compiled) <= TRIAL_ERROR
            for window in (None, *([TRIAL_WINDOW] if windowed else []))
        )
    except Exception:  # whatever a compiler says: the blocks are then compiled around it
        return False


def describe(model: PreTrainedModel) -> str:
    """Which attention serves this model on CUDA, and why if it is the slow one."""
    kernel, words = _chosen(model)
    return words if kernel is not None else f"torch's attention: {words}"


def kernel_name(model: PreTrainedModel) -> str | None:
    """The name of the kernel that serves this model on CUDA; None where none does."""
    kernel, words = _chosen(model)
    return words if kernel is not None else None


def _chosen(model: PreTrainedModel) -> tuple[Kernel | None, str]:
    config = next(iter(layer_configs(model)), None)
    heads = getattr(config, "num_attention_heads", None)
    if config is None or not heads:
        return None, "no attention"
    return choose(model.device, *_kind(model))


def _kind(model: PreTrainedModel) -> tuple[torch.dtype, int, int, int, bool]:
    """Dtype, heads, key-value heads, head size, and whether there is a window: what a kernel is chosen by."""
    config = layer_configs(model)[0]
    heads = config.num_attention_heads
    groups = getattr(config, "num_key_value_heads", None) or heads
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    return model.dtype, heads, groups, size, getattr(config, "sliding_window", None) is not None


@cache
def choose(
    device: torch.device, dtype: torch.dtype, heads: int, groups: int, size: int, windowed: bool
) -> tuple[Kernel | None, str]:
    """The first kernel that passes its trial for attention of this kind, and its name; or None and why none does."""
    if dtype not in DTYPES:
        return None, f"flash kernels do not take {str(dtype).removeprefix('torch.')}"
    troubles = []
    for name, load in KERNELS.items():
        try:
            kernel = load()
            error = trial(kernel, device, dtype, heads, groups, size, TRIAL_WINDOW if windowed else None)
        except Exception as problem:  # missing, or it refuses this card or shape: whatever it says, do without
            troubles.append(f"{name}: {(str(problem) or type(problem).__name__).splitlines()[0][:120]}")
            continue
        if error <= TRIAL_ERROR:
            return kernel, name
        troubles.append(f"{name}: wrong by {error:.2g} in its trial")
    return None, "; ".join(troubles)


def trial(
    kernel: Kernel,
    device: torch.device,
    dtype: torch.dtype,
    heads: int,
    groups: int,
    size: int,
    window: int | None,
    attend: Callable[..., Tensor] = attend,
) -> float:
    """The largest relative error of values and gradients, on a small random pack, against `plainly` in float32."""
    batch = pack(TRIAL_ROWS).to(device)
    generator = torch.Generator(device).manual_seed(0)  # its own: a run's random numbers stay what they are
    query, key, value, grad = (
        torch.randn(len(batch.tokens_T), count, size, generator=generator, device=device).to(dtype)
        for count in (heads, groups, groups, heads)
    )
    results = []
    with torch.enable_grad():
        for run, kind in ((kernel, dtype), (plainly, torch.float32)):
            own = [x.to(kind, copy=True).requires_grad_() for x in (query, key, value)]
            out = attend(run, own[0], own[1], own[2], batch.segments, size**-0.5, window)
            results.append((out.detach(), *torch.autograd.grad(out, own, grad.to(kind))))
    found, exact = results
    errors = [(one.float() - other).norm() / other.norm() for one, other in zip(found, exact, strict=True)]
    return float(torch.stack(errors).max())  # NaN if one is: no comparison holds for it


def _torch() -> Kernel:
    """torch's own: this signature from 2.11 on, grouped heads by name from 2.12 on."""
    function = import_module("torch.nn.attention.varlen").varlen_attn
    named = {"enable_gqa": True} if "enable_gqa" in inspect.signature(function).parameters else {}

    def kernel(
        query_THD: Tensor, key_XKD: Tensor, value_XKD: Tensor, cut: Segments, scale: float, window: int | None
    ) -> Tensor:
        places = (cut.queries, cut.keys, cut.longest_queries, cut.longest_keys)
        out: Tensor = function(
            query_THD, key_XKD, value_XKD, *places, scale=scale, window_size=_window_size(window), **named
        )
        return out

    return kernel


def _flash_attn() -> Kernel:
    """Dao's package, whose causal mask is aligned to the bottom right from 2.1 on."""
    function = import_module("flash_attn").flash_attn_varlen_func

    def kernel(
        query_THD: Tensor, key_XKD: Tensor, value_XKD: Tensor, cut: Segments, scale: float, window: int | None
    ) -> Tensor:
        places = (cut.queries, cut.keys, cut.longest_queries, cut.longest_keys)
        out: Tensor = function(
            query_THD, key_XKD, value_XKD, *places, softmax_scale=scale, causal=True, window_size=_window_size(window)
        )
        return out

    return kernel


def _window_size(window: int | None) -> tuple[int, int]:
    """Keys to the left and to the right of a query's own; ours counts its own too. (-1, 0) is plainly causal."""
    return (-1 if window is None else window - 1, 0)


KERNELS = {"varlen attention": _torch, "flash-attn": _flash_attn}
