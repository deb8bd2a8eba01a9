"""The optimiser against torch's own, and the order, schedule and grouping of examples."""

import math
import re
from collections.abc import Callable

import pytest
import torch
from torch import nn
from transformers import get_scheduler

from pairtune.data.pack import Tokens
from pairtune.engine import hidden
from pairtune.settings import Optimisation
from pairtune.training.step import Optimizer, epoch_order, learning_rate, micro_batches, optimizer_of, step_batches


def test_updates_too_small_for_bfloat16_add_up_in_the_master() -> None:
    weight = nn.Parameter(torch.ones(8, dtype=torch.bfloat16))
    optimizer = Optimizer([weight])
    for _ in range(5000):
        (weight * torch.ones(8, dtype=torch.bfloat16)).sum().backward()
        optimizer.step(learning_rate=1e-6, max_gradient_norm=100)
    # AdamW under a constant gradient moves by the learning rate; one such move is a thousandth of bfloat16's spacing.
    assert optimizer.masters[0].numpy() == pytest.approx(1 - 5000e-6, abs=2e-4)
    assert weight.dtype == torch.bfloat16
    assert all(1 - 2 * 2**-8 <= value <= 1 - 2**-8 for value in weight.tolist()), "to one of the master's neighbours"


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_in_float32_it_is_torchs_adamw_but_for_the_order_of_operations(weight_decay: float) -> None:
    generator = torch.Generator().manual_seed(0)
    start = [torch.randn(5, 3, generator=generator), torch.randn(3, generator=generator)]
    ours, theirs = ([nn.Parameter(value.clone()) for value in start] for _ in range(2))
    optimizer = Optimizer(ours, weight_decay=weight_decay)
    groups = [{"params": theirs[:1], "weight_decay": weight_decay}, {"params": theirs[1:], "weight_decay": 0.0}]
    adam = torch.optim.AdamW(groups, lr=0.0, fused=True)
    for number in range(6):
        inputs = torch.randn(4, 5, generator=generator)
        for parameters in (ours, theirs):
            ((inputs @ parameters[0] + parameters[1]) ** 2).mean().backward()
        optimizer.step(learning_rate=1e-2 * (number + 1), max_gradient_norm=0.5)
        nn.utils.clip_grad_norm_(theirs, 0.5)
        for group in adam.param_groups:
            group["lr"] = 1e-2 * (number + 1)
        adam.step()
        adam.zero_grad()
    for a, b in zip(ours, theirs, strict=True):
        assert torch.allclose(a, b, rtol=2e-6, atol=1e-8)


