"""Names and numbers as they are written everywhere."""

from typing import Any

import pytest

from pairtune.report.words import varied


@pytest.mark.parametrize(
    ("candidates", "names"),
    [
        ([{"beta": 1, "gamma": 2}, {"beta": 1, "gamma": 3}], ["gamma"]),
        ([{"beta": 1}, {"gamma": 1, "beta": 1}], ["gamma"]),
        ([{"beta": 1, "gamma": 2}], []),
        ([], []),
    ],
)
def test_what_tells_candidates_apart(candidates: list[dict[str, Any]], names: list[str]) -> None:
    assert varied(candidates) == names
