"""Everything that the documents tell a reader to do works as written, and what they name is there.

Each document is followed from top to bottom in a fresh folder, on a tiny model (`stand_ins.py`); `reader.py` says what
is run smaller and what is not run.
"""

import argparse
import gc
import importlib.util
import re
import shlex
import tomllib
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import pairtune
from benchmarks import options
from pairtune import cli
from pairtune.commands import MODULES
from pairtune.data.sources import read_demonstrations, read_labelled, read_pairs, read_prompts
from pairtune.flags import flag
from pairtune.settings_list import settings_of
from tests.documented import stand_ins
from tests.documented.documents import COMMANDS, DOCUMENTS, ROOT, Piece, anchors, inline_code, links, read, shell_lines
from tests.documented.reader import NOT_RUN, SMALLER, DocumentError, Reader, Run, check_pip, dry_run

SOURCES = ROOT / "src" / "pairtune"


@pytest.fixture
def small_world(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, tiny_model: Any, tiny_tokenizer: Any
) -> Iterator[None]:
    """`smollm2-135m` is a tiny model here, and the reviews are few."""
    place = tmp_path_factory.mktemp("stand-ins")
    stand_ins.install(place / "packages", place / "cache", tiny_model, tiny_tokenizer)
    monkeypatch.setenv("PAIRTUNE_CACHE", str(place / "cache"))
    monkeypatch.syspath_prepend(place / "packages")
    gc.freeze()  # what is there already need not be looked through each time that a stage releases its memory
    yield
    gc.unfreeze()


@pytest.fixture
def only_words() -> Run:
    """only_words(words): the exit code of `pairtune WORDS` when the words are read and checked, and nothing runs."""

    def check(words: list[str]) -> int:
        command = words[0]
        with pytest.MonkeyPatch.context() as patched:
            if command in cli.SETTINGS:
                patched.setattr(
                    import_module(f"pairtune.commands.{MODULES.get(command, command)}"), "run", lambda _: None
                )
            return cli.main(words)

    return check


@pytest.mark.parametrize("document", [name for name in DOCUMENTS if any(b.language in COMMANDS for b in read(name)[0])])
@pytest.mark.usefixtures("small_world")
def test_a_document_works_as_written(
    document: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    only_words: Run,
) -> None:
    def said() -> str:
        out, err = capsys.readouterr()
        return (out + err)[-3000:]

    monkeypatch.chdir(tmp_path)
    reader = Reader(tmp_path, said=said, only_words=only_words)
    for block in read(document)[0]:
        reader.follow(block)


@pytest.mark.parametrize("example", sorted(path.name for path in (ROOT / "examples").glob("*.yaml")))
@pytest.mark.usefixtures("small_world")
def test_an_example_of_settings_works_by_the_command_in_its_first_line(
    example: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    only_words: Run,
) -> None:
    monkeypatch.chdir(tmp_path)
    reader = Reader(tmp_path, said=lambda: "".join(capsys.readouterr()), only_words=only_words)
    first = (ROOT / "examples" / example).read_text(encoding="utf-8").splitlines()[0]
    assert first.endswith(f"--config examples/{example}")
    reader.run_line(Piece(f"examples/{example}", 1, first.removeprefix("# ")))


@pytest.mark.parametrize("notebook", sorted(path.name for path in (ROOT / "course").glob("*.py")))
@pytest.mark.usefixtures("small_world")
def test_a_notebook_runs_from_top_to_bottom(
    notebook: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, only_words: Run
) -> None:
    monkeypatch.chdir(tmp_path)
    Reader(tmp_path, said=str, only_words=only_words)  # lays out a clone
    path = tmp_path / "course" / notebook
    exec(compile(path.read_bytes(), str(path), "exec"), {"__name__": "__main__"})


READERS: dict[str, Callable[[str], Any]] = {
    "demonstrations": read_demonstrations,
    "labelled": read_labelled,
    "prompts": read_prompts,
}


@pytest.mark.parametrize("example", sorted(path.name for path in (ROOT / "examples").glob("*.jsonl")))
def test_an_example_of_data_is_read_whole(example: str) -> None:
    path = ROOT / "examples" / example
    data = READERS.get(path.stem, read_pairs)(str(path))
    assert len(data.rows) == len(path.read_text(encoding="utf-8").splitlines())
    assert list(data.skipped) == []


