"""`python -m tests.survey`: every architecture in a process of its own, two at a time; exit code 1 if any is wrong."""

import argparse
import contextlib
import hashlib
import json
import multiprocessing
import os
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path

os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}  # before transformers reads them

import torch
import transformers

from pairtune.engine import cpp
from tests.survey.attempt import TRACEBACK, Finding, Outcome, survey
from tests.survey.configs import Case, cases
from tests.survey.page import faults, line, page, summary

ROOT = Path(__file__).resolve().parent.parent.parent
# What one configuration may take: seconds of a processor and, in case it waits for something, on the clock; memory.
LIMIT_SECONDS, LIMIT_CLOCK, LIMIT_BYTES = 240, 3600, 8 * 2**30
DOCUMENT = ROOT / "docs" / "architectures.md"


def main(arguments: Sequence[str] | None = None) -> int:
    """Survey, print a line a configuration, write the document if nothing was left out."""
    parser = argparse.ArgumentParser(prog="python -m tests.survey", description=__doc__)
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="architectures, or 'NAME CONFIGURATION'")
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time")
    parser.add_argument(
        "--results",
        type=Path,
        default=ROOT / "runs" / "survey",
        help="folder of finished configurations, gone on with as long as no code changes",
    )
    options = parser.parse_args(arguments)
    wanted = [case for case in cases() if not options.only or {case.architecture, case.title} & set(options.only)]
    if not wanted:
        parser.error("no such architecture")
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    cpp.library()  # built once, here, and not in every process
    results = options.results / _state()
    results.mkdir(parents=True, exist_ok=True)
    findings = []
    for finding in _surveyed(wanted, results, jobs=options.jobs):
        findings.append(finding)
        print(f"{len(findings):3}/{len(wanted)} {line(finding)}", flush=True)
    order = {case.title: i for i, case in enumerate(wanted)}
    findings.sort(key=lambda finding: order[finding.title])
    print(summary(findings))
    if not options.only:
        DOCUMENT.write_text(page(findings), encoding="utf-8")
    return 1 if faults(findings) else 0


def _surveyed(wanted: Sequence[Case], results: Path, *, jobs: int) -> Iterator[Finding]:
    """Each case's finding as it is ready: from the folder, or from a process that leaves it there."""
    fork = multiprocessing.get_context("fork")  # children have everything imported
    running: dict[BaseProcess, tuple[Case, float]] = {}
    waiting = list(wanted)
    while waiting or running:
        while waiting and len(running) < jobs:
            case = waiting.pop(0)
            if (path := _path(case, results)).is_file():
                yield Finding.from_json(json.loads(path.read_text(encoding="utf-8")))
                continue
            process: BaseProcess = fork.Process(target=_child, args=(case, results))
            process.start()
            running[process] = (case, time.monotonic())
        for process, (case, began) in list(running.items()):
            process.join(0.05)
            if process.is_alive() and time.monotonic() - began < LIMIT_CLOCK:
                continue
            seconds = time.monotonic() - began
            process.kill()
            process.join()
            del running[process]
            path = _path(case, results)
            if not path.is_file():
                _write(path, _lost(case, process.exitcode, seconds))
            yield Finding.from_json(json.loads(path.read_text(encoding="utf-8")))


def _child(case: Case, results: Path) -> None:
    """Survey one case, within limits, saying nothing but to a log."""
    resource.setrlimit(resource.RLIMIT_DATA, (LIMIT_BYTES, LIMIT_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (LIMIT_SECONDS, LIMIT_SECONDS))
    path = _path(case, results)
    with tempfile.TemporaryDirectory() as cache, path.with_suffix(".log").open("w", encoding="utf-8") as log:
        os.environ["PAIRTUNE_CACHE"] = cache  # no reference that another process kept
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        with contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
            _write(path, survey(case))


def _write(path: Path, finding: Finding) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(finding.to_json(), indent=1), encoding="utf-8")
    partial.replace(path)


def _lost(case: Case, exitcode: int | None, seconds: float) -> Finding:
    """What is told of a process that left nothing: it was killed, or took the process down with it."""
    late = seconds >= LIMIT_CLOCK or exitcode == -signal.SIGXCPU or exitcode == -signal.SIGKILL
    why = f"it took more than {LIMIT_SECONDS} s" if late else f"the process ended with code {exitcode}"
    uses = {"float32": {"everything": Outcome(TRACEBACK, line=why)}}
    return Finding(case.title, case.architecture, case.name, uses=uses, seconds=round(seconds, 1))


def _path(case: Case, results: Path) -> Path:
    return results / f"{case.title.replace(' ', '_').replace(',', '')}.json"


def _state() -> str:
    """What the findings rest on: the code that was imported to make them, its kernels, and the libraries."""
    imported = (module.__file__ for name, module in sys.modules.items() if name.partition(".")[0] == "pairtune")
    kernels_too = (ROOT / "src" / "pairtune" / "engine").glob("*.[ch]*")
    survey = (path for path in (ROOT / "tests" / "survey").glob("*.py") if path.name not in ("__main__.py", "page.py"))
    digest = hashlib.sha256(f"{transformers.__version__} {torch.__version__}".encode())
    for path in sorted({*map(Path, filter(None, imported)), *kernels_too, *survey}):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


if __name__ == "__main__":
    sys.exit(main())
