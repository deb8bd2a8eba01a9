"""A causal language model's own forward pass, whatever names its class uses.

Shape suffixes: B rows, L length, E hidden size.
"""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel


def own_logits(model: PreTrainedModel, input_BL: Tensor, mask_BL: Tensor | None = None) -> Tensor:
    """The logits of the model's own forward: [B, L, V], its caps, scales and biases included."""
    logits: Tensor = _run(model, input_BL, mask_BL).logits
    return logits


def final_states(model: PreTrainedModel, input_BL: Tensor, mask_BL: Tensor | None = None) -> Tensor:
    """The last hidden states of the model's own forward, after the final norm: [B, L, E].

    They are what the body gives; of a model that has no body by name, what its head reads.
    """
    if body := body_of(model):
        states: Tensor | None = getattr(_run(body, input_BL, mask_BL), "last_hidden_state", None)
        if states is not None:
            return states
    head, read = model.get_output_embeddings(), list[Tensor]()
    if head is None:
        raise TypeError(f"{type(model).__name__} shows neither its body nor its head")
    with hooked(head, lambda _, inputs: read.append(inputs[0])):
        _run(model, input_BL, mask_BL)
    return read[0]


def body_of(model: PreTrainedModel) -> PreTrainedModel | None:
    """The part of the model that gives its last hidden states; None of a model that shows none.

    `base_model` is the model itself where a class's prefix is not the name of its part.
    """
    if model.base_model is not model:
        return model.base_model  # type: ignore[return-value]  # transformers says nn.Module
    parts = [child for child in model.children() if isinstance(child, PreTrainedModel)]
    return parts[0] if len(parts) == 1 else None


def keep_caps(model: PreTrainedModel) -> None:
    """See that a model whose attention's scores are capped (Gemma 2) computes with the cap.

    torch's fused attention has none; transformers takes it all the same in some versions, and drops the cap.
    """
    capped = getattr(model.config.get_text_config(), "attn_logit_softcapping", None) is not None
    if capped and model.config._attn_implementation == "sdpa":
        model.set_attn_implementation("eager")


def layer_configs(model: PreTrainedModel) -> list[PreTrainedConfig]:
    """Each layer's configuration: one and the same, unless the model's says that layers differ (`per_layer_config`)."""
    config = model.config.get_text_config()
    if getattr(config, "is_heterogeneous", False):
        return list(config.per_layer_config)
    return [config] * (getattr(config, "num_hidden_layers", None) or 0)


@torch.no_grad()
def final_size(model: PreTrainedModel) -> int:
    """The size of the last hidden states, by a look at one: configurations call other sizes by the same name."""
    try:
        return int(final_states(model, torch.zeros(1, 2, dtype=torch.long, device=model.device)).shape[-1])
    except Exception:  # a model with needs of its own; what is wrong with it is the engine's check to tell
        return int(model.config.get_text_config().hidden_size)


@contextmanager
def hooked(module: nn.Module, hook: Any) -> Iterator[None]:
    """Inside, `hook(module, inputs)` is called before the module, and what it returns takes the inputs' place."""
    handle = module.register_forward_pre_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def _run(module: nn.Module, input_BL: Tensor, mask_BL: Tensor | None) -> Any:
    takes = inspect.signature(module.forward).parameters
    arguments: dict[str, Any] = {"input_ids": input_BL}
    if mask_BL is not None:
        arguments["attention_mask"] = mask_BL
    if "use_cache" in takes:
        arguments["use_cache"] = False
    if "return_dict" in takes:
        arguments["return_dict"] = True
    return module(**arguments)
