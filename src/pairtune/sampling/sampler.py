"""Pure sampling in batches, keeping the log-probabilities that the tokens were drawn with. The door to the sampler."""

import hashlib
from collections.abc import Callable, Sequence

import torch
from transformers import PreTrainedModel

from pairtune.engine.limits import check_ends, check_ids, check_length
from pairtune.engine.path import paths_of, rope_switch, settle_rope
from pairtune.sampling.answer import Sample
from pairtune.sampling.self_check import WAYS, check_sampler


def sample(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    *,
    end_ids: Sequence[int],
    max_new_tokens: int,
    seed: int,
    temperature: float = 1.0,
    batch_size: int = 128,
    progress: Callable[[int], None] = lambda rows: None,
) -> list[Sample]:
    """One answer to each prompt, drawn from softmax(logits / temperature): no top-k, no forced length, no penalty.

    The log-probabilities are of the tempered distribution. Row i's random numbers depend on `seed`, `max_new_tokens`
    and i alone, so batching does not change what is drawn beyond rounding. `progress` is called with the rows finished
    at a time. A model that comes here unchecked is checked on these prompts. Raises InputError if it cannot be sampled
    from, or if the prompts and the longest answer do not fit into its positions.
    """
    if not prompts:
        return []
    if temperature <= 0 or max_new_tokens < 1:
        raise ValueError("temperature and max_new_tokens must be positive")
    longest = max(map(len, prompts)) + max_new_tokens
    check_ids(model, max(map(max, prompts)))
    check_length(model, longest)
    check_ends(model, end_ids)
    way = paths_of(model).sampler or check_sampler(model, prompts)
    draw = WAYS["recomputed" if longest > rope_switch(model) else way]
    settle_rope(model)
    generator = torch.Generator().manual_seed(seed)
    uniform = torch.rand(len(prompts), max_new_tokens, generator=generator, dtype=torch.float64)
    order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
    answers: list[Sample | None] = [None] * len(prompts)
    training = model.training
    model.eval()
    try:
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            drawn = draw(model, [prompts[i] for i in rows], uniform[rows], tuple(end_ids), temperature)
            for i, answer in zip(rows, drawn, strict=True):
                answers[i] = answer
            progress(len(rows))
    finally:
        model.train(training)
    return [answer for answer in answers if answer is not None]


def stream_seed(seed: int, purpose: str, number: int = 0) -> int:
    """A seed for one of a run's many draws: no two purposes, numbers or runs share random numbers."""
    digest = hashlib.sha256(f"{seed} {purpose} {number}".encode()).digest()
    return int.from_bytes(digest[:7], "big")
