"""Prompts with responses to other prompts: what KTO estimates the KL from the reference by."""

import random
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from pairtune.data.pack import Tokens
from pairtune.engine.reference import compute_logprobs
from pairtune.errors import InputError


def mismatched_rows(rows: Sequence[Tokens], *, seed: int) -> list[Tokens]:
    """Each row's prompt with the responses of a row that has another prompt; a function of the rows and the seed alone.

    The rows are laid in a circle, shuffled but those of one prompt together, and each takes the responses of the one a
    whole group further, the length of the longest group. Only if one prompt has more than half of all rows do some
    keep a response of their own prompt. Raises InputError if there is one prompt only.
    """
    groups: dict[tuple[int, ...], list[int]] = {}
    for i, row in enumerate(rows):
        groups.setdefault(row.prompt, []).append(i)
    if len(groups) < 2:
        raise InputError(
            "data: the KL baseline needs responses to other prompts, and all rows have the same prompt; hold out more, "
            "or take another objective"
        )
    order = list(groups.values())
    random.Random(seed).shuffle(order)
    circle = [i for group in order for i in group]
    shift = max(map(len, order))
    other = {i: circle[(place + shift) % len(circle)] for place, i in enumerate(circle)}
    return [Tokens(row.prompt, rows[other[i]].responses) for i, row in enumerate(rows)]


def kl_baseline(
    model: PreTrainedModel,
    rows: Sequence[Tokens],
    reference: Sequence[Tensor],
    indices: Sequence[int],
    *,
    weights: np.ndarray | None = None,
) -> Tensor:
    """max(0, mean log-ratio of all responses of these mismatched rows): a number in nats, without gradient.

    weights: how much each row counts in that mean, [N] of all rows; None: all the same.
    """
    some = [rows[i] for i in indices]
    weight = [1.0] * len(some) if weights is None else weights[list(indices)].tolist()
    logprobs = compute_logprobs(model, some)
    sums = (float((own - reference[i]).sum()) for i, own in zip(indices, logprobs, strict=True))
    total = sum(each * counts for each, counts in zip(sums, weight, strict=True))
    count = sum(len(row.responses) * counts for row, counts in zip(some, weight, strict=True))
    return torch.tensor(max(0.0, total / count), device=model.device)
