"""A reader who does what a document says: block by block, in order, in a folder that is as a fresh clone.

`pairtune` runs in this process, through the function that the installed command calls. Nothing is passed over in
silence: what is not run stands in `NOT_RUN` with the reason, what is made smaller in `SMALLER`.
"""

import os
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path

from pairtune.cli import main
from tests.documented.documents import COMMANDS, ROOT, SHOWN, Piece, shell_lines

FEW_REVIEWS = (
    "--pairs 16 --heldout 8 --validation 8 --sft-demonstrations 8 --ppo-steps 1 --ppo-batch-size 8"
    " --sampling-max-new-tokens 12 --evaluation-prompts 8 --evaluation-curve-points 1 --evaluation-curve-prompts 4"
)
SMALLER = {
    "pairtune compare --preset quick": FEW_REVIEWS,
    "pairtune compare --methods dpo ipo kto simpo ppo --out": (
        f"{FEW_REVIEWS} --methods simpo ppo --beta 2 5 --ppo-kl-coefficient 0.02"
    ),
    "pairtune compare --methods dpo ipo kto simpo ppo": f"{FEW_REVIEWS} --methods kto ppo",
    "pairtune compare --data examples/pairs.jsonl": "--ppo-steps 1 --ppo-batch-size 8 --evaluation-curve-points 1",
    "pairtune compare --methods dpo online-dpo": (
        f"{FEW_REVIEWS} --online-steps 1 --online-batch-size 8 --methods dpo online-dpo"
    ),
    "pairtune compare --config examples/between.yaml": (
        f"{FEW_REVIEWS} --online-steps 1 --online-batch-size 8 --epochs 1 --methods dpo online-dpo"
    ),
    **{f"pairtune {each}": "--steps 1 --batch-size 8" for each in ("ppo", "rloo", "grpo", "online-dpo")},
    "pairtune derive": "--worlds 3",
}
"""Words put after those of a command that begins so (the first entry that fits). They win over its own, which are
checked first, as written."""

NOT_RUN = {
    "make test": "this test is a part of it",
    "make lint": "it changes nothing that a document speaks of, and CI runs it before the tests",
    "source .venv/bin/activate": "what it puts on the path of a shell is here already",
}
"""Commands that are not run, and why. What can be checked of their words is: see `Reader.check_words`."""

IN_A_CLONE = ("Makefile", "README.md", "pyproject.toml", "course", "docs", "examples")
Run = Callable[[list[str]], int]


class DocumentError(AssertionError):
    """A piece of a document that does not do what it says."""

    def __init__(self, piece: Piece, why: str) -> None:
        super().__init__(f"{piece}\n  {why}")


class Reader:
    """A reader of one document, in the current folder. `said()` is what was printed since it was last asked."""

    def __init__(self, folder: Path, *, said: Callable[[], str], only_words: Run) -> None:
        self.said, self.only_words = said, only_words
        self.not_run: set[str] = set()
        for name in IN_A_CLONE:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
            elif (ROOT / name).is_file():
                shutil.copy(ROOT / name, folder / name)

    def follow(self, block: Piece) -> None:
        """Do what a block says; DocumentError where that fails."""
        if block.language == "python":
            self.run_python(block)
        elif block.language == "sh":
            for line in shell_lines(block):
                self.run_line(line)
        else:
            check_shown(block)

    def run_python(self, block: Piece) -> None:
        """A Python block, in a namespace of its own."""
        try:
            exec(compile(block.text, f"{block.document} from line {block.line}", "exec"), {"__name__": "__main__"})
        except Exception as error:
            raise DocumentError(block, f"{type(error).__name__}: {error}\n{self.said()}") from error

    def run_line(self, line: Piece) -> None:
        """One command of a shell block."""
        words = shlex.split(line.text, comments=True)
        check_plain(line)
        command = shlex.join(words)
        if command in NOT_RUN:
            self.not_run.add(command)
            self.check_words(line, words)
        elif words[0] == "pairtune":
            self.run_pairtune(line, words[1:])
        elif words[0] == "make":
            self.run_make(line, words)
        else:
            raise DocumentError(line, f"the tests do not know how to run {words[0]}: see {Path(__file__).name}")

    def run_make(self, line: Piece, words: list[str]) -> None:
        """What make would run is run here; but for the set-up, which needs the package index: this is where it led."""
        set_up = [*dry_run(line, ["make", "setup"]), *dry_run(line, ["make", "develop"])]
        for made in dry_run(line, words):
            if made[0].endswith("bin/pairtune"):
                self.run_pairtune(line, made[1:])
            elif made not in set_up:
                raise DocumentError(line, f"the tests do not know how to run {made[0]}: see {Path(__file__).name}")

    def run_pairtune(self, line: Piece, words: list[str]) -> None:
        """A command as written must be valid; then it runs, smaller if need be."""
        if self.only_words(words) != 0:
            raise DocumentError(line, self.said())
        command = f"pairtune {shlex.join(words)} "
        smaller = next((more for beginning, more in SMALLER.items() if command.startswith(f"{beginning} ")), "")
        if main([*words, *shlex.split(smaller)]) != 0:
            raise DocumentError(line, self.said())

    def check_words(self, line: Piece, words: list[str]) -> None:
        """What can be told of a command without running it."""
        if words[0] == "make":
            dry_run(line, words)
        elif words[:2] == ["pip", "install"]:
            check_pip(line, words[2:])
        elif words[0] == "source":
            assert words[1] == makefile_variable("BIN") + "/activate", line


def check_shown(block: Piece) -> None:
    """A block that only shows something must say so, and hold no command that a reader would copy."""
    if block.language not in SHOWN:
        raise DocumentError(
            block, f"a block is one of {', '.join(COMMANDS + SHOWN)}, and this one is {block.language!r}"
        )
    for line in block.text.splitlines():
        if line.split()[:1] and line.split()[0] in ("pairtune", "make", "python", "pip", "import"):
            raise DocumentError(block, f"commands belong in a block of {' or '.join(COMMANDS)}: {line}")


def check_plain(line: Piece) -> None:
    """Pipes and the like need a shell, and there is none here."""
    lexer = shlex.shlex(line.text, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    signs = [word for word in lexer if word and set(word) <= set("();<>|&")]
    if signs:
        raise DocumentError(line, f"the tests run plain commands only, not {' '.join(signs)}")


def dry_run(line: Piece, words: list[str]) -> list[list[str]]:
    """The commands that make would run, in words."""
    ours = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
    done = subprocess.run([words[0], "-n", *words[1:]], capture_output=True, text=True, env=ours, check=False)
    if done.returncode != 0:
        raise DocumentError(line, done.stderr)
    return [shlex.split(made) for made in done.stdout.splitlines() if made.strip()]


def check_pip(line: Piece, words: list[str]) -> None:
    """The extras that pip is asked for are there, and a package of a version is the one that make installs."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    for word in (word for word in words if not word.startswith("-")):
        if word.startswith("."):
            asked = set(word.strip(".[]").split(",")) - {""}
            if asked - set(extras):
                raise DocumentError(line, f"there is no extra {', '.join(asked - set(extras))}")
        elif word not in (ROOT / "Makefile").read_text(encoding="utf-8"):
            raise DocumentError(line, f"{word} is not what the Makefile installs")


def makefile_variable(name: str) -> str:
    """The value that the Makefile gives to one of its variables."""
    lines = (ROOT / "Makefile").read_text(encoding="utf-8").splitlines()
    return next(line.partition(":=")[2].strip() for line in lines if line.startswith(f"{name} :="))
