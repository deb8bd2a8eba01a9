"""`pairtune grade`."""

import ast
import contextlib
import io
import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from pairtune.commands.inputs import given
from pairtune.course.grading import QUESTIONS, Question
from pairtune.course.notebook import Cell, read
from pairtune.errors import InputError
from pairtune.hints import near_path
from pairtune.progress import say
from pairtune.runs import GradeRun

# Statements that a cell is run by if it is no exercise's: what it trains or prints takes time, and is not asked for.
DEFINING = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef)


def run(settings: GradeRun) -> bool:
    """Look at what a reader of the course has put in for its exercises. Returns whether all of it is right."""
    path = Path(given(settings.notebook, "notebook")).expanduser()
    if not path.is_file():
        raise InputError(f'"{path}" does not exist{near_path(path)}')
    questions = QUESTIONS.get(path.stem)
    if questions is None:
        raise InputError(f'"{path.name}" is no notebook of the course; it has {", ".join(QUESTIONS)}')
    names, failed = defined(read(path))
    found = {question.number: wrong(question, names) for question in questions}
    if settings.json:
        print(json.dumps({"notebook": path.stem, "wrong": found, "failed": failed}, indent=2, ensure_ascii=False))
        return not any(found.values())
    console = Console()
    for line in failed:
        say(f"{path.name}: {line}")
    for question in questions:
        said = found[question.number]
        mark = f"[yellow]not yet[/]: {escape(said)}" if said else "[green]right[/]"
        console.print(f"{question.number} {question.name}  {mark}", highlight=False)
    say(f"{sum(not said for said in found.values())} of {len(found)} right")
    return not any(found.values())


def defined(cells: list[Cell]) -> tuple[dict[str, Any], list[str]]:
    """The names that the cells define, those with the course's own answers left out; and what failed on the way."""
    names: dict[str, Any] = {"__name__": "notebook"}
    failed = []
    for number, cell in enumerate(cells, 1):
        if "answer" in cell.tags:
            continue
        where = f"line {cell.line}" if cell.line else f"code cell {number}"
        try:
            tree = ast.parse(cell.code)
            if "exercise" not in cell.tags:
                tree.body = [node for node in tree.body if isinstance(node, DEFINING)]
            with contextlib.redirect_stdout(io.StringIO()):
                exec(compile(tree, f"<{where}>", "exec"), names)
        except (Exception, SystemExit) as error:
            failed.append(f"the cell at {where} fails: {type(error).__name__}: {error}")
    return names, failed


def wrong(question: Question, names: dict[str, Any]) -> str:
    """What is wrong with what stands under the question's name; nothing if it is right."""
    if not callable(names.get(question.name)):
        return f"there is no function {question.name}"
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            return question.wrong(names[question.name])
    except (Exception, SystemExit) as error:
        return f"it fails: {type(error).__name__}: {' '.join(str(error).split())}"