def test_what_is_not_run_or_run_smaller_is_still_there() -> None:
    """An entry of the tables that stands for nothing would hide the next command that is written so."""
    lines = [
        line for name in DOCUMENTS for block in read(name)[0] if block.language == "sh" for line in shell_lines(block)
    ]
    commands = [shlex.join(shlex.split(line.text, comments=True)) for line in lines]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8").splitlines()
    commands += [line.strip().removeprefix("$(BIN)/") for line in makefile]
    commands += [f"make {line.partition(':')[0]}" for line in makefile if ":" in line]
    assert [entry for entry in NOT_RUN if entry not in commands] == []
    assert [entry for entry in SMALLER if not any(command.startswith(entry) for command in commands)] == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_commands_in_the_text_are_valid(
    document: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], only_words: Run
) -> None:
    monkeypatch.chdir(ROOT)
    wrong = []
    for piece in inline_code(document):
        first, *rest = piece.text.split(maxsplit=1)
        if first in CHECKS and rest:
            wrong += [f"{piece}\n  {why}" for why in CHECKS[first](piece, only_words)]
        elif first.startswith("--") and first not in known_flags():
            wrong.append(f"{piece}\n  no command has this flag")
        elif first.startswith("pairtune.") and first.partition("(")[0].split(".")[1] not in names_from_python():
            wrong.append(f"{piece}\n  there is no such name")
    assert not wrong, "\n".join([*wrong, capsys.readouterr().err])


def check_pairtune(piece: Piece, only_words: Run) -> list[str]:
    """`pairtune COMMAND --help` stands for every command."""
    words = shlex.split(piece.text)[1:]
    commands = list(cli.HELP) if words[0] == "COMMAND" else [words[0]]
    wrong = []
    for command in commands:
        try:
            code = only_words([command, *words[1:]])
        except SystemExit as ended:  # --help and --version end so
            code = int(ended.code or 0)
        wrong += [f"`pairtune {command}` refuses it"] if code else []
    return wrong


def check_make(piece: Piece, _: Run) -> list[str]:
    """The target is there; what the recipe would do is not run."""
    dry_run(piece, [word for word in shlex.split(piece.text) if word != "PYTHON=..."])
    return []


def check_python(piece: Piece, _: Run) -> list[str]:
    """The script or the module is there; a benchmark has the flags."""
    words = shlex.split(piece.text)[1:]
    if words[0] != "-m":
        return [] if (ROOT / words[0]).is_file() else ["there is no such file"]
    if importlib.util.find_spec(words[1]) is None:
        return ["there is no such module"]
    parser = argparse.ArgumentParser(exit_on_error=False)
    if words[1].partition(".")[0] == "benchmarks":
        options.add_flags(parser)
        unknown = parser.parse_known_args(words[2:])[1]
        return [f"there is no {' '.join(unknown)}"] if unknown else []
    return []


def check_install(piece: Piece, _: Run) -> list[str]:
    """Extras and versions are those of this repository."""
    check_pip(piece, shlex.split(piece.text)[2:])
    return []


CHECKS = {"pairtune": check_pairtune, "make": check_make, "python": check_python, "pip": check_install}


def known_flags() -> set[str]:
    """Every flag of every command."""
    parser = argparse.ArgumentParser()
    options.add_flags(parser)
    return {
        *(flag(setting) for command in cli.SETTINGS.values() for setting in settings_of(command)),
        *parser.format_help().replace("[", " ").split(),
        *("--config", "--debug", "--help", "--version"),
    }


def names_from_python() -> set[str]:
    """What follows `pairtune.` in Python: the public names, and the modules."""
    return {*pairtune.__all__, *(path.stem for path in SOURCES.iterdir())}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_and_files_in_the_text_are_there(document: str) -> None:
    here = (ROOT / document).parent
    wrong = []
    for link in links(document):
        path, _, anchor = link.text.partition("#")
        target = here / path if path else ROOT / document
        if not re.match(r"[a-z]+:", path) and not target.exists():
            wrong.append(f"{link}\n  this link leads nowhere")
        elif anchor and target.suffix == ".md" and anchor not in anchors(target):
            wrong.append(f"{link}\n  there is no such heading")
    for piece in inline_code(document):
        wrong += [f"{piece}\n  there is no {path}" for path in files_named(piece.text) if not is_there(path, here)]
    assert not wrong, "\n".join(wrong)


