"""The page of `pairtune check`: one HTML file that opens offline, reads on a phone, prints, and runs no script."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from pairtune import disk
from pairtune.errors import InputError
from pairtune.progress import counted, printable


def write(path: Path, source: str, findings: Sequence[Mapping[str, Any]], shown: Sequence[Mapping[str, Any]]) -> None:
    """Write the page. `findings` as `--json` prints them, `shown` the rows whose tokens are shown.

    Raises InputError if it cannot be written.
    """
    wrong = [finding for finding in findings if finding["finding"]]
    environment = Environment(
        loader=PackageLoader("pairtune.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.finalize = lambda value: printable(value) if isinstance(value, str) else value
    page = environment.get_template("check.html.j2").render(
        title=f"pairtune check: {source}",
        headline=counted(len(wrong), "finding") if wrong else "Nothing is wrong with what was looked at",
        wrong=wrong,
        facts=[finding for finding in findings if not finding["finding"]],
        shown=shown,
    )
    try:
        disk.write(path, page)
    except OSError as error:
        raise InputError(f'html: "{path}" cannot be written: {error.strerror}') from error
