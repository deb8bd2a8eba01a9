"""Writes the table of docs/metrics.md from the figures' entries."""

import re
from pathlib import Path

from pairtune.report.figures import as_table

if __name__ == "__main__":
    page = Path(__file__).with_name("metrics.md")
    text = page.read_text(encoding="utf-8")
    page.write_text(re.sub(r"^\| name .*?(?=\n\n)", lambda _: as_table(), text, flags=re.M | re.S), encoding="utf-8")
