"""The reward model's objective. Shape suffix: B, pairs."""

import torch.nn.functional as F
from torch import Tensor


def bradley_terry(chosen_reward_B: Tensor, rejected_reward_B: Tensor) -> Tensor:
    """−log σ(r(x, y_w) − r(x, y_l)): the negative log-likelihood of each preference (Bradley & Terry 1952).

    Equation 2 of Rafailov et al. 2023, arXiv 2305.18290. Rewards are unbounded scalars; returns [B], nats.
    """
    return -F.logsigmoid(chosen_reward_B - rejected_reward_B)
