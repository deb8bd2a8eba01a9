"""A small part of `benchmarks.kill` and `benchmarks.damage`: nothing lost, different, silent or stuck."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    "words", ["kill --times 1 --command sft --seed 3", "damage --command sft --every 24"], ids=["kill", "damage"]
)
def test_a_small_part_of_it(words: str) -> None:
    given = [sys.executable, "-m", *f"benchmarks.{words}".split()]
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'src'}"}
    found = subprocess.run(given, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout + found.stderr
    assert "as it was" in found.stdout.splitlines()[-1]
