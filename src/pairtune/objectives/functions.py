"""Functions that several losses share. Only methods of tensors are used here and in every loss, never `import torch`:
the catalogue can then be listed in milliseconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

# exp grows no further than this many nats, but goes on as its tangent: finite, and its slope never vanishes.
EXP_BOUND = 20.0
# log(1 − exp x) changes its formula at −ln 2 (Mächler 2012, "Accurately computing log(1 − exp(−|a|))").
LN2 = 0.6931471805599453
# Numbers nearer to 0 are not normal in float32: 1/x would overflow.
SMALLEST = 2.0**-126
# Spacings of numbers below 1 within which the log-probability of a certain token is rounded: logits are 8 to 16.
ROUNDING = 16


def log_sigmoid(x: Tensor) -> Tensor:
    """log σ(x) = −log(1 + exp(−x)) without overflow, element by element."""
    return -(-x).logaddexp(x.new_zeros(()))


def bounded_exp(x: Tensor) -> Tensor:
    """exp(x), and above x = 20 its tangent there: exp itself overflows float32 at x = 89."""
    return x.clamp(max=EXP_BOUND).exp() * (1 + (x - EXP_BOUND).relu())


def log1m_exp(logprob: Tensor) -> Tensor:
    """log(1 − exp(x)), the log of the probability of all else: for every x < 0 right, and so is its slope −p/(1 − p).

    An x of 0 (or above, by rounding) says only that 1 − p is lost in a log-probability's own rounding, a logit's last
    bit: it counts as −2⁻²⁰ (in float32; −2⁻⁴⁹ in float64). So value and slope are finite there, −13.9 and −10⁶, and
    the slope does not vanish: times the 1 − p of the softmax's gradient it is at most about 1, its true limit.
    """
    one = logprob.new_ones(())
    rounding = ROUNDING * (one - one.nextafter(one * 0))
    logprob = logprob.where(logprob <= -SMALLEST, logprob - logprob.detach() - rounding)
    likely = (-logprob.clamp(min=-LN2).expm1()).log()  # each clamped to where it is right: no 0·∞ in its gradient
    unlikely = (-logprob.clamp(max=-LN2).exp()).log1p()
    return likely.where(logprob > -LN2, unlikely)


def token_sums(value_R: Tensor, length_B: Tensor) -> Tensor:
    """Sum a value per token over each response: [R] -> [B]."""
    response_R = length_B.new_ones(len(length_B)).cumsum(0).sub(1).repeat_interleave(length_B)
    return value_R.new_zeros(len(length_B)).index_add(0, response_R, value_R)


def places(length_B: Tensor) -> Tensor:
    """The place of each token in its response, from 0, responses end to end: [R]."""
    first_B = length_B.cumsum(0) - length_B
    return length_B.new_ones(int(length_B.sum())).cumsum(0) - 1 - first_B.repeat_interleave(length_B)
