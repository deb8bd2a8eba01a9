"""What this process may have of the memory, and that whatever an allocator says ends in one line."""

import resource
from pathlib import Path

import psutil
import pytest
import torch

from pairtune import cli, memory
from pairtune.errors import is_memory

ERRORS = [
    MemoryError(),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: can't allocate memory: 12 (...)"),
    RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 400000000 bytes."),
    RuntimeError("CUDA error: out of memory"),
    RuntimeError("std::bad_alloc"),
    OSError(12, "Cannot allocate memory"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_every_allocators_error_says_what_to_lower(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(command: str, settings: object) -> None:
        try:
            raise error
        except Exception as inner:
            raise ValueError("while a library was at work") from inner

    monkeypatch.setattr(cli.commands, "run", run)
    assert cli.main(["formats"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("pairtune: the memory ran out (")
    assert "--batch-size" in said
    assert said.count("\n") == 1


def test_torchs_own_error_is_one_of_them() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_memory(caught.value)


@pytest.mark.parametrize(
    "error", [RuntimeError("shapes differ"), ValueError("out of memory of it"), OSError(2, "no file")]
)
def test_other_errors_are_none_of_them(error: Exception) -> None:
    assert not is_memory(error)


def test_a_limit_on_the_address_space_counts() -> None:
    before, held = resource.getrlimit(resource.RLIMIT_AS), psutil.Process().memory_info().vms
    resource.setrlimit(resource.RLIMIT_AS, (held + (1 << 30), before[1]))
    try:
        assert memory.total() <= held + (1 << 30)
        assert 0 < memory.free() <= 1 << 30
        assert "ulimit -v" in memory.told() or "control group" in memory.told()
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.parametrize(
    ("line", "folder", "names"),
    [
        ("0::/a/b", "a", ("memory.max", "memory.current")),  # the limit is the outer group's
        ("0::/a/b", "", ("memory.max", "memory.current")),  # a container sees its own group as the root
        ("9:cpu:/x\n4:memory:/a", "memory/a", ("memory.limit_in_bytes", "memory.usage_in_bytes")),
    ],
)
def test_limits_of_control_groups_count(
    line: str, folder: str, names: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups, own = tmp_path / "cgroup", tmp_path / "own"
    (groups / folder).mkdir(parents=True)
    (groups / folder / names[0]).write_text("30000000\n")
    (groups / folder / names[1]).write_text("20000000\n")
    own.write_text(line + "\n")
    monkeypatch.setattr(memory, "GROUPS", groups)
    monkeypatch.setattr(memory, "OWN", own)
    assert (memory.total(), memory.free()) == (30_000_000, 10_000_000)
    assert memory.told() == "0.0 GB, a control group's limit"
    (groups / folder / names[0]).write_text("max\n")
    assert memory.total() > 30_000_000
