"""What this machine computes with: the device, and the number format its matrix products are fast in."""

import os
import platform
from dataclasses import dataclass

import torch

from pairtune import memory
from pairtune.errors import InputError
from pairtune.progress import counted


@dataclass(frozen=True)
class Machine:
    """A device, the dtype of weights and activations on it, and why that dtype was chosen."""

    device: torch.device
    dtype: torch.dtype
    why: str

    def __str__(self) -> str:
        name = str(self.dtype).removeprefix("torch.")
        masters = " weights with float32 master copies" if self.dtype == torch.bfloat16 else ""
        where = counted(torch.get_num_threads(), "thread") if self.device.type == "cpu" else cuda_name(self.device)
        return f"{self.device.type} ({where}), {name}{masters}: {self.why}"


def cuda_name(device: torch.device) -> str:
    """The name that the CUDA driver gives the device."""
    return torch.cuda.get_device_name(device)


def choose_machine(dtype: str = "auto") -> Machine:
    """The machine to run on: CUDA if there is one, bfloat16 where the hardware multiplies it natively, else float32.

    `dtype` is `auto`, `bfloat16` or `float32`. Raises InputError for another word.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if dtype == "float32":
        return Machine(device, torch.float32, "asked for")
    if dtype == "bfloat16":
        return Machine(device, torch.bfloat16, "asked for")
    if dtype != "auto":
        raise InputError(f'dtype is "{dtype}"; it can be auto, bfloat16 or float32')
    if device.type == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return Machine(device, torch.bfloat16, "the GPU has native bfloat16")
        return Machine(device, torch.float32, "the GPU has no native bfloat16")
    if native_bf16_cpu():
        return Machine(device, torch.bfloat16, "the processor has native bfloat16")
    return Machine(device, torch.float32, "the processor has no native bfloat16")


def native_bf16_cpu() -> bool:
    """Whether the processor multiplies bfloat16 in hardware (AVX512-BF16, AMX or Arm BF16), by its own flags."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as info:
            flags = next((line for line in info if line.startswith(("flags", "Features"))), "").split()
    except OSError:
        return False
    return any(flag in flags for flag in ("avx512_bf16", "amx_bf16", "bf16"))


def describe_machine() -> dict[str, str | int]:
    """Facts about the machine for environment.json: processor, cores, memory, system, GPU."""
    processor = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as info:
            processor = next(line.split(":", 1)[1].strip() for line in info if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return {
        "processor": processor,
        "cores": os.cpu_count() or 0,
        "threads": torch.get_num_threads(),
        "memory_bytes": memory.total(),
        "system": f"{platform.system()} {platform.release()}",
        "gpu": cuda_name(torch.device("cuda")) if torch.cuda.is_available() else "none",
    }
