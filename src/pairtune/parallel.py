"""Ranks: who am I, what is my share, sums and gathers over all. One process is the case of one rank; it makes no group.

`torchrun` (or `accelerate launch`) starts the ranks, and says in the environment who each one is. Plain values go
through its store, where one may wait for another as long as it takes; tensors through torch.distributed, gloo on
processors and NCCL on CUDA. Nothing goes as a pickle. A rank that fails says so in the store: the others end with it.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import cache
from itertools import count
from typing import TYPE_CHECKING, Any, TypeVar

from pairtune.errors import InputError
from pairtune.rank import is_first as is_first
from pairtune.rank import rank as rank
from pairtune.rank import size as size

if TYPE_CHECKING:
    from torch import Tensor
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

# Seconds: a collective that is not answered for so long has failed; between two looks at the store.
TIMEOUT, LOOK = 600.0, 0.2
# A rank beats once in so many seconds. When a collective has failed, one that has not for SILENT has ended, and this is
# looked for during SEARCHED. Another's failure leaves a rank so many seconds to end by itself.
BEAT, SILENT, SEARCHED, GRACE = 0.5, 6.0, 20.0, 5.0
# Numbers in one sum of gradients: 4 bytes each.
BUCKET = 1 << 24
# What torch says when a collective fails.
_BROKEN = ("gloo", "nccl", "connection", "timed out", "socket", "tcpstore", "broken pipe")

_TOLD = "_pairtune_told_by_this_rank"

Value = TypeVar("Value")


class OtherRankError(InputError):
    """Another rank has failed, and said why."""


def tells(error: BaseException) -> bool:
    """Whether this rank says what went wrong, if it is not the first: an error of several ranks is told by one."""
    return is_first() or getattr(error, _TOLD, False)


def of_rank(line: str) -> str:
    """What stands before what this rank says of a failure: nothing where it is the first, or the line names a rank."""
    return "" if is_first() or line.startswith("rank ") else f"rank {rank()}: "


@cache
def _server() -> TCPStore:
    """The launcher's store, or the first rank's own where it has none."""
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    hosts = rank() == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    return TCPStore(address, port, size(), hosts, timedelta(seconds=TIMEOUT), wait_for_workers=False)


# How often this process has joined the others: what one time leaves in the store is not read the next.
_joined = count()


class _Ranks:
    """The store that all ranks share, under keys of this attempt; the beat that says that this rank lives."""

    def __init__(self) -> None:
        from torch.distributed import PrefixStore  # type: ignore[attr-defined]

        attempt = [os.environ.get(f"TORCHELASTIC_{name}", "0") for name in ("RUN_ID", "RESTART_COUNT")]
        self.store = PrefixStore("/".join(["pairtune", *attempt, str(next(_joined))]), _server())
        self.number, self.grouped, self.over = count(), False, threading.Event()
        threading.Thread(target=self._beat, daemon=True).start()

    def _beat(self) -> None:
        """Say that this rank lives; end it where another has failed and it cannot end by itself."""
        seen = 0.0
        for beat in count():
            with suppress(Exception):  # the store has gone: the collectives tell
                self.store.set(f"beat/{rank()}", str(beat))
                if not seen and self.store.check(["failed"]):
                    seen = time.monotonic()
            if seen and time.monotonic() - seen > GRACE:
                os._exit(2)
            if self.over.wait(BEAT):
                return

    def wait_for(self, key: str) -> str:
        """The value of a key, however long it takes. Raises OtherRankError if another rank fails meanwhile."""
        while not self.store.check([key]):
            if self.store.check(["failed"]):
                raise OtherRankError("another rank has failed")
            time.sleep(LOOK)
        return bytes(self.store.get(key)).decode()

    def group(self) -> None:
        """Make the process group when tensors first have to travel."""
        if self.grouped:
            return
        import torch
        from torch import distributed
        from torch.distributed import PrefixStore  # type: ignore[attr-defined]

        backend = "gloo"
        if torch.cuda.is_available():
            local = int(os.environ.get("LOCAL_RANK", rank()))
            torch.cuda.set_device(local)
            backend = "cpu:gloo,cuda:nccl"
        distributed.init_process_group(
            backend,
            store=PrefixStore("group", self.store),
            rank=rank(),
            world_size=size(),
            timeout=timedelta(seconds=TIMEOUT),
        )
        self.grouped = True

    def ended_without_a_word(self, stopped: bool) -> int | None:
        """The rank that has stopped beating and has not said that it ended; None if each has ended in order.

        stopped: this rank ends because it was asked to, which is said to the others.
        """
        if stopped:
            self.store.set(f"ended/{rank()}", "1")
        others = [other for other in range(size()) if other != rank()]
        heard, since = dict.fromkeys(others, b""), dict.fromkeys(others, time.monotonic())
        until = time.monotonic() + (SEARCHED if not stopped else SILENT + GRACE)
        while time.monotonic() < until:
            if self.store.check(["failed"]) and not stopped:
                return None
            if stopped and self.store.check([f"ended/{other}" for other in others]):
                return None
            for other in others:
                key = f"beat/{other}"
                beat = bytes(self.store.get(key)) if self.store.check([key]) else b""
                if beat != heard[other]:
                    heard[other], since[other] = beat, time.monotonic()
                silent = time.monotonic() - since[other] > SILENT
                if silent and not self.store.check([f"ended/{other}"]):
                    return other
            time.sleep(LOOK)
        return None

    def end(self, *, grouped: bool) -> None:
        """Say that this rank has ended in order."""
        self.over.set()
        with suppress(Exception):
            self.store.set(f"ended/{rank()}", "1")
        if grouped and self.grouped:
            from torch import distributed

            distributed.destroy_process_group()


_ranks: _Ranks | None = None


@contextmanager
def joined() -> Iterator[None]:
    """Do what is in the block together with the other ranks, if there are others.

    What one raises ends all. Who is not the one to tell of it raises OtherRankError; InputError says which rank has
    gone without a word.
    """
    global _ranks
    if size() == 1 or _ranks is not None:
        yield
        return
    _check_devices()
    _ranks = _Ranks()
    try:
        yield
        of_all(None)
    except BaseException as error:
        _fail(_ranks, error)
        raise
    else:
        _ranks.end(grouped=True)
    finally:
        _ranks.end(grouped=False)
        _ranks = None


def _check_devices() -> None:
    import torch

    there, local = torch.cuda.device_count() if torch.cuda.is_available() else 0, int(os.environ.get("LOCAL_RANK", 0))
    if there and local >= there:
        raise InputError(f"there are more ranks on this machine than its {there} GPUs; give --nproc-per-node {there}")
    if there:
        torch.cuda.set_device(local)


def _fail(ranks: _Ranks, error: BaseException) -> None:
    """Say in the store that this rank ends by an error, and raise another one if it is another rank's."""
    if isinstance(error, OtherRankError):
        return
    stopped = isinstance(error, KeyboardInterrupt)  # by a person, or by the launcher because a rank has gone
    if stopped or _is_broken(error):
        _ignore_signals()  # the launcher's, while this rank finds out which one has gone
        try:
            gone = ranks.ended_without_a_word(stopped)
        except Exception:  # the first rank held the store
            gone = 0
        if stopped and gone is None:
            return
        if gone is not None:
            error = InputError(
                f"rank {gone} of {size()} ended without a word (killed, or out of memory?), so this one ends as well; "
                "the same command goes on from the last checkpoint"
            )
    if not is_first():
        time.sleep(LOOK)  # what fails on all ranks is told by the first
    told = str(rank())
    with suppress(Exception):  # the store has gone with the first rank
        told = bytes(ranks.store.compare_set("failed", "", told)).decode()
    if told != str(rank()):
        raise OtherRankError(f"rank {told} has failed") from error
    setattr(error, _TOLD, True)
    raise error


