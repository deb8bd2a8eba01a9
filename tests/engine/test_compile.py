"""Compiled blocks give the oracle's numbers, and leave the model as it was."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from pairtune.data.pack import Segments, Tokens, pack
from pairtune.engine import attention, compile, kernels, varlen
from pairtune.engine.logprob import token_logprobs
from pairtune.sampling.sampler import sample

ROWS = [Tokens((5, 6, 7), ((8, 9), (10, 11, 12, 13))), Tokens((5, 3), ((8,), (9, 10)))]


def run(model: Any) -> Any:
    model.zero_grad()
    values = token_logprobs(model, pack(ROWS).to(model.device))
    (values * torch.linspace(-1, 1, len(values), device=values.device)).sum().backward()
    return values.detach(), torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@pytest.fixture
def compiling(monkeypatch: pytest.MonkeyPatch) -> None:
    if compile.obstacle():
        pytest.skip(f"nothing is compiled here: {compile.obstacle()}")
    monkeypatch.setattr(compile, "LARGE_MODEL", 0)
    torch._dynamo.reset()  # what was compiled while something else stood in


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


@torch.library.custom_op("pairtune_tests::flash", mutates_args=())
def flash(q: Tensor, k: Tensor, v: Tensor, queries: Tensor, keys: Tensor, longest: int, scale: float) -> Tensor:
    """What stands in for a GPU's kernel, as opaque to the compiler as one."""
    return varlen.plainly(q, k, v, Segments(queries, keys, None, longest, longest), scale, None)


@flash.register_fake
def _(q: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(q)


def backward(ctx: Any, grad: Tensor) -> Any:
    *tensors, queries, keys, longest, scale = ctx.inputs
    moved = [x.detach().requires_grad_() for x in tensors]
    cut = Segments(queries, keys, None, longest, longest)
    with torch.enable_grad():
        out = varlen.plainly(*moved, cut, scale, None)
    return *torch.autograd.grad(out, moved, grad), None, None, None, None


flash.register_autograd(backward, setup_context=lambda ctx, inputs, output: setattr(ctx, "inputs", inputs))


@pytest.mark.filterwarnings("ignore")  # the compiler's own
@pytest.mark.parametrize("architecture", ["qwen2", "gpt2"])
def test_a_gpus_kernel_stands_in_the_blocks_one_graph(
    tiny_model: Any, compiling: Any, monkeypatch: pytest.MonkeyPatch, architecture: Any
) -> None:
    model = tiny_model(architecture)
    plain = [*run(model)]

    def kernel(q: Tensor, k: Tensor, v: Tensor, cut: Segments, scale: float, window: int | None) -> Tensor:
        k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], dim=1) for x in (k, v))
        out: Tensor = flash(q, k, v, cut.queries, cut.keys, cut.longest_keys, scale)
        return out

    monkeypatch.setattr(kernels, "attends", lambda *_: False)
    monkeypatch.setattr(varlen, "shared_kernel", lambda _: kernel)
    torch._dynamo.utils.counters.clear()
    for ours, theirs in zip(run(model), plain, strict=True):
        assert (ours - theirs).norm() <= 1e-5 * theirs.norm()
    assert not torch._dynamo.utils.counters["graph_break"]


@pytest.mark.filterwarnings("ignore")  # the compiler's own
def test_a_kernel_is_tried_in_a_graph_first(compiling: Any) -> None:
    def kernel(q: Tensor, k: Tensor, v: Tensor, cut: Segments, scale: float, window: int | None) -> Tensor:
        out: Tensor = flash(q, k, v, cut.queries, cut.keys, cut.longest_keys, scale)
        return out

    def wrong(*arguments: Any) -> Tensor:
        return kernel(*arguments) * 1.1

    def left_out(*arguments: Any) -> Tensor:
        raise RuntimeError("not in a graph")

    kind = (torch.device("cpu"), torch.bfloat16, 4, 4, 16, False)
    assert [varlen.stands_in_a_graph(each, *kind) for each in (kernel, wrong, left_out)] == [True, False, False]


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore")  # the compiler's own
@pytest.mark.parametrize("architecture", ["llama", "qwen2", "gpt2"])
def test_compiled_blocks_on_a_gpu_are_one_graph(
    tiny_model: Any, monkeypatch: pytest.MonkeyPatch, architecture: Any
) -> None:
    model = tiny_model(architecture, spread=2.0).cuda()
    exact = [*run(model)]
    model.bfloat16()
    plain = [*run(model)]
    if compile.obstacle() or not varlen.shared_kernel(model):
        pytest.skip(f"{compile.obstacle()} {varlen.describe(model)}")
    monkeypatch.setattr(compile, "LARGE_MODEL", 0)
    torch._dynamo.utils.counters.clear()
    for ours, theirs, truth in zip(run(model), plain, exact, strict=True):
        assert (ours.float() - truth).norm() <= 1.5 * (theirs.float() - truth).norm()
    assert not torch._dynamo.utils.counters["graph_break"]


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
