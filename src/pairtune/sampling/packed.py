"""Drawing with the engine's own buffers: rows side by side, right for models that pass their check.

Shape suffixes: B rows still being written, E hidden size.
"""

from collections.abc import Sequence
from math import isfinite

import torch
from torch import Tensor
from transformers import PreTrainedModel

from pairtune.engine.cost import count_pass
from pairtune.engine.head import head_of
from pairtune.engine.hidden import refuse_infinite
from pairtune.engine.kernels import draw
from pairtune.sampling.answer import Sample
from pairtune.sampling.static import decoder_for


@torch.no_grad()
def sample_packed(
    model: PreTrainedModel,
    prompts: list[Sequence[int]],
    uniform: Tensor,
    end_ids: tuple[int, ...],
    temperature: float,
) -> list[Sample]:
    """One answer to each prompt by the uniform numbers [prompts, longest answer], all rows side by side."""
    uniform = uniform.to(next(model.parameters()).device)
    rows, ends = list(range(len(prompts))), set(end_ids)
    tokens: list[list[int]] = [[] for _ in prompts]
    logprobs: list[list[float]] = [[] for _ in prompts]
    ended = [False] * len(prompts)
    head = head_of(model)
    decoder = decoder_for(model, max(map(len, prompts)) + uniform.shape[1])
    hidden_BE = decoder.begin(prompts)
    for step in range(uniform.shape[1]):
        count_pass(model, tokens=0, attended=0, predicted=len(rows))
        token_B, logprob_B = draw(head.logits(hidden_BE), uniform[:, step], temperature)
        drawn = logprob_B.tolist()
        refuse_infinite(isfinite(sum(drawn)))
        for row, token, logprob in zip(rows, token_B.tolist(), drawn, strict=True):
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