def _ignore_signals() -> None:
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)


def _is_broken(error: BaseException | None) -> bool:
    """Whether a collective failed because another rank was not there."""
    while error is not None:
        named = type(error).__name__.startswith("Dist")
        if named or (isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in _BROKEN)):
            return True
        error = error.__cause__
    return False


# ---- plain values, through the store ------------------------------------------------------------------------------


def from_first(work: Callable[[], Value]) -> Value:
    """What the first rank finds, a plain value: it alone does the work, the others wait for its end, and get it."""
    if _ranks is None:
        return work()
    key = f"value/{next(_ranks.number)}"
    if is_first():
        found = work()
        _ranks.store.set(key, json.dumps(found))
        return found
    value: Value = json.loads(_ranks.wait_for(key))
    return value


def of_all(value: Value) -> list[Value]:
    """A plain value of each rank, in the order of ranks."""
    if _ranks is None:
        return [value]
    key = f"values/{next(_ranks.number)}"
    _ranks.store.set(f"{key}/{rank()}", json.dumps(value))
    return [json.loads(_ranks.wait_for(f"{key}/{other}")) for other in range(size())]


@contextmanager
def first_before_others() -> Iterator[None]:
    """The first rank does what is in the block, and then the others: they find what it has kept."""
    if _ranks is None:
        yield
        return
    key = f"done/{next(_ranks.number)}"
    if not is_first():
        _ranks.wait_for(key)
    yield
    if is_first():
        _ranks.store.set(key, "1")


