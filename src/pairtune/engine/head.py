"""Hidden states to log-probabilities by a head that is a linear map, then perhaps scaled and capped.

Shape suffixes: R response tokens, C the rows of one chunk, V vocabulary, E hidden size.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers import PreTrainedModel

from pairtune.engine import kernels
from pairtune.engine.attention import NotPackableError

# Rows of logits computed at a time. Every chunk goes once over a gradient of the head's size, which a GPU, whose
# products are quick, would feel.
CHUNK_ROWS = {"cpu": 1024, "cuda": 4096}

# Fields by which configurations say that logits are multiplied, divided, or capped (c·tanh(logits / c)) after the head.
# Whether a model does what its field says is for its check to see.
MULTIPLIED = ("logit_scale", "lm_head_multiplier")
DIVIDED = ("logits_scaling",)
CAPPED = ("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap")


@dataclass(frozen=True)
class Head:
    """logits = cap·tanh((h Wᵀ + b)·scale / cap), the cap, the scale and the bias only where the model has them."""

    linear: nn.Linear
    scale: float | None = None
    cap: float | None = None

    def logits(self, hidden_RE: Tensor) -> Tensor:
        """The logits of hidden states, in their dtype: [R, V]."""
        return self.changed(self.linear(hidden_RE))

    def changed(self, logits_RV: Tensor) -> Tensor:
        """What the model does to its logits after the linear map."""
        if self.scale is not None:
            logits_RV = logits_RV * self.scale
        if self.cap is not None:
            logits_RV = torch.tanh(logits_RV / self.cap) * self.cap
        return logits_RV

    def carry_back(self, grad_CV: Tensor, capped_CV: Tensor | None) -> Tensor:
        """The gradient of what the linear map gave, from that of the logits; `capped_CV` is their slope by the cap."""
        if capped_CV is not None:
            grad_CV *= capped_CV
        if self.scale is not None:
            grad_CV *= self.scale
        return grad_CV

    def slope(self, logits_CV: Tensor) -> Tensor | None:
        """d capped / d uncapped, from the capped logits: 1 − (logits / cap)²; None without a cap."""
        return None if self.cap is None else 1 - (logits_CV / self.cap) ** 2


def head_of(model: PreTrainedModel) -> Head:
    """The model's head, if it is a linear map that is at most scaled and capped. Raises NotPackableError if not."""
    linear = model.get_output_embeddings()
    if not isinstance(linear, nn.Linear):
        raise NotPackableError("the model's head is not a linear map")
    config = model.config.get_text_config()
    scale = 1.0
    for names, power in ((MULTIPLIED, 1), (DIVIDED, -1)):
        for value in (getattr(config, name, None) for name in names):
            if value and isinstance(value, int | float):
                scale *= float(value) ** power
    cap = next((value for value in (getattr(config, name, None) for name in CAPPED) if value), None)
    return Head(linear, None if scale == 1 else scale, cap)


def head_logprobs(model: PreTrainedModel, hidden_RE: Tensor, target_R: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Log-softmax of the language-model head at the targets: [R], nats, float32."""
    head = head_of(model)
    result: Tensor = _HeadLogprobs.apply(hidden_RE, head.linear.weight, head.linear.bias, target_R, temperature, head)
    return result


class _HeadLogprobs(torch.autograd.Function):
    """log softmax(head(h) / t) at the targets, whose backward writes the softmax's gradient over the saved logits."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden_RE: Tensor,
        weight_VE: Tensor,
        bias_V: Tensor | None,
        target_R: Tensor,
        temperature: float,
        head: Head,
    ) -> Tensor:
        needs_grad = any(ctx.needs_input_grad[:3])
        logprobs, normalisers = [], []
        kept: list[Tensor] = []
        chunk = CHUNK_ROWS[hidden_RE.device.type]
        for rows_CE, target_C in zip(hidden_RE.split(chunk), target_R.split(chunk), strict=True):
            logits_CV = rows_CE @ weight_VE.T
            if bias_V is not None:
                logits_CV += bias_V
            logits_CV = head.changed(logits_CV)
            logprob_C, normaliser_C = kernels.logprobs(logits_CV, target_C, temperature)
            logprobs.append(logprob_C)
            normalisers.append(normaliser_C)
            if needs_grad:
                kept.append(logits_CV)
        ctx.save_for_backward(hidden_RE, weight_VE, target_R, torch.cat(normalisers), *kept)
        ctx.temperature, ctx.head, ctx.spent = temperature, head, False
        return torch.cat(logprobs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad_R,) = grads
        hidden_RE, weight_VE, target_R, normaliser_R, *kept = ctx.saved_tensors
        if ctx.spent:
            raise RuntimeError("a second backward pass needs a second forward pass: the logits were written over")
        ctx.spent = True
        need_hidden, need_weight, need_bias = ctx.needs_input_grad[:3]
        grad_hidden: list[Tensor] = []
        grad_weight_VE: Tensor | None = None
        grad_bias_V: Tensor | None = None
        parts = (x.split(CHUNK_ROWS[x.device.type]) for x in (hidden_RE, target_R, normaliser_R, grad_R))
        for logits_CV, rows_CE, target_C, normaliser_C, grad_C in zip(kept, *parts, strict=True):
            slope_CV = ctx.head.slope(logits_CV)
            kernels.logprobs_gradient(logits_CV, target_C, normaliser_C, grad_C, ctx.temperature)
            ctx.head.carry_back(logits_CV, slope_CV)
            if need_hidden:
                grad_hidden.append(logits_CV @ weight_VE)
            if need_weight:
                part_VE = logits_CV.T @ rows_CE
                grad_weight_VE = part_VE if grad_weight_VE is None else grad_weight_VE + part_VE
            if need_bias:
                part_V = logits_CV.sum(0, dtype=torch.float32)
                grad_bias_V = part_V if grad_bias_V is None else grad_bias_V + part_V
        if grad_bias_V is not None:
            grad_bias_V = grad_bias_V.to(weight_VE.dtype)
        return torch.cat(grad_hidden) if need_hidden else None, grad_weight_VE, grad_bias_V, None, None, None
