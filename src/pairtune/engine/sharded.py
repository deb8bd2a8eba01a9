"""Weights that lie in parts on several ranks while a model learns (FSDP2); gathered block by block for each pass.

Before and after, every rank holds the whole weights in the model's own dtype: checks, the reference, held-out figures
and the saved folder are those of any model. Masters, moments and gradients, most of what training holds, never are.
"""

import copy
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import MethodType
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from pairtune import memory, parallel
from pairtune.engine.compile import blocks_of
from pairtune.engine.cost import idling, mixtures
from pairtune.engine.kernels import total_norm
from pairtune.engine.path import paths_of
from pairtune.errors import InputError
from pairtune.progress import say

# Bytes of a parameter that learns, beside its weight: a float32 gradient, master and two moments.
LEARNING = 16
# Share of a rank's memory above which what training holds is parted: activations and logits need the rest.
BOUND = 0.5
_RUN = "_pairtune_with_gathered_weights"

Model = TypeVar("Model", bound=nn.Module)
Found = TypeVar("Found")


@contextmanager
def sharded(model: Model, shard: str) -> Iterator[Model]:
    """What is to learn in the model's place: a copy whose weights are parted among the ranks, or the model itself.

    shard: always, never, or auto: where whole weights with all that learning needs would take more than half of a
    rank's memory. After the block the model has what the copy learned. Raises InputError where it cannot be parted.
    """
    if not _wanted(model, shard):
        yield model
        return
    weights = dict(model.named_parameters())
    whole = total_norm([value.detach() for value in weights.values()])
    parallel.check_equal({"the weights at the start": whole})
    kept = (*model.parameters(), *model.buffers())
    parted: Model = copy.deepcopy(model, {id(value): value for value in kept})
    _part(parted)
    for value in weights.values():
        value.data = value.data.new_empty(0)  # the copy has its part
    yield parted
    for name, value in parted.named_parameters():
        weights[name].data = _whole(value.detach())


def _wanted(model: nn.Module, shard: str) -> bool:
    if shard == "never" or parallel.working() == 1:
        return False
    (large,) = parallel.any_of(shard == "always" or _learning_bytes(model) > BOUND * _rank_memory(model))
    if not large:
        return False
    (obstacle,) = parallel.from_first(lambda: [_obstacle(model)])
    if obstacle and shard == "always":
        raise InputError(f"shard: this model cannot be parted among ranks: {obstacle}; give --shard never")
    parted = "each rank holds all of it" if obstacle else f"parted among {parallel.working()} ranks"
    say(f"  shard: weights and what their learning needs are {parted}" + (f": {obstacle}" if obstacle else ""))
    return not obstacle


def _learning_bytes(model: nn.Module) -> int:
    """What a rank holds of a model that learns, but for activations."""
    return sum(p.nbytes + (LEARNING * p.numel() if p.requires_grad else 0) for p in model.parameters())


def _rank_memory(model: nn.Module) -> float:
    """Bytes of the device; on a processor this rank's share of the machine's."""
    device = next(model.parameters()).device
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return memory.total() / parallel.on_this_machine()


def _obstacle(model: nn.Module) -> str:
    """Why a model's weights cannot be parted; empty where they can."""
    body = body_in(model)
    if paths_of(body).engine != "packed":
        return "it is not computed from packed rows"
    if any(True for _ in mixtures(body)):
        return "it is a mixture of experts"
    if any(len({p.dtype for p in block.parameters() if p.requires_grad}) > 1 for block in blocks_of(body)):
        return "its blocks have weights of several dtypes"
    return ""


def body_in(model: nn.Module) -> PreTrainedModel:
    """The language model itself, or the one below a scalar head."""
    return cast(PreTrainedModel, model if isinstance(model, PreTrainedModel) else model.body)


def _part(model: nn.Module) -> None:
    """Part a model's weights among the ranks, in place: each block, what is of another dtype, and the rest."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

    parallel.make_group()
    how: dict[str, Any] = {
        "mesh": init_device_mesh(next(model.parameters()).device.type, (parallel.working(),)),
        "mp_policy": MixedPrecisionPolicy(reduce_dtype=torch.float32),
    }
    blocks = list(blocks_of(body_in(model)))
    within = {id(module) for block in blocks for module in block.modules()}
    outside = [module for module in model.modules() if id(module) not in within]
    learning = {module: [p for p in module.parameters(recurse=False) if p.requires_grad] for module in outside}
    sizes: Counter[torch.dtype] = Counter()  # gradients of one group have one dtype; what is frozen may have any
    for parameter in (p for each in learning.values() for p in each):
        sizes[parameter.dtype] += parameter.numel()
    common = sizes.most_common(1)[0][0] if sizes else None
    others = [module for module, own in learning.items() if any(p.dtype != common for p in own)]
    for module in (*blocks, *others, model):
        fully_shard(module, **how)
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)  # losses are divided by the whole step's counts: a sum is right
            module.set_force_sum_reduction_for_comms(True)  # gloo has no other
    with_weights_of(model)


def with_weights_of(model: nn.Module) -> None:
    """Make a call through `at_hand` a forward pass of the model in the eyes of FSDP, which then gathers its weights."""
    from torch.distributed.fsdp import register_fsdp_forward_method

    def run(_: nn.Module, work: Callable[[], Any]) -> Any:
        return work()

    setattr(model, _RUN, MethodType(run, model))
    register_fsdp_forward_method(model, _RUN)


def at_hand(model: nn.Module, work: Callable[[], Found]) -> Found:
    """What work() finds by passing through the model, whose weights are gathered for it where they lie in parts."""
    run = vars(model).get(_RUN)
    found: Found = work() if run is None else run(work)
    return found


@contextmanager
def keeping_up(model: nn.Module, passes: int, idle: Callable[[], object]) -> Iterator[None]:
    """After this rank's `passes`, inside, idle ones until no rank makes more: all gather weights together."""
    if _RUN not in vars(model):
        yield
        return
    most = parallel.most(passes)  # before the first pass: a rank that asks later waits for one that gathers
    yield
    with idling():
        for _ in range(passes, most):
            idle()


# ---- what an optimiser holds of them ------------------------------------------------------------------------------


def is_parted(tensors: Iterable[Tensor]) -> bool:
    """Whether these lie in parts on several ranks."""
    return any(isinstance(tensor, DTensor) for tensor in tensors)


def own_part(tensor: Tensor) -> Tensor:
    """The part of a tensor that this rank holds, in place; the tensor itself where it is whole."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


@dataclass(frozen=True)
class Part:
    """This rank's rows of a tensor, which lie as a parameter's do."""

    own: Tensor
    like: DTensor

    def whole(self) -> Tensor:
        """All rows, on the processor: every rank has to ask for them."""
        about: Any = {"shape": self.like.shape, "stride": self.like.stride(), "run_check": False}
        return _whole(DTensor.from_local(self.own, self.like.device_mesh, self.like.placements, **about)).cpu()

    def of(self, whole: Tensor) -> Tensor:
        """This rank's rows of another such tensor."""
        rows = -(-self.like.shape[0] // parallel.working())
        return whole[parallel.rank() * rows : (parallel.rank() + 1) * rows].clone()


def _whole(tensor: Tensor) -> Tensor:
    return tensor.full_tensor().contiguous() if isinstance(tensor, DTensor) else tensor
