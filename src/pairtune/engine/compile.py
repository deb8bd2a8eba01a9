"""A model's blocks compiled: norms, rotary embeddings and activations in one pass each between matrix products.

One compiled block serves every layer and every copy of a model. Small models, and machines without a compiler, run the
same code as it stands. `describe` says which; TORCH_COMPILE_DISABLE=1 turns compiling off.
"""

import ctypes
import os
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache, partial
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from pairtune.engine import cpp, varlen
from pairtune.engine.cost import body_parameters

# Parameters in matrix products from which compiling repays its seconds.
LARGE_MODEL = 20_000_000
# Variants of one block that dynamo may keep: with and without gradients, windows, one row or many, every dtype.
VARIANTS = 64
# Share of what a backward pass could keep that is kept: the rest (an activation's output) is cheap to make again.
ACTIVATIONS = 0.8
# glibc's names for "how many blocks may be mapped" and "how much free memory to keep" (mallopt(3)).
M_MMAP_MAX, M_TRIM_THRESHOLD = -4, -1
_PLAIN = "_pairtune_plain"


def describe(model: PreTrainedModel) -> str:
    """The attention's backend and the compile state in a few words, for the start of a run."""
    if getattr(model.config.get_text_config(), "attn_logit_softcapping", None) is not None:
        backend = "torch's products: the attention's scores are capped"
    elif model.device.type == "cuda":
        backend = varlen.describe(model)
    else:
        library, trouble = cpp.library()
        backend = "C++ kernels" if library else f"no C++: {trouble}"
    reason = obstacle() if is_large(model) else "the model is small"
    return f"{backend}, " + (f"blocks not compiled: {reason}" if reason else "blocks compiled")


@cache
def obstacle() -> str:
    """Why nothing is compiled on this machine; empty where it is."""
    if os.environ.get("TORCH_COMPILE_DISABLE") == "1":
        return "turned off by TORCH_COMPILE_DISABLE"
    device = "cuda" if torch.cuda.is_available() else "cpu"  # each has a compiler of its own
    if device == "cpu" and not any(shutil.which(name) for name in ("g++", "clang++")):
        return "there is no C++ compiler"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the compiler's own modules use what torch deprecates
            torch.compile(lambda x: x * 2 + 1, dynamic=True)(torch.ones(64, device=device))
    except Exception as error:  # whatever a compiler raises, the answer is the same: do without
        return f"the compiler does not work ({type(error).__name__})"
    return ""


def is_large(model: PreTrainedModel) -> bool:
    """Whether compiling the model's blocks is worth while."""
    return not getattr(model, _PLAIN, False) and body_parameters(model) >= LARGE_MODEL


def leave_plain(model: PreTrainedModel) -> None:
    """Never compile this model's blocks: it is here for a few rows only."""
    setattr(model, _PLAIN, True)


@contextmanager
def plain_blocks(model: PreTrainedModel) -> Iterator[None]:
    """Inside, the model's blocks run as they stand."""
    before = getattr(model, _PLAIN, False)
    setattr(model, _PLAIN, True)
    try:
        yield
    finally:
        setattr(model, _PLAIN, before)


@contextmanager
def fused_blocks(model: PreTrainedModel) -> Iterator[None]:
    """Inside, the model's blocks run compiled, if that is possible and worth while."""
    if not is_large(model) or obstacle():
        yield
        return
    keep_memory()
    blocks = blocks_of(model)
    for block in blocks:
        block._compiled_call_impl = partial(_compiled(), block)
    budget = ACTIVATIONS if model.device.type == "cpu" else 1.0  # what it costs on a GPU is not known
    try:
        with (
            torch._dynamo.config.patch(recompile_limit=VARIANTS),
            torch._functorch.config.patch(activation_memory_budget=budget),
        ):
            yield
    finally:
        for block in blocks:
            block._compiled_call_impl = None  # decoding, and the oracle, call the same blocks as they stand


@cache
def _compiled() -> Callable[..., Any]:
    """One function for the blocks of every model: a block is an argument, so its weights are too."""

    def call(block: nn.Module, *args: Any, **kwargs: Any) -> Any:
        return block._call_impl(*args, **kwargs)

    return torch.compile(call, dynamic=True)


def blocks_of(model: PreTrainedModel) -> nn.ModuleList:
    """The model's layers: its longest list of modules."""
    lists = [module for module in model.base_model.modules() if isinstance(module, nn.ModuleList)]
    return max(lists, key=len, default=nn.ModuleList())


@cache
def keep_memory() -> None:
    """Let freed memory be used again instead of given back: a fresh page costs more than what is written to it.

    `engine.cost.release_memory` gives it back between stages.
    """
    with suppress(OSError, AttributeError):  # not glibc
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
