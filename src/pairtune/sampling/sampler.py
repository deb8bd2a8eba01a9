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
from pairtune.engine.kernels import draw
from pairtune.engine.logprob import plain_head
from pairtune.sampling.static import decoder_for


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
    uniform = uniform.to(next(model.parameters()).device)
    rows, ends = list(range(len(prompts))), set(end_ids)
    tokens: list[list[int]] = [[] for _ in prompts]
    logprobs: list[list[float]] = [[] for _ in prompts]
    ended = [False] * len(prompts)
    head = plain_head(model)
    decoder = decoder_for(model, max(map(len, prompts)) + uniform.shape[1])
    hidden_BE = decoder.begin(prompts)
    for step in range(uniform.shape[1]):
        count_pass(model, tokens=0, attended=0, predicted=len(rows))
        token_B, logprob_B = draw(head(hidden_BE), uniform[:, step], temperature)
        for row, token, logprob in zip(rows, token_B.tolist(), logprob_B.tolist(), strict=True):
            if not ended[row]:
                tokens[row].append(token)
                logprobs[row].append(logprob)
                ended[row] = token in ends
        going = [i for i, row in enumerate(rows) if not ended[row]]
        if not going or step + 1 == uniform.shape[1]:
            break
        gone = len(rows) - len(going)
        if gone >= decoder.leave_at * len(rows) and len(going) > 1:  # one row alone would be compiled anew
            kept = torch.tensor(going, device=uniform.device)
            decoder.keep(kept)
            rows, uniform, token_B = [rows[i] for i in going], uniform[kept], token_B[kept]
        hidden_BE = decoder.step(token_B)
    return [Sample(tuple(t), tuple(p), e) for t, p, e in zip(tokens, logprobs, ended, strict=True)]
