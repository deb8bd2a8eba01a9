"""What a person reads of an objective is what its function takes, in the catalogue, on the terminal and in the docs."""

import inspect
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pairtune.cli import main
from pairtune.objectives import listing
from pairtune.objectives.catalog import OBJECTIVES
from pairtune.objectives.loss import loss_of
from pairtune.objectives.objective import QUANTITY, STEP_NUMBERS

DOCS = Path(__file__).parents[2] / "docs" / "objectives.md"


def test_what_it_needs_is_read_off_its_arguments() -> None:
    """Of one of each kind; that it holds of all, `test_behaviour` sees by changing the reference."""
    assert {name: set(OBJECTIVES[name].needs) for name in ("dpo", "kto", "beta-dpo", "rpo", "wpo", "simpo", "sft")} == {
        **{name: {"reference"} for name in ("dpo", "beta-dpo", "rpo")},
        "kto": {"reference", "mismatched"},
        "wpo": {"reference", "collision"},
        **{name: set() for name in ("simpo", "sft")},
    }
    assert [OBJECTIVES[name].unpaired for name in ("kto", "bco", "dpo")] == [True, True, False]
    assert [OBJECTIVES[name].whole_step for name in ("aot-paired", "dpo")] == [True, False]
    assert [
        each.name for each in OBJECTIVES.values() if each.unweighed
    ] == []  # all that mix a step's pairs take weights


def test_its_parameters_are_the_functions_own(name: str) -> None:
    entry = OBJECTIVES[name]
    takes = inspect.signature(entry.loss).parameters.values()
    for argument in entry.arguments:
        assert QUANTITY.match(argument) or argument in (*STEP_NUMBERS, "label_B"), argument
    keywords = [p for p in takes if p.kind is p.KEYWORD_ONLY]
    assert [p.name for p in keywords] == list(entry.parameters)
    assert all(p.default is p.empty for p in keywords), "the catalogue alone holds defaults"
    assert all(p.trouble(p.default) is None for p in entry.parameters.values())


def test_it_says_what_it_is(name: str) -> None:
    entry = OBJECTIVES[name]
    text = inspect.getdoc(entry.loss) or ""
    paragraphs = text.split("\n\n")
    assert [paragraph.split()[0] for paragraph in paragraphs[2:]] == ["Minimiser:", "TRL:"]
    assert entry.equation
    for number in re.findall(r"arXiv (\d{4}\.\d{5})", entry.source):
        assert number in " ".join(paragraphs[1].split()), "the docstring has the same source"
    assert re.search(r"arXiv \d{4}\.\d{5}|Mitchell 2023", entry.source)
    assert all(len(parameter.meaning) > 10 for parameter in entry.parameters.values())


def test_the_page_is_what_the_catalogue_says() -> None:
    assert DOCS.read_text(encoding="utf-8") == listing.as_page(), "run docs/make_objectives.py"


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["objectives", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in found] == list(OBJECTIVES)
    assert all(
        list(row) == ["name", "needs_reference", "data", "parameters", "source", "equation"]
        and row["data"] in ("pairs", "pairs or labels")
        for row in found
    )
    simpo = next(row for row in found if row["name"] == "simpo")
    assert simpo["needs_reference"] is False
    assert simpo["parameters"]["gamma"] == {"default": 1.0, "meaning": "reward margin to reach"}


def test_the_listing_names_all_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["objectives"]) == 0
    text = capsys.readouterr().out
    for name, entry in OBJECTIVES.items():
        assert f"  {name}  (" in text
        assert entry.equation in text
        assert all(f"--{key.replace('_', '-')} {p.default:g}" in text for key, p in entry.parameters.items())


def test_listing_imports_nothing_that_takes_long() -> None:
    """What makes it quick, rather than how quick it is: none of the heavy libraries is loaded."""
    script = (
        "import sys; from pairtune.cli import main; main(['objectives']); "
        "heavy = {'torch', 'transformers', 'datasets', 'scipy', 'sklearn', 'matplotlib', 'numpy'}; "
        "print(sorted(heavy & {*sys.modules}), file=sys.stderr)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=True
    )
    assert ran.stderr.splitlines()[-1] == "[]"


# ---- sums and parameters ------------------------------------------------------------------------------------------


def test_a_sum_is_the_weighted_sum_of_its_parts(batch: Callable[..., Any]) -> None:
    pairs = batch()
    parts = [pairs.loss("dpo", beta=0.3), pairs.loss("kto", beta=0.3), pairs.loss("sft")]
    torch.testing.assert_close(
        pairs.loss("0.5*dpo + 2*kto+.2*sft", beta=0.3), 0.5 * parts[0] + 2 * parts[1] + 0.2 * parts[2]
    )


def test_a_sum_needs_what_its_parts_need() -> None:
    loss = loss_of("sft+0.5*aot-unpaired+kto")
    assert "reference" in loss.needs
    assert loss.whole_step
    assert not loss.takes_labels
    assert set(loss.arguments) == {
        *("chosen_logprob_B", "mean_length", "chosen_logratio_N", "rejected_logratio_N"),
        *("logratio_B", "label_B", "kl_baseline"),
    }
    assert "reference" not in loss_of("sft+simpo").needs
    assert loss_of("kto+bco").takes_labels


def test_each_part_has_its_own_default_and_takes_what_is_given() -> None:
    assert loss_of("dpo+0.5*simpo").to_json() == {
        "dpo": {"weight": 1.0, "beta": 0.1},
        "simpo": {"weight": 0.5, "beta": 2.0, "gamma": 1.0},
    }
    given = loss_of("dpo+0.5*simpo", {"beta": 0.7, "gamma": 0.2}).to_json()
    assert given["dpo"]["beta"] == given["simpo"]["beta"] == 0.7
    assert given["simpo"]["gamma"] == 0.2


@pytest.mark.parametrize(
    ("name", "given", "said"),
    [
        ("dop", {}, 'there is no objective "dop"; did you mean "dpop"?'),
        ("dpo+ipoo", {}, 'there is no objective "ipoo"; did you mean "ipo"?'),
        ("xyzzy", {}, 'there is no objective "xyzzy"; the catalogue has dpo, cdpo'),
        ("dpo+", {}, '"dpo+" is no objective and no sum such as dpo+0.2*sft'),
        ("0.2 dpo", {}, "is no objective and no sum"),
        ("-1*dpo", {}, "is no objective and no sum"),
        ("", {}, "is no objective and no sum"),
        ("../dpo", {}, "is no objective and no sum"),
        ("dpo+2*dpo", {}, '"dpo+2*dpo" names an objective twice'),
        ("dpo", {"gamma": 1}, 'dpo has no parameter "gamma"; its parameters are beta'),
        ("sft", {"beta": 1}, 'sft has no parameter "beta"; it has none'),
        ("dpo+simpo", {"alpha": 1}, 'dpo+simpo has no parameter "alpha"; its parameters are beta, gamma'),
        ("dpo", {"beta": 0.0}, "beta is 0; for dpo it must be above 0"),
        ("cdpo", {"label_smoothing": 0.5}, "label_smoothing is 0.5; for cdpo it must be below 0.5"),
        ("ld-dpo", {"alpha": 1.5}, "alpha is 1.5; for ld-dpo it must be at most 1"),
        ("simpo", {"gamma": -1}, "gamma is -1; for simpo it must be at least 0"),
    ],
)
def test_what_is_wrong_is_said_with_what_would_be_right(name: str, given: dict[str, float], said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        loss_of(name, given)
