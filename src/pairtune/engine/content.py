"""What a model's numbers depend on, as a key: what is computed with it is found again by its content, not its name."""

import hashlib
import json

from transformers import PreTrainedModel

from pairtune.engine.fusion import describe
from pairtune.models.load import weights_hash

# Raise it whenever the engine's numbers change.
ENGINE_VERSION = 3

# Fields of a model's configuration that its numbers do not depend on: where it lies, who wrote it, how it decodes.
INDIFFERENT = {
    *("_name_or_path", "transformers_version", "architectures", "dtype", "torch_dtype", "use_cache"),
    *("bos_token_id", "eos_token_id", "pad_token_id"),
}


def model_key(model: PreTrainedModel) -> str:
    """SHA-256 over everything but the rows and the engine that the model's numbers depend on."""
    digest = hashlib.sha256(json.dumps([about(model)["computes"], describe(model)]).encode())
    digest.update(weights_hash(model).encode())
    config = {k: v for k, v in model.config.to_dict().items() if k not in INDIFFERENT}
    digest.update(json.dumps(config, sort_keys=True, default=str).encode())
    return digest.hexdigest()


def about(model: PreTrainedModel) -> dict[str, str]:
    """What a file says of the model that its values are of."""
    parameter = next(model.parameters())
    dtype = str(parameter.dtype).removeprefix("torch.")
    return {"model": str(model.config.name_or_path), "computes": f"{dtype} on {parameter.device.type}"}
