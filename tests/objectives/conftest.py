"""What the tests of objectives share: made-up token log-probabilities on which any objective can be called."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from pairtune.objectives.catalog import OBJECTIVES
from pairtune.objectives.loss import loss_of
from pairtune.objectives.quantities import quantities


@dataclass
class Batch:
    """Pairs as tokens; `logprob_R` is what a policy would be differentiated by."""

    logprob_R: Tensor
    reference_R: Tensor
    collision_R: Tensor
    length_S: Tensor
    numbers: dict[str, Tensor]

    def loss(self, name: str, **parameters: float) -> Tensor:
        """One loss per pair."""
        loss = loss_of(name, parameters)
        return loss(self.quantities(loss.arguments))

    def quantities(self, arguments: tuple[str, ...]) -> dict[str, Tensor]:
        tokens = {"logprob": self.logprob_R, "reference": self.reference_R, "collision": self.collision_R}
        label_S = torch.tensor([True, False]).repeat(len(self.length_S) // 2)
        return quantities(arguments, tokens, self.length_S, label_S, self.numbers)

    def pair(self, i: int) -> "Batch":
        """One pair by itself."""
        sizes = self.length_S.view(-1, 2).sum(1).tolist()
        parts = [x.split(sizes)[i] for x in (self.logprob_R, self.reference_R, self.collision_R)]
        return Batch(*parts, self.length_S[2 * i : 2 * i + 2], self.numbers)


def _numbers(dtype: torch.dtype) -> dict[str, Tensor]:
    values = {"kl_baseline": 0.4, "past_logratio": -0.2, "past_margin": 0.3, "mean_length": 3.0}
    return {name: torch.tensor(value, dtype=dtype) for name, value in values.items()}


def _batch(pairs: int = 6, *, seed: int = 0, dtype: torch.dtype = torch.float64) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    length_S = torch.randint(1, 6, (2 * pairs,), generator=generator)
    logprob_R, reference_R, collision_R = (
        -0.05 - 2 * torch.rand(int(length_S.sum()), generator=generator, dtype=dtype) for _ in range(3)
    )
    return Batch(logprob_R.requires_grad_(), reference_R, collision_R, length_S, _numbers(dtype))


@pytest.fixture(scope="session")
def batch() -> Callable[..., Batch]:
    """batch(pairs=6, *, seed=0, dtype=float64): pairs of random lengths and log-probabilities."""
    return _batch


@pytest.fixture(scope="session")
def far_batch() -> Callable[[torch.dtype], Batch]:
    """far_batch(dtype): one-token pairs whose log-ratios are (±10⁴, ±10⁴), and one that has not moved."""

    def far(dtype: torch.dtype) -> Batch:
        ratios = torch.tensor([1e4, 1e4, 1e4, -1e4, -1e4, 1e4, -1e4, -1e4, 0, 0], dtype=dtype)
        reference_R = -1 - ratios.relu()
        return Batch(
            (reference_R + ratios).requires_grad_(),
            reference_R,
            -torch.ones_like(ratios),
            torch.ones(10, dtype=torch.long),
            _numbers(dtype),
        )

    return far


@pytest.fixture(params=list(OBJECTIVES))
def name(request: pytest.FixtureRequest) -> str:
    """The name of each objective, in turn."""
    return str(request.param)
