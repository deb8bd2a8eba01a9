"""The engine's version follows from the sources that decide its numbers, all of them."""

import ast
import shutil
from pathlib import Path
from typing import Any

import pytest

import pairtune
from pairtune.engine import version

PACKAGE = Path(pairtune.__file__).parent
# What the reference's numbers are computed with, beside the engine and the pack, and why it decides none of them.
INDIFFERENT = {
    "cache.py": "where files lie",
    "data/store.py": "reads and writes what was computed",
    "disk.py": "reads and writes what was computed",
    "errors.py": "what is told",
    "hints.py": "what is told",
    "hashes.py": "what it makes is a key itself: made otherwise, nothing is found",
    "memory.py": "whether there is room",
    "models/files.py": "what is told of files that are wrong",
    "models/load.py": "its result, the weights, is hashed itself",
    "models/machine.py": "its result, dtype and device, is hashed itself",
    "progress.py": "what is told",
    "settings.py": "what adapters are asked for: their weights are hashed themselves",
}


@pytest.fixture
def package(tmp_path: Path) -> Any:
    """A copy of the sources that may be changed."""
    return shutil.copytree(PACKAGE, tmp_path / "pairtune", ignore=shutil.ignore_patterns("__pycache__"))


def test_it_is_that_of_the_sources_in_use(package: Any) -> None:
    assert version.engine_version() == version.digest(package)


@pytest.mark.parametrize("name", [p.relative_to(PACKAGE).as_posix() for p in version.deciding_sources(PACKAGE)])
def test_a_changed_source_changes_it(package: Any, name: Any) -> None:
    before, path = version.digest(package), package / name
    path.write_bytes(path.read_bytes() + b"\n")
    assert version.digest(package) != before


def test_a_new_a_renamed_and_a_removed_source_change_it(package: Any) -> None:
    found = {version.digest(package)}
    (package / "engine" / "more.h").write_text("")
    found.add(version.digest(package))
    (package / "engine" / "more.h").rename(package / "engine" / "other.h")
    found.add(version.digest(package))
    (package / "engine" / "hidden.py").unlink()
    found.add(version.digest(package))
    assert len(found) == 4


def test_what_decides_no_number_leaves_it(package: Any) -> None:
    before = version.digest(package)
    for name in ("cli.py", "report/words.py", "training/loop.py"):
        (package / name).write_text("")
    assert version.digest(package) == before


def imported(path: Path) -> set[Path]:
    """The files of this package that a module imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("pairtune"):
            for name in (node.module, *(f"{node.module}.{each.name}" for each in node.names)):
                file = PACKAGE.joinpath(*name.split(".")[1:]).with_suffix(".py")
                found |= {file} if file.is_file() else set()
    return found


def test_nothing_that_the_reference_is_computed_with_is_forgotten() -> None:
    known, fresh = set(), {PACKAGE / "engine" / "reference.py"}
    while fresh:
        known |= fresh
        fresh = {path for each in fresh for path in imported(each)} - known
        fresh -= {path for path in fresh if path.relative_to(PACKAGE).as_posix() in INDIFFERENT}
    beside = {path.relative_to(PACKAGE).as_posix() for path in known - set(version.deciding_sources(PACKAGE))}
    assert beside == set(), "hash it (DECIDING), or say why it decides no number"
