"""The slow, plain way to what evaluation and PPO compute: the model's own forward, one sequence at a time, in float64.

Nothing of the engine, the sampler or the objectives is used here.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel


@torch.no_grad()
def token_logprobs(
    model: PreTrainedModel, prompt: Sequence[int], response: Sequence[int], *, temperature: float = 1.0
) -> Tensor:
    """log π of each of the response's tokens at a temperature: [length]."""
    logits = model(input_ids=torch.tensor([[*prompt, *response]]), use_cache=False).logits[0].double() / temperature
    logprobs = logits.log_softmax(-1)
    return torch.stack([logprobs[len(prompt) - 1 + t, token] for t, token in enumerate(response)])


def log_ratio(
    policy: PreTrainedModel,
    reference: PreTrainedModel,
    prompt: Sequence[int],
    response: Sequence[int],
    *,
    temperature: float = 1.0,
) -> float:
    """log π(y|x) − log π_ref(y|x), summed over the response."""
    own, frozen = (token_logprobs(model, prompt, response, temperature=temperature) for model in (policy, reference))
    return float(own.sum() - frozen.sum())


@torch.no_grad()
def kl_of_one_token(
    policy: PreTrainedModel, reference: PreTrainedModel, prompt: Sequence[int], *, temperature: float = 1.0
) -> float:
    """KL(π‖π_ref) of the next token: the sum over the whole vocabulary."""
    own, frozen = (
        (
            model(input_ids=torch.tensor([list(prompt)]), use_cache=False).logits[0, -1].double() / temperature
        ).log_softmax(-1)
        for model in (policy, reference)
    )
    return float((own.exp() * (own - frozen)).sum())


@torch.no_grad()
def scalar_at_the_end(model: torch.nn.Module, prompt: Sequence[int], response: Sequence[int]) -> float:
    """A scalar model's output at the response's last token: w·h + b."""
    return scalars(model, prompt, response)[-1]


@torch.no_grad()
def scalars(model: torch.nn.Module, prompt: Sequence[int], response: Sequence[int]) -> list[float]:
    """A scalar model's output at every token of prompt and response."""
    tokens = torch.tensor([[*prompt, *response]])
    states = model.body.base_model(input_ids=tokens, use_cache=False).last_hidden_state[0].double()
    raw = states @ model.head.weight[0].double() + model.head.bias.double()
    return raw.tolist()
