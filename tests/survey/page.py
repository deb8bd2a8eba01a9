"""The survey's findings as a table on the terminal, and as docs/architectures.md."""

from collections import Counter
from collections.abc import Sequence

import torch
import transformers

from tests.survey.attempt import REFUSED, RIGHT, TRACEBACK, WRONG, Finding, Outcome

WORST = (TRACEBACK, WRONG, REFUSED)
SLOWEST = ("alone", "padded", "packed")


def verdict(finding: Finding) -> str:
    """The worst word of all uses, or the slowest path of all dtypes."""
    words = {outcome.word for uses in finding.uses.values() for outcome in uses.values()}
    for word in WORST:
        if word in words:
            return word
    return next(path for path in SLOWEST if path in finding.path.values())


def faults(findings: Sequence[Finding]) -> int:
    """How many configurations are silently wrong or end in a traceback."""
    return sum(verdict(finding) in (WRONG, TRACEBACK) for finding in findings)


def summary(findings: Sequence[Finding]) -> str:
    """Counts in one line, the share of those right among configurations that transformers itself computes."""
    counts = Counter(map(verdict, findings))
    possible = [finding for finding in findings if "float32" not in finding.absent]
    right = sum(verdict(finding) in SLOWEST for finding in possible)
    words = ", ".join(f"{counts[word]} {word}" for word in (*SLOWEST[::-1], REFUSED, WRONG, TRACEBACK))
    return (
        f"{len(findings)} configurations of {len({finding.architecture for finding in findings})} architectures: "
        f"{words}; right {right} of the {len(possible)} that are causal language models ({right / len(possible):.1%})"
        if possible
        else f"{len(findings)} configurations: {words}"
    )


def line(finding: Finding) -> str:
    """One configuration on the terminal."""
    told = "; ".join(_details(finding))
    return f"{verdict(finding):10} {finding.title:44} {finding.seconds:5.0f} s  {told}".rstrip()


def page(findings: Sequence[Finding]) -> str:
    """The document."""
    rows = "\n".join(
        f"| `{finding.architecture}` | {finding.name or 'as published'} | {_cell(finding)} | {_told(finding)} |"
        for finding in findings
    )
    return PAGE.format(
        transformers=transformers.__version__,
        torch=torch.__version__.split("+")[0],
        summary=summary(findings),
        rows=rows,
    )


def _cell(finding: Finding) -> str:
    word, paths = verdict(finding), finding.path
    if word in SLOWEST and len(set(paths.values())) > 1:
        return ", ".join(f"{path} in {dtype}" for dtype, path in paths.items())
    return word


def _told(finding: Finding) -> str:
    return "; ".join(_details(finding)).replace("|", "\\|").replace("\n", " ")


def _details(finding: Finding) -> list[str]:
    """Why a configuration is refused, and what is wrong with it: each line with the uses that it was said of."""
    told: dict[str, dict[str, list[str]]] = {}
    for dtype, uses in finding.uses.items():
        for use, outcome in uses.items():
            if outcome.word != RIGHT:
                text = _words(finding.absent.get(dtype, ""), outcome)
                told.setdefault(text, {}).setdefault(dtype, []).append(use)
    return [_where(finding, where) + text for text, where in told.items()]


def _where(finding: Finding, where: dict[str, list[str]]) -> str:
    """The uses and dtypes that a line is about; nothing if it is about all of them."""
    if all(where.get(dtype) == list(uses) for dtype, uses in finding.uses.items()):
        return ""
    if len(where) == len(finding.uses) and len({*map(tuple, where.values())}) == 1:
        return f"{', '.join(next(iter(where.values())))}: "
    parts = []
    for dtype, uses in where.items():
        every = uses == list(finding.uses[dtype])
        parts.append(dtype if every else f"{', '.join(uses)} in {dtype}")
    return f"{'; '.join(parts)}: "


def _words(absent: str, outcome: Outcome) -> str:
    if outcome.word == WRONG:
        if absent:
            return f"WRONG: it goes on, though {absent}"
        return f"WRONG by {outcome.error:.2g} ({outcome.allowed:.2g} allowed)"
    return outcome.line if outcome.word == REFUSED else f"{outcome.word}: {outcome.line}"


PAGE = """# Architectures

What pairtune makes of every causal language model in transformers {transformers} (torch {torch}), held against plain
transformers, one sequence at a time without padding: log-probabilities of two responses to one prompt with rows of
different lengths, their gradients with respect to every parameter, rewards of a scalar head (its folder read by
transformers too, where that has a class for it), sampling at temperature 1
(the log-probabilities that it says the tokens were drawn with), greedy decoding side by side, and a short
`pairtune tune`; each in float32 and in bfloat16. Models are tiny and random; rows are longer than their windows,
chunks and original positions. bfloat16 is held to the float32 values of the same weights, within what plain bfloat16
transformers itself differs by. Written by `python -m tests.survey`.

*packed*: prompts are shared and rows lie end to end. *padded*: the model's own forward on one padded row a response,
right and slower. *alone*: its own forward on one row at a time, slower still. *refused*: one line says why, before
anything is computed.

{summary}.

| architecture | configuration | path | why |
|---|---|---|---|
{rows}
"""
