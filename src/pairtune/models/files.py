"""The files of a model's folder, looked at before a library reads them: what is wrong is said of the file it is in.

Nothing is read that lies outside of the folder, and nothing that would have to be unpickled, whatever the files name.
"""

import json
import math
import re
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import nn
from transformers.utils.hub import cached_file

from pairtune.errors import InputError

CONFIG, INDEX = "config.json", "model.safetensors.index.json"
# Files that hold one object each, some of which may be absent.
OBJECTS = (CONFIG, "generation_config.json", "tokenizer_config.json", "special_tokens_map.json", INDEX)
# A model has no more layers, or experts in one; a configuration that says so would be built for hours. By the names
# that count them, for others speak of layers too: Gemma's vocab_size_per_layer_input.
MOST_LAYERS, MOST_EXPERTS = 1 << 12, 1 << 16
_COUNTS = re.compile(r"(?:(?:num|n)_(?:\w+_)?|(?:encoder|decoder)_)(?:(layers?)|(experts))")
# A tokenizer makes no text more than so many times as long.
MOST_GROWTH = 1000
# Of a name in a message, so many characters are shown.
SHOWN = 60


def check_files(name: str, source: str) -> None:
    """Raises InputError for a file that is not what its name says, or that names one outside of the model's folder.

    source: as `load.resolve` gives it; of a hub name only what its weights are is looked at, the rest is loaded.
    """
    folder = Path(source)
    if not folder.is_dir():
        try:
            found = cached_file(source, INDEX)
        except OSError:  # it has none, or no hub is in reach
            found = None
        if found:
            _check_index(name, Path(found), beside=False)
        return
    for file in OBJECTS:
        path = folder / file
        if path.is_file():
            content = _object(name, path)
            if file == INDEX:
                _check_index(name, path, content)
            if file == CONFIG:
                _check_config(name, content)
            if file == "generation_config.json":
                _check_ends(name, content)


def _object(name: str, path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f'model "{name}": its {path.name} cannot be read: {_first_line(error)}') from error
    if not isinstance(content, dict):
        raise InputError(f'model "{name}": its {path.name} must hold an object, {{"name": value}}')
    return content


def _check_config(name: str, config: dict[str, Any]) -> None:
    kinds = config.get("architectures")
    if kinds is not None and not (isinstance(kinds, list) and all(isinstance(kind, str) for kind in kinds)):
        raise InputError(f'model "{name}": architectures in its {CONFIG} must be a list of names')
    if "model_type" in config and not isinstance(config["model_type"], str):
        raise InputError(f'model "{name}": model_type in its {CONFIG} must be a name')
    weights = config.get("transformers_weights")
    if weights is not None and not _is_safe(weights):
        raise InputError(_outside(name, CONFIG, weights))
    for key, value in _numbers(config):
        if counts := _COUNTS.fullmatch(key):
            most = MOST_LAYERS if counts[1] else MOST_EXPERTS
            if value > most:
                raise InputError(f'model "{name}": {key} in its {CONFIG} is {value:.0f}; no model has more than {most}')


def _numbers(config: dict[str, Any]) -> Iterator[tuple[str, float]]:
    for key, value in config.items():
        if isinstance(value, dict):
            yield from _numbers(value)
        elif isinstance(value, int | float):
            yield key, value


def _check_ends(name: str, config: dict[str, Any]) -> None:
    """Ends that are no ids would never be met, and every answer would run on to its longest."""
    given = config.get("eos_token_id")
    ends = given if isinstance(given, list) else [] if given is None else [given]
    if not all(isinstance(end, int) and not isinstance(end, bool) and end >= 0 for end in ends):
        raise InputError(
            f'model "{name}": eos_token_id in its generation_config.json must be a token id, or a list of them'
        )


def _check_index(name: str, path: Path, content: dict[str, Any] | None = None, *, beside: bool = True) -> None:
    """Every shard is a .safetensors file beside the index."""
    shards = (content if content is not None else _object(name, path)).get("weight_map")
    if not isinstance(shards, dict):
        raise InputError(f'model "{name}": its {path.name} has no weight_map from tensors to files')
    for shard in dict.fromkeys(map(str, shards.values())):
        if not _is_safe(shard):
            raise InputError(_outside(name, path.name, shard))
        if beside and not (path.parent / shard).is_file():
            raise InputError(f'model "{name}": "{shard[:SHOWN]}", which its {path.name} names, is not in its folder')


def _is_safe(file: object) -> bool:
    """Whether a name is that of a safetensors file in the same folder, or below it."""
    if not isinstance(file, str) or not file.endswith(".safetensors") or "\0" in file:
        return False
    return all(
        not path.is_absolute() and ".." not in path.parts for path in (PurePosixPath(file), PureWindowsPath(file))
    )


def _outside(name: str, file: str, given: object) -> str:
    return (
        f'model "{name}": its {file} takes weights from "{str(given)[:SHOWN]}"; only .safetensors files in its own '
        "folder are read, and nothing is unpickled"
    )


def other_shape(source: str, model: nn.Module) -> str:
    """The first tensor of a folder's files whose shape is not the model's, in words; nothing where none is found."""
    wanted = {key: list(value.shape) for key, value in model.state_dict(keep_vars=True).items()}
    for path in sorted(Path(source).glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for key in sorted(wanted.keys() & set(file.keys())):
                shape = list(file.get_slice(key).get_shape())
                if shape != wanted[key]:
                    return f"{key} in {path.name} has the shape {shape}, and by {CONFIG} it is {wanted[key]}"
    return ""


def file_of(source: str, tensor: str) -> str:
    """The file of a model's folder that holds a tensor of this name, or one that ends so; nothing if none does."""
    for path in sorted(Path(source).glob("*.safetensors")):
        try:
            with safe_open(path, framework="pt") as file:
                if any(tensor == key or tensor.endswith(f".{key}") for key in [*file.keys()]):
                    return str(path)
        except (SafetensorError, OSError):
            continue
    return ""


def check_growth(name: str, parts: Iterable[Any]) -> None:
    """Raises InputError for steps of a tokenizer (a normalizer, a decoder) that make a text many times as long.

    They run in Rust, out of reach of every limit: a few of them turn a line into more than any memory holds.
    """
    for part in parts:
        if part is not None and (times := _growth(json.loads(part.__getstate__()))) > MOST_GROWTH:
            raise InputError(f'the tokenizer of model "{name}" makes a text up to {times:.3g} times as long; mend it')


def _growth(step: Any) -> float:
    """How many times as long its replacements together can make a text."""
    if isinstance(step, list):
        return math.prod(map(_growth, step))
    if not isinstance(step, dict):
        return 1.0
    if step.get("type") == "Replace":
        pattern = step.get("pattern") or {}
        return max(1.0, len(str(step.get("content", ""))) / max(1, len(str(pattern.get("String", "")))))
    return math.prod(map(_growth, step.values()))


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
