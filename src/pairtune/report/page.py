"""The report page: one HTML file that opens offline, reads on a phone, prints, and runs no script."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from json import dumps
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from pairtune import disk
from pairtune.errors import InputError
from pairtune.report import figures, plots, style, words
from pairtune.report.figures import Figure
from pairtune.report.glossary import Term, glossary
from pairtune.report.records import REFERENCE, Row, Run, measured, read

PROMPTS_SHOWN = 12
"""Generations are shown for this many prompts, the lowest prompt indices: a fixed rule, so that none is hand-picked."""


@dataclass(frozen=True)
class Cell:
    """One figure of a table: what it is, and under it, small, how sure it is or what it is made of."""

    text: str
    note: str = ""
    names: tuple[str, ...] = ()
    strong: bool = False
    prose: bool = False


@dataclass(frozen=True)
class Line:
    """One row of a table; key names its glossary entry."""

    key: str
    title: str
    cells: list[Cell]


REPORT = "report.html"


def write(run_dir: Path, count: Callable[[], object] | None = None) -> Path:
    """Write report.html into the run directory and return its path. InputError: the records can't be read.

    count: called once all is drawn, and may then say in summary.json what the run took, drawing included.
    """
    path = run_dir / REPORT
    run = read(run_dir)
    drawn = _draw(run)
    if count:
        count()
        run = read(run_dir)
    page = _fill(run, drawn)
    try:
        disk.write(path, page)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}") from error
    return path


def render(run: Run) -> str:
    """The page as one string, the same for the same records."""
    return _fill(run, _draw(run))


def _draw(run: Run) -> dict[str, list[Any]]:
    """The figures, which take nearly all of the page's time."""
    colours = style.palette(list(run.summary["arms"]))
    return {
        "grid_figures": list(_grid_figures(run.summary, colours)),
        "learning": list(_learning(run, colours)),
        "training": list(_training(run, colours)),
    }


