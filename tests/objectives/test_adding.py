"""A function with its docstring and an entry are all that an objective takes: every test of it then passes."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
# What somebody would write into `objectives/` and `catalog.py`, as a plugin that pytest loads first.
ADDED = '''
from pairtune.objectives import catalog
from pairtune.objectives.functions import log_sigmoid
from pairtune.objectives.objective import Objective, Parameter


def added(chosen_logratio_B, rejected_logratio_B, *, beta, tilt):
    """One more.

    −log σ(β·(Δ_w − (1 + τ)·Δ_l)): Nobody et al. 2026, arXiv 2601.00001, eq. 1.

    Minimiser: not known.

    TRL: not there.
    """
    return -log_sigmoid(beta * (chosen_logratio_B - (1 + tilt) * rejected_logratio_B))


ENTRY = Objective(
    loss=added,
    equation="−log σ(β·(Δ_w − (1 + τ)·Δ_l))",
    source="Nobody et al. 2026, arXiv 2601.00001, eq. 1",
    parameters={
        "beta": Parameter(default=0.1, meaning="weight of something", above=0),
        "tilt": Parameter(default=0.5, meaning="τ: weight of the rejected", least=0),
    },
)
family = "On the margin of a pair"
catalog.FAMILIES[family] = (*catalog.FAMILIES[family], ENTRY)
catalog.OBJECTIVES.clear()
catalog.OBJECTIVES.update({entry.name: entry for several in catalog.FAMILIES.values() for entry in several})
'''


def test_a_function_and_an_entry_are_enough(tmp_path: Path) -> None:
    (tmp_path / "an_objective_more.py").write_text(ADDED, encoding="utf-8")
    files = [f"tests/objectives/test_{name}.py" for name in ("catalog", "behaviour", "values")]
    page = "tests/objectives/test_catalog.py::test_the_page_is_what_the_catalogue_says"  # a script writes it
    command = [sys.executable, "-m", "pytest", "-q", "-p", "an_objective_more", "-p", "no:cacheprovider", *files]
    paths = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    ran = subprocess.run(
        [*command, "-k", "added or test_catalog", "--deselect", page],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout[-3000:]
    passed = re.search(r"(\d+) passed, 1 skipped", ran.stdout)  # what is skipped: the value by hand
    assert passed
    assert int(passed[1]) > 60  # each objective twice in test_catalog, and the new one wherever there is a name
