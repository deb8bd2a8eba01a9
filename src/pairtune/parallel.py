"""A rank's share of the work, sums and gathers over all ranks. One process is the case of one rank; it makes no group.

Plain values go through the store that the ranks have joined in, where one may wait for another as long as it takes;
tensors through torch.distributed, gloo on processors and NCCL on CUDA. Nothing goes as a pickle.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from pairtune import joining
from pairtune.errors import InputError
from pairtune.rank import is_first as is_first
from pairtune.rank import on_this_machine as on_this_machine
from pairtune.rank import rank as rank
from pairtune.rank import size as size

if TYPE_CHECKING:
    from torch import Tensor

# Numbers in one sum of gradients: 4 bytes each.
BUCKET = 1 << 24

Value = TypeVar("Value")


# ---- plain values, through the store ------------------------------------------------------------------------------


def from_first(work: Callable[[], Value]) -> Value:
    """What the first rank finds, a plain value: it alone does the work, the others wait for its end, and get it."""
    ranks = joining.ranks()
    if ranks is None:
        return work()
    key = f"value/{next(ranks.number)}"
    if is_first():
        found = work()
        ranks.store.set(key, json.dumps(found))
        return found
    value: Value = json.loads(ranks.wait_for(key))
    return value


def of_all(value: Value) -> list[Value]:
    """A plain value of each rank, in the order of ranks."""
    ranks = joining.ranks()
    return [value] if ranks is None else ranks.of_all(value)


@contextmanager
def first_before_others() -> Iterator[None]:
    """The first rank does what is in the block, and then the others: they find what it has kept."""
    ranks = joining.ranks()
    if ranks is None:
        yield
        return
    key = f"done/{next(ranks.number)}"
    if not is_first():
        ranks.wait_for(key)
    yield
    if is_first():
        ranks.store.set(key, "1")


def check_same(values: Mapping[str, Any], what: str) -> None:
    """Raises InputError if the ranks have different values: `what` they are of, and the names of those that differ."""
    each = of_all(dict(values))
    names = sorted({name for other in each for name in {*other, *each[0]} if other.get(name) != each[0].get(name)})
    if names:
        shown = ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
        raise InputError(f"the ranks were given different {what} ({shown}); give each the same")


# ---- shares -------------------------------------------------------------------------------------------------------


def share(indices: Sequence[int], lengths: Sequence[int]) -> list[int]:
    """This rank's part of a step's examples, in their order: by tokens, so that none waits long for another.

    lengths: tokens of each. The longest first, each to the rank with the fewest tokens: a function of the step alone.
    """
    if joining.ranks() is None:
        return list(indices)
    held, parts = [0] * size(), [0] * len(indices)
    for place in sorted(range(len(indices)), key=lambda place: -lengths[place]):
        parts[place] = held.index(min(held))
        held[parts[place]] += lengths[place]
    return [i for i, part in zip(indices, parts, strict=True) if part == rank()]


def check_enough(examples: int) -> None:
    """Raises InputError if there are more ranks than examples: some would have nothing to do."""
    if joining.ranks() is not None and examples < size():
        raise InputError(
            f"a step has {examples} of the examples and there are {size()} ranks; give fewer ranks (--nproc-per-node), "
            "or a larger --batch-size"
        )


def check_shard(shard: str) -> None:
    """Raises InputError if weights are to be parted among ranks and there is one process."""
    if shard == "always" and size() == 1:
        raise InputError(
            "shard: there is one process, which holds all weights; start several, as in `torchrun --nproc-per-node 2 "
            "-m pairtune ...`, or leave --shard out"
        )


def working() -> int:
    """Among how many ranks work is shared out now."""
    return 1 if joining.ranks() is None else size()


# ---- numbers and tensors, through torch.distributed ----------------------------------------------------------------


def make_group() -> None:
    """Make torch's process group, if nothing has made it yet."""
    ranks = joining.ranks()
    assert ranks is not None
    ranks.group()


def totals(*values: float) -> list[float]:
    """Sums over the ranks, in float64."""
    ranks = joining.ranks()
    if ranks is None:
        return list(values)
    import torch
    from torch import distributed

    ranks.group()
    sums = torch.tensor(values, dtype=torch.float64)
    distributed.all_reduce(sums)
    return sums.tolist()


def most(value: int) -> int:
    """The largest of the ranks' whole numbers."""
    if joining.ranks() is None:
        return value
    import torch
    from torch import distributed

    make_group()
    largest = torch.tensor(value)
    distributed.all_reduce(largest, distributed.ReduceOp.MAX)
    return int(largest)


def any_of(*values: bool) -> list[bool]:
    """Which of these are true on any rank."""
    return [total > 0 for total in totals(*map(float, values))]


