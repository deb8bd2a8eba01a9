"""Writes docs/data.md from the table of shapes."""

from pathlib import Path

from pairtune.data.listing import as_page

if __name__ == "__main__":
    Path(__file__).with_name("data.md").write_text(as_page(), encoding="utf-8")
