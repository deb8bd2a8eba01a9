"""Losses on pairs: values by hand, gradients by gradcheck, and no infinities where policies have run far away."""

import inspect
import math

import pytest
import torch

from pairtune.objectives.catalog import OBJECTIVES
from pairtune.objectives.pairwise import dpo, ipo
from pairtune.objectives.reward import bradley_terry

LOSSES = {**{name: entry.loss for name, entry in OBJECTIVES.items()}, "bradley_terry": bradley_terry}
ARGUMENTS = {name: {key: p.default for key, p in entry.parameters.items()} for name, entry in OBJECTIVES.items()}
every_loss = pytest.mark.parametrize("name", LOSSES)


def evaluate(name, chosen, rejected, **changed):
    return LOSSES[name](chosen, rejected, **{**ARGUMENTS.get(name, {}), **changed})


def doubles(*values):
    return torch.tensor(values, dtype=torch.float64)


def test_dpo_by_hand():
    """-log sigmoid(0.5 * (2 - (-1))) = log(1 + e^-1.5); at the reference ln 2; mirrored it adds the margin."""
    found = dpo(doubles(2, 0, -1), doubles(-1, 0, 2), beta=0.5)
    assert found.tolist() == pytest.approx([0.20141327798275244, math.log(2), 1.7014132779827524], rel=1e-12)


def test_ipo_by_hand():
    """(3 - 1/(2 * 0.25))² = 1; nothing at the target; at the reference the target's square."""
    found = ipo(doubles(2, 1.5, 0), doubles(-1, -0.5, 0), beta=0.25)
    assert found.tolist() == pytest.approx([1.0, 0.0, 4.0], abs=1e-12)


def test_bradley_terry_by_hand():
    found = bradley_terry(doubles(1, 5, 0), doubles(0, 5, 1))
    expected = [math.log1p(math.exp(-1)), math.log(2), math.log1p(math.e)]
    assert found.tolist() == pytest.approx(expected, rel=1e-12)


def test_the_gradient_of_dpo_is_that_of_the_paper():
    """-beta * sigmoid(-beta * margin) on the chosen log-ratio, the opposite on the rejected one."""
    chosen, rejected = doubles(2.0, -3.0).requires_grad_(), doubles(-1.0, 4.0).requires_grad_()
    dpo(chosen, rejected, beta=0.5).sum().backward()
    expected = [-0.5 / (1 + math.exp(0.5 * margin)) for margin in (3, -7)]
    assert chosen.grad.tolist() == pytest.approx(expected, rel=1e-12)
    assert rejected.grad.tolist() == pytest.approx([-x for x in expected], rel=1e-12)


@every_loss
def test_gradcheck(name):
    generator = torch.Generator().manual_seed(0)
    sides = [3 * torch.randn(6, generator=generator, dtype=torch.float64) for _ in range(2)]
    assert torch.autograd.gradcheck(
        lambda chosen, rejected: evaluate(name, chosen, rejected), [side.requires_grad_() for side in sides]
    )


@every_loss
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_finite_however_far_the_policy_has_gone(name, dtype):
    far = torch.tensor([1e4, -1e4, 1e4, -1e4, 0.0], dtype=dtype)
    chosen, rejected = far.clone().requires_grad_(), far[[1, 0, 0, 1, 4]].clone().requires_grad_()
    loss = evaluate(name, chosen, rejected)
    loss.sum().backward()
    for values in (loss, chosen.grad, rejected.grad):
        assert torch.isfinite(values).all()
        assert values.dtype == dtype
    assert chosen.grad[1] != 0, "the pair that is most wrong still teaches"


@every_loss
def test_one_loss_an_example_and_only_the_difference_counts(name):
    chosen, rejected = doubles(1, -2, 3), doubles(0, 4, 3)
    loss = evaluate(name, chosen, rejected)
    assert loss.shape == (3,)
    torch.testing.assert_close(evaluate(name, chosen + 7, rejected + 7), loss)
    alone = torch.cat([evaluate(name, chosen[i : i + 1], rejected[i : i + 1]) for i in range(3)])
    assert torch.equal(alone, loss)


@pytest.mark.parametrize("name", OBJECTIVES)
class TestCatalogue:
    """What a person reads of an objective is what its function takes."""

    def test_its_parameters_are_the_functions_own(self, name):
        entry = OBJECTIVES[name]
        takes = inspect.signature(entry.loss).parameters.values()
        assert [p.name for p in takes if p.kind is p.POSITIONAL_OR_KEYWORD] == [
            "chosen_logratio_B",
            "rejected_logratio_B",
        ]
        keywords = [p for p in takes if p.kind is p.KEYWORD_ONLY]
        assert [p.name for p in keywords] == list(entry.parameters)
        assert all(p.default is p.empty for p in keywords), "the catalogue alone holds defaults"

    def test_no_parameter_is_ignored(self, name):
        usual = evaluate(name, doubles(1.5), doubles(-0.5))
        for key, parameter in OBJECTIVES[name].parameters.items():
            changed = evaluate(name, doubles(1.5), doubles(-0.5), **{key: 2 * parameter.default + 0.1})
            assert not torch.equal(changed, usual), key

    def test_it_says_what_it_is(self, name):
        entry = OBJECTIVES[name]
        assert entry.name == name
        assert "arXiv" in entry.source
        assert entry.source.split("arXiv ")[1].split(",")[0] in entry.loss.__doc__, "the docstring has the same source"
        assert entry.equation
        assert all(parameter.meaning for parameter in entry.parameters.values())
