"""What a model's numbers depend on, as a key: what is computed with it is found again by its content, not its name."""

import hashlib
import inspect
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
import transformers
from torch import Tensor, nn
from transformers import PreTrainedModel

from pairtune.engine import varlen
from pairtune.engine.compile import is_large, obstacle
from pairtune.engine.cpp import built, fingerprint
from pairtune.engine.path import paths_of
from pairtune.hashes import value_hash
from pairtune.models import adapters

# Fields of a model's configuration that its numbers do not depend on: where it lies, who wrote it, how it decodes.
INDIFFERENT = {
    *("_name_or_path", "transformers_version", "architectures", "dtype", "torch_dtype", "use_cache"),
    *("bos_token_id", "eos_token_id", "pad_token_id"),
}


def model_key(model: PreTrainedModel) -> str:
    """SHA-256 over everything but the rows and the engine that the model's numbers depend on."""
    digest = hashlib.sha256(json.dumps(_facts(model), sort_keys=True).encode())
    digest.update(weights_hash(model).encode())
    digest.update(structure(model).encode())
    digest.update(_foreign_code(model).encode())
    return digest.hexdigest()


def structure(model: PreTrainedModel) -> str:
    """The model's configuration, as far as its numbers depend on it: what it is but for its weights."""
    config = {k: v for k, v in model.config.to_dict().items() if k not in INDIFFERENT}
    return json.dumps(config, sort_keys=True, default=str)


def _foreign_code(model: PreTrainedModel) -> str:
    """A hash of the sources beside a model's classes where those are not transformers' own; else empty.

    A version says what a library's class computes, and of code that came with a model only its text does.
    """
    known = ("transformers", "torch", "pairtune", "peft")
    kinds = {type(module) for module in model.modules() if type(module).__module__.partition(".")[0] not in known}
    digest = hashlib.sha256()
    for path in sorted({source for kind in kinds for source in Path(inspect.getfile(kind)).parent.glob("*.py")}):
        digest.update(f"{path.name} ".encode() + path.read_bytes())
    return digest.hexdigest() if kinds else ""


def _facts(model: PreTrainedModel) -> dict[str, str | bool]:
    """What computes the model's numbers here: each of these may change their last bits, or more."""
    parameter = next(model.parameters())
    on_cuda = parameter.device.type == "cuda"
    return {
        "dtype": str(parameter.dtype),
        "device": torch.cuda.get_device_name(parameter.device) if on_cuda else parameter.device.type,
        "attention": (varlen.kernel_name(model) or "") if on_cuda else "",
        "kernels": "" if on_cuda or not built() else fingerprint(),
        "compiled": is_large(model) and not obstacle(),
        "path": paths_of(model).engine or "packed",
        "torch": str(torch.__version__),
        "transformers": str(transformers.__version__),
    }


def about(model: PreTrainedModel) -> dict[str, str]:
    """What a file says of the model that its values are of."""
    parameter = next(model.parameters())
    dtype = str(parameter.dtype).removeprefix("torch.")
    return {"model": str(model.config.name_or_path), "computes": f"{dtype} on {parameter.device.type}"}


def weights_hash(model: nn.Module) -> str:
    """SHA-256 of the parameters' names, dtypes, shapes and bytes: what these weights are, wherever they lie.

    A model whose adapters are off is its base.
    """
    return tensors_hash(adapters.state(model))


def tensors_hash(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of tensors' names, dtypes, shapes and bytes, hashed side by side."""
    values = sorted(tensors.items())
    with ThreadPoolExecutor() as threads:  # hashing lets go of the interpreter
        hashes = list(threads.map(lambda item: _tensor_hash(item[1]), values))
    return value_hash(
        [
            [name, str(value.dtype), list(value.shape), found]
            for (name, value), found in zip(values, hashes, strict=True)
        ]
    )


def _tensor_hash(value: Tensor) -> str:
    content = value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data
    return hashlib.sha256(content).hexdigest()
