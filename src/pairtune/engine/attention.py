"""Prompt-shared attention on packed rows, registered with transformers as the implementation `pairtune`.

Every model whose layers call transformers' attention interface runs through `attend`; the pack travels as a keyword.
Shape suffixes: T tokens of the pack, H heads, K key-value heads, D head size.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface

from pairtune.data.pack import Pack
from pairtune.engine import kernels, varlen

NAME = "pairtune"
LIBRARY = torch.library.Library("pairtune", "DEF")  # operations that torch's compiler does not look into


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
    sliding_window: int | None = None,
    softcap: float | None = None,
    pack: Pack | None = None,
    flash: varlen.Kernel | None = None,
    **others: object,
) -> tuple[Tensor, None]:
    """Softmax attention in which a token sees its prompt and its own response: [1, T, H, D].

    `flash` is the kernel that all layers of a compiled model share: it stands in the block's graph. Raises
    NotPackableError for what is not done here (dropout, attention sinks, biases).
    """
    if pack is None:
        raise NotPackableError("the model does not hand keyword arguments on to its attention")
    refuse(attention_mask, others)
    if _watching is not None:
        _watching.applied.append(sliding_window or None)
    scale, window = scaling or query_1HTD.shape[-1] ** -0.5, sliding_window or None
    if softcap is None and kernels.attends(query_1HTD, key_1KTD, value_1KTD):
        queries, keys = pack.segments.queries, pack.segments.keys
        return torch.ops.pairtune.attend(query_1HTD, key_1KTD, value_1KTD, queries, keys, scale, window)[0], None
    if flash is not None and softcap is None:
        return varlen.attend(flash, *_tokens_first(query_1HTD, key_1KTD, value_1KTD), pack.segments, scale, window)[
            None
        ], None
    return _attend_elsewhere(query_1HTD, key_1KTD, value_1KTD, pack, scale, window, softcap), None


def refuse(attention_mask: Tensor | None, others: Mapping[str, object]) -> None:
    """Raise NotPackableError for a mask or keywords that ask of attention what is not done here."""
    if attention_mask is not None:
        raise NotPackableError("the model makes its attention's mask itself")
    if others.get("dropout") or others.get("s_aux") is not None or others.get("position_bias") is not None:
        raise NotPackableError("the model's attention uses dropout, sinks or biases")


@dataclass
class Masks:
    """Of one pass: the masks that the model asks for, as functions of places, and the window of each attention call."""

    asked: list[Callable[..., Tensor]] = field(default_factory=list)
    applied: list[int | None] = field(default_factory=list)


@contextmanager
def watched_masks() -> Iterator[Masks]:
    """Take down what the model asks of its attention inside the block."""
    global _watching
    _watching = Masks()
    try:
        yield _watching
    finally:
        _watching = None


def calls() -> int:
    """How often attention ran in this process, forward: what tells that a model's attention comes here at all."""
    return _calls


# ---- on a CPU: one operation, its gradient another ---------------------------------------------------------------


def _attend(
    query: Tensor, key: Tensor, value: Tensor, queries: Tensor, keys: Tensor, scale: float, window: int | None
) -> tuple[Tensor, Tensor]:
    global _calls
    _calls += 1
    query_THD, key_TKD, value_TKD = _tokens_first(query, key, value)
    out_THD, normaliser_TH = kernels.attend(query_THD, key_TKD, value_TKD, queries, keys, scale, window)
    return out_THD[None], normaliser_TH


def _attend_gradient(
    grad_1THD: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    queries: Tensor,
    keys: Tensor,
    out_1THD: Tensor,
    normaliser_TH: Tensor,
    scale: float,
    window: int | None,
) -> tuple[Tensor, ...]:
    inputs, given = _tokens_first(query, key, value), (queries, keys, out_1THD[0], normaliser_TH)
    return tuple(x[None] for x in kernels.attend_gradient(grad_1THD[0], inputs, given, scale, window))


def _tokens_first(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return query[0].transpose(0, 1), key[0].transpose(0, 1), value[0].transpose(0, 1)


def _remember(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, scale, window = inputs
    ctx.save_for_backward(*tensors, *output)
    ctx.mark_non_differentiable(output[1])
    ctx.scale, ctx.window = scale, window


def _backward(ctx: Any, grad_1THD: Tensor, _: Tensor | None) -> tuple[Tensor | None, ...]:
    gradients = torch.ops.pairtune.attend_gradient(grad_1THD, *ctx.saved_tensors, ctx.scale, ctx.window)
    return *(x.transpose(1, 2) for x in gradients), None, None, None, None


def _no_second_derivative(*_: Any) -> None:
    raise RuntimeError("attention is once_differentiable: its gradient has none of its own")


def _shapes(query: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    heads, tokens, size = query.shape[1:]
    return query.new_empty(1, tokens, heads, size), query.new_empty(tokens, heads, dtype=torch.float32)


def _shapes_of_gradients(grad: Tensor, query: Tensor, key: Tensor, value: Tensor, *_: Any) -> tuple[Tensor, ...]:
    return tuple(x.new_empty(x.transpose(1, 2).shape) for x in (query, key, value))


_calls = 0
_watching: Masks | None = None
_INPUTS = "Tensor query, Tensor key, Tensor value, Tensor queries, Tensor keys"
LIBRARY.define(f"attend({_INPUTS}, float scale, int? window) -> (Tensor, Tensor)")
LIBRARY.define(
    f"attend_gradient(Tensor grad, {_INPUTS}, Tensor out, Tensor normaliser, float scale, int? window) "
    "-> (Tensor, Tensor, Tensor)"
)
LIBRARY.impl("attend", _attend, "CPU")
LIBRARY.impl("attend_gradient", _attend_gradient, "CPU")
torch.library.register_fake("pairtune::attend", _shapes)
torch.library.register_fake("pairtune::attend_gradient", _shapes_of_gradients)
torch.library.register_autograd("pairtune::attend", _backward, setup_context=_remember)
torch.library.register_autograd("pairtune::attend_gradient", _no_second_derivative)


# ---- elsewhere ----------------------------------------------------------------------------------------------------


@torch.compiler.disable  # type: ignore[untyped-decorator]  # a compiled block calls it as it stands
def _attend_elsewhere(
    query_1HTD: Tensor,
    key_1KTD: Tensor,
    value_1KTD: Tensor,
    pack: Pack,
    scale: float,
    window: int | None,
    softcap: float | None,
) -> Tensor:
    """By a flash kernel where one serves, else segment by segment: [1, T, H, D]."""
    global _calls
    _calls += 1
    query_THD, key_TKD, value_TKD = _tokens_first(query_1HTD, key_1KTD, value_1KTD)
    if softcap is not None:
        kernel: varlen.Kernel = partial(varlen.plainly, softcap=softcap)
    else:
        kernel = varlen.kernel_for(query_THD, key_TKD, window) or varlen.by_torch
    return varlen.attend(kernel, query_THD, key_TKD, value_TKD, pack.segments, scale, window)[None]


def no_mask(*_: object, mask_function: Callable[..., Tensor] | None = None, **__: object) -> None:
    """Packs carry their own mask; the one transformers would build from positions is wrong for them."""
    if _watching is not None and mask_function is not None:
        _watching.asked.append(mask_function)


AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, no_mask)
