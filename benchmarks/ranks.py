"""`python -m benchmarks.ranks`: two ranks with one thread each against one rank with two, DPO, pairs per second.

They take turns. The first steps, in which blocks are compiled, are not counted.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

# Steps that are not counted.
WARM = 2


def command(ranks: int, out: Path, options: argparse.Namespace) -> list[str]:
    launcher = ["torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}", "-m"] if ranks > 1 else []
    asked = ["--model", options.model, "--data", options.data, "--batch-size", str(options.batch_size), "--epochs", "1"]
    return [sys.executable, "-m", *launcher, "pairtune", "tune", *asked, "--out", str(out)]


def pairs_per_second(ranks: int, options: argparse.Namespace) -> float:
    """By the seconds of the steps, as the run records them."""
    with tempfile.TemporaryDirectory() as folder:
        out, environment = Path(folder) / "out", os.environ | {"OMP_NUM_THREADS": str(2 // ranks)}
        subprocess.run(command(ranks, out, options), env=environment, check=True, capture_output=True)
        rows = [json.loads(line) for line in (out / "records.jsonl").read_text().splitlines()]
    steps = rows[-1]["step"] - 1 - WARM  # whole ones: the last may be short
    return float(steps * options.batch_size / (rows[-2]["seconds"] - rows[WARM - 1]["seconds"]))


def main() -> None:
    """Print each turn, and the ratio of the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--data", default="examples/pairs.jsonl")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args()
    found: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(options.turns):
        for ranks, rates in found.items():
            rates.append(pairs_per_second(ranks, options))
            print(f"{ranks} rank{'s' * (ranks > 1)}: {rates[-1]:.2f} pairs/s", flush=True)
    one, two = (statistics.median(rates) for rates in found.values())
    print(f"two ranks with one thread each: {two / one:.2f} of one rank with two threads")


if __name__ == "__main__":
    main()
