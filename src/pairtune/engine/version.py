"""Which engine computed a number: a hash of the sources that decide it, so that it cannot be forgotten."""

import hashlib
from functools import cache
from pathlib import Path

# Of this package: the whole engine (a line that decides nothing costs a pass too many, a forgotten one a wrong number)
# and what lays tokens, positions and segments. Weights, configuration and rows are hashed with the values themselves.
DECIDING = (
    "engine/*.py",
    "engine/*.cpp",
    "engine/*.h",
    "models/adapters.py",
    "models/body.py",
    "data/pack.py",
    "joining.py",
    "parallel.py",
    "rank.py",
)


@cache
def engine_version() -> str:
    """Eight hexadecimal digits that change with the engine's sources."""
    return digest(Path(__file__).parents[1])


def deciding_sources(package: Path) -> list[Path]:
    """The files below the package's folder that decide the engine's numbers, in a fixed order."""
    return sorted(path for pattern in DECIDING for path in package.glob(pattern))


def digest(package: Path) -> str:
    """Of the names and contents of those files."""
    whole = hashlib.sha256()
    for path in deciding_sources(package):
        content = path.read_bytes()
        whole.update(f"{path.relative_to(package).as_posix()} {len(content)}\n".encode() + content)
    return whole.hexdigest()[:8]
