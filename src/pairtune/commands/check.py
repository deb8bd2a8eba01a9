"""`pairtune check`."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.text import Text

from pairtune.commands.inputs import given
from pairtune.commands.one_file import result_file
from pairtune.data.advice import ADVICE, FACTS
from pairtune.data.check import Finding, check_pairs, check_reading
from pairtune.data.check_labels import check_labelled
from pairtune.data.check_near import near_prompts, shared_with
from pairtune.data.check_texts import check_texts
from pairtune.data.check_words import bag_of_words
from pairtune.data.ends import end_ids
from pairtune.data.fix import beside, write_fixed
from pairtune.data.pack import Tokens, row_lengths
from pairtune.data.preflight import SHOWN_ROWS, check_rows, told_numbers
from pairtune.data.prompt_format import in_format
from pairtune.data.sources import asked_of, has_labels, read_labelled, read_pairs, read_prompts
from pairtune.data.store import origin
from pairtune.data.tokenize import encode_demonstrations, encode_pairs
from pairtune.data.wording import escaped
from pairtune.models.load import Tokenizer, load_tokenizer
from pairtune.progress import counted, printable, say
from pairtune.quiet import quiet
from pairtune.report import check_page
from pairtune.runs import CheckRun
from pairtune.settings import Tuning

# Tokens of a prompt's end, and of a response's beginning, that are shown.
SHOWN_TOKENS = 60


class Shown(NamedTuple):
    """A row as a model reads it: where it stands, its prompt, and each response's tokens."""

    where: str
    prompt: str
    responses: list[list[str]]


def run(settings: CheckRun) -> bool:
    """Read the data and tell what is to be known of them, with a model as it reads them. Whether nothing is wrong."""
    with quiet():
        _check_files(settings)
        source, asked = given(settings.data, "data"), asked_of(settings)
        labels = has_labels(source, asked=asked)
        data: Any = read_labelled(source, asked=asked) if labels else read_pairs(source, asked=asked)
        findings, shown = list(_findings(settings, data, labels=labels)), list[Shown]()
        if settings.model:
            tokenised, shown = _tokenised(settings, data, labels=labels)
            findings += tokenised
        wrong = [finding for finding in findings if finding.name not in FACTS]
        told = [_told(finding, data.rows) for finding in findings]
        if settings.json:
            print(json.dumps(told, indent=2, ensure_ascii=False))
        else:
            _show(findings)
            _show_rows(shown)
            say(f"{counted(len(wrong), 'finding')}" if wrong else "nothing is wrong with what was looked at")
        if settings.html:
            check_page.write(Path(settings.html), settings.data, told, [row._asdict() for row in shown])
            say(f"page: {settings.html}")
        if settings.fix:
            _fix(settings, data.rows)
    return not wrong


def _check_files(settings: CheckRun) -> None:
    """Before anything is read: raises InputError for a file that may not be written."""
    inputs = [settings.data, settings.model, settings.against]
    for name, path in (("fix", settings.fix), ("html", settings.html)):
        if result_file(path, inputs=inputs, overwrite=settings.overwrite, name=name) and name == "fix":
            result_file(str(beside(Path(path))), inputs=inputs, overwrite=settings.overwrite, name=name)


def _findings(settings: CheckRun, data: Any, *, labels: bool) -> Iterable[Finding]:
    yield from check_reading(data)
    yield from check_labelled(data.rows) if labels else check_pairs(data.rows)
    yield from check_texts(data.rows)
    found = [near_prompts(data.rows), bag_of_words(data.rows)]
    if settings.against:
        others = read_prompts(settings.against, asked=asked_of(CheckRun()))
        found.append(shared_with(data.rows, others.rows, escaped(settings.against)))
    yield from (each for each in found if each)


