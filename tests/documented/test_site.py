"""The documents as a site: built with every link, anchor and formula held; nothing in it comes from outside."""

import re
from pathlib import Path

import pytest

pytest.importorskip("mkdocs")

from mkdocs.commands.build import build
from mkdocs.config import load_config

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    build(load_config(str(ROOT / "mkdocs.yml"), site_dir=str(folder), strict=True))
    return folder


def test_every_document_is_a_page(site: Path) -> None:
    pages = {path.stem for path in site.glob("*.html")} - {"404"}
    documents = {path.stem for path in (ROOT / "docs").glob("*.md")}
    assert pages == documents | {"index", "commands", "python", "contributing", "changelog"}


def test_formulas_are_set_where_they_stand(site: Path) -> None:
    text = (site / "derivation.html").read_text(encoding="utf-8")
    source = (ROOT / "docs" / "derivation.md").read_text(encoding="utf-8")
    assert text.count("<math") == source.count("$`") + source.count("```math")
    assert "$`" not in text
    assert not re.search(r"<p>\s*,", text), "an inline formula was made a block"


def test_commands_and_names_have_their_reference(site: Path) -> None:
    commands, python = ((site / f"{name}.html").read_text(encoding="utf-8") for name in ("commands", "python"))
    assert "--learning-rate" in commands
    assert "usage: pairtune check-loss [LOSS] [options]" in commands
    assert "pairtune.log_probs" in python


def test_nothing_is_fetched_from_outside(site: Path) -> None:
    for page in site.glob("*.html"):
        text = page.read_text(encoding="utf-8")
        fetched = re.findall(r"<(?:script|link|img)[^>]*(?:src|href)=\"(https?:[^\"]+)\"", text)
        assert fetched == [], page.name


def test_what_a_page_links_to_outside_of_the_documents_is_there(site: Path) -> None:
    assert (site / "sources" / "src" / "pairtune" / "training" / "online.py.txt").is_file()