def is_there(path: str, here: Path) -> bool:
    """A path from the repository's top, from the sources or from the document; a bare name may be anywhere."""
    return any((place / path).exists() for place in (ROOT, SOURCES, here)) or (
        "/" not in path and any(found for tree in (SOURCES, ROOT / "tests") for found in tree.rglob(path))
    )


def files_named(text: str) -> list[str]:
    """The files of this repository that a piece of code names: `a/b.py`, `a/{b,c}.py`, `examples/pairs.jsonl`."""
    if not re.fullmatch(r"[\w./{},-]+\.(py|cpp|h|md|toml)|(examples|docs|tests|src|benchmarks)/[\w./{},-]*", text):
        return []
    before, brace, rest = text.partition("{")
    inner, _, after = rest.partition("}")
    return [before + name + after for name in inner.split(",")] if brace else [text]


def test_the_tree_of_the_readme_is_the_tree_of_the_sources() -> None:
    """A line: a file or folder, what it is; in a folder's, `load: folder, hub` names a module, as a lone word does."""
    tree = next(block for block in read("README.md")[0] if block.text.startswith("src/pairtune/"))
    rows = {}
    for line in tree.text.splitlines()[1:]:
        if line.startswith("  ") and line[2] != " ":
            name, _, words = line.strip().partition(" ")
            rows[name] = words.strip()
        else:
            rows[name] += " " + line.strip()
    left_out = ("__init__.py", "__pycache__", "py.typed")
    there = {path.name + "/" * path.is_dir() for path in SOURCES.iterdir() if path.name not in left_out}
    assert set(rows) == there
    for name, words in rows.items():
        if name.endswith("/"):
            modules = {path.stem for path in (SOURCES / name).rglob("*")}
            assert [module for module in modules_named(words) if module not in modules] == [], (name, words)
    for command in re.findall(r"\(pairtune (\w+)\)", tree.text):
        assert command in cli.HELP


def modules_named(words: str) -> list[str]:
    """The modules in what a tree says of a folder: those before a colon, and those that stand alone."""
    named = []
    for part in words.split(";"):
        before, colon, _ = part.partition(":")
        names = [name.strip() for name in before.split(",")]
        if colon or all(re.fullmatch(r"\w+", name) for name in names):
            named += names
    return named


def test_the_versions_that_the_readme_names_are_those_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    text = read("README.md")[1]
    python, torch = re.search(r"Python (3\.\d+) or newer", text), re.search(r"torch 2\.(\d+) to 2\.(\d+)", text)
    assert python is not None
    assert project["requires-python"] == f">={python[1]}"
    assert torch is not None
    assert f"torch>=2.{torch[1]},<2.{int(torch[2]) + 1}" in project["dependencies"]


# ---- what the tests themselves must not pass over -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("language", "text", "said"),
    [
        ("", "pairtune derive", "a block is one of"),
        ("text", "pairtune derive --worlds 3", "commands belong in a block of sh"),
        ("sh", "pairtune derive --wrlds 3", "did you mean"),
        ("sh", "pairtune tune --data none.jsonl", "does not exist"),
        ("sh", "pairtune derive | head", "plain commands only"),
        ("sh", "pairtune objectives\nrm -r runs", "do not know how to run rm"),
        ("sh", "make compar", "No rule to make target"),
        ("sh", "make clean", "do not know how to run rm"),
        ("python", "import pairtune\npairtune.tine()", "no attribute 'tine'"),
    ],
)
def test_a_document_that_is_wrong_is_told(
    language: str, text: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], only_words: Run,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    reader = Reader(tmp_path, said=lambda: "".join(capsys.readouterr()), only_words=only_words)
    with pytest.raises(DocumentError, match=re.escape(said)) as told:
        reader.follow(Piece("README.md", 7, text, language))
    assert str(told.value).startswith(("README.md:7: ", "README.md:8: "))
