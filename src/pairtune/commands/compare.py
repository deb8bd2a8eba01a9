"""`pairtune compare`."""

import json
from pathlib import Path

from rich.console import Console

from pairtune import hub, own
from pairtune.commands.inputs import check_adapters
from pairtune.comparison.plan import MODELS
from pairtune.comparison.run import compare
from pairtune.progress import say
from pairtune.report import page, terminal
from pairtune.runs import CompareRun


def run(settings: CompareRun) -> Path:
    """Compare methods; report.html and a table on the terminal. Returns the run's folder."""
    check_adapters(settings)
    if own.is_own(settings.judge):
        own.load(settings.judge)
    else:
        hub.check_path(settings.judge)
    out = compare(settings, report=page.write)
    terminal.show(json.loads((out / "summary.json").read_text(encoding="utf-8")), Console())
    report = out / page.REPORT
    say(f"report: {report}")
    say(f"next: open {report} in a browser; the models lie in {out / MODELS}, each an ordinary Hugging Face folder")
    return out
