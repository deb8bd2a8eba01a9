"""What a method asks of its user is counted from the code that its stages run, not remembered."""

import ast
import dataclasses
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from types import CodeType
from typing import Any

import pytest

from pairtune.comparison.effort import Source, code_lines, effort, reached, sources
from pairtune.data.pack import Tokens
from pairtune.engine import mismatched, reference
from pairtune.engine.examples import prepare
from pairtune.engine.logprob import logprobs_and_collisions, token_logprobs
from pairtune.models.heads import ScalarModel
from pairtune.objectives import pairwise, policy_gradient
from pairtune.objectives.catalog import OBJECTIVES
from pairtune.objectives.loss import loss_of
from pairtune.sampling import packed
from pairtune.settings import Ppo, Reward, Tuning
from pairtune.stages.preference import tune
from pairtune.stages.sft import sft
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


def test_the_lines_are_those_of_what_is_reached_each_once() -> None:
    for method in ("dpo", "ppo"):
        assert effort(method).lines_of_code == sum(code_lines(source) for source in sources(method))


NEEDED = {
    "reference": {reference.reference_logprobs},
    "mismatched": {mismatched.mismatched_rows, mismatched.kl_baseline},
    "collision": {inspect.unwrap(logprobs_and_collisions)},
}


@pytest.mark.parametrize("method", list(OBJECTIVES))
def test_an_objective_is_billed_for_what_it_needs_and_no_more(method: str) -> None:
    """A loss that needs no reference is not billed for the reference; one that asks for more is billed for that."""
    found, needs = sources(method), loss_of(method).needs
    for need, several in NEEDED.items():
        assert several <= found if need in needs else not several & found, need
    losses = {objective.loss for objective in OBJECTIVES.values()}
    assert found & losses == reached(OBJECTIVES[method].loss) & losses >= {OBJECTIVES[method].loss}


def test_what_every_training_needs_is_nobodys() -> None:
    for method in ("dpo", "ppo"):
        assert inspect.unwrap(token_logprobs) not in sources(method)
    drawing = inspect.unwrap(packed.sample_packed)
    assert drawing in sources("ppo"), "named in a table, by which the sampler chooses"
    assert ScalarModel in sources("ppo")
    assert not {drawing, ScalarModel} & sources("dpo")


def test_all_that_runs_is_reached(tiny_model: Any, tiny_tokenizer: Any, tmp_path: Path) -> None:
    """Every function that tuning really calls, in the modules that are its own, is one that was found, or a method."""
    model, tokenizer, loss = tiny_model(), tiny_tokenizer(), loss_of("kto")
    rows = [Tokens((3, 10 + i), ((20, 21, 1), (30, 1))) for i in range(4)]
    ran: set[str] = set()

    def watch(frame: Any, event: str, _: Any) -> None:
        if event == "call" and frame.f_globals.get("__name__", "").startswith("pairtune."):
            ran.add(f"{frame.f_globals['__name__']}.{name_of(frame.f_code)}")

    sys.setprofile(watch)
    try:
        examples, _ = prepare(model, rows, loss.needs, seed=0)
        tune(
            tmp_path,
            name="kto",
            model=model,
            tokenizer=tokenizer,
            examples=examples,
            loss=loss,
            settings=Tuning(),
            seed=0,
        )
    finally:
        sys.setprofile(None)
    own = {each.__module__ for each in sources("kto")} - {each.__module__ for each in reached(sft)}
    named = {name for name in ran if name.rpartition(".")[2].isidentifier() and "__create_fn__" not in name}
    called = {name for name in named if name.rpartition(".")[0] in own}
    assert {f"{preference.__name__}.train_preference", f"{reference.__name__}.reference_logprobs"} <= called
    assert called <= {f"{each.__module__}.{each.__qualname__}" for each in sources("kto")}


def test_the_readme_counts_what_there_is() -> None:
    """Its figures are a run's, which code that is added since makes too small."""
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    cells = (f"{len(each.settings_to_tune)}, {each.lines_of_code:,}" for each in map(effort, ("dpo", "ppo")))
    assert f"| settings to tune, lines of code of the arm alone | | {' | '.join(cells)} |" in readme


def name_of(code: CodeType) -> str:
    """The function or class at the top of a module that code belongs to."""
    return code.co_qualname.partition(".")[0]


def by_hand(source: Source | Any) -> int:
    """Lines that a statement stands on, docstrings left out."""
    tree = ast.parse(inspect.getsource(source))
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
    return len({n.lineno for n in ast.walk(tree) if isinstance(n, ast.stmt)})


@pytest.mark.parametrize("source", [preference.train_preference, ppo.rollout_of, policy_gradient.whiten, ScalarModel])
def test_a_line_of_code_is_a_line_that_a_statement_stands_on(source: Callable[..., Any]) -> None:
    """No line is counted that holds no code: at least as many as statements begin on, at most as many as there are."""
    text = inspect.getsource(source)
    assert by_hand(source) <= code_lines(source) < len([line for line in text.splitlines() if line.strip()])
