"""The hub of models and data sets: one short look whether a name is there, before libraries try for a minute."""

import os
import re
from pathlib import Path
from typing import Literal

from pairtune.errors import InputError
from pairtune.hints import near_path

# Seconds that the hub has to answer.
PATIENCE = 10.0
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(?:/[A-Za-z0-9][\w.-]*)?\Z", re.ASCII)


def is_path(name: str) -> bool:
    """Whether only a path can be meant: no hub name, or one below a folder that is here."""
    if not _NAME.match(name) or name.lower().endswith((".gguf", ".safetensors", ".bin", ".pt")):
        return True
    return "/" in name and Path(name).parent.is_dir()


def check_path(name: str) -> None:
    """Raises InputError, before anything heavy is imported, where a model can only be a path and is not there."""
    path = Path(name).expanduser()
    if name and not path.exists() and is_path(name):
        raise InputError(
            f'model {"file" if path.suffix == ".gguf" else "folder"} "{name}" does not exist{near_path(path)}'
        )


def look(name: str, kind: Literal["model", "dataset"]) -> bool:
    """Whether libraries may be let look for it; False where the hub cannot be reached and they would try for a minute.

    With HF_HUB_OFFLINE they look in their caches only, which is quick. Raises InputError where it has none of
    that name.
    """
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import RepositoryNotFoundError

    if Path(name).is_symlink():
        raise InputError(f'{kind} "{name}" is a link to nothing; mend it, or give another path')
    if constants.HF_HUB_OFFLINE:
        return True
    try:
        ask = HfApi().model_info if kind == "model" else HfApi().dataset_info
        ask(name, timeout=PATIENCE)
    except RepositoryNotFoundError as error:
        raise InputError(
            f'{kind} "{name}" is not here, and the hub has none of that name, or a private one (`hf auth login`)'
            f"{near_path(name)}"
        ) from error
    except Exception:  # no network, a proxy's answer, a hub that is down: it cannot be asked
        return False
    return True


def unreachable(name: str, kind: Literal["model", "dataset"]) -> InputError:
    """The error for what is neither here nor in a cache, while the hub cannot be asked."""
    hint = near_path(name) or "; give a path, or check the network"
    return InputError(f'{kind} "{name}" is no file or folder here, and the hub cannot be reached{hint}')


def cached_model(name: str) -> str | None:
    """The folder of a hub model that was downloaded before, or None."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(name, "config.json")
    return os.path.dirname(found) if isinstance(found, str) else None
