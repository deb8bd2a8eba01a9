"""What a method asks of its user is counted from the code, not remembered."""

import dataclasses

import pytest

from pairtune.comparison.effort import code_lines, effort
from pairtune.objectives import pairwise
from pairtune.objectives.catalog import OBJECTIVES
from pairtune.settings import Ppo


def counted() -> int:
    """A docstring
    of two lines."""
    # a comment

    return (
        1  # and one beside code
        + 2
    )


def test_lines_of_code_are_neither_blank_nor_comment_nor_docstring() -> None:
    assert code_lines(counted) == 5
    assert code_lines(pairwise.dpo) == 2


def test_ppo_asks_for_four_models_and_dpo_for_one() -> None:
    assert (effort("ppo").models_in_memory, effort("dpo").models_in_memory) == (4, 1)


@pytest.mark.parametrize("method", list(OBJECTIVES))
def test_ppo_has_more_to_tune_and_more_code(method: str) -> None:
    ppo, other = effort("ppo"), effort(method)
    assert {f"ppo.{field.name}" for field in dataclasses.fields(Ppo)} <= set(ppo.settings_to_tune)
    assert {f"preference.{name}" for name in OBJECTIVES[method].parameters} < set(other.settings_to_tune)
    assert not {"preference.objective", "preference.parameters"} & set(other.settings_to_tune)
    assert len(ppo.settings_to_tune) > len(other.settings_to_tune)
    assert ppo.lines_of_code > other.lines_of_code > 20
