"""A file without the rows that teach nothing, twice, both ways or what nobody sees; one of what went and why."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from pairtune import disk
from pairtune.data.check import hashed
from pairtune.data.check_texts import unseen_in
from pairtune.data.schema import Labelled, Message, Pair

Row = Pair | Labelled
SIDES: dict[type, tuple[str, ...]] = {Pair: ("chosen", "rejected"), Labelled: ("response",)}


def write_fixed(rows: Sequence[Pair] | Sequence[Labelled], path: Path, origin: str) -> tuple[int, Path, Counter[str]]:
    """Write the rows that are worth training on, in columns of ours, and what was left out to another file beside it.

    Returns how many were kept, that other file, and how many went for which reason. Both are written whole or not at
    all.
    """
    left_out = beside(path)
    both_ways, seen, reasons = _both_ways(rows), set[int](), Counter[str]()
    weighed = any(row.weight != 1 for row in rows)  # a weight beside some rows only cannot be read
    partial = disk.beside(path), disk.beside(left_out)
    with partial[0].open("w", encoding="utf-8") as kept, partial[1].open("w", encoding="utf-8") as other:
        for row in rows:
            key = _key(row)
            reason = (
                "both sides are the same"
                if isinstance(row, Pair) and row.chosen == row.rejected
                else "it contradicts another row"
                if key in both_ways
                else "it repeats an earlier row"
                if key in seen
                else "it holds characters that nobody sees"
                if unseen_in(row)
                else ""
            )
            seen.add(key)
            if reason:
                reasons[reason] += 1
                other.write(json.dumps({"row": row.row, "of": origin, "reason": reason}, ensure_ascii=False) + "\n")
            else:
                columns = as_columns(row) | ({"weight": row.weight} if weighed else {})
                kept.write(json.dumps(columns, ensure_ascii=False) + "\n")
    disk.put(partial[1], left_out)
    disk.put(partial[0], path)
    return len(rows) - reasons.total(), left_out, reasons


def beside(path: Path) -> Path:
    """The file of what was left out of another one."""
    return path.with_name(f"{path.name.removesuffix('.jsonl')}.left-out.jsonl")


def as_columns(row: Row) -> dict[str, object]:
    """A row in columns of ours, but for its weight: it is read again as just this row."""
    dialogue = not isinstance(row.prompt, str)
    columns: dict[str, object] = {"prompt": _turns(row.prompt) if isinstance(row.prompt, tuple) else row.prompt}
    for side in SIDES[type(row)]:
        response = getattr(row, side)
        turn = response if isinstance(response, Message) else Message("assistant", response)
        columns[side] = _turns((turn,)) if dialogue else response
    if isinstance(row, Labelled):
        columns["label"] = row.label
    if row.beside:
        given = json.loads(row.beside)
        tools = {"tools": given.pop("tools")} if "tools" in given else {}
        columns |= tools | ({"chat_template_kwargs": given} if given else {})
    if isinstance(row, Pair) and row.margin is not None:
        columns["margin"] = row.margin
    return columns


def _turns(turns: tuple[Message, ...]) -> list[dict[str, object]]:
    return [{"role": turn.role, "content": turn.content, **turn.others()} for turn in turns]


def _both_ways(rows: Sequence[Row]) -> set[int]:
    """The keys of rows that stand there the other way round as well."""
    keys = {_key(row) for row in rows}
    return {_key(row) for row in rows if (other := _key(row, turned=True)) in keys and other != _key(row)}


def _key(row: Row, *, turned: bool = False) -> int:
    if isinstance(row, Pair):
        sides = (row.rejected, row.chosen) if turned else (row.chosen, row.rejected)
        return hashed((row.prompt, row.beside, *sides))
    return hashed((row.prompt, row.beside, row.response, row.label is not turned))
