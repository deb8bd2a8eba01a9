"""Which prompts a model was trained on, known by their content: hashes that lie in a result's folder.

A prompt is what was asked, the turns but for system's: a text and a user's turn of the same words are one prompt, and
white space around it does not count. What was trained from a trained model was trained on its prompts too.
"""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from pairtune.data.formats import asked_in
from pairtune.data.schema import Message, PromptText
from pairtune.data.shorten import OPENING
from pairtune.errors import InputError

FILE = "trained_prompts.safetensors"
#: Where a comparison keeps what all its arms were trained on, from a model's folder.
SHARED = Path("../../stages/pairs")

Hashes = NDArray[np.uint64]


def hashes_of(prompts: Iterable[PromptText]) -> Hashes:
    """The hash of each distinct prompt, in ascending order: [prompts]."""
    return np.unique(np.fromiter(map(_hash, prompts), dtype=np.uint64))


def trained_on(model: str) -> Hashes | None:
    """The prompts that a model's folder says it was trained on; None where nothing is known."""
    folder = Path(model).expanduser()
    files = [path / FILE for path in (folder, folder / SHARED) if (path / FILE).is_file()]
    if not files:
        return None
    try:
        return np.unique(np.concatenate([load_file(file)["prompts"] for file in files]))
    except (OSError, KeyError, ValueError, SafetensorError) as error:
        raise InputError(
            f"{model}: what it was trained on cannot be read, {FILE} is damaged; remove that file, and nothing is known"
        ) from error


def keep(folder: Path, prompts: Hashes, *, model: str) -> None:
    """Write down what is trained on here, and what `model` was trained on before."""
    before = trained_on(model)
    partial = folder / f"{FILE}.partial"
    save_file({"prompts": prompts if before is None else np.union1d(prompts, before)}, partial)
    partial.replace(folder / FILE)


def _hash(prompt: PromptText) -> int:
    turns = (asked_in(prompt) or (Message("user", prompt),)) if isinstance(prompt, str) else prompt
    said = [[turn.role, turn.content.strip()] for turn in turns if turn.role not in OPENING]
    digest = hashlib.blake2b(json.dumps(said).encode("ascii"), digest_size=8)
    return int.from_bytes(digest.digest(), "little")
