"""The engine's check: by which path this model's numbers are those of its own forward, one sequence at a time.

Tried in order: packed rows, padded rows, one row at a time. A path is right if no segment notices another one and no
token a later one (engine/isolation.py), and if no response token's log-probability is further from the model's own than
rounding puts it. The answer is remembered for the model's content (engine/verdicts.py).

Shape suffixes: R response tokens.
"""

import math
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from pairtune.data.pack import Pack, Tokens, highest_id, pack, sequence_lengths
from pairtune.engine import naive, verdicts
from pairtune.engine.attention import NotPackableError
from pairtune.engine.compile import describe
from pairtune.engine.cost import uncounted
from pairtune.engine.exact import exact_copy
from pairtune.engine.head import head_logprobs
from pairtune.engine.isolation import check_isolation, check_masks, check_own_forward, has_experts
from pairtune.engine.limits import check_ids, check_length
from pairtune.engine.own import logits_logprobs, own_response_logits, response_rows
from pairtune.engine.packed import packed_hidden_states
from pairtune.engine.path import Engine, paths_of, rope_switch, use_paths
from pairtune.engine.reached import check_reached
from pairtune.errors import InputError, is_memory
from pairtune.models import adapters
from pairtune.models.body import keep_caps
from pairtune.models.files import file_of
from pairtune.models.load import reason
from pairtune.progress import say

# Tokens of a prompt, and of a response, of the rows that are looked at; and tokens that the longest one may have.
CHECKED_TOKENS = 128
LONG_TOKENS = 4096
# Multiply-adds that one pass over the long row may cost: some seconds on a processor.
LONG_WORK = 5e11
# A token's log-probability may be off by so many nats, and by so many times what the shapes of a pass alone change.
EXACT = {torch.float32: 2e-4, torch.float64: 1e-6, torch.bfloat16: 0.1, torch.float16: 0.02}
TIMES = 8
# In their own dtype packed rows may be off from exact numbers by so many times what the model's own forward is.
WORSE_MEAN, WORSE_MOST = 2.0, 6.0


@dataclass(frozen=True)
class Verdict:
    """The path that is right, why not a faster one, and the differences found, in nats per response token.

    Means, in the model's dtype: of the path from the model's own forward one row at a time, and of rows alone from the
    same rows together. `longest`: tokens of the longest row that was looked at.
    """

    path: Engine
    reason: str
    from_own: float
    alone_to_together: float
    longest: int

    def __str__(self) -> str:
        return (
            f"{self.path} against its own forward {self.from_own:.2g}, alone against together "
            f"{self.alone_to_together:.2g} nats per token"
        )


class WrongPathError(Exception):
    """This path's numbers are not the model's own."""


@uncounted()  # a check is no part of a method's cost
def check_engine(
    model: PreTrainedModel, rows: Sequence[Tokens], *, others: Sequence[PreTrainedModel] = (), quiet: bool = False
) -> Verdict:
    """Find the right path for a model, and take it. `others`, models of the same architecture, take it with it.

    Raises InputError if even one row at a time is wrong (something random is in the model, it is not causal, its
    numbers are not finite), or if the rows have ids or lengths that it has no vectors for.
    """
    keep_caps(model)
    longest = int(sequence_lengths(rows).max())
    some = chosen_rows(rows, most=_room(model), ordinary=_ordinary(model))
    check_ids(model, highest_id(rows))
    check_length(model, longest)
    with adapters.as_base(model):
        place = verdicts.place(model, "engine")
        verdict = verdicts.recall(place, Verdict)
        if verdict is None or verdict.longest < max(map(_longest, some)):
            verdict = _find(model, some)
            verdicts.remember(place, asdict(verdict))
    paths = paths_of(model)
    paths.engine = verdict.path
    if adapters.learns(model):
        with torch.enable_grad():
            check_reached(model, by_path(model, verdict.path, some[:1]))
    for other in others:
        use_paths(other, paths)
    if verdict.reason:
        say(f"engine: {verdict.reason}; using {WORDS[verdict.path]}, which is right but slower")
    if longest > rope_switch(model):
        say(
            f"engine: rows of more than {rope_switch(model):.0f} tokens change this model's rotary frequencies; passes "
            "with such rows are computed one row at a time"
        )
    if not quiet:
        say(f"engine: {describe(model)}; {verdict}")
    return verdict


WORDS = {"packed": "packed rows", "padded": "padded rows", "alone": "one row at a time"}


