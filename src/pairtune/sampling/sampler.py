"""Pure sampling in batches with a key-value cache, keeping the log-probabilities that the tokens were drawn with.

Shape suffixes: B rows still being written, L padded prompt length, V vocabulary.
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
from pairtune.sampling.decoding import NAME, make_cache

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
    training, implementation = model.training, model.config._attn_implementation
    model.eval()
    if implementation == "sdpa" and not is_padded(model):
        model.config._attn_implementation = NAME  # else the model has its reasons for another
    try:
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            drawn = _sample_batch(model, [prompts[i] for i in rows], uniform[rows], tuple(end_ids), temperature)
            for i, answer in zip(rows, drawn, strict=True):
                answers[i] = answer
            progress(len(rows))
    finally:
        model.config._attn_implementation = implementation
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
    input_BL, mask_BL = _left_padded(prompts, device)
    position_B = mask_BL.sum(-1) - 1
    position_BL = (mask_BL.cumsum(-1) - 1).clamp_min(0)
    end = torch.tensor(end_ids, dtype=torch.long, device=device)
    uniform = uniform.to(device)
    rows = torch.arange(len(prompts), device=device)
    tokens: list[list[int]] = [[] for _ in prompts]
    logprobs: list[list[float]] = [[] for _ in prompts]
    ended = [False] * len(prompts)
    head = plain_head(model)
    cache = make_cache(model, input_BL.shape[1] + uniform.shape[1])
    for step in range(uniform.shape[1]):
        output = model.base_model(
            input_ids=input_BL,
            attention_mask=mask_BL,
            position_ids=position_BL,
            past_key_values=cache,
            use_cache=True,
        )
        seen_B = mask_BL.sum(-1)
        new_B = seen_B if step == 0 else torch.ones_like(seen_B)
        attended_B = new_B * seen_B - new_B * (new_B - 1) // 2  # a new token sees all before it and itself
        count_pass(model, tokens=int(new_B.sum()), attended=int(attended_B.sum()), predicted=len(rows))
        logits_BV = head(output.last_hidden_state[:, -1])
        token_B, logprob_B = draw(logits_BV, uniform[rows, step], temperature)
        stopped_B = torch.isin(token_B, end)
        for row, token, logprob, stop in zip(
            rows.tolist(), token_B.tolist(), logprob_B.tolist(), stopped_B.tolist(), strict=True
        ):
            if not ended[row]:
                tokens[row].append(token)
                logprobs[row].append(logprob)
                ended[row] = stop
        going_B = torch.tensor([not ended[row] for row in rows.tolist()], device=device)
        if not going_B.any():
            break
        if (~going_B).float().mean() >= COMPACT_AT:
            kept = going_B.nonzero()[:, 0]
            cache.batch_select_indices(kept)
            rows, token_B, mask_BL, position_B = rows[kept], token_B[kept], mask_BL[kept], position_B[kept]
        position_B = position_B + 1
        input_BL, position_BL = token_B[:, None], position_B[:, None]
        mask_BL = torch.cat((mask_BL, mask_BL.new_ones(len(mask_BL), 1)), dim=1)
    return [Sample(tuple(t), tuple(p), e) for t, p, e in zip(tokens, logprobs, ended, strict=True)]


def _left_padded(prompts: list[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    length = max(len(prompt) for prompt in prompts)
    input_BL = torch.zeros(len(prompts), length, dtype=torch.long)
    mask_BL = torch.zeros_like(input_BL)
    for i, prompt in enumerate(prompts):
        input_BL[i, length - len(prompt) :] = torch.tensor(list(prompt))
        mask_BL[i, length - len(prompt) :] = 1
    return input_BL.to(device), mask_BL.to(device)
