"""A step that is recorded once and replayed gives the plain step's answers, or says why it is not used."""

import gc
import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
import torch

from pairtune.engine import kernels
from pairtune.engine.path import Paths, use_paths
from pairtune.sampling import decoding
from pairtune.sampling.decoding import KeyValues
from pairtune.sampling.sampler import sample
from pairtune.sampling.static import GRAPHS, TROUBLE, Static, decoder_for

ENDS = tuple(range(1, 300, 7))
"""So common that rows end at different steps."""
PROMPTS = [(3,), (4, 5, 6, 7, 8, 9, 10, 11, 12, 13), (4, 5), (20, 21, 22, 23), (9,) * 17, (5, 6, 7), (4, 5)] * 3


def answers(model: Any, *, replayed: Any, prompts: Any = PROMPTS, end_ids: Any = ENDS, max_new_tokens: Any = 12) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        use_paths(model, Paths("packed", "packed"))  # as its check would say: here steps are counted
        if not replayed:
            patch.delitem(GRAPHS, model.device.type)
        return sample(model, prompts, end_ids=end_ids, max_new_tokens=max_new_tokens, seed=0)


def assert_same(found: Any, expected: Any) -> None:
    assert [x.response for x in found] == [x.response for x in expected]
    for one, other in zip(found, expected, strict=True):
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)


class Recorded:
    """What stands in for a CUDA graph: it runs the function again, on what lies where it lay when it was recorded.

    As on a GPU, recording computes nothing, and what is not where it was is not seen.
    """

    made: list["Recorded"]

    def __init__(self) -> None:
        self.made.append(self)
        self.replays = 0

    def record(self, function: Any) -> Any:
        self.function, self.decoder = function, function.func.__self__
        result = function()
        self.static, self.places = torch.full_like(result, torch.nan), self.addresses()
        return result, self.static

    def replay(self) -> None:
        assert self.addresses() == self.places
        self.replays += 1
        self.static.copy_(self.function())

    def addresses(self) -> Any:
        decoder = self.decoder
        (token_B,) = self.function.args
        inputs = (token_B, decoder.token_B, decoder.length_B, decoder.slot_B)
        return [(x.data_ptr(), x.shape) for x in (*inputs, *(x for layer in decoder.layers for x in layer))]


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[Any]:
    """What an earlier test found out about an architecture."""
    TROUBLE.clear()
    yield
    TROUBLE.clear()


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Steps on the CPU replayed by what stands in for a graph; gives the list of those made."""
    monkeypatch.setattr(Recorded, "made", [], raising=False)
    monkeypatch.setitem(GRAPHS, "cpu", Recorded)
    return Recorded.made


def test_replayed_steps_draw_the_plain_steps_answers(
    tiny_model: Any, architecture: Any, stand_in: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    model = tiny_model(architecture)
    found = answers(model, replayed=True)
    assert len({len(answer.response) for answer in found}) > 3, "rows should leave at different steps"
    assert sum(graph.replays for graph in stand_in) == max(len(answer.response) for answer in found) - 1
    assert_same(found, answers(model, replayed=False))
    answers(tiny_model(architecture), replayed=True)
    assert capfd.readouterr().err == "sampling: decoding steps are replayed from a CUDA graph\n", "said once"


def test_it_is_recorded_anew_when_half_of_the_rows_have_ended(tiny_model: Any, stand_in: Any) -> None:
    answers(tiny_model(), replayed=True)
    sizes = [len(graph.static) for graph in stand_in]
    assert sizes[0] == len(PROMPTS)
    assert len(sizes) > 2
    assert all(2 * after <= before for before, after in pairwise(sizes))
    assert {len(keys) for graph in stand_in[-1:] for keys, _ in graph.decoder.layers} == {sizes[-1]}


def test_nothing_is_recorded_without_graphs(tiny_model: Any, stand_in: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model()
    assert type(decoder_for(model, 9)) is Static
    monkeypatch.undo()
    assert type(decoder_for(model, 9)) is KeyValues
    assert list(GRAPHS) == ["cuda"]


def test_a_step_reads_nothing_back(tiny_model: Any, architecture: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Or a GPU could not record it. Meta tensors have no values, so that on them any reading raises."""
    if architecture == "mixtral":
        pytest.skip("torch has no grouped products for meta tensors")

    def attend_one(
        query: Any,
        key: Any,
        value: Any,
        keys: Any,
        values: Any,
        slot_B: Any,
        length_B: Any,
        scale: Any,
        *,
        window: Any,
        softcap: Any,
    ) -> Any:
        keys[slot_B, :, length_B], values[slot_B, :, length_B] = key, value
        return kernels.attend_one_masked(query, keys, values, slot_B, length_B, scale, window)

    monkeypatch.setattr(decoding, "attend_one", attend_one)
    monkeypatch.setattr(torch.ops.pairtune, "attend_cached", lambda *x: decoding._running[-1].attend(*x))
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)  # transformers asks, and reads less
    model = tiny_model(architecture)
    decoder = KeyValues(model, 9)
    with torch.no_grad():
        decoder.begin([(3, 4), (5,)])
        decoder.model = model.to("meta")
        decoder.layers = [(keys.to("meta"), values.to("meta")) for keys, values in decoder.layers]
        decoder.slot_B, decoder.length_B = decoder.slot_B.to("meta"), decoder.length_B.to("meta")
        assert decoder.step(torch.tensor([6, 7], device="meta")).shape == (2, 32)


