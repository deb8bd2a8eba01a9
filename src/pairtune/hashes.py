"""Identity by content: SHA-256 of files, of models where they lie, of plain values."""

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

# Files of a model's folder that say what the model is: configuration, weights, tokenizer.
OF_MODELS = (".safetensors", ".json", ".jinja", ".model", ".txt")
# What adapters are known by: they name the model that they belong to.
ADAPTERS = "adapter_config.json"
# A smaller file is read again whenever it is asked for, in bytes; a larger one only once it has changed.
SMALL = 1 << 20


def file_hash(path: Path) -> str:
    """SHA-256 of a file's content. A large file is read once, as long as its size and times stay as they are."""
    stat = path.stat()
    if stat.st_size < SMALL:
        return _read(path)
    return _remembered(path.absolute(), stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)


@cache
def _remembered(path: Path, *_: int) -> str:
    return _read(path)


def _read(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def value_hash(value: Any) -> str:
    """SHA-256 of a plain value as canonical JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def model_hash(source: str) -> str:
    """SHA-256 of a model's configuration, weights and tokenizer files; of its name where it lies on a hub.

    Of adapters also those of their base.

    source: as `models.load.resolve` gives it.
    """
    folder = Path(source)
    if not folder.is_dir():
        return f"hub:{source}"
    digest = hashlib.sha256()
    if (base := _base_of(folder)) and not (Path(base) / ADAPTERS).is_file():
        digest.update(model_hash(base).encode())
    for path in sorted(folder.iterdir()):
        if path.suffix in OF_MODELS:
            digest.update(f"{path.name}{file_hash(path)}".encode())
    return digest.hexdigest()


def _base_of(folder: Path) -> str:
    """The model that adapters name; nothing of another folder, or where what they say cannot be read: loading tells."""
    try:
        return str(json.loads((folder / ADAPTERS).read_text(encoding="utf-8"))["base_model_name_or_path"] or "")
    except (OSError, ValueError, KeyError, TypeError):
        return ""
