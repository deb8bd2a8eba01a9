"""Pages of the site that are no files of docs/: of the README, the help, the docstrings; formulas; links to sources."""

import contextlib
import html
import importlib
import inspect
import io
import os
import posixpath
import re
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
# Pages that are files elsewhere, by their name in the site.
ELSEWHERE = {"index.md": "README.md", "contributing.md": "CONTRIBUTING.md", "changelog.md": "CHANGELOG.md"}
LINK = re.compile(r"(\]\(|src=\")([^)\s\"#]+)(#[^)\s\"]*)?(?=[)\"])")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what is made, and every file outside of docs/ that a page links to."""
    made = {name: (ROOT / source).read_text(encoding="utf-8") for name, source in ELSEWHERE.items()}
    made |= {"commands.md": commands_page(), "python.md": python_page()}
    for name, text in made.items():
        files.append(File.generated(config, name, content=text))
    pages = [(file.src_uri, file.content_string) for file in files.documentation_pages()]
    for target in sorted({target for page, text in pages for target in _outside(page, text)}):
        files.append(File.generated(config, f"sources/{target}.txt", content=_source(ROOT / target)))
    return files


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Links as the site has them, formulas as MathML."""
    name = page.file.src_uri
    return _formulas(LINK.sub(lambda match: match[1] + _target(name, match[2]) + (match[3] or ""), markdown))


def _place(page: str, link: str) -> str:
    """What a link of a page means, from the root of the repository."""
    folder = posixpath.dirname(ELSEWHERE.get(page, f"docs/{page}"))
    return posixpath.normpath(posixpath.join(folder, link))


def _target(page: str, link: str) -> str:
    """The link within the site."""
    if re.match(r"\w+:", link):
        return link
    place = _place(page, link)
    for name, source in ELSEWHERE.items():
        if place == source:
            return name
    if place.startswith("docs/"):
        return place.removeprefix("docs/")
    return f"sources/{place}.txt" if (ROOT / place).exists() else link  # what is nowhere, mkdocs tells


def _outside(page: str, text: str) -> list[str]:
    """The files outside of docs/ that a page links to."""
    places = [_place(page, match[2]) for match in LINK.finditer(text) if not re.match(r"\w+:", match[2])]
    known = tuple(ELSEWHERE.values())
    return [
        place for place in places if not place.startswith("docs/") and place not in known and (ROOT / place).exists()
    ]


def _source(path: Path) -> str:
    """A file's text; of a folder what is in it."""
    return (
        path.read_text(encoding="utf-8") if path.is_file() else "\n".join(sorted(each.name for each in path.iterdir()))
    )


def _formulas(text: str) -> str:
    blocks = re.sub(
        r"^```math\n(.*?)^```$", lambda match: _mathml(match[1], "block"), text, flags=re.DOTALL | re.MULTILINE
    )
    return re.sub(r"\$`([^`]+)`\$", lambda match: _mathml(match[1], "inline"), blocks)


def _mathml(formula: str, display: str) -> str:
    made = " ".join(convert(formula.strip().replace(r"\arg", r"\mathrm{arg}"), display=display).split())
    if "\\" in re.sub(r"&#\w+;", "", made):
        raise ValueError(f"this formula cannot be set: {formula}")
    return f"\n<div>{made}</div>\n" if display == "block" else f"<span>{made}</span>"


def commands_page() -> str:
    """Every command with its help."""
    from pairtune.cli import HELP, main

    os.environ["COLUMNS"] = "100"
    parts = ["# Commands\n\nWhat `pairtune COMMAND --help` prints.\n"]
    for name in HELP:
        out = io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
            main([name, "--help"])
        parts.append(f"## {name}\n\n```text\n{out.getvalue().rstrip()}\n```\n")
    return "\n".join(parts)


def python_page() -> str:
    """Every public name with its signature and docstring."""
    import pairtune

    parts = ["# Python\n\n", _prose(inspect.getdoc(importlib.import_module("pairtune.api")) or "")]
    for name in pairtune.__all__:
        found = getattr(pairtune, name)
        signature = "" if inspect.isclass(found) else str(inspect.signature(found)).replace("'", "")
        parts.append(
            f"## pairtune.{name}\n\n```python\n{name}{signature}\n```\n\n{_prose(inspect.getdoc(found) or '')}"
        )
    return "\n".join(parts)


def _prose(docstring: str) -> str:
    return html.escape(docstring, quote=False) + "\n"
