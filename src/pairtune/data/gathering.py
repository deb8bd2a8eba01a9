"""Rows as they come, by the names that a person gives their columns, and those of one prompt together."""

from collections.abc import Iterable, Iterator
from itertools import groupby

from pairtune.data.asked import Asked
from pairtune.data.cells import read_cells
from pairtune.data.containers import Record
from pairtune.data.numbers_beside import WEIGHT
from pairtune.data.shapes import gathered, row_answer
from pairtune.data.sides import PROMPTS
from pairtune.data.turns import BESIDE, SYSTEMS, Columns, MalformedError
from pairtune.data.wording import listed, quoted
from pairtune.errors import InputError
from pairtune.hints import nearest


def renamed(columns: Columns, asked: Asked) -> Columns:
    """The columns by the names that a person gives them. Raises InputError for one that is not there."""
    if not asked.columns:
        return columns
    missing = next((source for source in asked.columns.values() if source not in columns), None)
    if missing is not None:
        near = nearest(missing, map(str, columns))
        hint = f"; did you mean {quoted(near)}?" if near else ""
        raise MalformedError(f"no column {quoted(missing)}; the columns are {listed(map(str, columns))}{hint}")
    ours = {source: name for name, source in asked.columns.items()}
    left = {name: value for name, value in columns.items() if name not in asked.columns or name in ours}
    return {ours.get(name, name): value for name, value in left.items()}


def gathered_rows(records: Iterable[Record], asked: Asked) -> Iterator[tuple[Record, int]]:
    """One row for those that follow each other with one prompt, and how many they are. One without text stays alone."""

    def opened() -> Iterator[Record]:
        for record in records:
            try:
                yield record._replace(columns=read_cells(renamed(record.columns, asked)))
            except MalformedError as error:
                raise InputError(f"{record.file} {record.unit} {record.number}: {error}") from None

    one = (*PROMPTS, *SYSTEMS, *BESIDE)
    for _, group in groupby(opened(), lambda record: [repr(record.columns.get(name)) for name in one]):
        answered = []
        for row in group:
            if row_answer(row.columns):
                answered.append(row)
            else:
                yield row, 1
        if len({repr(row.columns.get(WEIGHT)) for row in answered}) > 1:
            first = answered[0]
            place = f"{first.file} {first.unit} {first.number}"
            raise InputError(f"{place}: the answers to this prompt have different weights; they make one row, with one")
        if answered:
            yield answered[0]._replace(columns=gathered([row.columns for row in answered])), len(answered)