def refuse_to_record(self: Any, function: Any) -> None:
    function()
    try:
        raise RuntimeError("operation not permitted when stream is capturing\nCompile with ...")
    except RuntimeError:
        raise RuntimeError("the end of the capture") from None


def refuse_to_replay(self: Any) -> None:
    raise RuntimeError


def replay_something_else(self: Any) -> None:
    """Of other tokens, with the keys and values written that they have."""
    self.decoder.token_B.neg_().add_(299)
    self.static.copy_(self.function())
    self.decoder.token_B.neg_().add_(299)


def replay_nothing(self: Any) -> None:
    """What is there is whatever was in memory."""


@pytest.mark.parametrize(
    ("method", "wrong", "why"),
    [
        ("record", refuse_to_record, "the end of the capture; operation not permitted when stream is capturing"),
        ("replay", refuse_to_replay, "RuntimeError"),
        ("replay", replay_something_else, r"a CUDA graph's replay differs by [\d.]+ from the step"),
        ("replay", replay_nothing, "a CUDA graph's replay differs by nan from the step"),
    ],
)
def test_what_fails_or_differs_is_said_and_not_used(
    tiny_model: Any,
    stand_in: Any,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    method: Any,
    wrong: Any,
    why: Any,
) -> None:
    model = tiny_model()
    monkeypatch.setattr(Recorded, method, wrong)
    found = answers(model, replayed=True)
    expected = answers(model, replayed=False)
    assert_same(found, expected)
    assert_same(answers(tiny_model(), replayed=True), expected)
    assert len(stand_in) == 1, "not tried again, whichever model of the kind comes next"
    (said,) = capfd.readouterr().err.splitlines()
    said, trouble = said.split(": ", 2)[1:]
    assert said == "decoding steps are one by one, which is right but slower"
    assert trouble == TROUBLE[type(model)]
    assert re.fullmatch(why, trouble)
    assert type(decoder_for(model, 9)) is KeyValues