def check_same(values: Mapping[str, Any], what: str) -> None:
    """Raises InputError if the ranks have different values: `what` they are of, and the names of those that differ."""
    each = of_all(dict(values)) if _ranks else []
    names = sorted({name for other in each for name in {*other, *each[0]} if other.get(name) != each[0].get(name)})
    if names:
        shown = ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
        raise InputError(f"the ranks were given different {what} ({shown}); give each the same")


# ---- shares -------------------------------------------------------------------------------------------------------


def share(indices: Sequence[int], lengths: Sequence[int]) -> list[int]:
    """This rank's part of a step's examples, in their order: by tokens, so that none waits long for another.

    lengths: tokens of each. The longest first, each to the rank with the fewest tokens: a function of the step alone.
    """
    if _ranks is None:
        return list(indices)
    held, parts = [0] * size(), [0] * len(indices)
    for place in sorted(range(len(indices)), key=lambda place: -lengths[place]):
        parts[place] = held.index(min(held))
        held[parts[place]] += lengths[place]
    return [i for i, part in zip(indices, parts, strict=True) if part == rank()]


def check_enough(examples: int) -> None:
    """Raises InputError if there are more ranks than examples: some would have nothing to do."""
    if _ranks is not None and examples < size():
        raise InputError(
            f"a step has {examples} of the examples and there are {size()} ranks; give fewer ranks (--nproc-per-node), "
            "or a larger --batch-size"
        )


def working() -> int:
    """Among how many ranks work is shared out now."""
    return 1 if _ranks is None else size()


# ---- numbers and tensors, through torch.distributed ----------------------------------------------------------------


def totals(*values: float) -> list[float]:
    """Sums over the ranks, in float64."""
    if _ranks is None:
        return list(values)
    import torch
    from torch import distributed

    _ranks.group()
    sums = torch.tensor(values, dtype=torch.float64)
    distributed.all_reduce(sums)
    return sums.tolist()


def any_of(*values: bool) -> list[bool]:
    """Which of these are true on any rank."""
    return [total > 0 for total in totals(*map(float, values))]


def gather(tensors: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
    """Every rank's tensors by name, in the order of ranks, on the processor. Names, shapes and dtypes may differ."""
    if _ranks is None:
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

    assert _ranks is not None
    _ranks.group()
    lengths = [torch.zeros(1, dtype=torch.int64) for _ in range(size())]
    distributed.all_gather(lengths, torch.tensor([len(mine)]))
    most = max(int(length) for length in lengths)
    padded = torch.zeros(most, dtype=torch.uint8)
    padded[: len(mine)] = mine
    parts = [torch.empty(most, dtype=torch.uint8) for _ in range(size())]
    distributed.all_gather(parts, padded)
    return [part[: int(length)] for part, length in zip(parts, lengths, strict=True)]


def tensors_from_first(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The first rank's tensors by name, one after the other, on the processor; the others give none."""
    if _ranks is None:
        return dict(tensors)
    import torch
    from torch import distributed

    about: Any = from_first(lambda: {name: [str(each.dtype)[6:], list(each.shape)] for name, each in tensors.items()})
    _ranks.group()
    found = {}
    for name, (dtype, shape) in about.items():
        empty = torch.empty(shape, dtype=getattr(torch, dtype))
        whole = tensors[name].cpu().contiguous().clone() if is_first() else empty
        if whole.numel():
            distributed.broadcast(whole.reshape(-1).view(torch.uint8), 0)
        found[name] = whole
    return found


def sum_gradients(gradients: Sequence[Tensor | None], like: Sequence[Tensor]) -> list[Tensor | None]:
    """Gradients summed over the ranks, in float32; None where no rank has one. `like`: what each is the gradient of.

    Summed, not averaged: losses are divided by the whole step's counts.
    """
    if _ranks is None:
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
    if _ranks is None:
        return
    import torch

    each = gather({name: torch.tensor(value, dtype=torch.float64) for name, value in values.items()})
    for name in values:
        if len({float(other[name]) for other in each}) > 1:
            found = ", ".join(f"{float(other[name]):.9g}" for other in each)
            raise InputError(
                f"{name} differ between the ranks ({found}); give each rank the same machine, model and versions"
            )
