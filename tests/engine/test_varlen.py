"""Attention by segments gives what the padded oracle gives, and a kernel that does not is not used."""

import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from pairtune.data.pack import Tokens, pack, pack_prompts
from pairtune.engine import compile, cpp, naive, varlen
from pairtune.engine.logprob import token_logprobs

CPU = torch.device("cpu")
ROWS = [
    Tokens((5, 6), ((7,), (8, 9))),
    Tokens((10, 11, 12, 13, 14, 15, 16), ((17, 18, 19),)),
    Tokens((20,), ((21,), (22,))),
    Tokens((23, 24, 25, 26), ((27, 28, 29, 30, 31), (32, 33), (34, 35, 36, 37, 38, 39, 40, 41, 42))),
]


def flash(
    query: Any, key: Any, value: Any, cu_q: Any, cu_k: Any, max_q: Any, max_k: Any, *, scale: Any, window_size: Any
) -> Any:
    """A flash kernel as its documentation has it: query i sees keys i + k − q − left to i + k − q + right."""
    left, right = window_size
    assert cu_q.dtype == cu_k.dtype == torch.int32
    assert (max_q, max_k) == (int(cu_q.diff().max()), int(cu_k.diff().max()))
    parts = []
    for n in range(len(cu_q) - 1):
        q = query[cu_q[n] : cu_q[n + 1]].float()
        k, v = (x[cu_k[n] : cu_k[n + 1]].float().repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (key, value))
        keys, own = torch.arange(len(k)), torch.arange(len(q))[:, None] + len(k) - len(q)
        seen = (keys <= own + right) & ((keys >= own - left) | (left < 0))
        scores = torch.einsum("qhd,khd->hqk", q, k) * scale
        parts.append(torch.einsum("hqk,khd->qhd", scores.masked_fill(~seen, -torch.inf).softmax(-1), v))
    return torch.cat(parts).to(query.dtype)


def before_grouped_heads(
    query: Any,
    key: Any,
    value: Any,
    cu_q: Any,
    cu_k: Any,
    max_q: Any,
    max_k: Any,
    *,
    scale: Any = None,
    window_size: Any = (-1, -1),
) -> Any:
    """torch 2.11's signature."""
    return flash(query, key, value, cu_q, cu_k, max_q, max_k, scale=scale, window_size=window_size)


def with_grouped_heads(
    query: Any,
    key: Any,
    value: Any,
    cu_q: Any,
    cu_k: Any,
    max_q: Any,
    max_k: Any,
    *,
    enable_gqa: Any = False,
    **named: Any,
) -> Any:
    """torch 2.12's and 2.13's."""
    if not enable_gqa and query.shape[1] != key.shape[1]:
        raise ValueError("Expect query and key/value to have the same number of heads")
    return flash(query, key, value, cu_q, cu_k, max_q, max_k, **named)


def top_left(query: Any, key: Any, value: Any, cut: Any, scale: Any, window: Any) -> Any:
    """The other alignment: as if a response's first token stood where its prompt's first token stands."""
    firsts, sizes = cut.keys[:-1].tolist(), cut.queries.diff().tolist()
    seen = torch.cat([torch.arange(first, first + size) for first, size in zip(firsts, sizes, strict=True)])
    square = SimpleNamespace(queries=cut.queries, keys=cut.queries)
    return varlen.plainly(query, key[seen], value[seen], square, scale, window)


def one_token_more(query: Any, key: Any, value: Any, cut: Any, scale: Any, window: Any) -> Any:
    return varlen.plainly(query, key, value, cut, scale, window + 1)


def half_a_gradient(query: Any, key: Any, value: Any, cut: Any, scale: Any, window: Any) -> Any:
    return varlen.plainly(query, (key + key.detach()) / 2, value, cut, scale, window)


def nan(query: Any, key: Any, value: Any, cut: Any, scale: Any, window: Any) -> Any:
    return varlen.plainly(query, key, value, cut, scale, window) * torch.nan


class TestSegments:
    def test_by_hand(self) -> None:
        cut = pack([Tokens((1, 2), ((3,), (4, 5))), Tokens((6,), ((7, 8),))]).segments
        assert cut.queries.tolist() == [0, 3, 5, 8]
        assert cut.keys.tolist() == [0, 3, 7, 10]
        assert cut.index_X.tolist() == [0, 1, 2, *(0, 1, 3, 4), 5, 6, 7]
        assert (cut.longest_queries, cut.longest_keys) == (3, 4)
        assert {x.dtype for x in (cut.queries, cut.keys, cut.index_X)} == {torch.int32}

    @pytest.mark.parametrize(
        "batch", [pack_prompts([(1, 2), (3,), (4, 5, 6)]), pack([Tokens((1,), ((2,),)), Tokens((3, 4), ((5,),))])]
    )
    def test_without_second_responses_nothing_is_gathered(self, batch: Any) -> None:
        cut = batch.segments
        assert cut.index_X is None
        assert torch.equal(cut.queries, cut.keys)
        assert len(cut.keys) == batch.rows + 1


