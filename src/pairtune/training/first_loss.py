"""That the policy starts from the reference: every log-ratio is 0 but for rounding, so DPO's first loss is ln 2.

How large rounding is here is measured, not assumed: the same few rows, by the same model, computed in other ways.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from pairtune.data.pack import Tokens, pack
from pairtune.engine import naive
from pairtune.engine.cost import uncounted
from pairtune.engine.logprob import token_logprobs
from pairtune.errors import InputError
from pairtune.objectives.loss import Loss
from pairtune.progress import say, significant

# Rows that are compared with the reference, and rows of them on which rounding is measured.
COMPARED_ROWS, MEASURED_ROWS = 8, 4
# Tokens of a prompt's end and a response's beginning on which it is measured: the padded pass holds all their logits.
MEASURED_TOKENS = 256
# The mean |log-ratio| may be this many times that of rounding: other rows, other company.
ALLOWED = 3.0
# Rounding that is allowed where none is measured: a pass may by chance round as another does.
LEAST = {torch.float32: 1e-5, torch.bfloat16: 4e-3}


@dataclass(frozen=True)
class Distance:
    """Of two ways to one log-probability, in nats a token: the mean |difference|, and how far one lies above."""

    size: float
    lean: float

    @classmethod
    def between(cls, first: Sequence[Tensor], second: Sequence[Tensor]) -> "Distance":
        """Of tokens of the same responses."""
        difference_R = torch.cat(list(first)).double() - torch.cat(list(second)).double()
        return cls(float(difference_R.abs().mean()), float(difference_R.mean()))


@uncounted()
@torch.no_grad()
def check_first_loss(
    model: PreTrainedModel, rows: Sequence[Tokens], reference: Sequence[Tensor], loss: Loss | None = None
) -> float:
    """Mean |log-ratio| of an untouched policy, in nats per token: within measured rounding, and leaning to no side.

    Rounding goes up and down, so the mean log-ratio has to lie within one such rounding, its size within three. The
    first value of `loss` is said where it follows. Raises InputError if the reference's log-probabilities are not this
    model's.
    """
    count = min(COMPARED_ROWS, len(rows))
    chosen = [i * (len(rows) - 1) // max(1, count - 1) for i in range(count)]
    found = Distance.between(_together(model, [rows[i] for i in chosen]), [reference[i] for i in chosen])
    rounding = measured_rounding(model, [rows[i] for i in chosen[:MEASURED_ROWS]])
    if not (found.size <= ALLOWED * rounding and abs(found.lean) <= rounding):
        raise InputError(
            f"the reference's log-probabilities are not the policy's at the start ({found.size:.2g} nats per token, "
            f"{found.lean:+.2g} on average, where rounding is {rounding:.2g}); the policy must start from the reference"
        )
    first = first_loss(loss) if loss else ""
    follows = f", so the first loss is {first}" if first else ""
    size = f"{found.size:.2g} nats per token (rounding: {rounding:.2g})"
    say(f"reference: the untouched policy differs by {size}{follows}")
    return found.size


def first_loss(loss: Loss) -> str:
    """What an objective on log-ratios alone is while they are all 0, in words; empty for a sum and for any other."""
    if len(loss.terms) > 1 or not {"chosen_logratio_B", "rejected_logratio_B"}.issuperset(loss.arguments):
        return ""
    value = float(loss({name: torch.zeros(1, dtype=torch.float64) for name in loss.arguments}))
    return "ln 2" if math.isclose(value, math.log(2)) else significant(value)


@torch.no_grad()
def measured_rounding(model: PreTrainedModel, rows: Sequence[Tokens]) -> float:
    """The largest of the distances between these rows together, each alone, and padded without the engine: nats."""
    rows = [_clipped(row) for row in rows]
    together = _together(model, rows)
    alone = [part for row in rows for part in _together(model, [row])]
    padded = [
        torch.cat(naive.response_logprobs(model, [row.prompt] * len(row.responses), row.responses)).cpu()
        for row in rows
    ]
    distances = (Distance.between(alone, together), Distance.between(padded, together))
    return max(LEAST[next(model.parameters()).dtype], *(distance.size for distance in distances))


def _clipped(row: Tokens) -> Tokens:
    return Tokens(row.prompt[-MEASURED_TOKENS:], tuple(response[:MEASURED_TOKENS] for response in row.responses))


def _together(model: PreTrainedModel, rows: Sequence[Tokens]) -> list[Tensor]:
    """log π of each row's response tokens, all rows in one pass."""
    sizes = [sum(len(response) for response in row.responses) for row in rows]
    return list(token_logprobs(model, pack(rows).to(model.device)).cpu().split(sizes))
