"""`pairtune check-loss`."""

import ast
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from pairtune import own
from pairtune.commands.inputs import given
from pairtune.course.check_loss import ARGUMENTS, check_loss
from pairtune.errors import InputError
from pairtune.progress import say
from pairtune.runs import CheckLossRun


def run(settings: CheckLossRun) -> bool:
    """Hold a DPO loss of one's own against the theory. Returns whether it is right in everything."""
    return show(own.load(_function(given(settings.loss, "loss"))))


def show(loss: own.Own) -> bool:
    """Print what is found, line by line; whether all of it is right."""
    findings, console = check_loss(loss), Console()
    for finding in findings:
        mark = "[green]right[/]" if finding.right else "[red]wrong[/]"
        console.print(f"{mark}  {escape(finding.what)}\n       [dim]{escape(finding.found)}[/]", highlight=False)
    right = all(finding.right for finding in findings)
    say("it is the DPO loss" if right else "next: mend it, and look again")
    return right


def _function(name: str) -> str:
    """`FILE.py:FUNCTION` where it is named, or where the file has one function that takes what a loss is given."""
    path = Path(name).expanduser()
    if own.is_own(name) or path.suffix != ".py" or not path.is_file():
        return name  # what names no function is refused where it is loaded
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError) as error:
        raise InputError(f'"{name}" is not Python: {error}') from error
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    found = [node.name for node in functions if tuple(each.arg for each in node.args.args) == ARGUMENTS]
    if len(found) != 1:
        what = f"{len(found)} functions" if found else "no function"
        raise InputError(f'"{name}" has {what} of ({", ".join(ARGUMENTS)}); name one: {name}:FUNCTION')
    return f"{name}:{found[0]}"
