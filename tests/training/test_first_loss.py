"""An untouched policy is told from one that is not the reference, within rounding that is measured, in either dtype."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from pairtune.data.pack import Tokens
from pairtune.engine import naive
from pairtune.engine.path import Paths, use_paths
from pairtune.errors import InputError
from pairtune.objectives.loss import loss_of
from pairtune.training.first_loss import check_first_loss, measured_rounding

Pairs = Callable[..., list[Tokens]]
EOS = 1


@pytest.fixture(params=[torch.float32, torch.bfloat16], ids=str)
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    return request.param  # type: ignore[no-any-return]


def test_a_wrong_reference_is_caught(tiny_model: Any, token_pairs: Pairs, reference_of: Any) -> None:
    model, other, rows = tiny_model(), tiny_model(seed=1), token_pairs(8)
    assert check_first_loss(model, rows, reference_of(model, rows)) < 1e-5
    with pytest.raises(InputError, match="the policy must start from the reference"):
        check_first_loss(model, rows, reference_of(other, rows))
    reference = reference_of(model, rows)
    reference[0][0] = math.nan
    with pytest.raises(InputError):
        check_first_loss(model, rows, reference)


def test_two_references_of_shifted_rows_are_caught(tiny_model: Any, reference_of: Any) -> None:
    rows = [Tokens((i,), ((i + 1, EOS), (i + 2, EOS))) for i in range(3, 30)]
    reference = reference_of(tiny_model(), rows)
    with pytest.raises(InputError):
        check_first_loss(tiny_model(), rows, [*reference[1:], reference[0]])


@pytest.mark.parametrize("padded", [False, True])
def test_the_same_model_passes_whatever_rows_were_computed_together(
    architecture: str, padded: bool, dtype: torch.dtype, tiny_model: Any, token_pairs: Pairs, reference_of: Any
) -> None:
    """No false alarm: the reference's passes hold other rows than the check's, for several models and data."""
    for seed in range(3) if architecture == "llama" else [len(architecture)]:
        model, rows = tiny_model(architecture, seed=seed).to(dtype), token_pairs(40, seed=seed)
        if padded:
            use_paths(model, Paths(engine="padded"))
        reference = reference_of(model, rows[::-1])[::-1]
        difference = check_first_loss(model, rows, reference)
        assert difference <= 3 * measured_rounding(model, rows[:4])


def nudged(model: PreTrainedModel, size: float) -> PreTrainedModel:
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += size * parameter.abs().mean() * torch.randn(parameter.shape, generator=generator)
    return model


def by_hand(model: PreTrainedModel, rows: list[Tokens]) -> list[Tensor]:
    """In float32, one row at a time, by the model's own forward."""
    return [
        torch.cat(naive.response_logprobs(model, [row.prompt] * len(row.responses), row.responses)).detach()
        for row in rows
    ]


@pytest.mark.parametrize("spread", [1.0, 3.0])
def test_a_model_that_has_moved_a_little_is_caught_in_bfloat16(
    spread: float, tiny_model: Any, token_pairs: Pairs
) -> None:
    """Differences of less than the 0.15 nats that were once allowed: the mean over these is far below."""
    rows = token_pairs(30)
    model = tiny_model(spread=spread).bfloat16()
    reference = by_hand(nudged(tiny_model(spread=spread), 0.15), rows)
    own = by_hand(model.float(), rows)
    assert float((torch.cat(own) - torch.cat(reference)).abs().mean()) < 0.15
    with pytest.raises(InputError, match="where rounding is"):
        check_first_loss(tiny_model(spread=spread).bfloat16(), rows, reference)


@pytest.mark.parametrize("shift", [0.1, -0.1])
def test_a_reference_that_leans_to_one_side_is_caught(
    shift: float, dtype: torch.dtype, tiny_model: Any, token_pairs: Pairs, reference_of: Any
) -> None:
    model, rows = tiny_model().to(dtype), token_pairs(30)
    reference = reference_of(model, rows)
    rounding = measured_rounding(model, rows[:4])
    lean = max(1.5 * rounding, shift * shift) * math.copysign(1, shift)
    with pytest.raises(InputError, match="the policy must start from the reference"):
        check_first_loss(model, rows, [values + lean for values in reference])


@pytest.mark.parametrize(
    ("name", "first"),
    [("dpo", "ln 2"), ("cdpo", "ln 2"), ("ipo", "25"), ("hinge", "1"), ("kto", ""), ("simpo", ""), ("dpo+0.2*sft", "")],
)
def test_the_first_loss_is_told_where_it_follows(
    name: str, first: str, tiny_model: Any, token_pairs: Pairs, reference_of: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    model, rows = tiny_model(), token_pairs(4)
    check_first_loss(model, rows, reference_of(model, rows), loss_of(name))
    said = capsys.readouterr().err.strip()
    assert "nats per token (rounding: " in said
    assert said.endswith(f"{f'), so the first loss is {first}' if first else ')'}")
