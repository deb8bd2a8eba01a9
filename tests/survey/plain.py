"""The right values: plain transformers, one sequence at a time, no padding, no cache.

Shape suffixes: L tokens of one sequence, V vocabulary, E hidden size.
"""

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel


@dataclass(frozen=True)
class Row:
    """A prompt and the responses to it, as token ids."""

    prompt: tuple[int, ...]
    responses: tuple[tuple[int, ...], ...]


def forward(model: PreTrainedModel, ids: Sequence[int]) -> Tensor:
    """The logits after each token of one sequence: [L, V]."""
    _begin_anew(model)
    logits = model(input_ids=torch.tensor([list(ids)]), **_without_cache(model)).logits
    if logits.shape[:2] != (1, len(ids)):
        raise ValueError(f"{tuple(logits.shape)} logits for {len(ids)} tokens")
    return logits[0]


def _begin_anew(model: PreTrainedModel) -> None:
    """Dynamically scaled rotary frequencies remember the longest row that they saw, until they see a short one."""
    if "dynamic" in str(getattr(model.config.get_text_config(), "rope_parameters", "")):
        with torch.no_grad():
            model(input_ids=torch.tensor([[3]]), **_without_cache(model))


def _without_cache(model: PreTrainedModel) -> dict[str, bool]:
    return {"use_cache": False} if "use_cache" in inspect.signature(model.forward).parameters else {}


def logprobs(model: PreTrainedModel, row: Row) -> Tensor:
    """log π of every response token of a row, response after response, each behind the prompt alone: nats."""
    parts = []
    for response in row.responses:
        logits_LV = forward(model, (*row.prompt, *response))[len(row.prompt) - 1 : -1]
        parts.append(torch.log_softmax(logits_LV.double(), -1)[range(len(response)), list(response)])
    return torch.cat(parts)


def gradients(model: PreTrainedModel, rows: Sequence[Row], weights: Tensor) -> dict[str, Tensor]:
    """Of Σ weight · log π over all response tokens, with respect to every parameter that it reaches."""
    model.zero_grad(set_to_none=True)
    at = 0
    for row in rows:
        logprob = logprobs(model, row)
        (weights[at : at + len(logprob)] * logprob).sum().backward()
        at += len(logprob)
    found = {name: p.grad.float() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    return found


def last_hidden(model: PreTrainedModel, ids: Sequence[int]) -> Tensor:
    """What the model's body gives after the last token, which a scalar head reads: [E]."""
    body = model.base_model
    if body is not model:
        _begin_anew(model)
        output = body(input_ids=torch.tensor([list(ids)]), **_without_cache(body))
        return output[0][0, -1]
    seen: list[Tensor] = []
    head: nn.Module = model.get_output_embeddings()
    hook = head.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    try:
        forward(model, ids)
    finally:
        hook.remove()
    return seen[-1][0, -1]


def is_causal(model: PreTrainedModel, ids: Sequence[int]) -> bool:
    """Whether no token's logits depend on the tokens after it."""
    cut = len(ids) // 2
    with torch.no_grad():
        other = [*ids[:cut], *((token + 7) % 250 + 3 for token in ids[cut:])]
        first, second = (forward(model, x)[:cut] for x in (ids, other))
    return bool((first - second).abs().max() < 1e-3 * first.abs().max())


def next_logits(model: PreTrainedModel, prompt: Sequence[int], answer: Sequence[int]) -> Tensor:
    """The logits that each token of an answer is drawn from, each from the model's forward over what came before it."""
    with torch.no_grad():
        return torch.stack([forward(model, (*prompt, *answer[:i]))[-1].double() for i in range(len(answer))])


def cached_logits(model: PreTrainedModel, prompt: Sequence[int], answer: Sequence[int]) -> Tensor:
    """The same with transformers' own cache, which for some rotary embeddings remembers keys of a shorter row."""
    _begin_anew(model)
    ids, rows, cache = list(prompt), [], None
    with torch.no_grad():
        for token in answer:
            output = model(input_ids=torch.tensor([ids]), past_key_values=cache, use_cache=True)
            rows.append(output.logits[0, -1].double())
            cache, ids = output.past_key_values, [token]
    return torch.stack(rows)


@contextmanager
def rounded_otherwise(model: PreTrainedModel, *, seed: int) -> Iterator[PreTrainedModel]:
    """Inside, about every third entry of the embeddings is the bfloat16 number next to it."""
    generator = torch.Generator().manual_seed(seed)

    def next_to(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        noise = 2 * torch.rand(output.shape, generator=generator) - 1
        return (output.float() * (1 + 1.5 * 2**-8 * noise)).to(output.dtype)

    hook = model.get_input_embeddings().register_forward_hook(next_to)
    try:
        yield model
    finally:
        hook.remove()


def margins(model: PreTrainedModel, rows: Sequence[Row]) -> Tensor:
    """log π(chosen) − log π(rejected) of each row, in nats."""
    parts = []
    for row in rows:
        chosen, rejected = logprobs(model, row).split([len(response) for response in row.responses])
        parts.append(chosen.sum() - rejected.sum())
    return torch.stack(parts)


def tune(model: PreTrainedModel, rows: Sequence[Row], *, beta: float, rates: Sequence[float], clip: float) -> None:
    """DPO in place, every step on all rows: gradients of the model's dtype, weights and AdamW in float32."""
    with torch.no_grad():
        reference = margins(model, rows)
    parameters = [p for p in model.parameters() if p.requires_grad]
    masters = [p.detach().float().clone().requires_grad_() for p in parameters]
    optimizer = torch.optim.AdamW(masters, weight_decay=0.0)
    for rate in rates:
        model.zero_grad(set_to_none=True)
        for row, of_reference in zip(rows, reference, strict=True):
            margin = margins(model, [row])[0] - of_reference
            (-nn.functional.logsigmoid(beta * margin) / len(rows)).backward()
        for master, parameter in zip(masters, parameters, strict=True):
            master.grad = None if parameter.grad is None else parameter.grad.float()
        torch.nn.utils.clip_grad_norm_([m for m in masters if m.grad is not None], clip)
        optimizer.param_groups[0]["lr"] = rate
        optimizer.step()
        with torch.no_grad():
            for master, parameter in zip(masters, parameters, strict=True):
                parameter.copy_(master)


def contaminated(model: PreTrainedModel, row: Row) -> Tensor:
    """log π of the second response as a leaking pack would have it: behind the prompt and the first response."""
    first, second = row.responses[:2]
    return logprobs(model, Row((*row.prompt, *first), (second,)))
