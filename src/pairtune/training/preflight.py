"""What a run checks before it spends a step. A fault stops it with one line; the rest is said and recorded."""

import hashlib
from array import array
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from pairtune.data.pack import Tokens, pack
from pairtune.data.tokenize import Remarks
from pairtune.engine import naive
from pairtune.engine.attention import NotPackableError
from pairtune.engine.cost import uncounted
from pairtune.engine.fusion import describe
from pairtune.engine.hidden import use_padded
from pairtune.engine.logprob import plain_head, token_logprobs
from pairtune.errors import InputError
from pairtune.progress import counted, say

# Mean |difference| per response token, in nats, up to which two ways of computing the same number are the same.
ROUNDING = {torch.float32: 1e-3, torch.bfloat16: 0.15}
# Rows that the engine's checks run on: long enough to see a wrong mask, short enough to cost nothing.
CHECKED_ROWS = 2
CHECKED_TOKENS = 512
# Row numbers named in a message.
SHOWN_ROWS = 5


@dataclass(frozen=True)
class Rounding:
    """How far ways of computing the same log-probabilities differ here: mean |difference| in nats per token."""

    packed_to_naive: float
    alone_to_together: float

    def __str__(self) -> str:
        return (
            f"packed against padded {self.packed_to_naive:.2g}, alone against together {self.alone_to_together:.2g} "
            "nats per token"
        )


@uncounted()  # a check is no part of a method's cost
def check_engine(
    model: PreTrainedModel, rows: Sequence[Tokens], *, others: Sequence[PreTrainedModel] = (), quiet: bool = False
) -> Rounding:
    """Packed log-probabilities equal the padded oracle's, two passes agree, a batch of one equals a batch of many.

    An architecture that packed rows would make wrong is switched to the padded path, `others` (models of the same
    architecture) with it, and that is said. Raises InputError if even that disagrees with the oracle, or if two
    passes differ (something random is in the model).
    """
    rows = [_clipped(row) for row in _varied(rows, CHECKED_ROWS)]
    device, bound = model.device, ROUNDING[next(model.parameters()).dtype]
    try:
        plain_head(model)
    except NotPackableError as error:
        raise InputError(f"this architecture cannot be trained here: {error}") from error
    with torch.no_grad():
        oracle = _oracle(model, rows)
        if not all(torch.equal(a, b) for a, b in zip(oracle, _oracle(model, rows), strict=True)):
            raise InputError("two passes of the model over the same rows differ; switch its dropout off")
        try:
            together = _together(model, rows, device)
            packed = _difference(together, oracle)
            trouble = "" if packed <= bound else f"packed rows differ by {packed:.2g} nats per token"
        except NotPackableError as error:
            trouble = str(error)
        if trouble:
            for each in (model, *others):
                use_padded(each)
            say(f"engine: {trouble}; using padded rows, which are right but slower")
            together = _together(model, rows, device)
            packed = _difference(together, oracle)
        if not packed <= bound:
            raise InputError(
                f"the engine's log-probabilities differ from the padded oracle's by {packed:.2g} nats per token; "
                "this architecture cannot be trained here"
            )
        alone = _difference([part for row in rows for part in _together(model, [row], device)], together)
    rounding = Rounding(packed, alone)
    if not quiet:
        say(f"engine: {describe(model)}; {rounding}")
    return rounding


def check_rows(
    train: Sequence[Tokens],
    heldout: Sequence[Tokens],
    tokenizer: object,
    *,
    end_ids: Collection[int],
    bos_id: int | None,
    say_longer: bool = True,
) -> None:
    """One BOS at most, an end on the responses, both responses different, no prompt on both sides.

    Raises InputError for a fault; says the boundary's tokens and, unless the check of the texts has said it already,
    the share of pairs in which the longer one wins.
    """
    held = {_prompt_hash(row) for row in heldout}
    double, same, shared, unended, longer = [], [], set(), 0, 0.0
    for i, row in enumerate(train):
        if bos_id is not None and row.prompt[:2] == (bos_id, bos_id):
            double.append(i)
        if len(set(row.responses)) < len(row.responses):
            same.append(i)
        shared |= {_prompt_hash(row)} & held
        unended += sum(response[-1] not in end_ids for response in row.responses)
        first, second = (len(row.responses[side]) for side in (0, -1))
        longer += 0.5 if first == second else float(first > second)
    if double:
        raise InputError(
            f"{counted(len(double), 'prompt')} {'begins' if len(double) == 1 else 'begin'} with two beginning-of-text "
            f"tokens (first: training pair {double[0] + 1})"
        )
    if same:
        have = "has" if len(same) == 1 else "have"
        raise InputError(
            f"{counted(len(same), 'pair')} {have} two equal responses (the first is training pair {same[0] + 1})"
        )
    if shared:
        are = "is" if len(shared) == 1 else "are"
        raise InputError(
            f"{counted(len(shared), 'prompt')} {are} in the training and in the held-out pairs; split by prompt"
        )
    if unended:
        have = "has" if unended == 1 else "have"
        say(f"data: {counted(unended, 'response')} {have} no end-of-text token (cut by truncation or the length limit)")
    if say_longer and len(train[0].responses) == 2:
        share = longer / len(train)
        say(f"data: the longer response is the chosen one in {share:.1%} of {counted(len(train), 'pair')}")
    decode = getattr(tokenizer, "decode", repr)
    row = train[0]
    say(f"data: boundary of the first row: {decode(row.prompt[-4:])!r} | {decode(row.responses[0][:4])!r} ... "
        f"{decode(row.responses[0][-2:])!r}")  # fmt: skip


def _prompt_hash(row: Tokens) -> bytes:
    """A prompt in 16 bytes: as many prompts as there are rows do not have to be in memory at once."""
    return hashlib.blake2b(array("i", row.prompt).tobytes(), digest_size=16).digest()


def say_truncation(remarks: Remarks) -> None:
    """What tokenising did to rows, and to which: nothing is shortened, cut or left out in silence."""
    for what, rows in remarks.items():
        shown = ", ".join(map(str, rows[:SHOWN_ROWS])) + (", ..." if len(rows) > SHOWN_ROWS else "")
        say(f"data: {counted(len(rows), *what)} ({'row' if len(rows) == 1 else 'rows'} {shown})")


def _together(model: PreTrainedModel, rows: Sequence[Tokens], device: torch.device) -> list[Tensor]:
    batch = pack(rows).to(device)
    sizes = [sum(len(response) for response in row.responses) for row in rows]
    return list(torch.split(token_logprobs(model, batch).cpu(), sizes))


def _oracle(model: PreTrainedModel, rows: Sequence[Tokens]) -> list[Tensor]:
    result = []
    for row in rows:
        parts = naive.response_logprobs(model, [row.prompt] * len(row.responses), row.responses)
        result.append(torch.cat(parts).cpu())
    return result


def _difference(first: Sequence[Tensor], second: Sequence[Tensor]) -> float:
    return float((torch.cat(list(first)) - torch.cat(list(second))).abs().mean())


def _varied(rows: Sequence[object], count: int) -> list:  # type: ignore[type-arg]
    """`count` rows spread over the whole."""
    return [rows[i * (len(rows) - 1) // max(1, count - 1)] for i in range(min(count, len(rows)))]


def _clipped(row: Tokens) -> Tokens:
    prompt = row.prompt[-CHECKED_TOKENS:]
    return Tokens(prompt, tuple(response[:CHECKED_TOKENS] for response in row.responses))
