"""Log-probabilities on disk, found by content: a folder for each model, and in it files that are written once.

A file holds the values of many responses: a digest of each (prompt, response), where its values end, the values
themselves (nats, float32, one a token), and what it took to compute them. It appears whole, by renaming, under the
SHA-256 of its own bytes: a file that is not what was written shows, and processes that write at once cannot meet.

Shapes: S responses of the rows asked for, M responses in the files.
"""

import hashlib
import json
import tempfile
import uuid
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from pairtune.data.pack import Tokens
from pairtune.data.store import Mapped, OnDisk, map_tensors
from pairtune.engine.cost import Cost
from pairtune.hashes import file_hash
from pairtune.progress import say

# 128 bits; NumPy sorts and compares such bytes as they stand (all have one length, so a zero at the end is no matter).
DIGEST = "S16"


@dataclass(frozen=True)
class LogprobFile:
    """One file: digests [M] of 16 bytes, ends [M], the values memory-mapped, and the pass that made them."""

    digests: np.ndarray
    ends: np.ndarray
    values: Mapped
    cost: Cost
    tokens: int  # of the rows that the pass was over

    @classmethod
    def open(cls, path: Path) -> "LogprobFile":
        """A file that is known to be sound."""
        with path.open("rb") as file:
            metadata, tensors = map_tensors(file)
        about = json.loads(metadata["about"])
        digests, ends = tensors["digests"].array.view(DIGEST), tensors["ends"].array
        return cls(digests, ends, tensors["logprobs"], Cost(**about["cost"]), about["tokens"])


def open_files(folder: Path) -> tuple[list[LogprobFile], int]:
    """The folder's sound files, and how many were damaged; those are removed."""
    files, damaged = [], 0
    for path in sorted(folder.glob("*.safetensors")):
        try:
            if file_hash(path) == path.stem:
                files.append(LogprobFile.open(path))
                continue
            path.unlink()
        except FileNotFoundError:  # cleared meanwhile
            continue
        damaged += 1
    return files, damaged


def write_file(
    folder: Path,
    digests: np.ndarray,
    sizes: Sequence[int],
    values: Tensor,
    cost: Cost,
    *,
    tokens: int,
    about: dict[str, str],
) -> LogprobFile:
    """Keep the values of responses with these digests [M] and numbers of tokens, end to end in that order.

    Where the folder has no room, or is cleared meanwhile, they are kept for this process alone, and that is said.
    """
    facts = {**about, "responses": len(digests), "tokens": tokens, "cost": cost.to_json()}
    try:
        return _write(folder, digests, sizes, values, facts)
    except (OSError, SafetensorError) as error:
        say(f"reference: cannot be kept for another run ({' '.join(str(error).split())})")
        with tempfile.TemporaryDirectory() as own:  # what is open stays readable
            return _write(Path(own), digests, sizes, values, facts)


def _write(
    folder: Path, digests: np.ndarray, sizes: Sequence[int], values: Tensor, facts: Mapping[str, Any]
) -> LogprobFile:
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f"partial-{uuid.uuid4().hex}"
    tensors = {
        "digests": torch.from_numpy(digests.view(np.uint8).reshape(-1, 16)),
        "ends": torch.tensor(sizes).cumsum(0),
        "logprobs": values,
    }
    try:
        save_file(tensors, partial, metadata={"about": json.dumps(facts)})
        path = folder / f"{file_hash(partial)}.safetensors"
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return LogprobFile.open(path)


def response_digests(rows: Iterable[Tokens]) -> tuple[np.ndarray, np.ndarray]:
    """Of each (prompt, response), row after row: [S]; and the number of each row's responses: [N].

    The same response finds its values in any row.
    """
    digests, counts = bytearray(), array("q")
    for row in rows:
        counts.append(len(row.responses))
        length = array("q", [len(row.prompt)]).tobytes()  # or a token could change sides
        prompt = hashlib.blake2b(length + array("i", row.prompt).tobytes(), digest_size=16)
        for response in row.responses:
            digest = prompt.copy()
            digest.update(array("i", response).tobytes())
            digests += digest.digest()
    return np.frombuffer(digests, dtype=DIGEST), np.asarray(counts)


def find(files: Sequence[LogprobFile], digests: np.ndarray) -> np.ndarray:
    """For each response the file that holds it (-1: none) and where on it: [S, 3] of file, begin, end."""
    places = np.full((len(digests), 3), -1)
    if not files:
        return places
    held = np.concatenate([file.digests for file in files])
    ends = np.concatenate([file.ends for file in files])
    begins = np.concatenate([np.concatenate(([0], file.ends[:-1])) for file in files])
    file_M = np.repeat(np.arange(len(files)), [len(file.digests) for file in files])
    order = np.argsort(held, kind="stable")
    at = order[np.searchsorted(held[order], digests).clip(max=len(order) - 1)]
    hit = held[at] == digests
    places[hit] = np.stack([file_M[at], begins[at], ends[at]], axis=1)[hit]
    return places


class Kept(OnDisk[Tensor]):
    """A tensor a row: the values of its responses, end to end. `places` [N, 2]: its first response, its last + 1."""

    def __init__(self, files: Sequence[LogprobFile], found: np.ndarray, places: np.ndarray) -> None:
        super().__init__(places)
        self.files, self.found = files, found

    def item(self, place: list[int]) -> Tensor:
        """The values of the responses from place[0] to place[1]."""
        parts = self.found[place[0] : place[1]].tolist()
        values = [self.files[file].values.read(begin, end) for file, begin, end in parts]
        return torch.from_numpy(np.concatenate(values))
