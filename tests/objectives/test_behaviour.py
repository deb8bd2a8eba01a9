"""What holds of every objective: right gradients, no infinities, one loss an example, no parameter ignored."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from pairtune.objectives.catalog import OBJECTIVES
from pairtune.objectives.loss import loss_of
from pairtune.objectives.objective import OF_LOGRATIOS
from pairtune.objectives.reward import bradley_terry

# What carries no gradient by definition: a weight, a dynamic β (with alpha 0 it does not move).
CONSTANTS = {"wpo": ("chosen_logprob_B", "rejected_logprob_B")}
STILL = {"beta-dpo": {"alpha": 0.0}}
# Those whose value saturates, so that a pair that is hopelessly wrong is given up.
SATURATING = {"exo", "apo-zero", "apo-down", "kto", "wpo"}


def test_gradcheck(name: str, batch: Callable[..., Any]) -> None:
    """Of the loss by each tensor that carries a gradient, in float64."""
    loss = loss_of(name, STILL.get(name))
    given = batch().quantities(loss.arguments)
    leaves = {
        key: value.detach().clone().requires_grad_()
        for key, value in given.items()
        if key not in CONSTANTS.get(name, ()) and ("logratio_" in key or "logprob_" in key)
    }
    assert leaves

    def function(*values: Tensor) -> Tensor:
        return loss(given | dict(zip(leaves, values, strict=True)))

    assert torch.autograd.gradcheck(function, tuple(leaves.values()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_finite_however_far_the_policy_has_gone(
    name: str, dtype: torch.dtype, far_batch: Callable[[torch.dtype], Any]
) -> None:
    far = far_batch(dtype)
    loss_B = far.loss(name)
    loss_B.sum().backward()
    assert loss_B.dtype == dtype
    assert torch.isfinite(loss_B).all()
    assert torch.isfinite(far.logprob_R.grad).all()
    if name not in SATURATING and not OBJECTIVES[name].whole_step:
        assert far.logprob_R.grad[4] != 0, "the chosen response of the pair that is most wrong still teaches"


def test_a_certain_policy_has_finite_losses(name: str, batch: Callable[..., Any]) -> None:
    """Log-probabilities of exactly 0: odds are infinite, and 1 − π is 0."""
    certain = batch(4, dtype=torch.float32)
    certain.logprob_R = torch.zeros_like(certain.logprob_R).requires_grad_()
    loss_B = certain.loss(name)
    loss_B.sum().backward()
    assert torch.isfinite(loss_B).all()
    assert torch.isfinite(certain.logprob_R.grad).all()


def test_one_loss_an_example_whatever_the_others_are(name: str, batch: Callable[..., Any]) -> None:
    pairs = batch(5)
    loss_B = pairs.loss(name)
    assert loss_B.shape == (5,)
    alone = torch.cat([pairs.pair(i).loss(name) for i in range(5)])
    if OBJECTIVES[name].whole_step:
        assert not torch.allclose(alone, loss_B)
    else:
        torch.testing.assert_close(alone, loss_B)


def test_a_better_policy_has_a_lower_loss(name: str, batch: Callable[..., Any]) -> None:
    """A small step down the gradient of the log-probabilities lowers the mean loss: the sign of every term is right."""
    pairs = batch()
    before = pairs.loss(name).mean()
    before.backward()
    pairs.logprob_R = (pairs.logprob_R - 1e-3 * pairs.logprob_R.grad / pairs.logprob_R.grad.norm()).detach()
    assert pairs.loss(name).mean() < before


def test_labels_matter(name: str, batch: Callable[..., Any]) -> None:
    """At the reference, the gradient raises the chosen response against the rejected one."""
    pairs = batch()
    pairs.reference_R = pairs.logprob_R.detach().clone()
    pairs.numbers |= {key: torch.zeros_like(pairs.numbers[key]) for key in OF_LOGRATIOS}
    (gradient_R,) = torch.autograd.grad(pairs.loss(name).sum(), pairs.logprob_R)
    sums_S = torch.stack([part.mean() for part in gradient_R.split(pairs.length_S.tolist())])
    raised = sums_S[0::2] < sums_S[1::2]
    assert (~raised).all() if name == "discopop" else raised.all()  # it begins downwards: see its docstring


def test_discopop_begins_upwards_from_a_tau_of_0_11_on(batch: Callable[..., Any]) -> None:
    """And with its own τ there is a minimum at z = −0.1186, where the paper's figure has it (−2.3714 at β = 0.05)."""
    loss = OBJECTIVES["discopop"].loss
    for tau, margin, sign in ((0.10, 0.0, 1), (0.11, 0.0, -1), (0.05, -2.372, -1), (0.05, -2.371, 1)):
        margin_B = torch.tensor([margin], dtype=torch.float64, requires_grad=True)
        loss(margin_B, torch.zeros_like(margin_B), beta=0.05, tau=tau).backward()
        assert margin_B.grad is not None
        assert margin_B.grad.sign() == sign, (tau, margin)


def test_no_parameter_is_ignored(name: str, batch: Callable[..., Any]) -> None:
    pairs = batch()
    usual = pairs.loss(name)
    for key, parameter in OBJECTIVES[name].parameters.items():
        other = 0.4 * parameter.default + 0.02
        assert not torch.allclose(pairs.loss(name, **{key: other}), usual), key


def test_whatever_depends_on_log_ratios_alone_needs_the_reference(name: str, batch: Callable[..., Any]) -> None:
    """A reference-free loss does not change with the reference; every other one does."""
    pairs = batch()
    usual = pairs.loss(name)
    pairs.reference_R = pairs.reference_R * 1.5
    assert torch.equal(pairs.loss(name), usual) != ("reference" in OBJECTIVES[name].needs)


def test_the_reward_model_s_loss_is_checked_likewise() -> None:
    sides = [torch.randn(6, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    assert torch.autograd.gradcheck(bradley_terry, sides)
    far = torch.tensor([1e4, -1e4], requires_grad=True)
    bradley_terry(far, -far).sum().backward()
    assert far.grad is not None
    assert torch.isfinite(far.grad).all()
