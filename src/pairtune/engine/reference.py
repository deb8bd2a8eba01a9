"""The reference's log-probabilities: computed once per response token, kept on disk by content.

The key is what the numbers depend on: weights and configuration, token ids, dtype and device kind, engine version.
A run with another beta or objective finds them again; an edited model or data set never does.
"""

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedModel

from pairtune.data.pack import Tokens, batches_by_tokens, pack
from pairtune.engine.cost import Cost, measured
from pairtune.engine.logprob import token_logprobs
from pairtune.models.load import cache_folder, weights_hash

# Raise it whenever the engine's numbers change.
ENGINE_VERSION = 1

# Fields of a model's configuration that its numbers do not depend on: where it lies, who wrote it, how it decodes.
INDIFFERENT = {
    *("_name_or_path", "transformers_version", "architectures", "dtype", "torch_dtype", "use_cache"),
    *("bos_token_id", "eos_token_id", "pad_token_id"),
}


def compute_logprobs(
    model: PreTrainedModel,
    rows: Sequence[Tokens],
    *,
    tokens_per_pass: int,
    temperature: float = 1.0,
    progress: Callable[[int], None] = lambda rows: None,
) -> list[Tensor]:
    """log π of every response token, without gradients: for each row, its responses' tokens end to end, float32."""
    device = next(model.parameters()).device
    result: list[Tensor] = [torch.empty(0)] * len(rows)
    with torch.no_grad():
        for group in batches_by_tokens(rows, tokens_per_pass):
            batch = pack([rows[i] for i in group]).to(device)
            logprobs_R = token_logprobs(model, batch, temperature=temperature).cpu()
            sizes = [sum(len(response) for response in rows[i].responses) for i in group]
            for i, values in zip(group, torch.split(logprobs_R, sizes), strict=True):
                result[i] = values.clone()
            progress(len(group))
    return result


def reference_logprobs(
    model: PreTrainedModel,
    rows: Sequence[Tokens],
    *,
    tokens_per_pass: int,
    say: Callable[[str], None] = lambda line: None,
    progress: Callable[[int], None] = lambda rows: None,
) -> tuple[list[Tensor], Cost]:
    """`compute_logprobs` of a frozen model, from the cache where it has been computed before, and what it cost then."""
    path = cache_folder() / "reference" / f"{cache_key(model, rows)}.safetensors"
    sizes = [sum(len(response) for response in row.responses) for row in rows]
    kept, trouble = _read(path, sum(sizes))
    if kept is not None:
        say(f"reference: {len(rows)} rows from the cache")
        progress(len(rows))
        values, cost = kept
        return list(torch.split(values, sizes)), cost
    if trouble:
        say(f"reference: the cached values cannot be used ({trouble}); computing them again")
    with measured() as cost:
        computed = compute_logprobs(model, rows, tokens_per_pass=tokens_per_pass, progress=progress)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".partial-{os.getpid()}")
    joined = torch.cat(computed)
    save_file({"logprobs": joined}, partial, metadata={"sum": _checksum(joined), "cost": json.dumps(cost.to_json())})
    partial.replace(path)
    return computed, cost


def cache_key(model: PreTrainedModel, rows: Sequence[Tokens]) -> str:
    """SHA-256 over everything that the reference's numbers depend on."""
    parameter = next(model.parameters())
    digest = hashlib.sha256(f"{ENGINE_VERSION} {parameter.dtype} {parameter.device.type} ".encode())
    digest.update(weights_hash(model).encode())
    config = {k: v for k, v in model.config.to_dict().items() if k not in INDIFFERENT}
    digest.update(json.dumps(config, sort_keys=True, default=str).encode())
    for row in rows:
        for part in (row.prompt, *row.responses):
            digest.update(np.array([len(part), *part], dtype=np.int64).tobytes())
        digest.update(b"|")
    return digest.hexdigest()


def _read(path: Path, tokens: int) -> tuple[tuple[Tensor, Cost] | None, str]:
    """The cached values and their cost, or None and what is wrong with the file (nothing if there is none)."""
    if not path.is_file():
        return None, ""
    try:
        values = load_file(path)["logprobs"]
        with safe_open(path, framework="pt") as file:
            facts = file.metadata() or {}
        cost = Cost(**json.loads(facts["cost"]))
    except (SafetensorError, OSError, KeyError, ValueError, TypeError) as error:
        return None, f"the file is damaged: {error}"
    if values.shape != (tokens,) or _checksum(values) != facts.get("sum"):
        return None, "the file does not hold what was written"
    return (values, cost), ""


def _checksum(values: Tensor) -> str:
    return hashlib.sha256(values.numpy().tobytes()).hexdigest()
