"""Rows of my own: `pairtune tune --data examples/my_rows.py:pairs`. For data in a form that is no table of pairs.

A function without arguments gives rows, each a dict with the columns that a file's row would have.
"""

import json
from collections.abc import Iterator
from pathlib import Path

VOTES = Path(__file__).with_name("pairs.jsonl")


def pairs() -> Iterator[dict[str, str]]:
    """Pairs from a log of votes; here each line already holds two answers, and which was liked."""
    for line in VOTES.read_text(encoding="utf-8").splitlines():
        vote = json.loads(line)
        yield {"prompt": vote["prompt"].strip(), "chosen": vote["chosen"], "rejected": vote["rejected"]}
