"""Which files a name means: one, a folder of shards, a pattern, standard input, what datasets saved to disk."""

import atexit
import functools
import glob
import hashlib
import json
import re
import sys
import tempfile
from pathlib import Path

from pairtune import hub, own
from pairtune.data.asked import NOTHING, Asked
from pairtune.data.wording import listed, quoted
from pairtune.errors import InputError
from pairtune.hashes import file_hash
from pairtune.hints import near_path
from pairtune.progress import say
from pairtune.rank import size

KNOWN = "a .jsonl, .json, .csv, .tsv, .parquet or .arrow file (each also zipped) or a folder of them"
SUFFIX = re.compile(r"\.(jsonl|ndjson|json|csv|tsv|parquet|arrow)(?:\.(?:gz|zst|zstd|bz2|xz))?\Z", re.IGNORECASE)
STDIN = "-"
STDIN_NAME = "standard input"
# Parts of a data set that are for measuring.
_MEASURED = re.compile(r"(?:\A|[^a-z])(?:test|tests|valid|validation|val|dev|eval)(?:[^a-z]|\Z)", re.IGNORECASE)


def local_files(source: str) -> list[Path] | None:
    """The files that ``source`` names, None for a hub's dataset or a function; InputError if they are not there."""
    shown = quoted(source, 80)
    if own.is_own(source):
        own.sha256(source)
        return None
    if source == STDIN:
        return [_standard_input()]
    if not source.strip() or "\0" in source:
        raise InputError(f"{shown} is not a data source; give {KNOWN}, or the name of a hub dataset")
    path = Path(source).expanduser()
    try:
        if path.is_dir():
            return _in_folder(path)
        exists = path.exists()
    except OSError as error:
        raise InputError(f"{shown} cannot be read: {error.strerror or error}") from None
    if exists and not SUFFIX.search(path.name):
        raise InputError(f"{shown} is not a kind of file that can be read; give {KNOWN}")
    if exists:
        return [path]
    if glob.has_magic(source):
        return _matching(source)
    if SUFFIX.search(source) or hub.is_path(source):
        hint = near_path(path) or "; check the path (it is relative to the current folder)"
        raise InputError(f"{shown} does not exist{hint}")
    return None


def data_hash(source: str, asked: Asked = NOTHING) -> str:
    """SHA-256 of a data file, of several, or of a function's rows; what lies on a hub by its name, and what of it."""
    if own.is_own(source):
        return own.rows_hash(source)
    files = local_files(source)
    if files is None:
        parts = [asked.data_config, asked.data_split, asked.data_revision]
        return f"hub:{source}" + (f" {json.dumps(parts)}" if parts != ["", "train", ""] else "")
    if len(files) == 1:
        return file_hash(files[0])
    return hashlib.sha256("".join(map(file_hash, files)).encode()).hexdigest()


def name_of(path: Path) -> str:
    """What a file is called in messages."""
    return STDIN_NAME if path.name.startswith(_PREFIX) else str(path)


def _matching(pattern: str) -> list[Path]:
    files = sorted(Path(name) for name in glob.glob(str(Path(pattern).expanduser()), recursive=True))
    files = [file for file in files if file.is_file()]
    if not files:
        raise InputError(f"{quoted(pattern, 80)} matches no file; check the pattern")
    wrong = [file for file in files if not SUFFIX.search(file.name)]
    if wrong:
        raise InputError(f"{quoted(str(wrong[0]), 80)} is not a kind of file that can be read; give {KNOWN}")
    return files


def _in_folder(folder: Path) -> list[Path]:
    """The files of a folder that are one set: shards of one name, those to train on where some are for measuring."""
    shown = f"folder {quoted(str(folder), 80)}"
    if (folder / "dataset_dict.json").is_file():
        return _in_folder(_part(folder))
    if (folder / "state.json").is_file():
        return _saved(folder)
    files = sorted(path for path in folder.iterdir() if path.is_file() and SUFFIX.search(path.name))
    if not files and (folder / "data").is_dir():  # as repositories of data sets are laid out
        return _in_folder(folder / "data")
    if not files:
        raise InputError(f"{shown} holds no data; give {KNOWN}")
    train = [path for path in files if not _MEASURED.search(path.name)] or files
    if len({re.sub(r"\d+", "0", path.name) for path in train}) != 1:
        names = listed((path.name for path in files), limit=4)
        raise InputError(f"{shown} holds {len(files)} data files ({names}); give one of them")
    if len(train) < len(files):
        apart = listed((path.name for path in files if path not in train), limit=4)
        say(f"data: {apart} of {shown} is left for measuring: not read")
    return train


def _saved(folder: Path) -> list[Path]:
    """The files of what a `Dataset` saved, in its order."""
    named = _json(folder / "state.json").get("_data_files", [])
    names = [str(file.get("filename", "")) for file in named if isinstance(file, dict)]
    if not names or not all(SUFFIX.search(name) and (folder / name).is_file() for name in names):
        raise InputError(f"folder {quoted(str(folder), 80)} names files that are not in it; save the dataset again")
    return [folder / name for name in names]


def _part(folder: Path) -> Path:
    """The part to train on of what a `DatasetDict` saved."""
    parts = [str(name) for name in _json(folder / "dataset_dict.json").get("splits", [])]
    name = "train" if "train" in parts else parts[0] if len(parts) == 1 else ""
    if not name:
        raise InputError(f"folder {quoted(str(folder), 80)} holds the parts {listed(parts)}; give one of them")
    if len(parts) > 1:
        say(f"data: of {listed(parts)} in {quoted(str(folder), 80)}, {quoted(name)} is read")
    return folder / name


def _json(path: Path) -> dict[str, list[object]]:
    """An object of lists."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{quoted(str(path), 80)} cannot be read ({error}); save the dataset again") from None
    return {name: value for name, value in found.items() if isinstance(value, list)} if isinstance(found, dict) else {}


_PREFIX = "pairtune-stdin-"


@functools.cache
def _standard_input() -> Path:
    """What comes on standard input, in a file that goes with the process: rows are read more than once."""
    if size() > 1:
        raise InputError("data: several ranks cannot read standard input together; save it in a file and give that")
    content = sys.stdin.buffer.read()
    first = content.lstrip(b"\xef\xbb\xbf \r\n\t")[:1]
    kind = "parquet" if content[:4] == b"PAR1" else {b"[": "json", b"{": "jsonl"}.get(first, "csv")
    if content[:2] == b"\x1f\x8b" or content[:3] == b"BZh" or content[:4] in (b"\x28\xb5\x2f\xfd", b"\xfd7zX"):
        kind = "jsonl"  # what is packed there is not looked at
    with tempfile.NamedTemporaryFile(prefix=_PREFIX, suffix=f".{kind}", delete=False) as file:
        file.write(content)
    path = Path(file.name)
    atexit.register(path.unlink, missing_ok=True)
    return path