def gather(tensors: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
    """Every rank's tensors by name, in the order of ranks, on the processor. Names, shapes and dtypes may differ."""
    if joining.ranks() is None:
        return [dict(tensors)]
    import torch

    about = json.dumps({name: [str(each.dtype)[6:], list(each.shape)] for name, each in tensors.items()}).encode()
    content = [each.detach().cpu().contiguous().reshape(-1).view(torch.uint8) for each in tensors.values()]
    head = torch.frombuffer(bytearray(len(about).to_bytes(8, "little") + about), dtype=torch.uint8)
    found = []
    for whole in _gather_bytes(torch.cat([head, *content])):
        end = 8 + int.from_bytes(bytes(whole[:8].tolist()), "little")
        described = json.loads(bytes(whole[8:end].tolist()))
        each = {}
        for name, (dtype, shape) in described.items():
            empty = torch.empty(shape, dtype=getattr(torch, dtype))
            empty.reshape(-1).view(torch.uint8).copy_(whole[end : end + empty.nbytes])
            each[name], end = empty, end + empty.nbytes
        found.append(each)
    return found


def _gather_bytes(mine: Tensor) -> list[Tensor]:
    import torch
    from torch import distributed

    make_group()
    lengths = [torch.zeros(1, dtype=torch.int64) for _ in range(size())]
    distributed.all_gather(lengths, torch.tensor([len(mine)]))
    most = max(int(length) for length in lengths)
    padded = torch.zeros(most, dtype=torch.uint8)
    padded[: len(mine)] = mine
    parts = [torch.empty(most, dtype=torch.uint8) for _ in range(size())]
    distributed.all_gather(parts, padded)
    return [part[: int(length)] for part, length in zip(parts, lengths, strict=True)]


def tensors_from_first(
    tensors: Mapping[str, Tensor], keep: Callable[[str, Tensor], Tensor] = lambda name, tensor: tensor
) -> dict[str, Tensor]:
    """The first rank's tensors by name, one after the other, on the processor: what `keep` leaves of each."""
    ranks = joining.ranks()
    if ranks is None:
        return {name: keep(name, tensor) for name, tensor in tensors.items()}
    import torch
    from torch import distributed

    about: Any = from_first(lambda: {name: [str(each.dtype)[6:], list(each.shape)] for name, each in tensors.items()})
    ranks.group()
    found = {}
    for name, (dtype, shape) in about.items():
        empty = torch.empty(shape, dtype=getattr(torch, dtype))
        whole = tensors[name].cpu().contiguous().clone() if is_first() else empty
        if whole.numel():
            distributed.broadcast(whole.reshape(-1).view(torch.uint8), 0)
        found[name] = keep(name, whole)
    return found


def sum_gradients(gradients: Sequence[Tensor | None], like: Sequence[Tensor]) -> list[Tensor | None]:
    """Gradients summed over the ranks, in float32; None where no rank has one. `like`: what each is the gradient of.

    Summed, not averaged: losses are divided by the whole step's counts.
    """
    if joining.ranks() is None:
        return list(gradients)
    import torch
    from torch import distributed

    reached = totals(*(gradient is not None for gradient in gradients))
    summed: list[Tensor | None] = [None] * len(gradients)
    numbers = [number for number, there in enumerate(reached) if there]
    for bucket in _buckets(numbers, [parameter.numel() for parameter in like]):
        parts = [
            torch.zeros(like[i].numel(), device=like[i].device) if each is None else each.float().reshape(-1)
            for i in bucket
            for each in (gradients[i],)
        ]
        flat = torch.cat(parts)
        distributed.all_reduce(flat)
        for i, part in zip(bucket, flat.split([len(part) for part in parts]), strict=True):
            summed[i] = part.view(like[i].shape)
    return summed


def _buckets(numbers: Sequence[int], sizes: Sequence[int]) -> Iterator[list[int]]:
    bucket: list[int] = []
    room = BUCKET
    for number in numbers:
        if bucket and sizes[number] > room:
            yield bucket
            bucket, room = [], BUCKET
        bucket.append(number)
        room -= sizes[number]
    if bucket:
        yield bucket


def check_equal(values: Mapping[str, float]) -> None:
    """Raises InputError if numbers that must be the same on every rank, to the bit, are not."""
    if joining.ranks() is None:
        return
    import torch

    each = gather({name: torch.tensor(value, dtype=torch.float64) for name, value in values.items()})
    for name in values:
        if len({float(other[name]) for other in each}) > 1:
            found = ", ".join(f"{float(other[name]):.9g}" for other in each)
            raise InputError(
                f"{name} differ between the ranks ({found}); give each rank the same machine, model and versions"
            )
