"""The arithmetic of a row: which way better points, what is paired with what, and the JSON others read."""

import json
from typing import Any

import pytest

from benchmarks.results import BenchmarkError, Spread, versus


def row(**changes: Any) -> Any:
    fields = {"ours": [4.0, 6.0, 9.0], "peer": [1.0, 2.0, 2.0], "peer_version": "trl 1", "settings": {"both": "x"}}
    return versus("trl", "pairs/s", **{**fields, **changes})


def test_more_is_better_divides_ours_by_the_peers_pair_by_pair() -> None:
    assert row().ratio == Spread(median=4.0, min=3.0, max=4.5)  # of 4, 3 and 4.5, not 6 / 2


def test_less_is_better_turns_the_ratio_round() -> None:
    assert row(less_is_better=True).ratio == Spread(median=0.25, min=2 / 9, max=1 / 3)


def test_sides_of_different_length_are_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        row(peer=[1.0])


def test_a_figure_that_is_no_number_stops_the_benchmark() -> None:
    with pytest.raises(BenchmarkError, match="not a number"):
        row(ours=[1.0, float("nan"), 2.0])


def test_json_has_the_agreed_keys_in_order() -> None:
    plain = json.loads(json.dumps(row().to_json()))
    assert list(plain) == ["name", "unit", "ours", "peer", "ratio", "peer_version", "settings"]
    assert plain["ours"] == {"median": 6.0, "min": 4.0, "max": 9.0}
