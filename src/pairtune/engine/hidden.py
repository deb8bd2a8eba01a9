"""The door to the engine: hidden states of a pack's tokens, by the path that the model's check has found right.

A model that comes here unchecked is checked on the rows it comes with. Shape suffixes: T tokens of the pack, E hidden
size.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor
from transformers import PreTrainedModel

from pairtune.data.pack import Pack, Tokens, batches_by_tokens
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
