"""What preference objectives are computed on: rows, the reference's part of them, and one pass over some of them."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from pairtune.data.pack import Tokens, pack
from pairtune.engine.cost import Cost
from pairtune.engine.logprob import logprobs_and_collisions, token_logprobs
from pairtune.engine.mismatched import mismatched_rows
from pairtune.engine.reference import reference_logprobs
from pairtune.models import adapters


@dataclass(frozen=True)
class Examples:
    """Pairs, or single responses with labels, and the reference's log-probabilities where an objective needs them.

    `labels[i]` says whether row i's one response is desirable; None where each row is (chosen, rejected).
    `reference[i]` holds log π_ref of row i's response tokens, end to end. `mismatched[i]` is row i's prompt with the
    responses to another prompt, and `mismatched_reference[i]` their log π_ref.
    """

    rows: Sequence[Tokens]
    labels: Sequence[bool] | None = None
    reference: Sequence[Tensor] | None = None
    mismatched: Sequence[Tokens] | None = None
    mismatched_reference: Sequence[Tensor] | None = None

    def labels_of(self, indices: Sequence[int]) -> list[bool]:
        """Of each response of these rows, whether it is chosen or desirable."""
        if self.labels is None:
            return [True, False] * len(indices)
        return [self.labels[i] for i in indices]

    def mean_length(self, indices: Sequence[int]) -> float:
        """Tokens of a chosen response, mean over these pairs."""
        return sum(len(self.rows[i].responses[0]) for i in indices) / len(indices)


def prepare(
    model: PreTrainedModel,
    rows: Sequence[Tokens],
    needs: Collection[str],
    *,
    labels: Sequence[bool] | None = None,
    seed: int,
    **passing: Any,
) -> tuple[Examples, Cost]:
    """The examples of an objective with these `needs`, `model` being the reference, and what computing them cost.

    Nothing is computed that the objective does not need; what is needed is kept on disk by content. `passing` goes to
    `reference_logprobs`. Raises InputError if responses to other prompts are needed and there is one prompt only.
    """
    if "reference" not in needs:
        return Examples(rows, labels), Cost()
    with adapters.as_base(model):
        reference, cost = reference_logprobs(model, rows, **passing)
        if "mismatched" not in needs:
            return Examples(rows, labels, reference), cost
        mismatched = mismatched_rows(rows, seed=seed)
        mismatched_reference, more = reference_logprobs(model, mismatched, **{**passing, "progress": lambda rows: None})
    return Examples(rows, labels, reference, mismatched, mismatched_reference), cost + more


@dataclass(frozen=True)
class Passed:
    """One pass over some rows: values per response token [R], and each response's length and label [S]."""

    tokens: dict[str, Tensor]
    length_S: Tensor
    label_S: Tensor

    def detach(self) -> "Passed":
        """The same without gradients."""
        return Passed({name: value.detach() for name, value in self.tokens.items()}, self.length_S, self.label_S)


def run_pass(model: PreTrainedModel, examples: Examples, indices: Sequence[int], needs: Collection[str]) -> Passed:
    """log π of the response tokens of these rows, differentiable, and what else the objective `needs` of a pass."""
    batch = pack([examples.rows[i] for i in indices]).to(model.device)
    tokens: dict[str, Tensor] = {}
    if "collision" in needs:
        tokens["logprob"], tokens["collision"] = logprobs_and_collisions(model, batch)
    else:
        tokens["logprob"] = token_logprobs(model, batch)
    if examples.reference is not None:
        tokens["reference"] = torch.cat([examples.reference[i] for i in indices]).to(model.device)
    label_S = torch.tensor(examples.labels_of(indices), device=model.device)
    return Passed(tokens, batch.lengths(), label_S)


def join(parts: Sequence[Passed]) -> Passed:
    """Several passes as one, in their order."""
    tokens = {name: torch.cat([part.tokens[name] for part in parts]) for name in parts[0].tokens}
    return Passed(tokens, torch.cat([part.length_S for part in parts]), torch.cat([part.label_S for part in parts]))
