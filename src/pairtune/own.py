"""A function of a person's own, by name: `my_losses.py:my_dpo` of a file, `package.module:function` of a module.

It is their code, run because they ask for it by this name; nothing is downloaded for it. What it was is known by the
content of its file and of every module beside it that the file imports, so a changed function is another function.
"""

import ast
import hashlib
import importlib.util
import inspect
import json
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from pairtune.errors import InputError, is_memory
from pairtune.hints import near_path, nearest

NAME = re.compile(
    r"(?:(?P<file>[^\s:+*,=][^:+*,=]*\.py)|(?P<module>[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)):(?P<function>\w+)\Z"
)


@dataclass(frozen=True)
class Own:
    """A function as it was loaded: its name, the file it stands in, the SHA-256 of all that it was made from."""

    name: str
    function: Callable[..., Any]
    path: Path
    sha256: str

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Around a call: what the function raises is told in one line, with the line of its file that raised it."""
        try:
            yield
        except InputError:
            raise
        except (Exception, SystemExit) as error:  # sys.exit() in it would end us without a word
            if is_memory(error):
                raise
            raise InputError(f"{self.name} failed{_where(error, self.path)}: {_said(error)}") from error


def is_own(name: str) -> bool:
    """Whether this names a function of a person's own, rather than anything of ours, a file or a hub's."""
    return NAME.match(name) is not None


def file_of(name: str) -> str:
    """The file that is named, if one is."""
    match = NAME.match(name)
    return (match["file"] or "") if match else ""


def short(name: str) -> str:
    """The name without the folders of its file, as results are called: `my_losses.py:my_dpo`."""
    return name.rpartition("/")[2]


def load(name: str) -> Own:
    """The function of this name, its file read anew. Raises InputError if there is none, or its file fails."""
    path, root = _place(name)
    match = NAME.match(name)
    assert match
    sources = _sources(name, path, root)
    module = _execute(name, path, root, sources)
    function = getattr(module, match["function"], None)
    if not inspect.isfunction(function):
        there = [each for each, value in vars(module).items() if inspect.isfunction(value)]
        near = nearest(match["function"], there)
        hint = f'did you mean "{near}"?' if near else f"it has {', '.join(there) or 'none'}"
        raise InputError(f'{name}: "{path}" has no function "{match["function"]}"; {hint}')
    return Own(name, function, path, _hash(sources))


def sha256(name: str) -> str:
    """The hash that `load` would give, without running anything."""
    path, root = _place(name)
    return _hash(_sources(name, path, root))


def hashes(settings: Mapping[str, Any]) -> dict[str, str]:
    """The hash of every own function that settings name, alone, in a list or in a sum."""
    found: dict[str, str] = {}
    for value in settings.values():
        if isinstance(value, Mapping):
            found |= hashes(value)
        for words in value if isinstance(value, list | tuple) else [value]:
            terms = [term.rpartition("*")[2].strip() for term in words.split("+")] if isinstance(words, str) else []
            found |= {term: sha256(term) for term in terms if is_own(term)}
    return found


def rows(name: str) -> Iterator[dict[str, Any]]:
    """What a function without arguments gives, a dict each. Raises InputError where that is something else."""
    found = load(name)
    with found.watched():
        given = found.function()
    if not isinstance(given, Iterable):
        raise InputError(f"{name}: it returned a {type(given).__name__}; it must give rows, each a dict of columns")
    left, end = iter(given), object()
    for number in count(1):
        with found.watched():
            row: Any = next(left, end)
        if row is end:
            return
        if not isinstance(row, dict) or not all(isinstance(key, str) for key in row):
            what = f"a {type(row).__name__} where a row belongs"
            raise InputError(f'{name} row {number}: {what}, a dict such as {{"prompt": "...", "chosen": "...", ...}}')
        yield row


def rows_hash(name: str) -> str:
    """SHA-256 of the rows that a function gives, whatever it makes them from."""
    digest = hashlib.sha256()
    for row in rows(name):
        digest.update(json.dumps(row, sort_keys=True, default=str).encode() + b"\n")
    return digest.hexdigest()


def _place(name: str) -> tuple[Path, Path]:
    """The file of the function, and the folder from which modules beside it are imported."""
    match = NAME.match(name)
    if not match:
        raise InputError(f'"{name}" names no function; write FILE.py:FUNCTION, or MODULE:FUNCTION')
    if match["file"]:
        path = Path(match["file"]).expanduser()
        if not path.is_file():
            raise InputError(f'{name}: "{path}" does not exist{near_path(path)}')
        return path, path.parent.resolve()
    if str(Path.cwd()) not in sys.path:  # as with `python -m`
        sys.path.append(str(Path.cwd()))
    try:
        found = importlib.util.find_spec(match["module"])
    except Exception as error:  # of a package on the way to it
        raise InputError(f"{name}: {match['module']} cannot be imported: {_said(error)}") from error
    if found is None or not found.origin or not found.origin.endswith(".py"):
        raise InputError(f"{name}: there is no module {match['module']} here that is a Python file")
    path = Path(found.origin)
    levels = match["module"].count(".") + (path.name == "__init__.py")
    return path, path.resolve().parents[levels]


def _sources(name: str, path: Path, root: Path) -> dict[Path, bytes]:
    """The file and every module below `root` that it or another of them imports, with their contents."""
    found: dict[Path, bytes] = {}
    left = [path.resolve()]
    while left:
        file = left.pop()
        if file in found:
            continue
        found[file] = file.read_bytes()
        if "site-packages" in file.parts:  # installed: its version changes, not its files
            continue
        try:
            tree = ast.parse(found[file])
        except (SyntaxError, ValueError) as error:
            line = f" line {error.lineno}" if isinstance(error, SyntaxError) else ""
            raise InputError(f'{name}: "{file.name}"{line} is not Python: {_said(error)}') from error
        for node in ast.walk(tree):
            left += _imported(node, file, root)
    return found


def _imported(node: ast.AST, file: Path, root: Path) -> list[Path]:
    """The files below `root` that an import statement names."""
    names: list[str] = []
    base = root
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
        base = file.parents[node.level - 1] if node.level else root
        names = [".".join(filter(None, [node.module, alias.name])) for alias in node.names]
    places = [
        base.joinpath(*parts[: i + 1]) for parts in (name.split(".") for name in names) for i in range(len(parts))
    ]
    files = [file for place in places for file in (Path(f"{place}.py"), place / "__init__.py")]
    return [file for file in files if file.is_file()]


def _execute(name: str, path: Path, root: Path, sources: Mapping[Path, bytes]) -> Any:
    """The module made from the file as it now is, and from modules beside it as they now are."""
    match = NAME.match(name)
    assert match
    if str(root) not in sys.path:  # last: a file beside it called as a library is hides no library
        sys.path.append(str(root))
    for known, module in list(sys.modules.items()):
        origin = getattr(module, "__file__", None)
        if origin and known != "__main__" and not known.startswith("pairtune") and Path(origin).resolve() in sources:
            del sys.modules[known]
    spec = importlib.util.spec_from_file_location(match["module"] or f"own_{path.stem}", path)
    assert spec
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    written, sys.dont_write_bytecode = sys.dont_write_bytecode, True  # of two edits in a second it would keep the first
    try:
        exec(compile(sources[path.resolve()], str(path), "exec"), vars(module))
    except (KeyboardInterrupt, MemoryError):
        raise
    except BaseException as error:
        raise InputError(f"{name}: its file fails{_where(error, path)}: {_said(error)}") from error
    finally:
        sys.dont_write_bytecode = written
    return module


def _hash(sources: Mapping[Path, bytes]) -> str:
    """Of the contents, in the order of their names; where they lie is no part of it."""
    digest = hashlib.sha256()
    for path in sorted(sources, key=lambda path: (path.name, sources[path])):
        digest.update(f"{path.name} {len(sources[path])} ".encode())
        digest.update(sources[path])
    return digest.hexdigest()


def _where(error: BaseException, path: Path) -> str:
    """The last line of the file that the error came through."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return f" at line {lines[-1]}" if lines else ""


def _said(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
