"""`pairtune report`."""

import json
from pathlib import Path

from rich.console import Console

from pairtune import manifest
from pairtune.errors import InputError
from pairtune.progress import say
from pairtune.report import page, plots, terminal
from pairtune.settings import ReportRun


def run(settings: ReportRun) -> Path:
    """The page and the table of a finished comparison, again, from its records alone. Returns the page."""
    figure = settings.figure
    if figure and Path(figure).suffix != ".png":
        raise InputError(f'figure: "{figure}" must end in .png')
    out = Path(settings.folder)
    written = page.write(out)
    known = manifest.read(out)
    if known and all(line.startswith(page.REPORT) for line in manifest.damages(out, known["files"])):
        manifest.seal_run(out)  # nothing but the page has changed
    terminal.show(json.loads((out / "summary.json").read_text(encoding="utf-8")), Console())
    say(f"report: {written}")
    if figure:
        Path(figure).parent.mkdir(parents=True, exist_ok=True)
        plots.picture(out, Path(figure))
        say(f"figure: {figure}")
    return written
