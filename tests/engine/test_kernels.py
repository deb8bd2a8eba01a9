"""Each C++ pass gives what its torch version gives, and that what float64 gives."""

import math
import shutil
import struct
from typing import Any

import pytest
import torch

from pairtune.data.pack import Tokens, pack
from pairtune.engine import cpp, kernels, varlen

DTYPES = {torch.float32: 2e-6, torch.bfloat16: 1e-2}
"""Relative error of the whole: float32's sums in another order, bfloat16's rounding of what comes out."""
ROWS = [
    *(Tokens((5, 6, 7), ((8, 9), (10, 11, 12, 13))), Tokens((5,), ((8,), (9, 10))), Tokens((4,) * 20, ((7,) * 30,))),
    Tokens((4,) * 61, ((7,) * 70, (8,), (9,) * 49)),
]

built = pytest.mark.skipif(cpp.library()[0] is None, reason=f"no C++ kernels here: {cpp.library()[1]}")


@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no g++ here")
def test_where_there_is_a_compiler_there_are_kernels() -> None:
    assert cpp.library()[1] == ""


def plainly(function: Any, *arguments: Any, **named: Any) -> Any:
    """The torch version."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cpp, "library", lambda: (None, "turned off"))
        return function(*arguments, **named)


def far(one: Any, other: Any) -> Any:
    return float((one.detach().double() - other.detach().double()).norm() / other.detach().double().norm())


@pytest.fixture(params=DTYPES, ids=str)
def dtype(request: Any) -> Any:
    return request.param


def numbers(*shape: Any, seed: Any = 0, dtype: Any = torch.float32) -> Any:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@built
class TestAttention:
    @pytest.mark.parametrize("window", [None, 1, 7, 50])
    @pytest.mark.parametrize(("heads", "groups", "size"), [(6, 2, 64), (3, 3, 8), (4, 1, 80)])
    def test_segments_are_what_they_are_plainly_and_so_are_the_gradients(
        self, dtype: Any, heads: Any, groups: Any, size: Any, window: Any
    ) -> None:
        cut = pack(ROWS).segments
        tokens = int(cut.queries[-1])
        query, key, value, grad = (  # strided, as models hand them over
            numbers(count, tokens, size, seed=seed, dtype=dtype).transpose(0, 1)
            for seed, count in enumerate((heads, groups, groups, heads))
        )
        places = (cut.queries, cut.keys)
        out, normaliser = kernels.attend(query, key, value, *places, 0.3, window)
        found = kernels.attend_gradient(grad, (query, key, value), (*places, out, normaliser), 0.3, window)
        exact = [x.float().requires_grad_() for x in (query, key, value)]
        expected = varlen.attend(varlen.plainly, *exact, cut, 0.3, window)
        for one, other in zip(
            (out, *found), (expected.detach(), *torch.autograd.grad(expected, exact, grad.float())), strict=True
        ):
            # Token by token, so that none hides behind the others; a window of 1 leaves queries no slope but rounding.
            error_T = (one.float() - other).flatten(1).norm(dim=1)
            size_T = other.flatten(1).norm(dim=1) + grad.float().flatten(1).norm(dim=1).mean()
            assert float((error_T / size_T).max()) < DTYPES[dtype]

    @pytest.mark.parametrize("size", [1, 5, 130])
    def test_sizes_that_fill_no_vector(self, dtype: Any, size: Any) -> None:
        cut = pack(ROWS[:3]).segments
        query, key, value, grad = (numbers(int(cut.queries[-1]), 2, size, seed=s, dtype=dtype) for s in range(4))
        places = (cut.queries, cut.keys, *kernels.attend(query, key, value, cut.queries, cut.keys, 0.3, None))
        found = kernels.attend_gradient(grad, (query, key, value), places, 0.3, None)
        exact = [x.float().requires_grad_() for x in (query, key, value)]
        expected = varlen.plainly(*exact[:1], *(x[cut.index_X] for x in exact[1:]), cut, 0.3, None)
        for one, other in zip(
            (places[2], *found), (expected, *torch.autograd.grad(expected, exact, grad.float())), strict=True
        ):
            assert far(one, other) < DTYPES[dtype]

    def test_inputs_may_lie_in_any_way(self, dtype: Any) -> None:
        cut = pack(ROWS[:3]).segments
        tokens = int(cut.queries[-1])
        query, key, value = (numbers(tokens, 2, 16, seed=s, dtype=dtype) for s in range(3))
        grad = numbers(1, 1, 16, dtype=dtype).expand(tokens, 2, 16)
        turned = [x.permute(2, 0, 1).contiguous().permute(1, 2, 0) for x in (query, key, value)]
        assert turned[0].stride(-1) != 1
        results = []
        for inputs, given in (((query, key, value), grad.contiguous()), (turned, grad)):
            places = (cut.queries, cut.keys, *kernels.attend(*inputs, cut.queries, cut.keys, 0.3, None))
            results.append((places[2], *kernels.attend_gradient(given, tuple(inputs), places, 0.3, None)))
        assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))

    def test_what_is_not_a_number_stays_so(self, dtype: Any) -> None:
        cut = pack([Tokens((5, 6, 7), ((8, 9),))]).segments
        query, key, value = (numbers(5, 2, 16, seed=s, dtype=dtype) for s in range(3))
        value[1] = torch.nan
        out, _ = kernels.attend(query, key, value, cut.queries, cut.keys, 0.3, None)
        assert out[1:].isnan().all()

    @pytest.mark.parametrize("other", [{"size": 8}, {"dtype": torch.float16}])
    def test_what_it_would_read_wrongly_it_does_not_take(self, other: Any) -> None:
        query, key = numbers(4, 2, 16), numbers(4, 2, 16)
        assert kernels.attends(query, key, key)
        assert not kernels.attends(query, key, numbers(4, 2, other.get("size", 16)).to(other.get("dtype", query.dtype)))

    def test_large_scores_overflow_nothing(self, dtype: Any) -> None:
        cut = pack(ROWS).segments
        query, key, value, grad = (numbers(int(cut.queries[-1]), 2, 16, seed=s, dtype=dtype) * 40 for s in range(4))
        out, normaliser = kernels.attend(query, key, value, cut.queries, cut.keys, 1.0, None)
        places = (cut.queries, cut.keys, out, normaliser)
        found = kernels.attend_gradient(grad, (query, key, value), places, 1.0, None)
        exact = [x.float().requires_grad_() for x in (query, key, value)]
        expected = varlen.attend(varlen.plainly, *exact, cut, 1.0, None)
        assert far(out, expected) < DTYPES[dtype]
        assert normaliser.isfinite().all()
        for one, other in zip(found, torch.autograd.grad(expected, exact, grad.float()), strict=True):
            assert far(one, other) < 2e-2  # a normaliser of some thousand is itself rounded by 1e-4, in any float32

    @pytest.mark.parametrize("window", [None, 3])
    def test_one_new_token_a_row(self, dtype: Any, window: Any) -> None:
        query, key, value = (numbers(4, heads, 16, seed=heads, dtype=dtype) for heads in (6, 2, 2))
        length, slot = torch.tensor([0, 5, 2, 7]), torch.tensor([3, 0, 4, 1])
        buffers = [numbers(5, 2, 9, 16, seed=seed, dtype=dtype) for seed in range(2)]
        for row, begin in zip(slot.tolist(), length.tolist(), strict=True):
            for buffer in buffers:
                buffer[row, :, begin:] = torch.nan  # what fresh memory may hold
        ours, theirs = ([b.clone() for b in buffers] for _ in range(2))
        arguments = (slot, length, 0.25)
        found = kernels.attend_one(query, key, value, *ours, *arguments, window=window, softcap=None)
        expected = plainly(kernels.attend_one, query, key, value, *theirs, *arguments, window=window, softcap=None)
        assert far(found, expected) < DTYPES[dtype]
        assert all(torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in zip(ours, theirs, strict=True))
        assert int(ours[0].isnan().sum()) < int(buffers[0].isnan().sum()), "the new key is kept"


@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("slots", [[0, 1, 3, 4], [0, 1, 2, 3, 4]], ids=["some", "all"])
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_one_new_token_a_row_by_torchs_attention(dtype: Any, device: Any, slots: Any, window: Any) -> None:
    """What CUDA takes, held against the plain version in float64; every slot may be taken or some have been left."""
    query = numbers(6, len(slots), 16, dtype=dtype).transpose(0, 1)  # strided, as models hand it over
    keys, values = (numbers(5, 2, 9, 16, seed=seed, dtype=dtype) for seed in (1, 2))
    slot, length = torch.tensor(slots), torch.tensor([0, 5, 2, 7, 8])[: len(slots)]
    new = [buffer[slot, :, length] for buffer in (keys, values)]
    doubles = [x.double() for x in (query, *new, keys, values)]
    exact = kernels.attend_one(*doubles, slot, length, 0.25, window=window, softcap=None)
    arguments = [x.to(device) for x in (query, keys, values, slot, length)]
    found = kernels.attend_one_masked(*arguments, 0.25, window)
    assert far(found.cpu(), exact) < DTYPES[dtype]
    assert found.is_contiguous()


@built
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_the_heads_logprobs_and_their_gradient(dtype: Any, temperature: Any) -> None:
    logits, target, grad = 4 * numbers(7, 300, dtype=dtype), torch.arange(7) * 40, numbers(7, seed=3)
    exact = logits.double().requires_grad_()
    values = torch.log_softmax(exact / temperature, -1).gather(-1, target[:, None])[:, 0]
    (slope,) = torch.autograd.grad(values, exact, grad.double())
    for run in (lambda f, *a: f(*a), plainly):
        found, normaliser = run(kernels.logprobs, logits, target, temperature)
        assert far(found, values) < 2e-6  # the inputs are exact: what is summed is float32 for both dtypes
        written = logits.clone()
        run(kernels.logprobs_gradient, written, target, normaliser, grad, temperature)
        assert far(written, slope) < DTYPES[dtype]


@built
def test_what_is_drawn_is_the_same_token(dtype: Any) -> None:
    logits = 3 * numbers(64, 1000, dtype=dtype)
    uniform = torch.rand(64, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    token, logprob = kernels.draw(logits, uniform, 0.8)
    expected, values = plainly(kernels.draw, logits, uniform, 0.8)
    assert torch.equal(token, expected)
    assert torch.allclose(logprob, values, atol=1e-5)


@built
@pytest.mark.parametrize("weights", DTYPES, ids=str)
def test_adamw_is_torchs(dtype: Any, weights: Any) -> None:
    """Three steps against torch's own in float64; the weight is the master's rounding."""
    if (dtype, weights) == (torch.bfloat16, torch.float32):
        pytest.skip("a float32 parameter has float32 gradients")
    master, mean, square = numbers(5000), torch.zeros(5000), torch.zeros(5000)
    weight = master if weights == torch.float32 else master.to(weights)
    exact = torch.nn.Parameter(master.double())
    adam = torch.optim.AdamW([exact], lr=1e-2, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.1)
    start = exact.detach().clone()
    for step in (1, 2, 3):
        grad = numbers(5000, seed=step, dtype=dtype)
        kernels.adamw(master, mean, square, grad, weight, step=step, learning_rate=1e-2, clip=0.5, betas=(0.9, 0.999),
                      eps=1e-8, weight_decay=0.1)  # fmt: skip
        exact.grad = grad.double() * 0.5
        adam.step()
    assert far(master - start, exact.detach() - start) < 1e-5
    assert torch.equal(weight, rounded(master, weights))


def rounded(master: Any, dtype: Any) -> Any:
    """Between the two neighbours, place by place in plain Python: up where the rest passes the place's threshold."""
    if dtype == torch.float32:
        return master
    values = master.contiguous().flatten().tolist()
    made = []
    for place, value in enumerate(values):
        (bits,) = struct.unpack("<I", struct.pack("<f", value))
        mixed = place * 0x9E3779B1 % 2**32
        mixed = (mixed ^ mixed >> 15) * 0x85EBCA77 % 2**32
        threshold = (mixed ^ mixed >> 13) % 2**16
        low, rest = bits >> 16, bits % 2**16
        made.append(struct.unpack("<f", struct.pack("<I", (low + (rest + threshold >= 2**16)) << 16))[0])
    return torch.tensor(made).view(master.shape).to(dtype)


