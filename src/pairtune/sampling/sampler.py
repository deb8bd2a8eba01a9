"""Pure sampling in batches with a key-value cache, keeping the log-probabilities that the tokens were drawn with.

Shape suffixes: B rows still being written, E hidden size.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from pairtune.engine.cost import count_pass
from pairtune.engine.hidden import is_padded
from pairtune.engine.kernels import draw
from pairtune.engine.logprob import plain_head
from pairtune.sampling.decoding import KeyValues, Padded

# The batch is made smaller when at least this share of its rows has finished.
COMPACT_AT = 0.2


@dataclass(frozen=True, slots=True)
class Sample:
    """One answer: its tokens (with the end-of-text token if it ended), each token's log-probability in nats."""

    response: tuple[int, ...]
    logprobs: tuple[float, ...]
    ended: bool


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
    at a time. Raises NotPackableError if the model changes its logits after the head.
    """
    if not prompts:
        return []
    if temperature <= 0 or max_new_tokens < 1:
        raise ValueError("temperature and max_new_tokens must be positive")
    generator = torch.Generator().manual_seed(seed)
    uniform = torch.rand(len(prompts), max_new_tokens, generator=generator, dtype=torch.float64)
    order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
    answers: list[Sample | None] = [None] * len(prompts)
    training = model.training
    model.eval()
    try:
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            drawn = _sample_batch(model, [prompts[i] for i in rows], uniform[rows], tuple(end_ids), temperature)
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


@torch.no_grad()
def _sample_batch(
    model: PreTrainedModel,
    prompts: list[Sequence[int]],
    uniform: Tensor,
    end_ids: tuple[int, ...],
    temperature: float,
) -> list[Sample]:
    device = next(model.parameters()).device
    end = torch.tensor(end_ids, dtype=torch.long, device=device)
    uniform = uniform.to(device)
    rows = torch.arange(len(prompts), device=device)
    tokens: list[list[int]] = [[] for _ in prompts]
    logprobs: list[list[float]] = [[] for _ in prompts]
    ended = [False] * len(prompts)
    head = plain_head(model)
    decoder = (Padded if is_padded(model) else KeyValues)(model, max(map(len, prompts)) + uniform.shape[1])
    hidden_BE = decoder.begin(prompts)
    for step in range(uniform.shape[1]):
        count_pass(model, tokens=0, attended=0, predicted=len(rows))
        token_B, logprob_B = draw(head(hidden_BE), uniform[rows, step], temperature)
        stopped_B = torch.isin(token_B, end)
        for row, token, logprob, stop in zip(
            rows.tolist(), token_B.tolist(), logprob_B.tolist(), stopped_B.tolist(), strict=True
        ):
            if not ended[row]:
                tokens[row].append(token)
                logprobs[row].append(logprob)
                ended[row] = stop
        going_B = torch.tensor([not ended[row] for row in rows.tolist()], device=device)
        if not going_B.any() or step + 1 == uniform.shape[1]:
            break
        if (~going_B).float().mean() >= COMPACT_AT and going_B.sum() > 1:  # one row alone would be compiled anew
            kept = going_B.nonzero()[:, 0]
            decoder.keep(kept)
            rows, token_B = rows[kept], token_B[kept]
        hidden_BE = decoder.step(token_B)
    return [Sample(tuple(t), tuple(p), e) for t, p, e in zip(tokens, logprobs, ended, strict=True)]
