"""A row of results: our figure, the peer's, and how many times better ours is, each with its spread."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


class BenchmarkError(Exception):
    """Something that stops a benchmark, told in one line: a peer that cannot be had, results that do not agree."""


@dataclass(frozen=True)
class Spread:
    """The middle and the ends of a few repetitions."""

    median: float
    min: float
    max: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """The spread of at least one value. Raises BenchmarkError if one is not a number."""
        if not all(math.isfinite(value) for value in values):
            raise BenchmarkError(f"a measurement is not a number: {list(values)}")
        return cls(statistics.median(values), min(values), max(values))


@dataclass(frozen=True)
class Row:
    """One line of the table. `ratio` says how many times better ours is, whichever direction is better."""

    name: str
    unit: str
    ours: Spread
    peer: Spread | None
    ratio: Spread
    peer_version: str
    settings: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The row as plain values, in the order of its fields."""
        return asdict(self)


def versus(
    name: str,
    unit: str,
    ours: Sequence[float],
    peer: Sequence[float],
    *,
    peer_version: str,
    settings: Mapping[str, str],
    less_is_better: bool = False,
) -> Row:
    """A row from paired repetitions: the ratio's spread is that of the pairs' ratios."""
    pairs = list(zip(ours, peer, strict=True))
    ratios = [theirs / mine if less_is_better else mine / theirs for mine, theirs in pairs]
    return Row(name, unit, Spread.of(ours), Spread.of(peer), Spread.of(ratios), peer_version, settings)
