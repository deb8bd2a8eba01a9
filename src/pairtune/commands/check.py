"""`pairtune check`."""

import json
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

import numpy as np

from pairtune.commands.inputs import given
from pairtune.data.check import Finding, check_pairs, check_reading
from pairtune.data.check_labels import check_labelled
from pairtune.data.ends import end_ids
from pairtune.data.preflight import SHOWN_ROWS, check_rows
from pairtune.data.prompt_format import in_format
from pairtune.data.sources import asked_of, has_labels, read_labelled, read_pairs
from pairtune.data.tokenize import encode_demonstrations, encode_pairs
from pairtune.models.load import load_tokenizer
from pairtune.progress import counted, printable, say
from pairtune.quiet import quiet
from pairtune.settings import CheckRun

# What is told of data that nothing is wrong with.
FACTS = ("shape", "longer_wins", "shared_prompt", "balance", "tokens")


def run(settings: CheckRun) -> bool:
    """Read the data and tell what is to be known of them, with a model as it reads them. Whether nothing is wrong."""
    with quiet():
        findings = list(_findings(settings))
    wrong = [finding for finding in findings if finding.name not in FACTS]
    if settings.json:
        print(json.dumps([asdict(finding) for finding in findings], indent=2, ensure_ascii=False))
    else:
        for finding in findings:
            print(printable(f"{'!' if finding in wrong else ' '} {finding.message}"))
        say(f"{counted(len(wrong), 'finding')}" if wrong else "nothing is wrong with what was looked at")
    return not wrong


def _findings(settings: CheckRun) -> Iterable[Finding]:
    source, asked = given(settings.data, "data"), asked_of(settings)
    labels = has_labels(source, asked=asked)
    data: Any = read_labelled(source, asked=asked) if labels else read_pairs(source, asked=asked)
    yield from check_reading(data)
    if not settings.model:
        yield from check_labelled(data.rows) if labels else check_pairs(data.rows)
        return
    tokenizer = load_tokenizer(settings.model, trust_remote_code=settings.trust_remote_code)
    data = in_format(data, tokenizer, settings.prompt_format)
    yield from check_labelled(data.rows) if labels else check_pairs(data.rows)
    encode: Any = encode_demonstrations if labels else encode_pairs
    encoded = encode(data.rows, tokenizer, max_tokens=settings.max_tokens)
    for remark, rows in encoded.remarks.items():
        shown = ", ".join(map(str, rows[:SHOWN_ROWS])) + (", ..." if len(rows) > SHOWN_ROWS else "")
        message = f"{counted(len(rows), *remark)} ({'row' if len(rows) == 1 else 'rows'} {shown})"
        yield Finding("tokenised", len(rows), rows[:SHOWN_ROWS], message)
    lengths = encoded.rows.lengths()
    middle, most = int(np.median(lengths)), int(lengths.max())
    total = int(lengths.sum())
    message = f"{total:,} tokens in {counted(len(lengths), 'row')}: {middle:,} in the middle one, at most {most:,}"
    yield Finding("tokens", total, (), message)
    check_rows(encoded.rows, [], tokenizer, end_ids=end_ids(tokenizer), say_longer=False)
