"""What a method asks of its user is counted from the code, not remembered."""

import ast
import dataclasses
import inspect

import pytest

from pairtune.comparison.effort import code_lines, effort
from pairtune.engine import examples, reference, unrelated
from pairtune.objectives import pairwise, policy_gradient
from pairtune.objectives.catalog import OBJECTIVES
from pairtune.settings import Ppo, Reward, Tuning
from pairtune.training import ppo, preference


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
def test_settings_are_counted_by_name_each_once(method: str) -> None:
    found = effort(method).settings_to_tune
    own = [field.name for field in dataclasses.fields(Tuning)]
    assert found == [f"preference.{name}" for name in (*own, *OBJECTIVES[method].parameters)]
    assert len(set(found)) == len(found)


def test_ppos_settings_are_its_own_and_those_of_its_reward_model() -> None:
    reward, own = ([field.name for field in dataclasses.fields(kind)] for kind in (Reward, Ppo))
    assert effort("ppo").settings_to_tune == [f"reward.{name}" for name in reward] + [f"ppo.{name}" for name in own]


def test_a_sum_counts_each_parts_settings_and_shared_ones_once() -> None:
    names = effort("dpo+0.2*simpo").settings_to_tune
    assert [name for name in names if name.endswith((".beta", ".gamma"))] == ["preference.beta", "preference.gamma"]


def by_hand(*sources: object) -> int:
    """Lines that hold code, counted the other way round: what is left of the text without comments and docstrings."""
    total = 0
    for source in sources:
        tree = ast.parse(inspect.getsource(source))  # type: ignore[arg-type]
        for node in ast.walk(tree):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node) is not None:
                node.body = node.body[1:]
        total += len({n.lineno for n in ast.walk(tree) if isinstance(n, ast.stmt)})
    return total


def test_lines_are_those_of_the_modules_that_a_method_runs_and_no_others() -> None:
    """A loss that needs no reference is not billed for the reference; one that asks for more is billed for that."""
    shared = code_lines(preference) + code_lines(examples)
    assert effort("sft").lines_of_code == shared + code_lines(OBJECTIVES["sft"].loss)
    assert effort("dpo").lines_of_code == shared + code_lines(reference) + code_lines(OBJECTIVES["dpo"].loss)
    more = effort("kto").lines_of_code - effort("dpo").lines_of_code
    assert more == code_lines(unrelated) + code_lines(OBJECTIVES["kto"].loss) - code_lines(OBJECTIVES["dpo"].loss)


def test_a_line_of_code_is_a_line_that_a_statement_stands_on() -> None:
    """No line is counted that holds no code: at least as many as statements begin on, at most as many as there are."""
    for source in (preference, ppo, policy_gradient, OBJECTIVES["dpo"].loss):
        text = inspect.getsource(source)
        assert by_hand(source) <= code_lines(source) < len([line for line in text.splitlines() if line.strip()])
