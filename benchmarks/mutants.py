"""Faults planted by cosmic-ray in a copy of the tree, and how many of them the tests notice.

`python -m benchmarks.mutants --sample 200 --seed 0` (needs `pip install -e '.[mutation]'`): places in the code are
drawn, as many of each part, and at each one of the faults that cosmic-ray has for it. Each is run against the tests of
its part that name its module, and if it survives against all tests of its part. Survivors are printed as a diff;
killed / run stands with its exact binomial interval (Clopper and Pearson, 95%).

A run out of time is not counted as killed, though a loop without an end is noticed: on a busy machine a survivor is
slow too, and the score would be too high. The limit is five times what the part's tests take as they are.

Not planted: bit operators in arithmetic and in types, which break at import and would only raise the score; `is` for
`==` and the like; what cosmic-ray does not change, such as the C++.
"""

import argparse
import contextlib
import difflib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
PARTS = {
    "objectives": "objectives/*.py",
    "data": "data/pack.py",
    "sampling": "sampling/*.py",
    "evaluation": "evaluation/*.py",
    "training": "training/*.py",
    "engine": "engine/*.py",
}
"""Part (the folder of its tests) -> its modules below src/pairtune."""

WORDS_ONLY = {"objectives/listing.py"}  # a test holds it against docs/objectives.md
ARITHMETIC = {"Add", "Sub", "Mul", "Div", "FloorDiv", "Mod", "Pow"}
CACHES = ("Is_Eq", "Eq_Is", "IsNot_NotEq", "NotEq_IsNot", "Eq_IsNot", "NotEq_Is", "Is_NotEq", "IsNot_Eq")


@dataclass(frozen=True)
class Mutant:
    """One fault: cosmic-ray's operator at its occurrence in a module (a path below the root)."""

    part: str
    module: str
    operator: str
    occurrence: int
    line: int


def meant(operator: str) -> bool:
    """Whether a test could miss the operator's faults and could see them."""
    name = operator.split("/")[1]
    if name.startswith("ReplaceBinaryOperator_"):
        return set(name.split("_")[1:]) <= ARITHMETIC
    return not name.endswith(CACHES)


def mutants(part: str, module: str) -> dict[tuple[int, int], list[Mutant]]:
    """Every fault of a module, by the place (line, column) that it changes."""
    from cosmic_ray.ast import ast_nodes, get_ast
    from cosmic_ray.plugins import get_operator, operator_names

    tree = get_ast((ROOT / module).read_text())
    found: dict[tuple[int, int], list[Mutant]] = defaultdict(list)
    for name in operator_names():
        operator = get_operator(name)
        if not meant(name) or operator.arguments():
            continue
        places = (start for node in ast_nodes(tree) for start, _ in operator().mutation_positions(node))
        for occurrence, start in enumerate(places):
            found[start].append(Mutant(part, module, name, occurrence, start[0]))
    return found


