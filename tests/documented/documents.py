"""What stands in README.md, CONTRIBUTING.md and docs/: fenced blocks, inline code, links, the tree of the sources."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCUMENTS = [
    name
    for name in ("README.md", "CONTRIBUTING.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")))
    if (ROOT / name).is_file()
]
COMMANDS = ("sh", "python")
"""The languages of blocks that a reader runs; blocks in others only show something."""
SHOWN = ("math", "text", "json", "yaml")


@dataclass(frozen=True)
class Piece:
    """A piece of a document: where it begins, and its text. `language` is a fenced block's."""

    document: str
    line: int
    text: str
    language: str = ""

    def __str__(self) -> str:
        return f"{self.document}:{self.line}: {self.text}"


@cache
def read(document: str) -> tuple[list[Piece], str]:
    """The fenced blocks, and the document with those blanked out, line by line."""
    blocks: list[Piece] = []
    inside: list[str] | None = None
    prose: list[str] = []
    for number, line in enumerate((ROOT / document).read_text(encoding="utf-8").splitlines(), start=1):
        fence = line.lstrip().startswith("```")
        prose.append("" if fence or inside is not None else line)
        if fence and inside is None:
            inside, first, language = [], number + 1, line.strip().removeprefix("```")
        elif fence:
            blocks.append(Piece(document, first, "\n".join(inside or []), language))
            inside = None
        elif inside is not None:
            inside.append(line)
    assert inside is None, f"{document}:{first - 1}: this block does not end"
    return blocks, "\n".join(prose)


def inline_code(document: str) -> Iterator[Piece]:
    """What stands between backticks in the text; it may go over a line's end."""
    prose = read(document)[1]
    for found in re.finditer(r"`([^`]+)`", prose):
        yield Piece(document, prose.count("\n", 0, found.start()) + 1, " ".join(found[1].split()))


def links(document: str) -> Iterator[Piece]:
    """The targets of links and pictures."""
    prose = read(document)[1]
    for found in re.finditer(r"\]\(([^)\s]+)\)|src=\"([^\"]+)\"", prose):
        yield Piece(document, prose.count("\n", 0, found.start()) + 1, found[1] or found[2])


def shell_lines(block: Piece) -> Iterator[Piece]:
    """The commands of a shell block, those that go on over a line's end in one."""
    number, so_far = block.line, ""
    for offset, line in enumerate(block.text.splitlines()):
        if not so_far:
            number = block.line + offset
        so_far += line.removesuffix("\\")
        if line.endswith("\\"):
            continue
        if so_far.strip() and not so_far.lstrip().startswith("#"):
            yield Piece(block.document, number, " ".join(so_far.split()))
        so_far = ""
    assert not so_far, f"{block.document}:{number}: this command does not end"


def anchors(document: Path) -> set[str]:
    """The names that GitHub gives to a document's headings, and those set by hand."""
    text = document.read_text(encoding="utf-8")
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    made = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    return made | set(re.findall(r"<a (?:id|name)=\"([^\"]+)\"", text))
