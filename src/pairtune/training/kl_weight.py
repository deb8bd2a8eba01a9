"""The weight of the KL in a reward or a loss: fixed, or steered to a target."""

import torch
from torch import Tensor

from pairtune.objectives.policy_gradient import adapted_kl_coefficient


class KlWeight:
    """`now`, and what it becomes at the end of each round; kept in checkpoints by its `state`."""

    def __init__(self, coefficient: float, *, target: float) -> None:
        self.target = target  # in nats per response; 0: none
        self.state: dict[str, Tensor] = {"kl_coefficient": torch.tensor(coefficient, dtype=torch.float64)}

    @property
    def now(self) -> float:
        """The weight of this round."""
        return float(self.state["kl_coefficient"])

    def end(self, kl: float, answers: int) -> dict[str, float]:
        """The round's weight, for its record; after it, the next round's, if there is a target."""
        used = self.now
        if self.target > 0:
            self.state["kl_coefficient"].fill_(adapted_kl_coefficient(used, kl, target=self.target, answers=answers))
        return {"kl_coefficient": used}
