"""Files that are broken at random: never a traceback, one line, and no row lost without being counted."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from pairtune.data.asked import PAIR_UPS, Asked
from pairtune.data.sources import has_labels, read_demonstrations, read_labelled, read_pairs, read_prompts
from pairtune.errors import InputError
from tests.data.test_shapes import LABELS, PAIRED

FILES = 100  # for each of the SEEDS, each read in five ways
SEEDS = 4
JUNK: list[Any] = [
    *(None, 3, -1.5, True, "", "x", "nan", "tie", "\ud800", float("nan")),
    *([], {}, [[]], [None], [{}], [1, 2], ["a"]),
    *({"role": "user"}, {"from": "human", "value": "x"}, {"from": 3, "value": []}, [{"role": None, "content": 3}]),
    *("[{'role': 'x'}]", '[{"role": "user"}]', '["a"]', {"messages": []}),
    *([{"response": None, "score": 1}], [{"response": "x", "score": "y"}]),
]


def broken(value: Any, chance: random.Random, depth: int = 0) -> Any:
    """The value with something in it gone, or something else in its place."""
    if chance.random() < 0.25 or depth > 3 or not isinstance(value, dict | list) or not value:
        return chance.choice(JUNK)
    made: Any = value.copy()
    key = chance.choice(list(value)) if isinstance(value, dict) else chance.randrange(len(value))
    if chance.random() < 0.3:
        made.pop(key)
    else:
        made[key] = broken(value[key], chance, depth + 1)
    return made


@pytest.mark.parametrize("seed", range(SEEDS))
def test_what_is_broken_is_one_line_or_counted(seed: int, tmp_path: Path) -> None:
    chance, path = random.Random(seed), tmp_path / "d.jsonl"
    fixtures = [rows for rows, *_ in (*PAIRED.values(), *LABELS.values())]
    refused: list[str] = []
    for _ in range(FILES):
        rows = [*chance.choice(fixtures)]
        for _ in range(chance.choice((1, 1, 2, 4))):
            place = chance.randrange(len(rows))
            rows[place] = broken(rows[place], chance)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        asked = Asked(pair_up=chance.choice(PAIR_UPS), label_threshold=chance.choice((0, 0.5)))
        reads: list[Any] = [read_pairs, read_labelled, read_demonstrations, read_prompts, has_labels]
        for read in reads:
            try:
                found = read(str(path), asked=asked)
            except InputError as error:
                refused.append(str(error))
                continue
            if read in (read_labelled, read_demonstrations) and "together" not in found.told:
                assert len(found.rows) + len(found.skipped) == len(rows)
    assert len(refused) > FILES
    assert not [message for message in refused if "\n" in message]
