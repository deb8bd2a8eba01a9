"""Functions that several losses share. Only methods of tensors are used here and in every loss, never `import torch`:
the catalogue can then be listed in milliseconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

# exp grows no further than this many nats, but goes on as its tangent: finite, and its slope never vanishes.
EXP_BOUND = 20.0
# A mean log-probability nearer to 0 than this counts as this: 1 − p would be 0 in float32.
SURE = 1e-6


def log_sigmoid(x: Tensor) -> Tensor:
    """log σ(x) = −log(1 + exp(−x)) without overflow, element by element."""
    return -(-x).logaddexp(x.new_zeros(()))


def bounded_exp(x: Tensor) -> Tensor:
    """exp(x), and above x = 20 its tangent there: exp itself overflows float32 at x = 89."""
    return x.clamp(max=EXP_BOUND).exp() * (1 + (x - EXP_BOUND).relu())


def log1m_exp(logprob: Tensor) -> Tensor:
    """log(1 − exp(x)) for x ≤ 0; x above −1e-6 counts as −1e-6."""
    return (-logprob.clamp(max=-SURE).expm1()).log()


def token_sums(value_R: Tensor, length_B: Tensor) -> Tensor:
    """Sum a value per token over each response: [R] -> [B]."""
    response_R = length_B.new_ones(len(length_B)).cumsum(0).sub(1).repeat_interleave(length_B)
    return value_R.new_zeros(len(length_B)).index_add(0, response_R, value_R)


def places(length_B: Tensor) -> Tensor:
    """The place of each token in its response, from 0, responses end to end: [R]."""
    first_B = length_B.cumsum(0) - length_B
    return length_B.new_ones(int(length_B.sum())).cumsum(0) - 1 - first_B.repeat_interleave(length_B)