def _tokenised(settings: CheckRun, data: Any, *, labels: bool) -> tuple[list[Finding], list[Shown]]:
    """The rows as a model reads them, and some of them token by token."""
    tokenizer = load_tokenizer(settings.model, trust_remote_code=settings.trust_remote_code)
    data = in_format(data, tokenizer, settings.prompt_format)
    encode: Any = encode_demonstrations if labels else encode_pairs
    encoded = encode(data.rows, tokenizer, max_tokens=settings.max_tokens)
    found = []
    for remark, rows in encoded.remarks.items():
        some = ", ".join(map(str, rows[:SHOWN_ROWS])) + (", ..." if len(rows) > SHOWN_ROWS else "")
        message = f"{counted(len(rows), *remark)} ({'row' if len(rows) == 1 else 'rows'} {some})"
        found.append(Finding("tokenised", len(rows), rows[:SHOWN_ROWS], message))
    found += _sizes(encoded.rows)
    noun, weights, margins = "response" if labels else "pair", "training counts them", "a reward model takes them"
    for line in told_numbers(encoded.rows, noun, weights=weights, margins=margins):
        found.append(Finding("weights", len(encoded.rows), (), line))
    check_rows(encoded.rows, [], tokenizer, end_ids=end_ids(tokenizer), say_longer=False)
    places = sorted({0, len(encoded.rows) // 2, len(encoded.rows) - 1})
    return found, [_shown(encoded.rows[i], encoded.place(i), tokenizer) for i in places]


def _shown(row: Tokens, place: str, tokenizer: Tokenizer) -> Shown:
    """The end of a prompt and the beginning of each response, token by token."""
    before = "… " * (len(row.prompt) > SHOWN_TOKENS)
    responses = []
    for response in row.responses:
        pieces = [str(tokenizer.decode([token])) for token in response[:SHOWN_TOKENS]]
        responses.append([*pieces, *["…"] * (len(response) > SHOWN_TOKENS)])
    return Shown(place, before + str(tokenizer.decode(list(row.prompt[-SHOWN_TOKENS:]))), responses)


def _sizes(rows: Sequence[Tokens]) -> Iterable[Finding]:
    lengths = row_lengths(rows)
    middle, most, total = int(np.median(lengths)), int(lengths.max()), int(lengths.sum())
    message = f"{total:,} tokens in {counted(len(lengths), 'row')}: {middle:,} in the middle one, at most {most:,}"
    yield Finding("tokens", total, (), message)
    size = Tuning().batch_size
    steps = -(-len(rows) // size)
    message = f"a step of {size} sees {total / steps:,.0f} tokens on average; an epoch is {counted(steps, 'step')}"
    yield Finding("step", steps, (), message)


def _show(findings: Sequence[Finding]) -> None:
    for finding in findings:
        advice = ADVICE.get(finding.name)
        print(printable(f"{' ' if finding.name in FACTS else '!'} {finding.message}"))
        if advice and finding.name not in FACTS:
            print(printable(f"    {advice.effect}; {advice.todo}"))


def _show_rows(shown: Sequence[Shown]) -> None:
    """Rows token by token: coloured on a terminal that has colours, else with a bar between tokens."""
    console = Console(highlight=False, soft_wrap=True)
    marked = "coloured" if console.color_system else "in ⟦ ⟧"
    for row in shown:
        console.print(f"\n  {row.where}, as the model reads it; what is {marked} is trained on:", markup=False)
        console.print(Text(printable(row.prompt), style="dim"))
        for response, colour in zip(row.responses, ("green", "red"), strict=False):
            shades = f"black on {colour}", f"black on bright_{colour}"
            tokens = [Text(printable(token), style=shades[i % 2]) for i, token in enumerate(response)]
            plain = Text("⟦" + "|".join(map(printable, response)) + "⟧")
            console.print(Text.assemble(*tokens) if console.color_system else plain)


def _told(finding: Finding, rows: Sequence[Any]) -> dict[str, Any]:
    """A finding as plain values, with its share of the rows, where the first stand, what it does and what to do."""
    advice, fact = ADVICE.get(finding.name), finding.name in FACTS
    return asdict(finding) | {
        "finding": not fact,
        "share": None if fact else finding.count / max(1, len(rows)),
        "where": [f"{origin(rows)} {row}" for row in finding.rows],
        "effect": FACTS[finding.name] if fact else advice.effect if advice else "",
        "todo": advice.todo if advice and not fact else "",
    }


def _fix(settings: CheckRun, rows: Sequence[Any]) -> None:
    kept, left_out, reasons = write_fixed(rows, Path(settings.fix), origin(rows))
    say(f"{settings.fix}: {counted(kept, 'row')} of {len(rows):,}; what went and why is in {left_out}")
    for reason, count in reasons.most_common():
        say(f"  {count:,}: {reason}")
