"""What an objective is: a pure function, its own parameters, its equation and its source.

The names of a loss's positional arguments say what it needs, and a trainer computes exactly that:

    chosen_logratio_B    of the chosen responses, log π(y|x) − log π_ref(y|x) in nats, summed over the tokens
    rejected_logprob_B   of the rejected responses, log π(y|x), summed likewise; no reference is needed
    logratio_B           of responses by themselves; `label_B` then says which of them are desirable (bool)
    chosen_length_B      tokens of the response, its end of text included
    chosen_logratio_R    token by token, the responses end to end; `chosen_length_B` says where each ends
    chosen_logratio_N    as B, but the loss mixes examples, so it must be given all of an optimiser step at once

What can stand in the middle: logprob, logratio, reference (log π_ref), length, and collision (log Σ_v π(v|·)², summed
over the tokens, no gradient). Numbers of a whole step, without gradient:

    kl_baseline          max(0, mean log-ratio of the step's prompts with responses to other prompts), in nats
    past_logratio        ½(mean of desirable + mean of undesirable log-ratios), a moving average over earlier steps
    past_margin          mean log-ratio of chosen − rejected, a moving average over earlier steps
    row_margin_B         by how much the chosen response was preferred, as the data's column `margin` has it
    weight_N             how much each row counts, last and with `= None` for where all count the same: a loss that
                         mixes examples is one for rows with weights only if it takes this
    mean_length          tokens of a chosen response, mean over the step: a sum over tokens divided by it is, over the
                         step, a mean per token
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

QUANTITY = re.compile(r"(chosen_|rejected_|)(logprob|logratio|reference|length|collision)_([BRN])\Z")
# The numbers of a step that are made of log-ratios, and so need the reference; and all of them.
OF_LOGRATIOS = ("kl_baseline", "past_logratio", "past_margin")
STEP_NUMBERS = (*OF_LOGRATIOS, "mean_length")
#: What rows say of themselves: a pair's margin, and to a loss that mixes them their weights.
OF_ROWS, WEIGHTS = "row_margin_B", "weight_N"
# What costs more than log π: log π_ref, that of responses to other prompts, collisions; and what is made of each.
NEEDS = {
    "reference": {"logratio", "reference", *OF_LOGRATIOS},
    "mismatched": {"kl_baseline"},
    "collision": {"collision"},
}


# A parameter beyond this is a typing error: float32 makes infinity of what a loss does with it.
LARGEST = 1e12


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """A number that an objective takes: its default, in one sentence what it does, and its bounds."""

    default: float
    meaning: str
    above: float | None = None
    least: float | None = None
    below: float | None = None
    most: float | None = None

    def trouble(self, value: float) -> str | None:
        """What `value` must be instead, or None if it will do."""
        for bound, holds, words in (
            (self.above, lambda b: value > b, "above"),
            (self.least, lambda b: value >= b, "at least"),
            (self.below, lambda b: value < b, "below"),
            (self.most, lambda b: value <= b, "at most"),
        ):
            if bound is not None and not holds(bound):
                return f"{words} {bound:g}"
        return None if abs(value) <= LARGEST else f"at most {LARGEST:g}"


@dataclass(frozen=True, kw_only=True)
class Objective:
    """One entry of the catalogue.

    `loss(*tensors, **parameters) -> [B]`: what the tensors are, the names of the arguments say; `parameters` are
    exactly the keys of `parameters`. What the objective is for, what is known of its minimiser and where TRL departs
    from the paper stands in the function's docstring.
    """

    loss: Callable[..., Tensor]
    equation: str
    source: str
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    own: str = ""  # of a person's own function: what it is called, and the SHA-256 of what it was made from
    sha256: str = ""

    @property
    def name(self) -> str:
        """What people call it: the function's name with hyphens; of their own function, `my_losses.py:my_dpo`."""
        return self.own or self.loss.__name__.replace("_", "-")

    @cached_property
    def arguments(self) -> tuple[str, ...]:
        """The names of the tensors that the loss takes, in order."""
        takes = inspect.signature(self.loss).parameters.values()
        return tuple(each.name for each in takes if each.kind is each.POSITIONAL_OR_KEYWORD and each.name != WEIGHTS)

    @cached_property
    def weighs(self) -> bool:
        """Whether a loss that mixes the examples of a step takes their weights."""
        return WEIGHTS in inspect.signature(self.loss).parameters

    @cached_property
    def needs(self) -> frozenset[str]:
        """What has to be computed for it besides log π, by the names of `NEEDS`."""
        asked = {match[2] if (match := QUANTITY.match(name)) else name for name in self.arguments}
        return frozenset(need for need, made_of_it in NEEDS.items() if asked & made_of_it)

    @property
    def unpaired(self) -> bool:
        """Whether it takes responses by themselves, each with a label; pairs then serve as two of them."""
        return "label_B" in self.arguments

    @property
    def whole_step(self) -> bool:
        """Whether it mixes the examples of a step, which must then be given together."""
        return any(name.endswith("_N") for name in self.arguments)

    @property
    def unweighed(self) -> bool:
        """Whether it mixes the examples of a step and takes no weights, so that each counts once."""
        return self.whole_step and not self.weighs

    @property
    def data(self) -> str:
        """What it trains on, in words."""
        return "pairs or labels" if self.unpaired else "pairs"