def in_memory_order(tensor: Any) -> Any:
    order = sorted(range(tensor.dim()), key=lambda i: -tensor.stride()[i])
    return tensor.permute(order)


@pytest.mark.parametrize("plain", [False, True], ids=["C++", "torch"])
def test_weights_move_as_far_as_their_masters(plain: Any) -> None:
    """From bfloat16's grid, by hundredths of its spacing: rounded to nearest none of them would move at all."""
    start = numbers(100_000).abs().bfloat16()
    master, mean, square, weight = start.float(), torch.zeros(100_000), torch.zeros(100_000), start.clone()
    spacing = 2.0 ** (torch.floor(torch.log2(start.float().abs())) - 7)
    master += 0.03 * spacing
    step = plainly if plain else lambda function, *args, **named: function(*args, **named)
    step(kernels.adamw, master, mean, square, torch.zeros_like(start), weight, step=1, learning_rate=0.0, clip=1.0,
         betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0)  # fmt: skip
    moved = ((weight.float() - start.float()) / spacing).double()
    assert set(moved.abs().round(decimals=3).tolist()) == {0.0, 1.0}, "to one of the two neighbours"
    assert abs(moved.mean().item() - 0.03) < 4 * (0.03 * 0.97 / 100_000) ** 0.5
    assert torch.equal(start.float().bfloat16(), start)
    kernels.round_into(weight, start.float())
    assert torch.equal(weight, start), "what bfloat16 holds exactly stays"


