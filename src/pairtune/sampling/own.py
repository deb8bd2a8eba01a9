"""Drawing by the model's own forward: no padding, so that it is right for every architecture.

Rows of one length go together, with whatever cache transformers gives the architecture; or each row goes by itself and
is read anew for every token. Shape suffixes: B rows of one length, L their length, V vocabulary.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, PreTrainedModel

from pairtune.engine.cost import count_pass
from pairtune.engine.hidden import check_finite
from pairtune.engine.kernels import draw
from pairtune.engine.path import settle_rope
from pairtune.models.body import own_logits
from pairtune.sampling.answer import Sample


@torch.no_grad()
def sample_cached(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    uniform: Tensor,
    end_ids: tuple[int, ...],
    temperature: float,
) -> list[Sample]:
    """One answer to each prompt by the uniform numbers [prompts, longest answer], by transformers' own decoding.

    Rows of one length stay of one length, so nothing is ever padded.
    """
    answers: dict[int, Sample] = {}
    for length in sorted({len(prompt) for prompt in prompts}):
        rows = [i for i, prompt in enumerate(prompts) if len(prompt) == length]
        drawn = _generate(model, [list(prompts[i]) for i in rows], uniform[rows], end_ids, temperature)
        answers |= zip(rows, drawn, strict=True)
    return [answers[i] for i in range(len(prompts))]


@torch.no_grad()
def sample_recomputed(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    uniform: Tensor,
    end_ids: tuple[int, ...],
    temperature: float,
) -> list[Sample]:
    """The same row by row, every token from a pass over all that came before it. Slow, and right by definition."""
    return [
        _recompute(model, list(prompt), numbers, end_ids, temperature)
        for prompt, numbers in zip(prompts, uniform, strict=True)
    ]


def _recompute(
    model: PreTrainedModel, prompt: list[int], uniform: Tensor, end_ids: tuple[int, ...], temperature: float
) -> Sample:
    uniform, tokens, logprobs = uniform.to(model.device), list(prompt), []
    for number in uniform:
        settle_rope(model)
        count_pass(model, tokens=len(tokens), attended=len(tokens) * (len(tokens) + 1) // 2, predicted=1)
        logits_1V = own_logits(model, torch.tensor([tokens], device=model.device))[:, -1]
        token_B, logprob_B = _draw(logits_1V, number[None], temperature)
        tokens.append(int(token_B))
        logprobs.append(float(logprob_B))
        if tokens[-1] in end_ids:
            break
    response = tuple(tokens[len(prompt) :])
    return Sample(response, tuple(logprobs), response[-1] in end_ids)


def _generate(
    model: PreTrainedModel, prompts: list[list[int]], uniform: Tensor, end_ids: tuple[int, ...], temperature: float
) -> list[Sample]:
    input_BL = torch.tensor(prompts, device=model.device)
    drawing = _Drawing(uniform.to(model.device), input_BL.shape[1], temperature)
    settings = GenerationConfig(
        max_new_tokens=uniform.shape[1],
        do_sample=False,  # of what the drawing leaves, which is one token
        eos_token_id=list(end_ids) or None,
        pad_token_id=end_ids[0] if end_ids else 0,
        use_cache=True,
    )
    own, config_cache = model.generation_config, model.config.use_cache
    model.generation_config = GenerationConfig()  # or its penalties and forced tokens would be mixed in
    settle_rope(model)
    try:
        generate: Any = model.generate
        generate(
            input_BL,
            attention_mask=torch.ones_like(input_BL),
            generation_config=settings,
            logits_processor=LogitsProcessorList([drawing]),
        )
    finally:
        model.generation_config, model.config.use_cache = own, config_cache
    steps, rows = len(drawing.tokens), len(prompts)
    new = torch.arange(steps) + 1
    attended = int(rows * (input_BL.shape[1] * (input_BL.shape[1] + 1) // 2 + (input_BL.shape[1] + new).sum()))
    count_pass(model, tokens=rows * (input_BL.shape[1] + steps - 1), attended=attended, predicted=rows * steps)
    columns = torch.stack(drawing.tokens, dim=1).tolist(), torch.stack(drawing.logprobs, dim=1).tolist()
    return [_cut(tokens, logprobs, end_ids) for tokens, logprobs in zip(*columns, strict=True)]


def _cut(tokens: list[int], logprobs: list[float], end_ids: tuple[int, ...]) -> Sample:
    length = next((i + 1 for i, token in enumerate(tokens) if token in end_ids), len(tokens))
    return Sample(tuple(tokens[:length]), tuple(logprobs[:length]), tokens[length - 1] in end_ids)


def _draw(logits_BV: Tensor, uniform_B: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """A token a row. Raises InputError if a logit is not finite (−∞ but for: a token that the model forbids)."""
    token_B, logprob_B = draw(logits_BV.float(), uniform_B, temperature)
    check_finite(logprob_B)
    return token_B, logprob_B


class _Drawing(LogitsProcessor):
    """Draws the next tokens by its own numbers, keeps their log-probabilities, and leaves no other token a chance."""

    def __init__(self, uniform_BN: Tensor, begin: int, temperature: float) -> None:
        self.uniform_BN, self.begin, self.temperature = uniform_BN, begin, temperature
        self.tokens: list[Tensor] = []
        self.logprobs: list[Tensor] = []

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        step = input_ids.shape[1] - self.begin
        token_B, logprob_B = _draw(scores, self.uniform_BN[:, step], self.temperature)
        self.tokens.append(token_B)
        self.logprobs.append(logprob_B)
        return torch.full_like(scores, -torch.inf).scatter_(-1, token_B[:, None], 0.0)
