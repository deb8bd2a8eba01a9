"""The oracle: padded rows, one forward pass for the chosen and one for the rejected side. Slow, plain, obviously right.

Shape suffixes: B rows, L padded length, V vocabulary.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from pairtune.data.pack import Tokens
from pairtune.models.body import own_logits


def response_logprobs(
    model: PreTrainedModel, prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]]
) -> list[Tensor]:
    """log π(token | what came before it) of every response token, in nats: one [length] float32 tensor a response."""
    device = next(model.parameters()).device
    length = max(len(p) + len(r) for p, r in zip(prompts, responses, strict=True))
    input_BL = torch.zeros(len(prompts), length, dtype=torch.long, device=device)
    mask_BL = torch.zeros_like(input_BL)
    for i, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
        input_BL[i, : len(prompt) + len(response)] = torch.tensor([*prompt, *response])
        mask_BL[i, : len(prompt) + len(response)] = 1
    logits_BLV = own_logits(model, input_BL, mask_BL)
    logprobs_BLV = torch.log_softmax(logits_BLV.float(), dim=-1)
    result = []
    for i, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
        steps = torch.arange(len(prompt) - 1, len(prompt) + len(response) - 1, device=device)
        result.append(logprobs_BLV[i, steps, torch.tensor(list(response), device=device)])
    return result


def pair_logprobs(model: PreTrainedModel, rows: Sequence[Tokens]) -> tuple[Tensor, Tensor]:
    """Summed log-probability of each row's chosen and rejected response, in two passes: [B] and [B], nats."""
    prompts = [row.prompt for row in rows]
    chosen = response_logprobs(model, prompts, [row.responses[0] for row in rows])
    rejected = response_logprobs(model, prompts, [row.responses[1] for row in rows])
    return torch.stack([x.sum() for x in chosen]), torch.stack([x.sum() for x in rejected])
