"""The functions that several losses share, against Python's own arithmetic on many more digits."""

import math
from decimal import Decimal, localcontext

import pytest
import torch

from pairtune.engine.kernels import logprobs, logprobs_gradient
from pairtune.objectives.functions import log1m_exp
from pairtune.objectives.reference_free import orpo, unlikelihood

LOGPROBS = [-(10.0**k) for k in (-37, -30, -20, -12, -9, -8, -7, -6.5, -6, -5, -3, -1, 0, 1, 1.5)] + [-0.69, -0.7]


def exactly(x: float) -> tuple[float, float]:
    """log(1 − exp x) and its slope, −exp x / (1 − exp x), on 60 digits."""
    with localcontext() as context:
        context.prec = 60
        p = Decimal(x).exp()
        return float((1 - p).ln()), float(-p / (1 - p))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("logprob", LOGPROBS)
def test_log1m_exp_and_its_slope(logprob: float, dtype: torch.dtype) -> None:
    x = torch.tensor([logprob], dtype=dtype, requires_grad=True)
    found = log1m_exp(x)
    found.backward()
    assert x.grad is not None
    value, slope = exactly(x.item())
    precision = 4 * torch.finfo(dtype).eps
    assert found.item() == pytest.approx(value, rel=precision)
    assert x.grad.item() == pytest.approx(slope, rel=precision)


@pytest.mark.parametrize("logprob", [0.0, -0.0, 1e-7, 1e-3, -1e-45])
def test_a_certain_token_has_a_value_and_a_slope(logprob: float) -> None:
    x = torch.tensor([logprob, -1.0], requires_grad=True)
    found = log1m_exp(x)
    found.sum().backward()
    assert x.grad is not None
    value, slope = exactly(-(2.0**-20))
    assert found[0].item() == pytest.approx(value, rel=1e-5)
    assert x.grad[0].item() == pytest.approx(slope, rel=1e-5)
    assert x.grad[1].item() == pytest.approx(exactly(-1.0)[1], rel=1e-6)


def test_what_is_impossible_takes_nothing_away_and_what_is_no_number_stays_so() -> None:
    x = torch.tensor([-torch.inf, torch.nan], requires_grad=True)
    found = log1m_exp(x)
    found[0].backward()
    assert found[0].item() == 0
    assert found[1].isnan()
    assert x.grad is not None
    assert x.grad[0].item() == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("lead", [5.0, 14.0, 15.5, 17.0, 20.0, 30.0])
def test_a_certain_token_is_unlearned_through_the_head(lead: float, dtype: torch.dtype) -> None:
    """−log(1 − p) falls with the rivals' logits by p in all, however certain the token is; never by more than that."""
    logits = torch.zeros(1, 8)
    logits[0, 3], logits[0, 5:] = lead, -40
    logits, target = logits.to(dtype), torch.tensor([3])
    logprob, normaliser = logprobs(logits, target, 1.0)
    x = logprob.clone().requires_grad_()
    (-log1m_exp(x)).sum().backward()
    assert x.grad is not None
    gradient = logits.clone()
    logprobs_gradient(gradient, target, normaliser, x.grad, 1.0)
    on_rivals = -float(gradient.float().sum() - gradient[0, 3])
    others = 4 * math.exp(-lead)
    exact = 1 / (1 + others)  # what the rivals' logits gain together: −p/(1 − p) times their 1 − p
    if others > 1e-6:  # else 1 − p is lost in the logits' own rounding
        assert on_rivals == pytest.approx(exact, rel=0.3)
    assert 1e-9 < on_rivals < 2


def test_unlikelihood_pushes_a_certain_rejected_token() -> None:
    rejected = torch.tensor([0.0, -2.0, 1e-7], requires_grad=True)
    loss = unlikelihood(torch.tensor([-3.0]), rejected, torch.tensor([3]), torch.tensor(2.0), alpha=1.0)
    loss.sum().backward()
    assert rejected.grad is not None
    assert loss.isfinite().all()
    assert (rejected.grad > 0).all()


def test_orpo_pushes_a_certain_rejected_response_and_holds_a_certain_chosen_one() -> None:
    chosen, rejected = torch.zeros(1, requires_grad=True), torch.zeros(1, requires_grad=True)
    lengths = torch.ones(1, dtype=torch.long)
    loss = orpo(chosen, rejected, lengths, lengths, odds_weight=1.0)
    loss.sum().backward()
    assert loss.isfinite().all()
    assert chosen.grad is not None
    assert rejected.grad is not None
    assert chosen.grad.item() < 0 < rejected.grad.item() < torch.inf
