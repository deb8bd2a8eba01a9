"""What a stage costs: seconds, tokens through a model, floating-point operations, peak memory."""

import ctypes
import gc
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from typing import Any

import psutil
import torch
from torch import nn
from transformers import PreTrainedModel

# How often the resident memory is looked at, in seconds.
MEMORY_EVERY = 0.05
# Fields of a configuration; one that a model does not have (a state space has no heads) counts nothing.
SIZES = ("num_hidden_layers", "num_attention_heads", "hidden_size")
_BODY = "_pairtune_body_parameters"


@dataclass
class Cost:
    """Wall-clock seconds, tokens given to a model, FLOPs of its matrix products, the process's peak memory in bytes.

    A token of a pass with gradients counts once as a token and three times in FLOPs (forward and twice backward).
    """

    seconds: float = 0.0
    tokens: int = 0
    flops: float = 0.0
    peak_memory_bytes: int = 0
    paused = False  # not a field: what happens now is not counted

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(
            self.seconds + other.seconds,
            self.tokens + other.tokens,
            self.flops + other.flops,
            max(self.peak_memory_bytes, other.peak_memory_bytes),
        )

    def __mul__(self, share: float) -> "Cost":
        """The cost of a share of the work; memory is needed whole."""
        return Cost(self.seconds * share, round(self.tokens * share), self.flops * share, self.peak_memory_bytes)

    def to_json(self) -> dict[str, Any]:
        """The fields by name."""
        return asdict(self)


_current: ContextVar[Cost | None] = ContextVar("cost", default=None)


@contextmanager
def measured(*, part: bool = False) -> Iterator[Cost]:
    """Count everything the engine and the sampler do inside the block; a block around this one counts it too.

    Freed memory is given back first, unless the block is a `part` of something: that takes half a second, and the
    memory's first use again.
    """
    if not part:
        release_memory()
    cost, outer = Cost(), _current.get()
    token = _current.set(cost)
    stop = threading.Event()
    watcher = threading.Thread(target=_watch_memory, args=(cost, stop), daemon=True)
    watcher.start()
    began = time.perf_counter()
    try:
        yield cost
    finally:
        cost.seconds += time.perf_counter() - began
        _look(cost)
        stop.set()
        watcher.join()
        _current.reset(token)
        if outer is not None:
            outer.tokens += cost.tokens
            outer.flops += cost.flops
            outer.peak_memory_bytes = max(outer.peak_memory_bytes, cost.peak_memory_bytes)


@contextmanager
def uncounted() -> Iterator[None]:
    """Leave what happens inside out of the cost: measurements along the way are not part of a method."""
    cost = _current.get()
    token = _current.set(None)
    began = time.perf_counter()
    if cost is not None:
        _look(cost)
        cost.paused = True
    try:
        yield
    finally:
        if cost is not None:
            release_memory()
            cost.seconds -= time.perf_counter() - began
            cost.paused = False
        _current.reset(token)


def count_pass(model: PreTrainedModel, *, tokens: int, attended: int, predicted: int) -> None:
    """Add one pass: its tokens, the (query, key) pairs that attention had to look at, the rows of logits."""
    cost = _current.get()
    if cost is None:
        return
    config = model.config.get_text_config()
    passes = 3 if torch.is_grad_enabled() and any(p.requires_grad for p in model.parameters()) else 1
    layers, heads, size = (getattr(config, name, None) or 0 for name in SIZES)
    width = heads * (getattr(config, "head_dim", None) or size // heads) if heads else 0
    attention = 4 * attended * layers * width
    head = 2 * predicted * size * config.vocab_size
    cost.tokens += tokens
    cost.flops += passes * (2 * tokens * body_parameters(model) + attention + head)


def body_parameters(model: PreTrainedModel) -> int:
    """Parameters that take part in matrix products for every token: all but embeddings, head and vectors."""
    known: int | None = getattr(model, _BODY, None)
    if known is None:
        tables = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
        output = model.get_output_embeddings()
        if output is not None:
            tables.add(id(output.weight))
        known = sum(p.numel() for p in model.parameters() if p.dim() >= 2 and id(p) not in tables)
        setattr(model, _BODY, known)
    return known


def release_memory() -> None:
    """Give freed memory back, so that one stage's peak is not the last one's leftovers."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    with suppress(OSError, AttributeError):  # not glibc: nothing to give back that we know of
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def _look(cost: Cost) -> None:
    """Take the memory held now (on CUDA, at most since the last release) into the peak."""
    cuda = torch.cuda.is_available()
    held = torch.cuda.max_memory_allocated() if cuda else psutil.Process().memory_info().rss
    cost.peak_memory_bytes = max(cost.peak_memory_bytes, held)


def _watch_memory(cost: Cost, stop: threading.Event) -> None:
    while not stop.wait(MEMORY_EVERY):
        if not cost.paused:
            _look(cost)
