"""The reward model's objective. Shape suffix: B, pairs."""

import torch.nn.functional as F
from torch import Tensor


def bradley_terry(chosen_reward_B: Tensor, rejected_reward_B: Tensor, margin_B: Tensor | None = None) -> Tensor:
    """−log σ(r(x, y_w) − r(x, y_l)): the negative log-likelihood of each preference (Bradley & Terry 1952).

    Equation 2 of Rafailov et al. 2023, arXiv 2305.18290. Rewards are unbounded scalars; returns [B], nats.

    margin_B: taken from the difference, so that what was preferred by more is to score higher by more (Touvron et al.
    2023, arXiv 2307.09288, equation 2).
    """
    difference_B = chosen_reward_B - rejected_reward_B
    return -F.logsigmoid(difference_B if margin_B is None else difference_B - margin_B)
