"""Compiled blocks give the oracle's numbers, and leave the model as it was."""

import copy
from typing import Any

import pytest
import torch

from pairtune.data.pack import Tokens, pack
from pairtune.engine import attention, compile
from pairtune.engine.logprob import token_logprobs
from pairtune.sampling.sampler import sample

ROWS = [Tokens((5, 6, 7), ((8, 9), (10, 11, 12, 13))), Tokens((5, 3), ((8,), (9, 10)))]


def run(model: Any) -> Any:
    model.zero_grad()
    values = token_logprobs(model, pack(ROWS))
    (values * torch.linspace(-1, 1, len(values))).sum().backward()
    return values.detach(), torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@pytest.fixture
def compiling(monkeypatch: pytest.MonkeyPatch) -> None:
    if compile.obstacle():
        pytest.skip(f"nothing is compiled here: {compile.obstacle()}")
    monkeypatch.setattr(compile, "LARGE_MODEL", 0)


@pytest.mark.filterwarnings("ignore")  # the compiler's own
def test_compiled_blocks_give_the_same_values_gradients_and_answers(
    tiny_model: Any, compiling: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model("llama")
    torch._dynamo.utils.counters.clear()
    fused = [*run(model)]
    drawn = sample(model, [(3, 4), (5,), (3, 4)], end_ids=[1], max_new_tokens=6, seed=0)
    assert not torch._dynamo.utils.counters["graph_break"]  # a block is one graph: forward, backward and decoding
    assert compile.describe(model).endswith(", blocks compiled")
    assert all(block._compiled_call_impl is None for block in compile.blocks_of(model))
    other = copy.deepcopy(model)  # the reference of a run: its own weights, not the policy's
    with torch.no_grad():
        other.get_input_embeddings().weight.mul_(0.5)
    moved = run(other)[0]
    monkeypatch.setattr(compile, "LARGE_MODEL", 10**12)
    for ours, plain in zip(fused, run(model), strict=True):
        assert (ours - plain).norm() <= 1e-5 * plain.norm()
    assert [a.response for a in drawn] == [
        a.response for a in sample(model, [(3, 4), (5,), (3, 4)], end_ids=[1], max_new_tokens=6, seed=0)
    ]
    plain = run(other)[0]
    assert (moved - plain).norm() <= 1e-5 * plain.norm()
    assert (moved - fused[0]).norm() > 1e-3 * plain.norm()


@pytest.mark.filterwarnings("ignore")  # the compiler's own
@pytest.mark.parametrize("architecture", ["gpt2", "gemma", "gpt_neox"])
def test_a_backward_pass_does_not_attend_again(tiny_model: Any, compiling: Any, architecture: Any) -> None:
    model = tiny_model(architecture)
    run(model)  # its check attends too
    before = attention.calls()
    run(model)
    assert attention.calls() - before == model.config.num_hidden_layers


def test_small_models_and_machines_without_a_compiler_say_so(tiny_model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("llama")
    assert compile.describe(model).endswith(", blocks not compiled: the model is small")
    monkeypatch.setattr(compile, "LARGE_MODEL", 0)
    for change, reason in (
        (lambda: monkeypatch.setattr(compile.shutil, "which", lambda name: None), "there is no C++ compiler"),
        (lambda: monkeypatch.setenv("TORCH_COMPILE_DISABLE", "1"), "turned off by TORCH_COMPILE_DISABLE"),
    ):
        change()
        compile.obstacle.cache_clear()
        assert compile.describe(model).endswith(f", blocks not compiled: {reason}")
    compile.obstacle.cache_clear()
