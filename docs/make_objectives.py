"""Writes docs/objectives.md from the catalogue."""

from pathlib import Path

from pairtune.objectives.listing import as_page

if __name__ == "__main__":
    Path(__file__).with_name("objectives.md").write_text(as_page(), encoding="utf-8")