def test_rounding_keeps_what_is_no_number_and_begins_again_after_its_places() -> None:
    values = torch.tensor([math.nan, math.inf, -math.inf, 0.0, -0.0, 1.0 + 2**-9] * 4)
    weight = torch.empty_like(values, dtype=torch.bfloat16)
    kernels.round_into(weight, values)
    assert weight[::6].isnan().all()
    assert weight[1::6].eq(math.inf).all()
    assert weight[2::6].eq(-math.inf).all()
    assert torch.equal(weight[3::6].signbit(), torch.zeros(4, dtype=torch.bool))
    many = numbers(kernels.PLACES + 10)
    weight = torch.empty_like(many, dtype=torch.bfloat16)
    kernels.round_into(weight, many)
    again = torch.empty(10, dtype=torch.bfloat16)
    kernels.round_into(again, many[-10:].contiguous())
    assert torch.equal(weight[-10:], again)
    moments = torch.zeros(2, len(many))
    of_cpp = torch.empty_like(weight)
    kernels.adamw(many, *moments, torch.zeros_like(weight), of_cpp, step=1, learning_rate=0.0, clip=1.0,
                  betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0)  # fmt: skip
    assert torch.equal(of_cpp, weight)


def transposed(*shape: Any) -> Any:
    return numbers(*reversed(shape)).permute(*reversed(range(len(shape))))