class TestAttention:
    def test_a_model_by_segments_is_the_oracle(
        self, tiny_model: Any, architecture: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(cpp, "library", lambda: (None, "turned off"))
        monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", with_grouped_heads)
        kernel, calls = varlen._torch(), []
        monkeypatch.setattr(varlen, "kernel_for", lambda *_: lambda *a: calls.append(1) or kernel(*a))
        model = tiny_model(architecture)
        token_logprobs(model, pack(ROWS))  # its check attends too
        calls.clear()
        values = token_logprobs(model, pack(ROWS))
        expected = torch.cat(
            [part for r in ROWS for part in naive.response_logprobs(model, [r.prompt] * len(r.responses), r.responses)]
        )
        capped = getattr(model.config, "attn_logit_softcapping", None) is not None  # which torch's kernel does not take
        assert len(calls) == (0 if capped else model.config.num_hidden_layers)
        assert (values - expected).norm() <= 1e-5 * expected.norm()
        ours, theirs = (slopes(model, x) for x in (values, expected))
        assert (ours - theirs).norm() <= 1e-5 * theirs.norm()

    def test_a_shared_keys_gradients_are_added_before_they_are_rounded(self) -> None:
        x = torch.zeros(2, 1, 1, dtype=torch.bfloat16).requires_grad_()
        found = varlen._gather(x, torch.tensor([0, 1, 0, 0], dtype=torch.int32))
        found.backward(torch.tensor([256.0, 1, 1, 1]).view(4, 1, 1).bfloat16())  # in bfloat16, 256 + 1 is 256
        assert x.grad.flatten().tolist() == [258, 1]


class TestChoice:
    def choose(self, *, windowed: Any = False) -> Any:
        return varlen.choose.__wrapped__(CPU, torch.bfloat16, 4, 2, 16, windowed)

    @pytest.mark.parametrize("windowed", [False, True])
    @pytest.mark.parametrize("function", [before_grouped_heads, with_grouped_heads])
    def test_torchs_kernel_is_called_as_it_is_documented(
        self, monkeypatch: pytest.MonkeyPatch, function: Any, windowed: Any
    ) -> None:
        monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", function)
        kernel, name = self.choose(windowed=windowed)
        assert kernel is not None
        assert name == "varlen attention"

    @pytest.mark.parametrize("windowed", [False, True])
    def test_so_is_the_packages_where_torchs_does_not_serve(
        self, monkeypatch: pytest.MonkeyPatch, windowed: Any
    ) -> Any:
        def function(*tensors: Any, softmax_scale: Any, causal: Any, window_size: Any) -> Any:
            assert causal
            return flash(*tensors, scale=softmax_scale, window_size=window_size)

        monkeypatch.setitem(sys.modules, "flash_attn", SimpleNamespace(flash_attn_varlen_func=function))
        kernel, name = self.choose(windowed=windowed)  # torch's own has no CPU version
        assert kernel is not None
        assert name == "flash-attn"

    @pytest.mark.parametrize("kernel", [top_left, one_token_more, half_a_gradient, nan])
    def test_a_wrong_kernel_is_not_used_and_said_to_be_wrong(
        self, monkeypatch: pytest.MonkeyPatch, kernel: Any
    ) -> None:
        monkeypatch.setattr(varlen, "KERNELS", {"a kernel": lambda: kernel})
        found, why = self.choose(windowed=True)
        assert found is None
        assert why.startswith("a kernel: wrong by ")

    def test_the_trial_is_fair_and_leaves_a_runs_random_numbers_alone(self) -> Any:
        def rounded_once(query: Any, key: Any, value: Any, *others: Any) -> Any:
            return varlen.plainly(query.float(), key.float(), value.float(), *others).to(query.dtype)

        before = torch.get_rng_state()
        with torch.no_grad():
            assert varlen.trial(rounded_once, CPU, torch.bfloat16, 4, 2, 16, None) <= varlen.TRIAL_ERROR / 4
        assert torch.equal(torch.get_rng_state(), before)

    def test_what_is_missing_is_said(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "flash_attn", None)
        found, why = self.choose()
        assert found is None
        assert why.startswith("varlen attention: ")
        assert "; flash-attn: import of flash_attn halted" in why

    def test_float32_and_capped_scores_go_by_torch_and_say_so(self, tiny_model: Any) -> None:
        assert varlen.describe(tiny_model()) == "torch's attention: flash kernels do not take float32"
        assert compile.describe(tiny_model("gemma2")).startswith(
            "torch's products: the attention's scores are capped, "
        )


@pytest.mark.gpu
class TestGpu:
    @pytest.mark.parametrize("window", [None, 40])
    @pytest.mark.parametrize("size", [64, 128])
    def test_torchs_kernel_passes_its_trial(self, size: Any, window: Any) -> None:
        if torch.cuda.get_device_capability() < (8, 0):
            pytest.skip("flash attention needs compute capability 8.0")
        error = varlen.trial(varlen._torch(), torch.device("cuda", 0), torch.bfloat16, 6, 2, size, window)
        assert error <= varlen.TRIAL_ERROR

    def test_values_and_gradients_are_as_near_to_float32_as_torchs_own(
        self, tiny_model: Any, architecture: Any, monkeypatch: pytest.MonkeyPatch
    ) -> Any:
        model = tiny_model(architecture, spread=2.0).cuda()
        batch = pack(ROWS).to(model.device)

        def found() -> Any:
            values = token_logprobs(model, batch)
            return values.detach(), slopes(model, values).float()

        exact = found()
        model.bfloat16()
        if (told := compile.describe(model)).startswith("torch's"):
            pytest.skip(told)
        assert told.startswith(varlen.describe(model))
        kernel, calls = varlen.kernel_for, []
        monkeypatch.setattr(varlen, "kernel_for", lambda *a: calls.append(kernel(*a)) or calls[-1])
        ours = found()
        assert calls
        assert None not in calls
        monkeypatch.setattr(varlen, "kernel_for", lambda *_: None)
        for one, other, truth in zip(ours, found(), exact, strict=True):
            assert (one - truth).norm() <= 1.5 * (other - truth).norm()


def slopes(model: Any, values: Any) -> Any:
    """Gradients of a fixed weighting of the values, of all parameters end to end."""
    weight = torch.linspace(-1, 2, len(values), device=values.device)
    found = torch.autograd.grad((values * weight).sum(), list(model.parameters()), allow_unused=True)
    return torch.cat([gradient.flatten() for gradient in found if gradient is not None])
