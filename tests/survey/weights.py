"""Random weights that tell: a wrong mask or position changes a model's numbers by far more than rounding does."""

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

# Standard deviation of an embedding's entries, of a product's output where its input has 1, and of biases. A model that
# makes much of its rounding (because it chooses experts or keys, or goes round in loops) has quieter products.
EMBEDDING, GAINS, BIAS = 0.3, (1.4, 0.7), 0.2


def random_model(config: PreTrainedConfig, *, gain: float = GAINS[0], seed: int = 0) -> PreTrainedModel:
    """A float32 model in evaluation mode whose weights are random, informative, and exact in bfloat16."""
    torch.manual_seed(seed)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.eval()
    embeddings = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(_informative(parameter, gain, embedding=id(parameter) in embeddings).bfloat16())
    return model


def _informative(parameter: Tensor, gain: float, *, embedding: bool) -> Tensor:
    noise = torch.randn(parameter.shape)
    if embedding:
        return noise * EMBEDDING
    if parameter.dim() < 2:  # norms, biases, decays, scales: what they begin as means something
        begun = parameter.abs().clamp(max=1.0)
        return parameter + noise * BIAS * torch.where(begun > 0, begun, torch.ones(()))
    inputs = parameter[0].numel() if parameter.dim() > 2 and parameter.shape[1] == 1 else parameter.shape[-1]
    return noise * gain / inputs**0.5
