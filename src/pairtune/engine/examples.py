"""What preference objectives are computed on: rows, the reference's part of them, and one pass over some of them."""

import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from pairtune.data.pack import Tokens, pack
from pairtune.engine.collision import logprobs_and_collisions
from pairtune.engine.cost import Cost
from pairtune.engine.hidden import TOKENS_PER_PASS
from pairtune.engine.logprob import token_logprobs
from pairtune.engine.reference import compute_logprobs, reference_logprobs


@dataclass(frozen=True)
class Examples:
    """Pairs, or single responses with labels, and the reference's log-probabilities where an objective needs them.

    `labels[i]` says whether row i's one response is desirable; None where each row is (chosen, rejected).
    `reference[i]` holds log π_ref of row i's response tokens, end to end. `unrelated[i]` is row i's prompt with the
    responses to another prompt, and `unrelated_reference[i]` their log π_ref.
    """

    rows: Sequence[Tokens]
    labels: Sequence[bool] | None = None
    reference: Sequence[Tensor] | None = None
    unrelated: Sequence[Tokens] | None = None
    unrelated_reference: Sequence[Tensor] | None = None

    def labels_of(self, indices: Sequence[int]) -> list[bool]:
        """Of each response of these rows, whether it is chosen or desirable."""
        if self.labels is None:
            return [True, False] * len(indices)
        return [self.labels[i] for i in indices]


def prepare(
    model: PreTrainedModel,
    rows: Sequence[Tokens],
    arguments: Collection[str],
    *,
    needs_reference: bool,
    labels: Sequence[bool] | None = None,
    seed: int,
    **passing: Any,
) -> tuple[Examples, Cost]:
    """The examples of an objective that takes `arguments`, `model` being the reference, and what computing them cost.

    Nothing is computed that the objective does not need; what is needed is kept on disk by content. `passing` goes to
    `reference_logprobs`. Raises ValueError if responses to other prompts are needed and there is one prompt only.
    """
    if not needs_reference:
        return Examples(rows, labels), Cost()
    reference, cost = reference_logprobs(model, rows, **passing)
    if "kl_baseline" not in arguments:
        return Examples(rows, labels, reference), cost
    unrelated = unrelated_rows(rows, seed=seed)
    unrelated_reference, more = reference_logprobs(model, unrelated, **{**passing, "progress": lambda rows: None})
    return Examples(rows, labels, reference, unrelated, unrelated_reference), cost + more


def unrelated_rows(rows: Sequence[Tokens], *, seed: int) -> list[Tokens]:
    """Each row's prompt with the responses of a row that has another prompt; a function of the rows and the seed alone.

    The rows are laid in a circle, shuffled but those of one prompt together, and each takes the responses of the one a
    whole group further, the length of the longest group. Only if one prompt has more than half of all rows do some
    keep a response of their own prompt. Raises ValueError if there is one prompt only.
    """
    groups: dict[tuple[int, ...], list[int]] = {}
    for i, row in enumerate(rows):
        groups.setdefault(row.prompt, []).append(i)
    if len(groups) < 2:
        raise ValueError("the KL baseline needs responses to other prompts, and all rows have the same prompt")
    order = list(groups.values())
    random.Random(seed).shuffle(order)
    circle = [i for group in order for i in group]
    shift = max(map(len, order))
    other = {i: circle[(place + shift) % len(circle)] for place, i in enumerate(circle)}
    return [Tokens(row.prompt, rows[other[i]].responses) for i, row in enumerate(rows)]


@dataclass(frozen=True)
class Passed:
    """One pass over some rows: values per response token [R], and each response's length and label [S]."""

    tokens: dict[str, Tensor]
    length_S: Tensor
    label_S: Tensor

    def detach(self) -> "Passed":
        """The same without gradients."""
        return Passed({name: value.detach() for name, value in self.tokens.items()}, self.length_S, self.label_S)


def run_pass(model: PreTrainedModel, examples: Examples, indices: Sequence[int], arguments: Collection[str]) -> Passed:
    """log π of the response tokens of these rows, differentiable, and whatever else `arguments` are made of."""
    batch = pack([examples.rows[i] for i in indices]).to(model.device)
    tokens: dict[str, Tensor] = {}
    if any("collision" in name for name in arguments):
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


def kl_baseline(model: PreTrainedModel, examples: Examples, indices: Sequence[int]) -> Tensor:
    """max(0, mean log-ratio of these rows' prompts with responses to other prompts): a number in nats, no gradient."""
    assert examples.unrelated is not None
    assert examples.unrelated_reference is not None
    rows = [examples.unrelated[i] for i in indices]
    logprobs = compute_logprobs(model, rows, tokens_per_pass=TOKENS_PER_PASS[model.device.type])
    total = sum(float((own - examples.unrelated_reference[i]).sum()) for i, own in zip(indices, logprobs, strict=True))
    return torch.tensor(max(0.0, total / sum(len(row.responses) for row in rows)), device=model.device)