def test_what_fails_later_is_said_then(
    tiny_model: Any, stand_in: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """When the step is recorded for fewer rows."""
    model = tiny_model()
    monkeypatch.setitem(GRAPHS, "cpu", lambda: Recorded() if not stand_in else None)
    found = answers(model, replayed=True)
    assert_same(found, answers(model, replayed=False))
    first, second = capfd.readouterr().err.splitlines()
    assert first.endswith("replayed from a CUDA graph")
    assert second.endswith("'NoneType' object has no attribute 'record'")


def test_a_models_own_fault_is_its_own(tiny_model: Any, stand_in: Any) -> None:
    model = tiny_model()
    decoder = Static(model, 9)
    decoder.begin([(3, 4)])
    model.base_model.layers[0].register_forward_pre_hook(lambda *_: (_ for _ in ()).throw(ZeroDivisionError))
    with pytest.raises(ZeroDivisionError):
        decoder.step(torch.tensor([5]))


@pytest.mark.gpu
class TestGpu:
    def test_replayed_steps_draw_the_plain_steps_answers(self, tiny_model: Any, architecture: Any) -> None:
        model = tiny_model(architecture).cuda()
        found = answers(model, replayed=True)
        # torch's grouped products of float32 experts wait for the GPU, which a recording cannot.
        assert bool(TROUBLE[type(model)]) == (architecture == "mixtral")
        assert_same(found, answers(model, replayed=False))

    def test_experts_in_bfloat16_are_replayed(self, tiny_model: Any) -> None:
        model = tiny_model("mixtral").bfloat16().cuda()
        found = answers(model, replayed=True)
        assert not TROUBLE[type(model)]
        assert [x.response for x in found] == [x.response for x in answers(model, replayed=False)]

    @pytest.mark.filterwarnings("ignore")  # the compiler's own
    def test_compiled_blocks_in_bfloat16_are_replayed(self, tiny_model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        from pairtune.engine import compile

        if compile.obstacle():
            pytest.skip(f"nothing is compiled here: {compile.obstacle()}")
        monkeypatch.setattr(compile, "LARGE_MODEL", 0)
        model = tiny_model("llama").bfloat16().cuda()
        answers(model, replayed=True)
        assert not TROUBLE[type(model)]

    @pytest.mark.filterwarnings("ignore:Synchronization debug mode")
    def test_a_replayed_step_stays_where_it_is_and_asks_the_gpu_nothing(self, tiny_model: Any) -> None:
        decoder = Static(tiny_model().cuda(), 40)
        with torch.no_grad():
            decoder.begin(PROMPTS)
            token_B = torch.arange(len(PROMPTS), device="cuda") + 3
            hidden_BE = decoder.step(token_B)
            inputs = (decoder.token_B, decoder.length_B, decoder.slot_B, *decoder.layers[0])
            before = [x.data_ptr() for x in inputs]
            torch.cuda.set_sync_debug_mode("error")
            try:
                assert all(decoder.step(token_B).data_ptr() == hidden_BE.data_ptr() for _ in range(5))
            finally:
                torch.cuda.set_sync_debug_mode("default")
            inputs = (decoder.token_B, decoder.length_B, decoder.slot_B, *decoder.layers[0])
            assert [x.data_ptr() for x in inputs] == before
            assert decoder.length_B.tolist() == [len(prompt) + 6 for prompt in PROMPTS]

    def test_memory_is_given_back_with_the_decoder(self, tiny_model: Any) -> Any:
        model = tiny_model().cuda()

        def held() -> Any:
            gc.collect()
            torch.cuda.empty_cache()
            return torch.cuda.memory_allocated(), torch.cuda.memory_reserved()

        answers(model, replayed=True)  # libraries take theirs
        before = held()
        answers(model, replayed=True)
        assert held() == before

    def test_a_model_that_waits_for_the_gpu_decodes_step_by_step(self, tiny_model: Any) -> None:
        model = tiny_model().cuda()
        expected = answers(model, replayed=False)
        model.base_model.layers[1].register_forward_pre_hook(lambda module, args: args[0].sum().item() and None)
        assert_same(answers(model, replayed=True), expected)
        assert "captur" in TROUBLE[type(model)]
        assert_same(answers(model, replayed=True), expected)
