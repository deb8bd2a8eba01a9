"""On a GPU: the passes over logits and weights, held against float64 and against rounding place by place in Python."""

from typing import Any

import pytest
import torch

from pairtune.engine import kernels
from tests.engine.test_kernels import far, numbers, rounded

pytestmark = pytest.mark.gpu
CLOSE = {torch.float32: 1e-5, torch.bfloat16: 5e-3}


@pytest.fixture(params=CLOSE, ids=str)
def dtype(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.mark.parametrize("size", [300, 4096, 50_001])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_log_softmax_and_its_gradient(dtype: Any, size: Any, temperature: Any) -> None:
    logits, grad, target = numbers(9, size, dtype=dtype).cuda() * 4, numbers(9, seed=1).cuda(), torch.arange(9).cuda()
    assert kernels.in_triton(logits) is not None
    exact = logits.double().requires_grad_()
    expected = (exact / temperature).log_softmax(-1)[torch.arange(9), target]
    (slope,) = torch.autograd.grad(expected, exact, grad.double())
    found, normaliser = kernels.logprobs(logits, target, temperature)
    assert far(found, expected.detach()) < 1e-6
    assert far(normaliser, (exact / temperature).logsumexp(-1).detach()) < 1e-6
    kernels.logprobs_gradient(logits, target, normaliser, grad, temperature)
    assert far(logits, slope) < CLOSE[dtype]


def test_what_is_no_number_stays_none(dtype: Any) -> None:
    logits = numbers(3, 5000, dtype=dtype).cuda()
    logits[0, 4500], logits[1, 7] = torch.nan, torch.inf
    found, _ = kernels.logprobs(logits, torch.zeros(3, dtype=torch.long, device="cuda"), 1.0)
    assert found.isfinite().tolist() == [False, False, True]


@pytest.mark.parametrize("weights", CLOSE, ids=str)
def test_adamw_is_torchs(dtype: Any, weights: Any) -> None:
    """Three steps against torch's own in float64; the weight is the master's rounding, as on a CPU."""
    if (dtype, weights) == (torch.bfloat16, torch.float32):
        pytest.skip("a float32 parameter has float32 gradients")
    master, mean, square = numbers(5000).cuda(), torch.zeros(5000).cuda(), torch.zeros(5000).cuda()
    weight = master if weights == torch.float32 else master.to(weights)
    exact = torch.nn.Parameter(master.double())
    adam = torch.optim.AdamW([exact], lr=1e-2, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.1)
    start = exact.detach().clone()
    for step in (1, 2, 3):
        grad = numbers(5000, seed=step, dtype=dtype).cuda()
        kernels.adamw(master, mean, square, grad, weight, step=step, learning_rate=1e-2, clip=0.5, betas=(0.9, 0.999),
                      eps=1e-8, weight_decay=0.1)  # fmt: skip
        exact.grad = grad.double() * 0.5
        adam.step()
    assert far(master - start, exact.detach() - start) < 1e-5
    assert torch.equal(weight.cpu(), rounded(master.cpu(), weights))


def test_the_norm_of_all(dtype: Any) -> None:
    tensors = [numbers(size, seed=size, dtype=dtype) for size in (3, 100_003)]
    exact = torch.cat([x.double() for x in tensors]).norm()
    for device in ("cpu", "cuda"):
        assert kernels.total_norm([x.to(device) for x in tensors]) == pytest.approx(float(exact), rel=1e-6)