def _fill(run: Run, drawn: Mapping[str, list[Any]]) -> str:
    summary = run.summary
    failed = summary.get("failed") or {}
    arms = [arm for arm in summary["arms"] if arm not in failed]
    colours = style.palette(list(summary["arms"]))
    environment = Environment(
        loader=PackageLoader("pairtune.report"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_visible,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["arm"] = words.arm_name
    environment.filters["listed"] = words.listed
    return environment.get_template("report.html.j2").render(
        run=run,
        summary=summary,
        arms=arms,
        failed=failed,
        colours=colours,
        facts=list(_facts(summary)),
        notices=_notices(summary),
        quality=[*_settings(summary, arms), *_table(summary, arms, "quality")],
        cost=_table(summary, arms, "cost"),
        differences=_differences(summary),
        difference_titles=[each.name for each in _compared(summary)],
        grid=_grid(summary),
        grid_titles=[each.grid for each in _of_candidates(summary)],
        **drawn,
        before=[(arm, spent) for arm, spent in plots.seconds_before(summary).items() if spent],
        along=summary.get("along_the_way"),
        along_score=_inline((summary.get("along_the_way") or {}).get("reference_gold_score")),
        generations=_generations(run.samples),
        prompts=len({row["prompt_index"] for row in run.samples}),
        glossary=glossary(summary),
        environment=dumps(run.environment, indent=2, ensure_ascii=False) if run.environment else None,
        gold=figures.score(summary).title,
        seconds=words.seconds,
        whole=words.whole,
        decimal=words.decimal,
    )


def _visible(value: Any) -> Any:
    """Applied to everything the template prints, before it is escaped; the figures did so themselves."""
    return words.visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _facts(summary: Row) -> Iterator[tuple[str, str]]:
    pairs = summary.get("pairs") or {}
    yield "Model", str(summary.get("model") or words.NOTHING)
    yield "Data", str(summary.get("data") or words.NOTHING)
    if pairs:
        choosing = f"{words.whole(pairs['validation'])} to choose on, " if pairs.get("validation") else ""
        counts = f"{words.whole(pairs['train'])} to train on, {choosing}{words.whole(pairs['heldout'])} held out"
        yield "Pairs", counts
    yield "Seed", str(summary.get("seed", words.NOTHING))
    if summary.get("preset"):
        yield "Preset", str(summary["preset"])
    for title, key in ((figures.scorer_name(summary), "gold_scorer"), ("Reward model", "reward_model")):
        facts = summary.get(key) or {}
        scorer = facts.get("heldout_accuracy")
        if scorer:
            cell = _accuracy(scorer)
            # The gold scorer is tested on labelled reviews; a judge and the reward model on held-out pairs.
            tested = "held-out reviews" if facts.get("kind") == "gold" else "held-out pairs"
            on = f"trained on {words.whole(facts['pairs'])} pairs kept apart; " if facts.get("pairs") else ""
            on += f"unlike the reward model with {facts['apart']}; " if facts.get("apart") else ""
            yield title, f"{on}right on {cell.text} of {tested} ({cell.note})"
    if took := words.whole_run(summary):
        yield "Whole run", took


def _compared(summary: Row) -> list[Figure]:
    """What arms are compared in: what at least one pair of them was."""
    fields = list((summary.get("differences") or {}).values())
    return [each for each in figures.of_run(summary) if each.difference and any(each.key in row for row in fields)]


def _measure(saved: Any, show: Callable[[float], str], *, strong: bool = False) -> Cell:
    found = measured(saved)
    if found is None:
        return Cell(words.NOTHING)
    bounds, count = (text.replace(" ", "\u00a0") for text in (words.interval(found, show), f"n {found.n:,}"))
    return Cell(show(found.mean), f"{bounds}, {count}", strong=strong)


def _inline(saved: Any) -> str:
    """A measure within a sentence: 0.12 (−0.15 to 0.38)."""
    found = measured(saved)
    return f"{words.decimal(found.mean)} ({words.interval(found)})" if found else words.NOTHING


def _accuracy(saved: Any) -> Cell:
    """A share of right ones, and whether it can be told from chance."""
    cell, standing = _measure(saved, words.percent), words.against_chance(measured(saved))
    return replace(cell, note=f"{cell.note}, {standing}") if standing else cell


def _cell(figure: Figure, saved: Any) -> Cell:
    """A figure as it was saved: a mean, a number, a number for each stage, or names, which are counted."""
    if figure.accuracy:
        return _accuracy(saved)
    if figure.table != "cost":
        return _measure(saved, figure.show)
    if isinstance(saved, list):
        return Cell(str(len(saved)), names=tuple(map(str, saved)))
    if isinstance(saved, Mapping):
        return _by_stage(saved, figure.show)
    return Cell(figure.show(saved) if saved else words.NOTHING)


def _by_stage(stages: Row, show: Callable[[float], str]) -> Cell:
    if not any(stages.values()):
        return Cell(words.NOTHING)
    parts = " + ".join(f"{stage} {show(spent)}" for stage, spent in stages.items())
    return Cell(show(sum(stages.values())), parts if len(stages) > 1 else "")


def _table(summary: Row, arms: Sequence[str], table: str) -> list[Line]:
    """The figures that the arms of a run have; those of earlier versions lack some."""
    numbers = [summary["arms"][arm] for arm in arms]
    return [
        Line(each.key, each.name, [_cell(each, arm.get(each.key)) for arm in numbers])
        for each in figures.of_run(summary)
        if each.table == table
    ]


def _settings(summary: Row, arms: Sequence[str]) -> list[Line]:
    """With what each arm was trained, where that was saved."""
    cells = [
        Cell(
            words.parameters(values).replace(" ", "\u00a0").replace(",\u00a0", ", "), _choice(summary, arm), prose=True
        )
        if (values := summary["arms"][arm].get("parameters"))
        else Cell(words.NOTHING)
        for arm in arms
    ]
    return [Line("parameters", "Settings of the objective", cells)] if any(cell.prose for cell in cells) else []


def _choice(summary: Row, arm: str) -> str:
    choice = words.choice(summary, arm)
    return f"{choice} on validation" if choice else ""


def _notices(summary: Row) -> list[tuple[str, list[tuple[str, Term | None]]]]:
    """Per arm, in the order in which they first appear: each notice's text, and the term that it is about."""
    terms = {term.key: term for term in glossary(summary)}
    arms: dict[str, list[tuple[str, Term | None]]] = {}
    for notice in summary.get("notices") or []:
        term = terms.get(str(notice.get("figure")))
        arms.setdefault(str(notice.get("arm")), []).append((str(notice.get("text", "")), term))
    return list(arms.items())


def _of_candidates(summary: Row) -> list[Figure]:
    """What the candidates of a grid are measured by."""
    rows = [row for several in (summary.get("grid") or {}).values() for row in several]
    return [each for each in figures.of_run(summary) if each.grid and any(each.key in row for row in rows)]


def _grid(summary: Row) -> list[tuple[str, float, list[tuple[Row, str, list[Cell]]]]]:
    """Per method: its seconds in all, and each candidate's row, settings and figures on the validation split."""
    methods = []
    for method, candidates in (summary.get("grid") or {}).items():
        names = words.varied([row["parameters"] for row in candidates])
        rows = []
        for row in candidates:
            cells = [_cell(each, row.get(each.key)) for each in _of_candidates(summary)]
            cells.append(Cell(words.seconds(row["seconds"]) if row.get("seconds") else words.NOTHING))
            label = words.parameters({name: row["parameters"].get(name) for name in names})
            rows.append((row, label, cells))
        methods.append((method, sum(row.get("seconds") or 0.0 for row in candidates), rows))
    return methods


def _grid_figures(summary: Row, colours: dict[str, int]) -> Iterator[Markup]:
    """All methods in one figure, then each by itself, its points named."""
    candidates = summary.get("grid") or {}
    for method in (*([None] if len(candidates) > 1 else []), *candidates):
        svg = plots.grid(candidates, figures.score(summary), colours, method=method)
        if svg:
            yield Markup(svg)


def _differences(summary: Row) -> list[tuple[str, list[Cell]]]:
    rows = []
    for title, fields in (summary.get("differences") or {}).items():
        named = " − ".join(words.arm_name(arm) for arm in title.split(" - "))
        cells = []
        for each in _compared(summary):
            found = measured(fields.get(each.key))
            assert each.difference
            strong = found is not None and found.is_detectable
            cells.append(_measure(fields.get(each.key), each.difference, strong=strong))
        rows.append((named, cells))
    return rows


def _learning(run: Run, colours: dict[str, int]) -> Iterator[Markup]:
    """The frontier beside the KL, then what is drawn over steps and over seconds, side by side; the others last."""
    before = plots.seconds_before(run.summary)
    known = figures.of_run(run.summary)
    once = [each for each in known if len(each.curve) == 1]
    twice = [each for each in known if len(each.curve) > 1]
    drawn = [plots.frontier([*run.evaluations, *run.points], figures.score(run.summary), colours)]
    drawn += [
        plots.learning_curve(run.evaluations, each, colours, over=over, started=before)
        for each in (*once[:1], *twice, *once[1:])
        for over in each.curve
    ]
    yield from (Markup(svg) for svg in drawn if svg)


_FIRST = ("loss", "accuracy", "margin", "reward", "kl")
_NO_METRIC = ("step", "seconds", "reward_sd", "kl_sd")


def _training(run: Run, colours: dict[str, int]) -> Iterator[tuple[str, int, int, list[Markup]]]:
    """Per stage: its name, its steps, the span of the running mean, and a curve for each of its metrics."""
    stages: dict[str, list[Row]] = {}
    for row in run.steps:
        stages.setdefault(str(row.get("stage")), []).append(row)
    for stage, rows in stages.items():
        metrics = sorted({key for row in rows for key in row} - set(_NO_METRIC))
        metrics.sort(key=lambda metric: _FIRST.index(metric) if metric in _FIRST else len(_FIRST))
        curves = [plots.training_curve(rows, metric, colours.get(stage, 0)) for metric in metrics]
        yield stage, len(rows), plots.smoothing(len(rows)), [Markup(svg) for svg in curves if svg]


def _generations(samples: Sequence[Row]) -> list[tuple[Row, list[Row]]]:
    """For the prompts of lowest index, each arm's first response; the reference's leads."""
    prompts: dict[int, dict[str, Row]] = {}
    for row in samples:
        prompts.setdefault(row["prompt_index"], {}).setdefault(row["arm"], row)
    shown = sorted(prompts)[:PROMPTS_SHOWN]
    by_arm = [sorted(prompts[index].values(), key=lambda row: row["arm"] != REFERENCE) for index in shown]
    return [(rows[0], rows) for rows in by_arm]
