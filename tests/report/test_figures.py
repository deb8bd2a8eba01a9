"""A figure is one entry: added in one place it is everywhere, and what an entry says of its code is so."""

from dataclasses import replace
from importlib import import_module
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from pairtune.commands.figures import table
from pairtune.comparison.summary import differences, means
from pairtune.data.pack import Tokens
from pairtune.estimate import Estimate
from pairtune.report import figures, page, terminal, words
from pairtune.report.figures import FIGURES, Figure
from pairtune.report.glossary import GENERAL, glossary
from pairtune.report.records import read

SURPRISE = Figure(
    key="surprise",
    title="Surprise",
    unit="jumps",
    meaning="How often a reader jumps.",
    code="tests.report.test_figures:SURPRISE",
    show=words.tenths,
    per="pair",
    better="lower",
    heading="Surprise",
    difference=words.tenths,
    grid="Surprise",
    curve=("step",),
)


@pytest.fixture
def one_more(monkeypatch: pytest.MonkeyPatch) -> Figure:
    monkeypatch.setattr(figures, "FIGURES", (*FIGURES, SURPRISE))
    return SURPRISE


def text_of(shown: Any) -> str:
    out = StringIO()
    Console(file=out, width=100).print(shown)
    return out.getvalue()


def test_an_entry_is_all_that_a_new_figure_needs(
    one_more: Figure, grid_dir: Path, grid_summary: dict[str, Any]
) -> None:
    measured = {"mean": 3.25, "n": 40, "ci95": [3.0, 3.5]}
    for numbers in grid_summary["arms"].values():
        numbers["surprise"] = measured
    for fields in grid_summary["differences"].values():
        fields["surprise"] = {"mean": -0.75, "n": 40, "ci95": [-1.0, -0.5]}
    for rows in grid_summary["grid"].values():
        for row in rows:
            row["surprise"] = None if row["failed"] else measured | {"mean": 4.5, "n": 20}
    grid_summary["notices"].append({"arm": "dpo", "figure": "surprise", "text": "It jumps."})
    run = read(grid_dir)
    evaluations = [{**row, "surprise": measured} for row in run.evaluations]
    text = page.render(replace(run, summary=grid_summary, evaluations=evaluations)).replace("\u00a0", " ")
    assert '<a href="#surprise">Surprise, jumps</a>' in text, "the table of arms"
    assert text.count("3.0 to 3.5, n 40</span>") == len(grid_summary["arms"])
    assert '<th scope="col">Surprise, jumps</th>' in text, "differences"
    assert '<span class="value strong">−0.8</span>' in text
    assert '<th scope="col">Surprise</th>' in text, "the grid"
    assert '<span class="value">4.5</span>' in text
    assert ">Surprise (jumps)<" in text, "a curve"
    assert 'It jumps. <a href="#surprise">' in text, "a notice"
    assert '<dt id="surprise">Surprise, jumps</dt><dd>How often a reader jumps. Lower is better.</dd>' in text
    out = StringIO()
    terminal.show(grid_summary, Console(file=out, width=100))
    assert "Surprise" in out.getvalue()
    assert "3.0 to 3.5" in out.getvalue()
    told = text_of(table("what evaluate prints", {"surprise": Estimate.from_json(measured)}))
    assert "Surprise, jumps" in told
    assert "3.2" in told
    assert "| `surprise` | **Surprise.** How often a reader jumps. Lower is better. | jumps | pairs |" in (
        figures.as_table()
    )


def test_the_summary_takes_its_mean_and_its_differences(one_more: Figure) -> None:
    rows = [Tokens((prompt,), ((1,), (2,))) for prompt in (1, 1, 2, 3, 4, 5, 6, 7)]
    values = {
        arm: {"surprise": [float(i + shift) for i in range(8)], "heldout_accuracy": [1.0] * 8}
        for arm, shift in (("reference", 0), ("dpo", 2))
    }
    found = means(values["dpo"], rows)
    assert found["surprise"]["mean"] == 5.5
    assert differences(values, rows)["dpo - reference"]["surprise"] == {"mean": 2.0, "n": 8, "ci95": [2.0, 2.0]}
    assert found["heldout_accuracy"]["ci95"] == pytest.approx([0.5904, 1.0], abs=1e-4), "exact, of seven prompts"


def test_a_run_without_a_figure_says_nothing_of_it(one_more: Figure, summary: dict[str, Any]) -> None:
    assert "surprise" not in {term.key for term in glossary(summary)}
    assert {term.key for term in GENERAL} < {term.key for term in glossary(summary)}


def test_every_entry_is_whole() -> None:
    assert len({each.key for each in FIGURES}) == len(FIGURES)
    for each in FIGURES:
        assert each.title[0].isupper(), each.key
        assert each.meaning.endswith("."), each.key
        module, _, name = each.code.partition(":")
        assert callable(getattr(import_module(module), name)), each.code
        if each.heading:
            assert each.table == "quality", f"{each.key} stands in the terminal and not on the page"
    assert sum(bool(each.heading) for each in FIGURES) == 4, "80 columns hold four"
    with pytest.raises(KeyError):
        figures.figure("nonsense")


def test_a_judge_has_its_own_words_in_every_place(summary: dict[str, Any]) -> None:
    gold = figures.score(summary)
    judged = figures.score(summary | {"gold_scorer": {"kind": "judge"}})
    assert (gold.title, judged.title, figures.score_name(summary)) == ("Gold reward", "Judge score", "gold reward")
    for name in ("title", "heading", "grid", "meaning"):
        assert "gold" not in getattr(judged, name).lower()
    assert replace(judged, title="", heading="", grid="", meaning="") == replace(
        gold, title="", heading="", grid="", meaning=""
    )


def test_the_document_of_metrics_is_the_entries() -> None:
    text = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text(encoding="utf-8")
    assert figures.as_table() in text, "python docs/make_metrics.py writes it anew"
