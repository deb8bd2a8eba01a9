"""The C++ as C++: it takes what Python declares, compiles without a warning, and touches its own memory only."""

import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from pairtune.data.pack import Tokens, pack
from pairtune.engine import cpp, kernels

FOLDER = Path(cpp.__file__).parent
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer")
POINTERS = {"float": "f", "double": "d", "int32_t": "i", "int64_t": "l", "S": "S", "W": "W"}
NUMBERS = {"float": "F", "int64_t": "N"}

compiled = pytest.mark.skipif(shutil.which("g++") is None, reason="there is no g++ here")
built = pytest.mark.skipif(cpp.library()[0] is None, reason=f"no C++ kernels here: {cpp.library()[1]}")


def exported() -> Any:
    """Every exported function of the sources, by name without its dtypes: a letter an argument, strides as numbers."""
    found = {}
    for source in FOLDER.glob("*.cpp"):
        text = source.read_text().replace("\\\n", " ")
        for name, arguments in re.findall(r'extern "C" void (\w+?)_##suffix\((.*?)\)', text, re.DOTALL):
            kinds = (
                re.fullmatch(r"(?:const )?(\w+) (\*?)\w+", " ".join(each.split())) for each in arguments.split(",")
            )
            found[name] = "".join((POINTERS if kind[2] else NUMBERS)[kind[1]] for kind in kinds)
    return found


def test_what_python_declares_is_what_the_sources_take() -> None:
    declared = {name: codes.replace("s", "SNN") for name, codes in cpp.SIGNATURES.items()}
    assert declared == exported()


@built
def test_every_function_that_is_declared_is_there_with_its_types() -> None:
    loaded, _ = cpp.library()
    for name, codes in cpp.SIGNATURES.items():
        for dtypes in cpp.VARIANTS[name]:
            function = getattr(loaded, cpp._symbol(name, dtypes))
            assert len(function.argtypes) == len(codes) + 2 * codes.count("s")
            assert function.restype is None


@built
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((torch.ones(4), torch.zeros(1, dtype=torch.float64)), "square_sum takes 3 arguments and is given 2"),
        ((torch.ones(4), torch.zeros(1), 4), "argument 1 is a torch.float32 tensor"),
        ((torch.ones(4).double(), torch.zeros(1, dtype=torch.float64), 4), "argument 0 is a torch.float64 tensor"),
        ((torch.ones(4, 4).T[:2], torch.zeros(1, dtype=torch.float64), 8), "argument 0 is .* strides"),
        ((torch.ones(4), torch.zeros(1, dtype=torch.float64), 4.0), "argument 2 is 4.0"),
        ((torch.ones(4), torch.zeros(1, dtype=torch.float64), True), "argument 2 is True"),
        ((torch.ones(4), 0, 4), "argument 1 is 0"),
        ((torch.ones(4), torch.zeros(1, dtype=torch.float64), torch.tensor(4)), "argument 2 is a torch.int64 tensor"),
    ],
)
def test_a_call_that_would_be_read_wrongly_is_refused(arguments: Any, said: Any) -> None:
    with pytest.raises(TypeError, match=said):
        cpp.call("square_sum", torch.float32, *arguments)


@compiled
@pytest.mark.parametrize("march", ["native", "x86-64-v2", "sapphirerapids"])
def test_it_compiles_without_a_warning(march: Any, tmp_path: Path) -> None:
    if march != "native" and platform.machine() != "x86_64":
        pytest.skip("this g++ builds for another processor")
    flags = [flag for flag in cpp.FLAGS if not flag.startswith(("-march", "-O"))]
    warnings = ("-Wall", "-Wextra", "-Wvla", "-Werror", f"-march={march}")
    units = [str(FOLDER / name) for name in cpp.SOURCES if name.endswith(".cpp")]
    ran = subprocess.run(
        ["g++", *flags, *warnings, *units, "-o", str(tmp_path / "x.so")], capture_output=True, text=True, check=False
    )
    assert (ran.returncode, ran.stderr) == (0, "")


@compiled
def test_a_compile_error_is_shown_in_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = tmp_path / "kernels.cpp"
    broken.write_text("int main() { return no_such_name; }\n")
    monkeypatch.setattr(cpp, "_sources", lambda: [broken])
    for cached in (cpp.library, cpp.fingerprint):
        cached.cache_clear()
    try:
        loaded, trouble = cpp.library()
    finally:
        for cached in (cpp.library, cpp.fingerprint):
            cached.cache_clear()
    assert loaded is None
    assert trouble.startswith("the C++ kernels cannot be built: ")
    assert "error: " in trouble
    assert "no_such_name" in trouble
    assert "\n" not in trouble


