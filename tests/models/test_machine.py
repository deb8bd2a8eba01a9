"""The machine: what is asked for, what the hardware has, and a line that says why."""

import io
from typing import Any

import pytest
import torch

from pairtune.errors import InputError
from pairtune.models import machine
from pairtune.models.machine import Machine, choose_machine, describe_machine, native_bf16_cpu

CPU = torch.device("cpu")


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def processor(monkeypatch: pytest.MonkeyPatch, text: Any) -> Any:
    """/proc/cpuinfo says this, or is not there."""

    def opened(*_args: Any, **_kwargs: Any) -> Any:
        if text is None:
            raise FileNotFoundError
        return io.StringIO(text)

    monkeypatch.setattr("builtins.open", opened)


@pytest.mark.parametrize(
    ("text", "native"),
    [
        ("processor: 0\nflags\t\t: fpu avx512f avx512_bf16 amx_tile\n", True),
        ("flags : fpu amx_bf16\n", True),
        ("Features : fp asimd bf16 i8mm\n", True),
        ("flags : fpu avx2 avx512f\n", False),
        ("model name : the bf16 processor\n", False),
        ("", False),
        (None, False),
    ],
)
def test_bfloat16_is_chosen_where_the_processor_has_it(
    monkeypatch: pytest.MonkeyPatch, no_gpu: Any, text: Any, native: Any
) -> None:
    with monkeypatch.context() as patch:
        processor(patch, text)
        assert native_bf16_cpu() is native
        chosen = choose_machine()
    assert (chosen.device, chosen.dtype) == (CPU, torch.bfloat16 if native else torch.float32)
    assert "the processor has" in str(chosen)


@pytest.mark.parametrize("native", [True, False])
def test_a_gpu_goes_first(monkeypatch: pytest.MonkeyPatch, native: Any) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: native)
    monkeypatch.setattr(machine, "cuda_name", lambda device: "the GPU's name")
    chosen = choose_machine()
    assert chosen.device.type == "cuda"
    assert chosen.dtype == (torch.bfloat16 if native else torch.float32)
    assert str(chosen).startswith("cuda (the GPU's name), ")


@pytest.mark.parametrize("name", ["float32", "bfloat16"])
def test_what_is_asked_for_is_given(name: Any, no_gpu: Any) -> None:
    assert choose_machine(name) == Machine(CPU, getattr(torch, name), "asked for")


def test_another_word_is_refused(no_gpu: Any) -> None:
    with pytest.raises(InputError, match='dtype is "half"; it can be auto, bfloat16 or float32'):
        choose_machine("half")


def test_the_line_says_where_masters_are_kept() -> None:
    assert str(Machine(CPU, torch.bfloat16, "why")).endswith("bfloat16 weights with float32 master copies: why")
    assert str(Machine(CPU, torch.float32, "why")).endswith("float32: why")


def test_facts_for_the_record(monkeypatch: pytest.MonkeyPatch, no_gpu: Any) -> None:
    facts = describe_machine()
    assert set(facts) == {"processor", "cores", "threads", "memory_bytes", "system", "gpu"}
    assert facts["gpu"] == "none"
    assert facts["memory_bytes"] > 0
