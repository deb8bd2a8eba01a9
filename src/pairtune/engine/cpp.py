"""The C++ library: built once, for the processor it runs on, kept in the cache by its source; and calls into it.

Each function's arguments are declared here, and a call is held against them: what C++ would read wrongly is refused.
"""

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pairtune.cache import cache_folder

SOURCES = ("numbers.h", "products.h", "attention.cpp", "kernels.cpp")
FLAGS = (
    "-fno-strict-aliasing",  # two bfloat16 numbers are read as one word
    *("-O3", "-march=native", "-mprefer-vector-width=512", "-fopenmp", "-shared", "-fPIC", "-std=c++17"),
    # -ffast-math by its parts: as one flag, gcc below 13 makes the whole process flush small numbers to zero.
    *("-fno-math-errno", "-fno-trapping-math", "-fno-signed-zeros", "-ffinite-math-only"),
    *("-fassociative-math", "-freciprocal-math"),
)
SUFFIXES = {torch.bfloat16: "bf16", torch.float32: "f32"}
# What each C++ function takes, a letter an argument. Tensors: S of the dtype in its name, W of the second dtype there,
# f float32, d float64, i int32, l int64; s one like S with its strides of tokens and heads. Numbers: F float, N int64.
SIGNATURES = {
    "attend": "sssiiSfFNNNNN",
    "attend_gradient": "sssiiSfsSSSFNNNNN",
    "attend_one": "sssSSllSFNNNNNN",
    "logprobs": "SlFffNN",
    "logprobs_gradient": "SlffFNN",
    "draw": "SdFlfNN",
    "square_sum": "SdN",
    "adamw": "fffSWFFFFFFFFFN",
}
# The dtypes that each function's name may end in.
VARIANTS = {name: [(dtype,) for dtype in SUFFIXES] for name in SIGNATURES} | {
    "adamw": [(torch.bfloat16, torch.bfloat16), (torch.float32, torch.bfloat16), (torch.float32, torch.float32)]
}
DTYPES = {"f": torch.float32, "d": torch.float64, "i": torch.int32, "l": torch.int64}
NUMBERS: dict[str, type[ctypes.c_float] | type[ctypes.c_int64]] = {"F": ctypes.c_float, "N": ctypes.c_int64}
KINDS: dict[str, type[float] | type[int]] = {"F": float, "N": int}


@cache
def library() -> tuple[ctypes.CDLL | None, str]:
    """The built library, or None and why there is none."""
    compiler = _compiler()
    if compiler is None:
        return None, "there is no C++ compiler"
    try:
        try:
            return _declared(_built(compiler, cache_folder() / "kernels")), ""
        except OSError:  # no room in the cache, or it was cleared meanwhile
            with tempfile.TemporaryDirectory() as own:
                return _declared(_built(compiler, Path(own))), ""
    except (OSError, AttributeError, subprocess.CalledProcessError) as error:
        return None, f"the C++ kernels cannot be built: {_complaint(error)}"


def _built(compiler: str, folder: Path) -> ctypes.CDLL:
    """The library that lies in the folder, built if it does not."""
    path = folder / f"kernels-{fingerprint()}.so"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".partial-{os.getpid()}")
        units = [str(source) for source in _sources() if source.suffix == ".cpp"]
        subprocess.run([compiler, *FLAGS, *units, "-o", str(partial)], check=True, capture_output=True, text=True)
        partial.replace(path)
    return ctypes.CDLL(str(path))


@cache
def fingerprint() -> str:
    """What the C++ gives follows from it: sources, compiler, flags and processor, hashed; empty without a compiler."""
    compiler = _compiler()
    if compiler is None:
        return ""
    version = subprocess.run([compiler, "--version"], check=True, capture_output=True).stdout
    content = version + b"".join(source.read_bytes() for source in _sources())
    return hashlib.sha256(content + f"{FLAGS} {_processor()}".encode()).hexdigest()[:16]


def _compiler() -> str | None:
    return shutil.which("g++") or shutil.which("clang++")


def _sources() -> list[Path]:
    return [Path(__file__).with_name(name) for name in SOURCES]


def _complaint(error: Exception) -> str:
    """A compiler's first error, in one line; of anything else what it says."""
    said = (getattr(error, "stderr", None) or str(error)).splitlines()
    return " ".join(
        next((line for line in said if "error: " in line), said[0] if said else type(error).__name__).split()
    )


def _declared(loaded: ctypes.CDLL) -> ctypes.CDLL:
    """The library with every function's arguments declared, so that ctypes holds each call against them."""
    for name, codes in SIGNATURES.items():
        types: list[Any] = []
        for code in codes:
            types += [NUMBERS.get(code, ctypes.c_void_p), *([ctypes.c_int64] * 2 if code == "s" else [])]
        for dtypes in VARIANTS[name]:
            function = getattr(loaded, _symbol(name, dtypes))
            function.argtypes, function.restype = types, None
    return loaded


def _symbol(name: str, dtypes: tuple[torch.dtype, ...]) -> str:
    return "_".join((name, *(SUFFIXES[dtype] for dtype in dtypes)))


def _processor() -> str:
    """What `-march=native` depends on."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as info:
            return "".join(sorted({line for line in info if line.startswith(("flags", "Features", "model name"))}))
    except OSError:
        return platform.processor() or platform.machine()


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]  # to a compiler, a fact of the machine
def built() -> bool:
    """Whether there is a C++ library."""
    return library()[0] is not None


def serves(*tensors: Tensor) -> bool:
    """Whether the C++ library takes these tensors."""
    fits = all(x.device.type == "cpu" and x.dtype in SUFFIXES for x in tensors)
    return fits and built()


def call(name: str, dtypes: torch.dtype | tuple[torch.dtype, ...], *arguments: Tensor | float | int) -> None:
    """Run a C++ function. Raises TypeError for what it would read wrongly: other tensors, numbers or layouts."""
    dtypes = dtypes if isinstance(dtypes, tuple) else (dtypes,)
    dtype_of = {**DTYPES, "S": dtypes[0], "s": dtypes[0], "W": dtypes[-1]}
    codes = SIGNATURES[name].replace("s", "sNN")
    if len(arguments) != len(codes):
        raise TypeError(f"{name} takes {len(codes)} arguments and is given {len(arguments)}")
    converted: list[float | int] = []
    for place, (code, argument) in enumerate(zip(codes, arguments, strict=True)):
        if isinstance(argument, Tensor):
            close = argument.shape[-1:] == (1,) or argument.stride(-1) == 1 if code == "s" else argument.is_contiguous()
            if argument.dtype != dtype_of.get(code) or argument.device.type != "cpu" or not close:
                raise TypeError(f"{name}: argument {place} is a {argument.dtype} tensor, strides {argument.stride()}")
            converted.append(argument.data_ptr())
        elif code not in NUMBERS or isinstance(argument, bool) or not isinstance(argument, KINDS[code]):
            raise TypeError(f"{name}: argument {place} is {argument!r}")
        else:
            converted.append(argument)
    getattr(library()[0], _symbol(name, dtypes))(*converted)
