"""What tells candidates apart: one answer for those who name them, for the verdict and for the report."""

from collections.abc import Mapping, Sequence
from typing import Any


def varied(candidates: Sequence[Mapping[str, Any]]) -> list[str]:
    """The parameters in which the candidates of one method differ, each given as its parameters by name."""
    names = dict.fromkeys(name for each in candidates for name in each)
    return [name for name in names if any(each.get(name) != candidates[0].get(name) for each in candidates)]
