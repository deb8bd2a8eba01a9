"""Hidden states to log-probabilities of response tokens only: the logits of prompts are never computed.

Shape suffixes: T tokens of the pack, R response tokens, C the rows of one chunk, V vocabulary, E hidden size.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers import PreTrainedModel

from pairtune.data.pack import Pack
from pairtune.engine import kernels
from pairtune.engine.attention import NotPackableError
from pairtune.engine.cost import count_pass
from pairtune.engine.hidden import hidden_states

# Rows of logits computed at a time. Every chunk goes once over a gradient of the head's size, which a GPU, whose
# products are quick, would feel.
CHUNK_ROWS = {"cpu": 1024, "cuda": 4096}

# Fields by which configurations say that logits are capped or scaled after the head.
LOGIT_CHANGES = (
    "final_logit_softcapping",
    "logits_soft_cap",
    "output_logit_soft_cap",
    "logit_scale",
    "logits_scaling",
    "lm_head_multiplier",
)


def token_logprobs(model: PreTrainedModel, pack: Pack, *, temperature: float = 1.0) -> Tensor:
    """log π(token | what came before it) of every response token of the pack: [R], nats, float32, differentiable."""
    hidden_TE = hidden_states(model, pack)
    count_pass(model, tokens=0, attended=0, predicted=len(pack.target_R))
    return head_logprobs(model, hidden_TE[pack.source_R], pack.target_R, temperature=temperature)


def head_logprobs(model: PreTrainedModel, hidden_RE: Tensor, target_R: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Log-softmax of the language-model head at the targets: [R], nats, float32."""
    head = plain_head(model)
    return _HeadLogprobs.apply(hidden_RE, head.weight, target_R, temperature)  # type: ignore[no-any-return]


def plain_head(model: PreTrainedModel) -> nn.Linear:
    """The model's head, if its logits are a plain linear map of its hidden states. Raises NotPackableError if not."""
    head = model.get_output_embeddings()
    config = model.config.get_text_config()
    odd = [name for name in LOGIT_CHANGES if getattr(config, name, None) not in (None, 1.0)]
    if not isinstance(head, nn.Linear) or getattr(head, "bias", None) is not None or odd:
        raise NotPackableError(
            f"the model's head is not a plain linear map ({', '.join(odd) or 'bias or other class'})"
        )
    return head


class _HeadLogprobs(torch.autograd.Function):
    """log softmax(h Wᵀ / t) at the targets, whose backward writes the softmax's gradient over the saved logits."""

    @staticmethod
    def forward(ctx: Any, hidden_RE: Tensor, weight_VE: Tensor, target_R: Tensor, temperature: float) -> Tensor:
        needs_grad = ctx.needs_input_grad[0] or ctx.needs_input_grad[1]
        logprobs, normalisers = [], []
        kept: list[Tensor] = []
        chunk = CHUNK_ROWS[hidden_RE.device.type]
        for rows_CE, target_C in zip(hidden_RE.split(chunk), target_R.split(chunk), strict=True):
            logits_CV = rows_CE @ weight_VE.T
            logprob_C, normaliser_C = kernels.logprobs(logits_CV, target_C, temperature)
            logprobs.append(logprob_C)
            normalisers.append(normaliser_C)
            if needs_grad:
                kept.append(logits_CV)
        ctx.save_for_backward(hidden_RE, weight_VE, target_R, torch.cat(normalisers), *kept)
        ctx.temperature, ctx.spent = temperature, False
        return torch.cat(logprobs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        (grad_R,) = grads
        hidden_RE, weight_VE, target_R, normaliser_R, *kept = ctx.saved_tensors
        if ctx.spent:
            raise RuntimeError("a second backward pass needs a second forward pass: the logits were written over")
        ctx.spent = True
        need_hidden, need_weight = ctx.needs_input_grad[:2]
        grad_hidden: list[Tensor] = []
        grad_weight_VE: Tensor | None = None
        parts = (x.split(CHUNK_ROWS[x.device.type]) for x in (hidden_RE, target_R, normaliser_R, grad_R))
        for logits_CV, rows_CE, target_C, normaliser_C, grad_C in zip(kept, *parts, strict=True):
            kernels.logprobs_gradient(logits_CV, target_C, normaliser_C, grad_C, ctx.temperature)
            if need_hidden:
                grad_hidden.append(logits_CV @ weight_VE)
            if need_weight:
                part_VE = logits_CV.T @ rows_CE
                grad_weight_VE = part_VE if grad_weight_VE is None else grad_weight_VE + part_VE
        return torch.cat(grad_hidden) if need_hidden else None, grad_weight_VE, None, None