def how_they_lie(start: torch.Tensor) -> dict[str, torch.Tensor]:
    """The same numbers: turned, every second of a row, a part of something larger, and side by side."""
    wide = torch.zeros(*start.shape[:-1], 2 * start.shape[-1], dtype=start.dtype)
    wide[..., ::2] = start
    tall = torch.zeros(start.shape[0] + 2, *start.shape[1:], dtype=start.dtype)
    tall[1:-1] = start
    return {
        "close": start.clone(),
        "turned": start.clone().mT.contiguous().mT,
        "moved": start.clone().movedim(0, -1).contiguous().movedim(-1, 0),
        "gaps": wide[..., ::2],
        "part": tall[1:-1],
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", [(6, 5), (2, 3, 4)])
@pytest.mark.parametrize("lay", ["turned", "moved", "gaps", "part"])
def test_a_parameter_moves_the_same_however_it_lies_in_memory(
    lay: str, shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(*shape, generator=generator).to(dtype)
    pulls = [torch.randn(*shape, generator=generator).to(dtype) for _ in range(4)]
    results, states = [], []
    for each in ("close", lay):
        parameter = nn.Parameter(how_they_lie(start)[each])
        assert parameter.is_contiguous() == (each in ("close", "part"))
        optimizer = Optimizer([parameter], weight_decay=0.1)
        for number, pull in enumerate(pulls):
            (parameter * pull).sum().backward()
            optimizer.step(learning_rate=0.03, max_gradient_norm=1e9)
            if number == 1:  # and it goes on from a checkpoint as if nothing had been
                optimizer.load_state({name: value.contiguous().clone() for name, value in optimizer.state().items()})
        results.append(parameter.detach().clone())
        states.append(optimizer.state())
    # A place's threshold for rounding goes by where it lies: in bfloat16 both are a neighbour of the one master.
    assert torch.allclose(results[0].float(), results[1].float(), rtol=1e-6 if dtype == torch.float32 else 2**-7)
    assert not torch.equal(results[1], start)
    for name, value in states[0].items():
        assert torch.allclose(value, states[1][name], rtol=1e-6, atol=1e-7)


def test_norms_and_biases_do_not_decay_and_matrices_and_embeddings_do(tiny_model: Callable[..., nn.Module]) -> None:
    """A gradient of 0 leaves the decay alone to be seen: weights times 1 − rate·decay, or as they were."""
    for architecture in ("gpt2", "llama", "qwen3", "gpt_neox"):
        model = tiny_model(architecture)
        before = {name: value.detach().clone() for name, value in model.named_parameters()}
        optimizer = optimizer_of(model, Optimisation(weight_decay=0.5))
        sum((0 * value).sum() for value in model.parameters()).backward()
        optimizer.step(learning_rate=0.1, max_gradient_norm=1.0)
        decayed = {name for name, value in model.named_parameters() if not torch.equal(value, before[name])}
        vectors = {name for name in before if re.search(r"(norm|ln_\w|bias)", name)}
        assert decayed == set(before) - vectors
        assert any("emb" in name or "wte" in name for name in decayed)
        for name in decayed:
            torch.testing.assert_close(dict(model.named_parameters())[name], before[name] * 0.95)


def test_biases_and_norms_that_are_stacked_do_not_decay_either() -> None:
    class Experts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate_up_proj, self.gate_up_proj_bias = (nn.Parameter(torch.ones(*s)) for s in ((3, 4, 2), (3, 2)))
            self.q_norm = nn.Module()
            self.q_norm.weight = nn.Parameter(torch.ones(2, 4))

    model = Experts()
    optimizer = optimizer_of(model, Optimisation(weight_decay=0.5))
    sum((0 * value).sum() for value in model.parameters()).backward()
    optimizer.step(learning_rate=0.1, max_gradient_norm=1.0)
    assert model.gate_up_proj.unique().tolist() == pytest.approx([0.95])
    assert model.gate_up_proj_bias.unique().tolist() == [1]
    assert model.q_norm.weight.unique().tolist() == [1]


def test_gradients_of_bfloat16_passes_are_added_in_float32() -> None:
    weight = nn.Parameter(torch.ones(1, dtype=torch.bfloat16))
    optimizer = Optimizer([weight])
    for gradient in (1.0, 2**-9, 2**-9):  # in bfloat16, 1 + 2⁻⁹ is 1
        (weight * gradient).sum().backward()
    (gathered,) = optimizer.gradients
    assert gathered is not None
    assert gathered.item() == 1 + 2**-8


def test_long_gradients_are_scaled_down_and_their_norm_is_told() -> None:
    weight = nn.Parameter(torch.zeros(2))
    optimizer = Optimizer([weight], eps=1.0)  # with ε far above the gradient the step shows the gradient's length
    (weight * torch.tensor([3.0, 4.0])).sum().backward()
    assert optimizer.step(learning_rate=1.0, max_gradient_norm=1e-3) == pytest.approx(5)
    assert weight.detach().numpy() == pytest.approx([-0.6e-3, -0.8e-3], rel=2e-3)


def test_a_gradient_that_is_not_finite_stops_training_before_the_weights_are_lost() -> None:
    weight = nn.Parameter(torch.ones(2))
    optimizer = Optimizer([weight])
    (weight * torch.inf).sum().backward()
    with pytest.raises(FloatingPointError, match="norm is"):
        optimizer.step(learning_rate=1.0, max_gradient_norm=1.0)
    assert torch.equal(weight, torch.ones(2))


def test_frozen_parameters_are_left_alone() -> None:
    frozen, free = nn.Parameter(torch.ones(2), requires_grad=False), nn.Parameter(torch.ones(2))
    optimizer = Optimizer([frozen, free], weight_decay=0.5)
    (frozen * free).sum().backward()
    optimizer.step(learning_rate=0.1, max_gradient_norm=1.0)
    assert torch.equal(frozen, torch.ones(2))
    assert not torch.equal(free, torch.ones(2))


def test_released_optimizers_leave_no_hook_behind() -> None:
    weight = nn.Parameter(torch.ones(2, dtype=torch.bfloat16))
    Optimizer([weight]).release()
    weight.sum().backward()
    assert weight.grad is not None


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant_with_warmup"])
def test_learning_rates_are_those_of_transformers_a_step_on(schedule: str) -> None:
    """transformers begins at 0 and comes to 0 at its last step: a step of each is wasted."""
    steps, adam = 10, torch.optim.AdamW([nn.Parameter(torch.ones(1))], lr=3.0)
    theirs = get_scheduler(schedule, adam, num_warmup_steps=2, num_training_steps=steps + 1)
    expected = []
    for _ in range(steps):
        adam.step()
        theirs.step()
        expected.append(adam.param_groups[0]["lr"])
    ours = schedule.partition("_")[0]
    rates = [learning_rate(s, steps, peak=3.0, warmup=0.2, schedule=ours) for s in range(1, steps + 1)]
    assert rates == pytest.approx(expected)


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])
@pytest.mark.parametrize(("steps", "warmup"), [(1, 0.0), (1, 1.0), (3, 0.0), (7, 0.1), (5, 1.0)])
def test_every_step_has_a_rate_above_zero_and_one_has_the_peak(steps: int, warmup: float, schedule: str) -> None:
    rates = [learning_rate(s, steps, peak=2.0, warmup=warmup, schedule=schedule) for s in range(1, steps + 1)]
    assert max(rates) == 2.0
    assert min(rates) > 0


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    first = epoch_order(50, seed=3, epoch=1)
    torch.rand(7)
    assert epoch_order(50, seed=3, epoch=1) == first
    assert sorted(first) == list(range(50))
    assert epoch_order(50, seed=3, epoch=2) != first
    assert epoch_order(50, seed=4, epoch=1) != first


def test_every_example_comes_once_an_epoch_and_the_last_batch_is_kept() -> None:
    batches = step_batches(10, batch_size=4, epochs=3, seed=0)
    assert [len(batch) for batch in batches] == [4, 4, 2] * 3
    for epoch in range(3):
        assert sorted(i for batch in batches[3 * epoch : 3 * epoch + 3] for i in batch) == list(range(10))


def test_micro_batches_hold_each_example_once_within_the_budget(
    monkeypatch: pytest.MonkeyPatch, token_pairs: Callable[..., list[Tokens]]
) -> None:
    monkeypatch.setitem(hidden.TOKENS_PER_PASS, "cpu", 40)
    rows = token_pairs(30)
    indices = list(range(4, 27, 2))
    groups = micro_batches(rows, indices, torch.device("cpu"))
    assert sorted(i for group in groups for i in group) == indices
    assert len(groups) >= math.ceil(sum(len(rows[i]) for i in indices) / 40) > 1
    assert all(sum(len(rows[i]) for i in group) <= 40 or len(group) == 1 for group in groups)