def rows_of_prompts(prompts: Sequence[Sequence[int]]) -> list[Tokens]:
    """Rows no longer than the prompts they are made of, for a model that is checked before it has answered."""
    halves = [(tuple(prompt[: (len(prompt) + 1) // 2]), tuple(prompt[(len(prompt) + 1) // 2 :])) for prompt in prompts]
    return [Tokens(first, (second or first,)) for first, second in halves]


def chosen_rows(rows: Sequence[Tokens], *, most: int, ordinary: int) -> list[Tokens]:
    """Rows to look at, each with two responses at least: the first and the last, of `ordinary` tokens, and the longest.

    The longest has up to `most` tokens, if those are more than the ordinary ones.
    """
    longest = int(np.argmax(sequence_lengths(rows)))
    chosen = [_clipped(rows[i], ordinary // 2) for i in sorted({0, len(rows) - 1})]
    if longest not in (0, len(rows) - 1) or _longest(rows[longest]) > ordinary:
        chosen.append(_clipped(rows[longest], max(most, ordinary) // 2))
    if len(chosen) == 1:
        chosen.append(Tokens(chosen[0].prompt[::-1], tuple(response[::-1] for response in chosen[0].responses)))
    return [row if len(row.responses) > 1 else Tokens(row.prompt, (*row.responses, _other(row))) for row in chosen]


def rows_of(pack: Pack) -> list[Tokens]:
    """The rows that a pack was made of."""
    index_SL, real_SL = response_rows(pack)
    rows: list[Tokens] = []
    numbers, lengths = pack.row_S.tolist(), pack.lengths().tolist()
    for number, index, real, length in zip(numbers, index_SL, real_SL, lengths, strict=True):
        tokens = tuple(pack.tokens_T[index[real]].tolist())
        prompt, response = tokens[:-length], tokens[-length:]
        if number == len(rows):
            rows.append(Tokens(prompt, (response,)))
        else:
            rows[-1] = Tokens(prompt, (*rows[-1].responses, response))
    return rows


# ---- the search --------------------------------------------------------------------------------------------------


@torch.no_grad()
def _find(model: PreTrainedModel, rows: Sequence[Tokens]) -> Verdict:
    """Try the paths in their order on a float32 copy, where there is room for one, and then on the model itself."""
    check_weights(model)
    exact = exact_copy(model)
    own = _one_by_one(exact, rows)
    noise = _noise(exact, rows, own)
    troubles: list[str] = []
    for path in cast(tuple[Engine, ...], ("packed", "padded", "alone")):
        try:
            if path == "packed":
                check_masks(exact, rows[0])
                check_isolation(model if exact is not model and not has_experts(model) else exact, rows)
            else:
                check_own_forward(exact, rows, alone=path == "alone")
            together = _hold(exact, path, rows, own, noise)
            return _verdict(model, exact, path, rows, own, together, "; ".join(troubles[:1]))
        except Exception as error:  # whatever an architecture's code says: this path is not for it
            if is_memory(error):
                raise
            troubles.append(str(error) if isinstance(error, (WrongPathError, NotPackableError)) else described(error))
    raise InputError(f"this model cannot be computed with here: {troubles[-1]}")


def _one_by_one(model: PreTrainedModel, rows: Sequence[Tokens]) -> Tensor:
    """The model's own numbers, [R]. Raises InputError if it has none, or others at a second time."""
    try:
        own, again = (_oracle(model, rows[:count]) for count in (len(rows), 1))
    except Exception as error:
        if is_memory(error):
            raise
        raise InputError(f"this model's own forward pass fails on plain rows: {described(error)}") from error
    if not torch.equal(own[: len(again)], again) and torch.isfinite(own).all():
        raise InputError("two passes of the model over the same rows differ; switch its dropout off")
    if not torch.isfinite(own).all():
        raise InputError("the model's own log-probabilities are not finite; its weights are damaged")
    return own


def _oracle(model: PreTrainedModel, rows: Sequence[Tokens]) -> Tensor:
    parts = [naive.response_logprobs(model, [row.prompt], [response]) for row in rows for response in row.responses]
    return torch.cat([part for (part,) in parts]).cpu()


def _noise(model: PreTrainedModel, rows: Sequence[Tokens], own: Tensor) -> float:
    """The largest change of a response token's log-probability by the shape of the pass: the row twice side by side."""
    row, most, first = rows[0], 0.0, 0
    for response in row.responses:
        try:
            twice = naive.response_logprobs(model, [row.prompt] * 2, [response] * 2)
        except Exception:  # a model that takes one row at a time
            return most
        most = max(most, _most(twice[0].cpu(), own[first : first + len(response)]))
        first += len(response)
    return most if math.isfinite(most) else 0.0


def _hold(model: PreTrainedModel, path: Engine, rows: Sequence[Tokens], own: Tensor, noise: float) -> Tensor:
    """The path's log-probabilities of the rows together, [R]; they and those of each row alone are the model's own."""
    bound = min(EXACT[model.dtype] + TIMES * noise, 100 * EXACT[model.dtype])
    together = by_path(model, path, rows)
    if not _most(together, own) <= bound:
        raise WrongPathError(f"{WORDS[path]} differ by up to {_most(together, own):.2g} nats per token")
    alone = torch.cat([by_path(model, path, [row]) for row in rows])
    if not _most(alone, own) <= bound:
        raise WrongPathError(f"{WORDS[path]} by themselves differ by up to {_most(alone, own):.2g} nats per token")
    return together


def _verdict(
    model: PreTrainedModel,
    exact: PreTrainedModel,
    path: Engine,
    rows: Sequence[Tokens],
    own: Tensor,
    together: Tensor,
    trouble: str,
) -> Verdict:
    """The path holds in the model's own dtype too: no further from the exact numbers than its own forward is."""
    plain = own
    if exact is not model:
        plain, together = _oracle(model, rows), by_path(model, path, rows)
        error, usual = (together - own).abs(), (plain - own).abs()
        rounding = EXACT[model.dtype]
        most = float(error.max()) <= WORSE_MOST * float(usual.max()) + rounding or has_experts(model)
        if not (float(error.mean()) <= WORSE_MEAN * float(usual.mean()) + rounding / 4 and most):
            raise WrongPathError(
                f"{WORDS[path]} in {str(model.dtype).removeprefix('torch.')} are off by {float(error.mean()):.2g} nats "
                f"per token, the model's own forward by {float(usual.mean()):.2g}"
            )
    alone = torch.cat([by_path(model, path, [row]) for row in rows])
    return Verdict(path, trouble, _mean(together, plain), _mean(alone, together), max(map(_longest, rows)))


def by_path(model: PreTrainedModel, path: Engine, rows: Sequence[Tokens]) -> Tensor:
    """The response tokens' log-probabilities by one path, on the processor: [R]."""
    batch = pack(rows).to(model.device)
    if path == "packed":
        logprob_R = head_logprobs(model, packed_hidden_states(model, batch)[batch.source_R], batch.target_R)
    else:
        logprob_R = logits_logprobs(own_response_logits(model, batch, alone=path == "alone"), batch.target_R, 1.0)
    return logprob_R.cpu()


def check_weights(model: PreTrainedModel) -> None:
    """Raises InputError if a weight is NaN or infinite: no kernel's result would mean anything."""
    for name, value in model.named_parameters():
        if value.is_floating_point() and not torch.isfinite(value.sum(dtype=torch.float32)):
            folder = str(getattr(model.config, "name_or_path", ""))
            where = f", in {path}," if (path := file_of(folder, name)) else ""
            raise InputError(
                f"the model's weight {name}{where} holds numbers that are not finite; that file is damaged"
            )


@contextmanager
def failing_in_a_line(doing: str) -> Iterator[None]:
    """Raises InputError in place of an error of an architecture's own code in transformers: "trained" is what it is."""
    try:
        yield
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        if is_memory(error) or {"transformers", "models"} - set(Path(last.filename).parts):
            raise
        raise InputError(f"this model cannot be {doing} here: {described(error)}") from error


def described(error: Exception) -> str:
    """An error of an architecture's own code in one line."""
    said = reason(error)
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


# ---- rows --------------------------------------------------------------------------------------------------------


def _room(model: PreTrainedModel) -> int:
    """Tokens of the longest row looked at: as many as a pass of some seconds allows."""
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return int(min(LONG_TOKENS, LONG_WORK / max(1, parameters), rope_switch(model)))


def _ordinary(model: PreTrainedModel) -> int:
    return int(min(2 * CHECKED_TOKENS, rope_switch(model)))  # beyond the switch every row goes alone


def _clipped(row: Tokens, tokens: int) -> Tokens:
    return Tokens(row.prompt[-tokens:], tuple(response[:tokens] for response in row.responses[:2]))


def _other(row: Tokens) -> tuple[int, ...]:
    """A second response of other tokens and of another length, if the first one has several."""
    return row.responses[0][:0:-1] or row.prompt[-1:]


def _longest(row: Tokens) -> int:
    return len(row.prompt) + max(map(len, row.responses))


def _most(first: Tensor, second: Tensor) -> float:
    return float((first - second).abs().max())


def _mean(first: Tensor, second: Tensor) -> float:
    return float((first - second).abs().mean())