def drawn(parts: list[str], sample: int, seed: int) -> list[Mutant]:
    """As many faults of each part, in turn; of a place one alone, so that no operator with many faults rules."""
    queues = []
    for part in parts:
        places = []
        for path in sorted((ROOT / "src" / "pairtune").glob(PARTS[part])):
            if path.relative_to(ROOT / "src" / "pairtune").as_posix() not in WORDS_ONLY:
                places += sorted(mutants(part, path.relative_to(ROOT).as_posix()).items())
        chance = random.Random(f"{seed} {part}")
        chance.shuffle(places)
        queues.append([chance.choice(faults) for _, faults in places[: -(-sample // len(parts))]])
    longest = max(map(len, queues))
    return [queue[number] for number in range(longest) for queue in queues if number < len(queue)][:sample]


def tests_of(mutant: Mutant) -> Iterator[list[str]]:
    """The tests of its part that name its module, and then all of its part."""
    name = Path(mutant.module).stem
    named = re.compile(rf"\b{name}\b")
    own = [path for path in sorted((ROOT / "tests" / mutant.part).glob("test_*.py")) if named.search(path.read_text())]
    if own:
        yield [path.relative_to(ROOT).as_posix() for path in own]
    yield [f"tests/{mutant.part}"]


def outcome(copy: Path, tests: list[str], limit: float) -> str:
    """`killed`, `timeout` or `survived`: one run of tests in the copy, stopped at the first that fails."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
    paths = {"PYTHONPATH": f"{copy / 'src'}:{copy}", "PAIRTUNE_CACHE": f"{copy.parent / 'cache'}"}
    environment = os.environ | paths | {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    quiet = subprocess.DEVNULL
    run = subprocess.Popen(command, cwd=copy, env=environment, stdout=quiet, stderr=quiet, start_new_session=True)
    try:
        code = run.wait(limit)
    except subprocess.TimeoutExpired:
        return "timeout"
    finally:
        with contextlib.suppress(ProcessLookupError):  # what its tests started ends too
            os.killpg(run.pid, signal.SIGKILL)
        run.wait()
    if code == 5:
        raise RuntimeError(f"no test ran: {' '.join(tests)}")
    return "killed" if code else "survived"


def limit_of(copy: Path, part: str) -> float:
    """Seconds that a part's tests may take: five times what they take as they are; raises if they do not pass so."""
    start = time.monotonic()
    if (found := outcome(copy, [f"tests/{part}"], 3600)) != "survived":
        raise SystemExit(f"tests/{part} does not pass before anything is planted ({found})")
    seconds = time.monotonic() - start
    print(f"tests/{part} takes {seconds:.0f} s", flush=True)
    return 5 * seconds


def tried(copy: Path, mutant: Mutant, limit: float) -> tuple[str, str]:
    """What became of a fault, and its diff; the copy is as it was afterwards."""
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator

    path = copy / mutant.module
    before = path.read_text()
    after = mutate_code(before, get_operator(mutant.operator)(), mutant.occurrence)
    if after is None:
        raise RuntimeError(f"cosmic-ray plants nothing: {mutant}")
    try:
        path.write_text(after)
        found = "survived"
        for tests in tests_of(mutant):
            found = outcome(copy, tests, limit)
            if found != "survived":
                break
    finally:
        path.write_text(before)
    difference = difflib.unified_diff(before.splitlines(), after.splitlines(), n=1, lineterm="")
    return found, "\n".join(list(difference)[2:])


def interval(killed: int, run: int) -> tuple[float, float]:
    """The exact 95% interval of a share (Clopper and Pearson)."""
    from scipy.stats import binomtest

    found = binomtest(killed, run).proportion_ci(0.95, method="exact")
    return float(found.low), float(found.high)


def told(counts: Counter[str]) -> str:
    """Killed / run with its interval, and how many were out of time, which are not killed."""
    run, killed = counts.total(), counts["killed"]
    low, high = interval(killed, run)
    return f"{killed}/{run} = {killed / run:.1%} [{low:.1%}, {high:.1%}], {counts['timeout']} out of time"


def copied(place: Path) -> Path:
    """A copy of the files that git knows or does not ignore; the tree itself is never changed."""
    listed = subprocess.run(
        ["git", "ls-files", "-coz", "--exclude-standard"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, place / name)
    return place


def main(arguments: list[str] | None = None) -> int:
    """Draws, plants, counts; 1 if fewer than 90% are noticed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.mutants", description=__doc__)
    parser.add_argument("--sample", type=int, default=200, help="faults in all")
    parser.add_argument("--seed", type=int, default=0, help="of the draw")
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS), help="parts to draw from")
    options = parser.parse_args(arguments)
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    with tempfile.TemporaryDirectory() as folder:
        copy = copied(Path(folder) / "tree")
        limits = {part: limit_of(copy, part) for part in options.parts}
        for mutant in drawn(options.parts, options.sample, options.seed):
            found, difference = tried(copy, mutant, limits[mutant.part])
            counts[mutant.part][found] += 1
            print(f"{found} {mutant.module}:{mutant.line} {mutant.operator}", flush=True)
            if found != "killed":
                print(difference, flush=True)
    for part, of_it in counts.items():
        print(f"{part}: {told(of_it)}")
    total = sum(counts.values(), Counter[str]())
    print(f"all: {told(total)}")
    return int(total["killed"] < 0.9 * total.total())


if __name__ == "__main__":
    sys.exit(main())