@built
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_no_bit_depends_on_the_number_of_threads(dtype: Any) -> Any:
    """Sums whose parts differ by 24 orders of magnitude: in any other order they round otherwise."""
    generator = torch.Generator().manual_seed(0)

    def random(*shape: Any) -> Any:
        return torch.randn(*shape, generator=generator).to(dtype)

    spread = 10.0 ** (24 * torch.rand(50, generator=generator) - 12)
    wild = (torch.randn(200_003, generator=generator) * spread.repeat_interleave(4096)[:200_003]).to(dtype)
    cut = pack([Tokens((5,) * 20, ((8, 9), (7,) * 70)), Tokens((4,) * 9, ((7,) * 30, (8,)))]).segments
    tokens = int(cut.queries[-1])
    query, key, value, grad = (random(tokens, heads, 24) for heads in (6, 2, 2, 6))
    buffers = [random(3, 2, 50, 24) for _ in range(2)]
    logits, uniform = 4 * random(33, 3001), torch.rand(33, generator=generator, dtype=torch.float64)
    target, slope = torch.arange(33) * 40, torch.randn(33, generator=generator)
    moments = [torch.randn(200_003, generator=generator).abs() for _ in range(3)]

    def everything() -> Any:
        out, normaliser = kernels.attend(query, key, value, cut.queries, cut.keys, 0.3, 40)
        given = (cut.queries, cut.keys, out, normaliser)
        gradients = kernels.attend_gradient(grad, (query, key, value), given, 0.3, 40)
        slot, length = torch.tensor([2, 0, 1]), torch.tensor([7, 0, 49])
        one = kernels.attend_one(
            query[:3], key[:3], value[:3], *(b.clone() for b in buffers), slot, length, 0.3, window=None, softcap=None
        )
        logprob, normalisers = kernels.logprobs(logits, target, 0.7)
        written = logits.clone()
        kernels.logprobs_gradient(written, target, normalisers, slope, 0.7)
        state = [each.clone() for each in moments]
        kernels.adamw(*state, wild, state[0] if dtype == torch.float32 else state[0].to(dtype), step=3,
                      learning_rate=1e-2, clip=0.5, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.1)  # fmt: skip
        drawn = kernels.draw(logits, uniform, 0.8)
        return [
            torch.tensor(kernels.square_sum(wild)),
            out,
            normaliser,
            *gradients,
            one,
            logprob,
            written,
            *state,
            *drawn,
        ]

    before = torch.get_num_threads()
    try:
        found = []
        for threads in (1, 2, 3, 5, 16):
            torch.set_num_threads(threads)
            found.append(everything())
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert [torch.equal(a, b) for a, b in zip(found[0], other, strict=True)] == [True] * len(other)


def _library(name: str) -> str | None:
    """Where the compiler has a sanitizer's library, if it has one."""
    if shutil.which("g++") is None:
        return None
    path = subprocess.run(
        ["g++", f"-print-file-name={name}"], capture_output=True, text=True, check=True
    ).stdout.strip()
    return str(Path(path).resolve()) if Path(path).is_absolute() else None


@pytest.mark.sanitize
@pytest.mark.skipif(_library("libasan.so") is None, reason="g++ has no libasan here")
def test_kernels_touch_their_own_memory_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """All tests of the kernels once more, on a build that stops at the first access out of bounds or undefined."""
    # The standard library with it: torch throws exceptions, which the sanitizer must find before torch is loaded.
    monkeypatch.setenv("LD_PRELOAD", " ".join(filter(None, map(_library, ("libasan.so", "libstdc++.so.6")))))
    monkeypatch.setenv("ASAN_OPTIONS", "detect_leaks=0")  # Python itself leaves things lying about at its end
    root, here = Path(__file__).parents[2], str(Path(__file__).parent)
    # A sum that no vectors share rounds too much for one test; the second one there has the same function in it.
    tests = (f"{here}/test_kernels.py", f"{here}/test_cpp.py::test_no_bit_depends_on_the_number_of_threads")
    script = (
        "import sys, pytest; from pairtune.engine import cpp; "
        f"cpp.FLAGS = (*cpp.FLAGS, '-g', *{SANITIZERS}); "
        "assert cpp.library()[0], cpp.library()[1]; "
        f"sys.exit(pytest.main(['-q', '-x', '-p', 'no:cacheprovider', '--rootdir', {str(root)!r}, *{tests}, "
        "'-k', 'not sum_of_squares']))"
    )
    ran = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, (ran.stdout + ran.stderr)[-4000:]
    assert " passed" in ran.stdout
