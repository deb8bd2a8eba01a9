"""The cache folder: where it is, what it holds, and how to clear it.

Only what pairtune itself made is listed or removed, recognised by its name: the folder may be one of the user's and
hold other things. Symbolic links are never followed.
"""

import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from safetensors import SafetensorError, safe_open

from pairtune.progress import counted

# The folders of the cache, what an entry is called there, and the names of entries that pairtune makes.
KINDS = {
    "models": ("model", re.compile(r".+-[0-9a-f]{16}(?:\.partial-\d+)?")),
    "reference": ("reference", re.compile(r"[0-9a-f]{64}(?:-v[0-9a-f]+|\.safetensors)")),
    "checks": ("checks", re.compile("verdicts")),
    "tokens": ("tokens", re.compile(r"[0-9a-f]{64}\.safetensors(?:\.partial-\d+)?")),
    "kernels": ("kernels", re.compile(r"kernels-[0-9a-f]{16}\.(?:so|partial-\d+)")),
}


def cache_folder() -> Path:
    """Where converted models and cached references are kept: $PAIRTUNE_CACHE, or ~/.cache/pairtune."""
    return Path(os.environ.get("PAIRTUNE_CACHE") or Path.home() / ".cache" / "pairtune")


def scratch_file() -> BinaryIO:
    """A nameless file that is gone with this process: in the cache if that may be written, for /tmp may be memory."""
    try:
        cache_folder().mkdir(parents=True, exist_ok=True)
        return cast(BinaryIO, tempfile.TemporaryFile(dir=cache_folder()))
    except OSError:
        return cast(BinaryIO, tempfile.TemporaryFile())


@dataclass(frozen=True)
class Entry:
    """One model or reference in the cache; `about` says what is known of it, from its name and its files' heads."""

    kind: str
    path: Path
    size: int  # bytes
    changed: float  # seconds since 1970
    about: str

    def __str__(self) -> str:
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(self.changed))
        return f"{self.kind:9}  {megabytes(self.size):>12}  {when}  {self.about}"


def entries() -> list[Entry]:
    """What pairtune keeps, models first, each kind by name."""
    found = []
    for name, (kind, known) in KINDS.items():
        folder = cache_folder() / name
        if folder.is_symlink() or not folder.is_dir():
            continue
        for path in sorted(folder.iterdir()):
            if known.fullmatch(path.name) and not path.is_symlink():
                files = list(_files(path))
                about = _about_reference(path) if kind == "reference" else path.name
                size, changed = sum(stat.st_size for stat in files), max((s.st_mtime for s in files), default=0.0)
                found.append(Entry(kind, path, size, changed or path.stat().st_mtime, about))
    return found


def remove(entry: Entry) -> None:
    """Remove an entry that `entries` listed. Links inside it go, what they point to stays."""
    if entry.path.is_dir():
        shutil.rmtree(entry.path)  # refuses a link, and unlinks those below it
    else:
        entry.path.unlink(missing_ok=True)


def megabytes(size: int) -> str:
    """12.3 MB."""
    return f"{size / 1e6:,.1f} MB"


def _files(path: Path) -> Iterator[os.stat_result]:
    """The files of an entry, links not followed; one that vanishes meanwhile is not there."""
    files = (Path(folder, name) for folder, _, names in os.walk(path) for name in names) if path.is_dir() else [path]
    for file in files:
        with suppress(FileNotFoundError):
            yield file.lstat()


def _about_reference(path: Path) -> str:
    """How many responses' log-probabilities it holds, and of which model, as far as its files say."""
    responses, models = 0, set()
    for file in sorted(path.glob("*.safetensors")):
        with suppress(SafetensorError, OSError, KeyError, TypeError, ValueError), safe_open(file, "numpy") as opened:
            about = json.loads(opened.metadata()["about"])
            responses += int(about["responses"])
            models.add(f"{about['model'] or 'a model without a name'}, {about['computes']}")
    if path.suffix == ".safetensors":
        return "of an older version of pairtune"
    said = f"{counted(responses, 'response')} of {'; '.join(sorted(models))}" if models else "nothing that can be read"
    return f"{said}, engine version {path.name.rpartition('-v')[2]}"
