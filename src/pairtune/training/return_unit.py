"""The unit that PPO's values are in: the mean and the deviation of the returns so far."""

import math

import torch
from torch import Tensor, nn


class ReturnUnit:
    """A value model gives deviations from the mean of all returns seen, one deviation being 1.

    As these change its head is changed with them, so that no value does: van Hasselt et al. 2016, arXiv 1602.07714.
    Before the first returns nothing is to be kept: a reward model's normalised scores are read in the new unit.
    """

    def __init__(self, head: nn.Linear) -> None:
        self.head = head
        # Of the returns: how many, their mean, the sum of their squared distances from it. Kept in checkpoints.
        self.state = {"returns": torch.zeros(3, dtype=torch.float64)}

    @property
    def mean(self) -> float:
        """Of all returns seen."""
        return float(self.state["returns"][1])

    @property
    def deviation(self) -> float:
        """Their standard deviation; 1 as long as they are all the same."""
        count, _, squares = self.state["returns"].tolist()
        return math.sqrt(squares / count) if squares > 0 else 1.0

    def to_rewards(self, value_R: Tensor) -> Tensor:
        """Values of the head in the rewards' unit."""
        return self.mean + self.deviation * value_R

    def from_rewards(self, return_R: Tensor) -> Tensor:
        """What the head is to give for these returns."""
        return (return_R - self.mean) / self.deviation

    @torch.no_grad()
    def see(self, return_R: Tensor) -> None:
        """Take in the returns of a round, [R]. No pass through the head may await its gradient."""
        count, mean, squares = self.state["returns"].tolist()
        mean_before, deviation_before = self.mean, self.deviation
        fresh = return_R.double()
        more, apart = len(fresh), float(fresh.mean()) - mean
        squares += float((fresh - fresh.mean()).square().sum()) + apart**2 * count * more / (count + more)
        mean += apart * more / (count + more)
        self.state["returns"].copy_(torch.tensor([count + more, mean, squares], dtype=torch.float64))
        if count:
            self.head.weight.mul_(deviation_before / self.deviation)
            self.head.bias.mul_(deviation_before).add_(mean_before - self.mean).div_(self.deviation)
