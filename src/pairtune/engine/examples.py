"""What preference objectives are computed on: rows, the reference's part of them, and one pass over some of them."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from pairtune import parallel
from pairtune.data.pack import Tokens, numbers_of, pack, relative_weights
from pairtune.engine.cost import Cost
from pairtune.engine.logprob import logprobs_and_collisions, token_logprobs
from pairtune.engine.mismatched import mismatched_rows
from pairtune.engine.reference import reference_logprobs
from pairtune.models import adapters
from pairtune.objectives.objective import OF_ROWS


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

    @cached_property
    def weights(self) -> np.ndarray | None:
        """How much each row counts, 1 in the mean: [N]. None where all count the same."""
        return relative_weights(self.rows)

    @cached_property
    def margins(self) -> np.ndarray | None:
        """By how much each pair's chosen response was preferred: [N]. None where the rows do not say it."""
        return numbers_of(self.rows, "margin")

    def labels_of(self, indices: Sequence[int]) -> list[bool]:
        """Of each response of these rows, whether it is chosen or desirable."""
        if self.labels is None:
            return [True, False] * len(indices)
        return [self.labels[i] for i in indices]

    def mean_length(self, indices: Sequence[int]) -> float:
        """Tokens of a chosen response, mean over these pairs, each as it counts."""
        weights = [1.0] * len(indices) if self.weights is None else self.weights[list(indices)].tolist()
        lengths = (len(self.rows[i].responses[0]) for i in indices)
        return float(sum(weight * length for weight, length in zip(weights, lengths, strict=True)) / sum(weights))


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
    """One pass over some rows: values per response token [R], each response's length and label [S].

    `weight_N` is how much each row counts, None where all count the same; `margin_N` by how much each pair's chosen
    response was preferred, None where the rows do not say it.
    """

    tokens: dict[str, Tensor]
    length_S: Tensor
    label_S: Tensor
    weight_N: Tensor | None = None
    margin_N: Tensor | None = None

    def detach(self) -> "Passed":
        """The same without gradients."""
        return replace(self, tokens={name: value.detach() for name, value in self.tokens.items()})

    def numbers(self, of_step: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """What a loss may name beside values of tokens: numbers of the whole step, and what rows say of themselves."""
        return of_step if self.margin_N is None else {**of_step, OF_ROWS: self.margin_N}

    def side_mean(self, value_B: Tensor, *, desirable: bool) -> Tensor:
        """The mean of values of the responses of one side, each as its row counts."""
        if self.weight_N is None:
            return value_B.mean()
        weight_S = self.weight_N.repeat_interleave(len(self.label_S) // len(self.weight_N))
        weight_B = weight_S[self.label_S if desirable else ~self.label_S]
        return (weight_B * value_B).sum() / weight_B.sum()


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
    of_rows = (
        None if values is None else torch.tensor(values[list(indices)], dtype=torch.float32, device=model.device)
        for values in (examples.weights, examples.margins)
    )
    return Passed(tokens, batch.lengths(), label_S, *of_rows)


def join(parts: Sequence[Passed]) -> Passed:
    """Several passes as one, in their order."""
    tokens = {name: torch.cat([part.tokens[name] for part in parts]) for name in parts[0].tokens}
    rest: list[Any] = []
    for name in ("length_S", "label_S", "weight_N", "margin_N"):
        values = [getattr(part, name) for part in parts]
        rest.append(None if values[0] is None else torch.cat(values))
    return Passed(tokens, *rest)


def gathered(parts: Sequence[Passed], values: Tensor, device: torch.device) -> list[tuple[Passed, Tensor]]:
    """What each rank has: its passes as one, and further values, in the order of ranks, without gradients.

    A rank may have made no pass. In one process, its own as they are.
    """
    if parallel.working() == 1:
        return [(join(parts), values)]
    mine: dict[str, Tensor] = {}
    if parts:
        joined = join(parts)
        others = {name: getattr(joined, name) for name in ("length_S", "label_S", "weight_N", "margin_N")}
        mine = {f"tokens.{name}": value for name, value in joined.tokens.items()}
        mine |= {name: value for name, value in others.items() if value is not None}
    of_ranks = [
        {name: value.to(device) for name, value in each.items()} for each in parallel.gather({**mine, "values": values})
    ]
    whole = next(each for each in of_ranks if "length_S" in each)  # of what kind a rank's values are that has none
    found = []
    for each in of_ranks:
        each = {name: each.get(name, value[:0]) for name, value in whole.items() if name != "values"} | {
            "values": each["values"]
        }
        tokens = {name.removeprefix("tokens."): value for name, value in each.items() if name.startswith("tokens.")}
        rest = (each.get("weight_N"), each.get("margin_N"))
        found.append((Passed(tokens, each["length_S"], each["label_S"], *rest), each["values"]))
    return found
