"""`pairtune report`."""

import json
from pathlib import Path

from rich.console import Console

from pairtune import manifest
from pairtune.commands.one_file import result_file
from pairtune.errors import InputError
from pairtune.progress import say
from pairtune.report import page, plots, terminal
from pairtune.runs import ReportRun


def run(settings: ReportRun) -> Path:
    """The page and the table of a finished comparison, again, from its records alone. Returns the page."""
    figure = settings.figure
    if figure and Path(figure).suffix != ".png":
        raise InputError(f'figure: "{figure}" must end in .png')
    picture = result_file(figure, inputs=(), overwrite=settings.overwrite, name="figure")
    out = Path(settings.folder)
    _refuse_damaged(out)
    written = page.write(out)
    known = manifest.read(out)
    if known and all(line.startswith(page.REPORT) for line in manifest.damages(out, known["files"])):
        manifest.seal_run(out)  # nothing but the page has changed
    terminal.show(json.loads((out / "summary.json").read_text(encoding="utf-8")), Console())
    say(f"report: {written}")
    if picture:
        picture.parent.mkdir(parents=True, exist_ok=True)
        plots.picture(out, picture)
        say(f"figure: {figure}")
    return written


def _refuse_damaged(out: Path) -> None:
    """Raises InputError if a record is not what the comparison wrote; where nothing tells, that is said."""
    if not (out / "summary.json").is_file() and not (out / manifest.RESULT).is_file():
        return  # what is missing, the page says
    found = manifest.read(out)
    troubles = [*manifest.damages(out, found["files"])] if found else [manifest.damage(out)]
    if trouble := next((line for line in troubles if line and not line.startswith(page.REPORT)), ""):
        raise InputError(
            f'"{out}": {trouble}, so nothing is shown; `pairtune verify {out}` names all that is damaged, and the '
            "command that made the run makes it again"
        )
    if not found:
        say(f"report: nothing says what the records in {out} were when they were written; they are shown as they are")