def turned(*shape: Any) -> Any:
    return numbers(*shape[1:], shape[0]).movedim(-1, 0)


def with_gaps(*shape: Any) -> Any:
    return numbers(*shape[:-1], 2 * shape[-1])[..., ::2]


def a_part(*shape: Any) -> Any:
    return numbers(shape[0] + 3, *shape[1:])[1:-2]


@pytest.mark.parametrize("of_gradient", [numbers, transposed, with_gaps])
@pytest.mark.parametrize("lay", [transposed, turned, with_gaps, a_part])
@pytest.mark.parametrize("shape", [(7, 5), (1, 6), (3, 1, 4), (4, 3, 5)])
@pytest.mark.parametrize("weights", DTYPES, ids=str)
def test_adamw_of_weights_that_lie_in_any_way(shape: Any, lay: Any, of_gradient: Any, weights: Any) -> None:
    start, gradients = lay(*shape), [of_gradient(*shape) * factor for factor in (1.0, -0.3)]
    exact = torch.nn.Parameter(start.double().contiguous())
    adam = torch.optim.AdamW([exact], lr=1e-2, weight_decay=0.1)
    master = lay(*shape)
    state = [torch.zeros_like(master) for _ in range(2)]
    weight = master if weights == torch.float32 else torch.empty_like(master, dtype=weights).copy_(master)
    for step, grad in enumerate(gradients, 1):
        kernels.adamw(master, *state, grad, weight, step=step, learning_rate=1e-2, clip=1.0, betas=(0.9, 0.999),
                      eps=1e-8, weight_decay=0.1)  # fmt: skip
        exact.grad = grad.double().contiguous()
        adam.step()
    assert far(master - start, exact.detach() - start) < 1e-5
    assert torch.equal(in_memory_order(weight), rounded(in_memory_order(master), weights))


@pytest.mark.parametrize("lay", [transposed, with_gaps])
def test_logits_that_lie_in_any_way(lay: Any) -> None:
    """Whoever cuts or turns logits gets the same numbers; their gradient is written where they lie."""
    logits, target, grad = lay(6, 50), torch.arange(12)[::2], numbers(12)[::2]
    expected, normaliser = kernels.logprobs(logits.contiguous(), target.contiguous(), 0.7)
    found = kernels.logprobs(logits, target, 0.7)
    torch.testing.assert_close(found, (expected, normaliser))
    written = logits.contiguous().clone()
    kernels.logprobs_gradient(written, target.contiguous(), normaliser, grad.contiguous(), 0.7)
    kernels.logprobs_gradient(logits, target, normaliser, grad, 0.7)
    torch.testing.assert_close(logits, written)


@built
def test_the_sum_of_squares(dtype: Any) -> None:
    values = numbers(100_003, dtype=dtype)
    assert kernels.square_sum(values) == pytest.approx(float((values.double() ** 2).sum()), rel=1e-6)


def test_a_machine_without_a_compiler_does_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpp.shutil, "which", lambda name: None)
    cpp.library.cache_clear()
    try:
        assert cpp.library() == (None, "there is no C++ compiler")
        assert not cpp.serves(torch.ones(1))
    finally:
        cpp.library.cache_clear()


def test_small_numbers_are_not_flushed_to_zero() -> None:
    """gcc's -ffast-math would do that to the whole process that loads the library."""
    cpp.library()
    assert float(torch.tensor([1e-40]) * 0.5) > 0
