"""A float32 copy of a model, to be looked at in few rows, so that rounding hides nothing."""

import copy

import torch
from transformers import PreTrainedModel

from pairtune import memory
from pairtune.engine.compile import leave_plain

# Share of the free memory that a copy may take.
SHARE = 0.5


def exact_copy(model: PreTrainedModel) -> PreTrainedModel:
    """The model itself if its numbers are float32, or if there is no room for a copy; else one in float32."""
    if model.dtype in (torch.float32, torch.float64) or getattr(model, "is_quantized", False):
        return model
    size = 4 * sum(parameter.numel() for parameter in model.parameters())
    if size > SHARE * _free(model.device):
        return model
    result: PreTrainedModel = copy.deepcopy(model).float()
    result.requires_grad_(False)
    leave_plain(result)
    return result


def _free(device: torch.device) -> int:
    """Bytes of free memory on the device."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return memory.free()
