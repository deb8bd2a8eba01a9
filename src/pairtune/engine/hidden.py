"""The door to the engine: hidden states of a pack's tokens, by the path that the model's check has found right.

A model that comes here unchecked is checked on the rows it comes with. Shape suffixes: T tokens of the pack, E hidden
size.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor
from transformers import PreTrainedModel

from pairtune import parallel
from pairtune.data.pack import Pack, Tokens, batches_by_tokens, row_lengths
from pairtune.engine.limits import check_ids
from pairtune.engine.own import own_hidden_states
from pairtune.engine.packed import packed_hidden_states
from pairtune.engine.path import Engine, paths_of, rope_switch, settle_rope
from pairtune.engine.self_check import check_engine, rows_of
from pairtune.errors import DivergedError

# Tokens in one forward and backward pass. Larger packs run a little faster and hold more activations.
TOKENS_PER_PASS = {"cpu": 3072, "cuda": 16384}


# What passes are held to instead: what was asked for, or what memory has room for; 0: nothing.
_HELD: ContextVar[int] = ContextVar("tokens in a pass", default=0)


def tokens_per_pass(device: torch.device) -> int:
    """How many tokens a pass on this device may have; a longer row is a pass by itself."""
    return _HELD.get() or TOKENS_PER_PASS[device.type]


@contextmanager
def passes_of(tokens: int) -> Iterator[None]:
    """Within the block passes have at most so many tokens (0: as many as before), or as `hold_passes` says there."""
    before = _HELD.set(tokens or _HELD.get())
    try:
        yield
    finally:
        _HELD.reset(before)


def passes_held() -> int:
    """The most tokens that passes are held to; 0: as many as the device takes."""
    return _HELD.get()


def hold_passes(tokens: int) -> None:
    """From here to the end of the block of `passes_of` passes have at most so many tokens."""
    _HELD.set(tokens)


def passes(rows: Sequence[Tokens], device: torch.device) -> list[list[int]]:
    """The rows' indices in groups, each small enough for one pass."""
    return batches_by_tokens(rows, tokens_per_pass(device))


def fair_budget(tokens: int, device: torch.device) -> int:
    """Tokens of a pass where all ranks share these: no more than each has to do. In one process `tokens_per_pass`."""
    budget = tokens_per_pass(device)
    return budget if parallel.working() == 1 else min(budget, -(-tokens // parallel.working()))


def own_numbers(groups: Sequence[Sequence[int]]) -> range:
    """Which of the groups that all ranks share this rank passes."""
    working = parallel.working()
    return range(parallel.rank() if working > 1 else 0, len(groups), working)


def shared_passes(rows: Sequence[Tokens], device: torch.device) -> list[list[int]]:
    """The rows' indices in groups that all ranks share, each small enough for one pass. In one process `passes`."""
    return batches_by_tokens(rows, fair_budget(int(row_lengths(rows).sum()), device))


def from_ranks(groups: Sequence[Sequence[int]], values: Mapping[int, Tensor]) -> list[Tensor]:
    """The values of every group of `shared_passes`, each given by the rank that has passed it: in their order."""
    found = dict(values)
    if parallel.working() > 1:
        each = parallel.gather({str(number): value for number, value in values.items()})
        found = {int(number): value for part in each for number, value in part.items()}
    return [found[number] for number in range(len(groups))]


def hidden_states(model: PreTrainedModel, pack: Pack) -> Tensor:
    """The last hidden state (after the final norm) of every token of the pack: [T, E].

    Raises InputError if the model cannot be computed with, or if a hidden state is not finite.
    """
    path = path_for(model, pack)
    if path == "packed":
        states_TE = packed_hidden_states(model, pack)
    else:
        states_TE = own_hidden_states(model, pack, alone=path == "alone")
    check_finite(states_TE)
    return states_TE


def path_for(model: PreTrainedModel, pack: Pack) -> Engine:
    """The path that is right for this model and pack; a model that no check has seen is checked on the pack's rows."""
    path = paths_of(model).engine or check_engine(model, rows_of(pack), quiet=True).path
    check_ids(model, pack.highest)
    settle_rope(model)
    return "alone" if pack.segments.longest_keys > rope_switch(model) else path


def check_finite(*values: Tensor) -> None:
    """Raise DivergedError if a hidden state or a log-probability is not finite: what came after would be made up."""
    total = torch.stack([each.detach().sum(dtype=torch.float32) for each in values]).sum()  # to ask a GPU is to wait
    refuse_infinite(bool(torch.isfinite(total)))


def refuse_infinite(finite: bool) -> None:
    """Raise DivergedError unless the model's numbers are finite."""
    if not finite:
        raise DivergedError(
            "the model gave numbers that are not finite (NaN or infinite); its weights have come apart or their dtype "
            "is too small - start again from finite weights, with a lower learning rate or --dtype float32"
        )
