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
from transformers import PreTrainedConfig, PreTrainedModel

from pairtune import parallel
from pairtune.models import adapters
from pairtune.models.body import layer_configs

# How often the resident memory is looked at, in seconds.
MEMORY_EVERY = 0.05
_BODY, _ACTIVE = "_pairtune_body_parameters", "_pairtune_active_parameters"
# What routers and configurations call the number of experts that a token goes through, and the number of experts.
TAKEN = ("top_k", "num_experts_per_tok", "moe_top_k", "moe_topk", "moe_k", "top_k_experts", "num_experts_per_token")
EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")


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


def current() -> Cost | None:
    """What is being measured into here, if anything is."""
    return _current.get()


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


def together(cost: Cost) -> Cost:
    """What all ranks spent: the first one's seconds, the tokens and FLOPs of all, the memory of the largest."""
    each = [Cost(**other) for other in parallel.of_all(cost.to_json())]
    tokens, flops = sum(other.tokens for other in each), sum(other.flops for other in each)
    return Cost(each[0].seconds, tokens, flops, max(other.peak_memory_bytes for other in each))


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


@contextmanager
def idling() -> Iterator[None]:
    """Leave passes inside out of the tokens and FLOPs: they compute nothing that is used. Their seconds count."""
    token = _current.set(None)
    try:
        yield
    finally:
        _current.reset(token)


def count_pass(model: PreTrainedModel, *, tokens: int, attended: int, predicted: int) -> None:
    """Add one pass: its tokens, the (query, key) pairs that attention had to look at, the rows of logits."""
    cost = _current.get()
    if cost is None:
        return
    config = model.config.get_text_config()
    learns = torch.is_grad_enabled() and any(p.requires_grad for p in model.parameters())
    # There and back, and once more for the gradients of weights: adapters' own products are too few to count.
    through, weights = (2, not adapters.learns(model)) if learns else (1, False)
    products = 2 * tokens * active_parameters(model)
    attention = 4 * attended * sum(map(_width, layer_configs(model)))
    head = 2 * predicted * (getattr(config, "hidden_size", None) or 0) * config.vocab_size
    cost.tokens += tokens
    cost.flops += (through + weights) * (products + head) + (3 if learns else 1) * attention


def _width(layer: PreTrainedConfig) -> int:
    """Of all heads of attention side by side; 0 where a layer has none (a state space)."""
    heads, size = (getattr(layer, name, None) or 0 for name in ("num_attention_heads", "hidden_size"))
    return heads * (getattr(layer, "head_dim", None) or size // heads) if heads else 0


def active_parameters(model: PreTrainedModel) -> float:
    """Parameters that a token is multiplied with, on average: of a mixture of experts, those that its router takes."""
    known: float | None = getattr(model, _ACTIVE, None)
    if known is None:
        idle = sum((1 - share) * _matrices(experts) for experts, share in mixtures(model))
        known = body_parameters(model) - idle
        setattr(model, _ACTIVE, known)
    return known


def body_parameters(model: PreTrainedModel) -> int:
    """Parameters that take part in matrix products: all but embeddings, head and vectors."""
    known: int | None = getattr(model, _BODY, None)
    if known is None:
        tables = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
        output = model.get_output_embeddings()
        if output is not None:
            tables.add(id(output.weight))
        base = (p for name, p in model.named_parameters() if adapters.LOW_RANK not in name)
        known = sum(p.numel() for p in base if p.dim() >= 2 and id(p) not in tables)
        setattr(model, _BODY, known)
    return known


def mixtures(model: nn.Module) -> Iterator[tuple[nn.Module, float]]:
    """Each layer's experts, and the share of them that a token goes through.

    Transformers calls them `experts`, or their class ...Experts; beside them, or in the configuration, stands how many
    a token takes. Experts of which that is not said count whole.
    """
    seen: set[int] = set()
    for name, module in model.named_modules():
        if id(module) in seen or not (name.endswith(".experts") or type(module).__name__.endswith("Experts")):
            continue
        seen |= {id(part) for part in module.modules()}
        around = model.get_submodule(name.rpartition(".")[0])
        taken = next((k for part in (*around.modules(), _text_config(model)) if (k := _first(part, TAKEN))), None)
        experts = len(module) if isinstance(module, nn.ModuleList) else _count_experts(module)
        if taken and experts and taken < experts:
            yield module, taken / experts


def _count_experts(module: nn.Module) -> int | None:
    stacked = [p.shape[0] for p in module.parameters() if p.dim() == 3]
    return stacked[0] if stacked else next((n for part in module.modules() if (n := _first(part, EXPERTS))), None)


def _first(of: object, names: tuple[str, ...]) -> int | None:
    """The first attribute of these names that is a number."""
    return next((value for name in names if type(value := getattr(of, name, None)) is int), None)


def _text_config(model: nn.Module) -> object:
    config = getattr(model, "config", None)
    return config.get_text_config() if config is not None else None


def _matrices(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters() if p.dim() >= 2)


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
