"""The unit of values: as numpy has mean and deviation of everything seen, and no value moves when it changes."""

import numpy as np
import pytest
import torch
from torch import nn

from pairtune.training.return_unit import ReturnUnit


@pytest.fixture
def head() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(5, 1)


def rounds() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [100 + i + (1 + i) * torch.randn(7 + i, generator=generator) for i in range(4)]


def test_mean_and_deviation_of_all_returns_seen(head: nn.Linear) -> None:
    unit, seen = ReturnUnit(head), np.array([])
    for returns in rounds():
        unit.see(returns)
        seen = np.append(seen, returns.double().numpy())
        assert unit.mean == pytest.approx(seen.mean(), rel=1e-12)
        assert unit.deviation == pytest.approx(seen.std(), rel=1e-9)
        back = unit.to_rewards(unit.from_rewards(returns))
        assert back.tolist() == pytest.approx(returns.tolist(), rel=1e-6)


def test_no_value_moves_with_the_unit_but_at_the_first_round(head: nn.Linear) -> None:
    unit, states = ReturnUnit(head), torch.randn(6, 5)
    plain = head(states)[:, 0]
    first, *others = rounds()
    unit.see(first)
    assert torch.equal(head(states)[:, 0], plain)
    values = unit.to_rewards(plain)
    for returns in others:
        before = head.weight.clone()
        unit.see(returns)
        assert not torch.equal(head.weight, before)
        assert unit.to_rewards(head(states)[:, 0]).tolist() == pytest.approx(values.tolist(), rel=1e-5)


def test_returns_that_are_all_the_same_have_unit_1(head: nn.Linear) -> None:
    unit = ReturnUnit(head)
    unit.see(torch.full((3,), 2.0))
    assert (unit.mean, unit.deviation) == (2.0, 1.0)
    unit.see(torch.tensor([2.0, 3.0]))
    assert unit.deviation == pytest.approx(np.std([2, 2, 2, 2, 3]))


def test_it_goes_on_from_its_state(head: nn.Linear) -> None:
    unit, other = ReturnUnit(head), ReturnUnit(nn.Linear(5, 1))
    unit.see(rounds()[0])
    other.state["returns"].copy_(unit.state["returns"])
    other.head.load_state_dict(head.state_dict())
    for each in (unit, other):
        each.see(rounds()[1])
    assert torch.equal(unit.head.weight, other.head.weight)
    assert torch.equal(unit.head.bias, other.head.bias)
