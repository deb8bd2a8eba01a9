"""The report page: one HTML file that opens offline, reads on a phone, prints, and runs no script."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from json import dumps
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from pairtune.errors import InputError
from pairtune.report import drawing, figures, words
from pairtune.report.glossary import Term, glossary
from pairtune.report.records import REFERENCE, Row, Run, measured, read
from pairtune.varied import varied

PROMPTS_SHOWN = 12
"""Generations are shown for this many prompts, the lowest prompt indices: a rule, so nobody picks them."""


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
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}") from error
    return path


def render(run: Run) -> str:
    """The page as one string, the same for the same records."""
    return _fill(run, _draw(run))


def _draw(run: Run) -> dict[str, list[Any]]:
    """The figures, which take nearly all of the page's time."""
    colours = drawing.palette(list(run.summary["arms"]))
    return {
        "grid_figures": list(_grid_figures(run.summary, colours)),
        "learning": list(_learning(run, colours)),
        "training": list(_training(run, colours)),
    }


def _fill(run: Run, drawn: Mapping[str, list[Any]]) -> str:
    summary = run.summary
    failed = summary.get("failed") or {}
    arms = [arm for arm in summary["arms"] if arm not in failed]
    colours = drawing.palette(list(summary["arms"]))
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
        quality=_quality(summary, arms),
        cost=_cost(summary, arms),
        differences=_differences(summary),
        difference_titles=[title for _, title, _ in _compared(summary)],
        grid=_grid(summary),
        grid_titles=[title for _, title, _ in _candidate_figures(summary)],
        **drawn,
        before=[(arm, spent) for arm, spent in figures.seconds_before(summary).items() if spent],
        along=summary.get("along_the_way"),
        along_score=_inline((summary.get("along_the_way") or {}).get("reference_gold_score")),
        generations=_generations(run.samples),
        prompts=len({row["prompt_index"] for row in run.samples}),
        glossary=glossary(summary),
        environment=dumps(run.environment, indent=2, ensure_ascii=False) if run.environment else None,
        gold=words.gold_name(summary),
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
    for title, key in ((words.scorer_title(summary), "gold_scorer"), ("Reward model", "reward_model")):
        facts = summary.get(key) or {}
        scorer = facts.get("heldout_accuracy")
        if scorer:
            cell = _share(scorer)
            # The gold scorer is tested on labelled reviews; a judge and the reward model on held-out pairs.
            tested = "held-out reviews" if facts.get("kind") == "gold" else "held-out pairs"
            on = f"trained on {words.whole(facts['pairs'])} pairs kept apart; " if facts.get("pairs") else ""
            yield title, f"{on}right on {cell.text} of {tested} ({cell.note})"
    if took := words.whole_run(summary):
        yield "Whole run", took


Figures = tuple[tuple[str, str, Callable[[float], str]], ...]

# The score that judges every arm comes before these, under its own name.
_QUALITY: Figures = (
    ("kl_from_reference", "KL, nats", words.decimal),
    ("heldout_accuracy", "Held-out accuracy", words.percent),
    ("heldout_own_accuracy", "Own criterion", words.percent),
    ("reward_model_score", "Reward-model score", words.decimal),
    ("response_tokens", "Response tokens", words.tenths),
    ("repetition", "Repetition", words.decimal),
    ("distinct_bigrams", "Distinct 2-grams", words.percent),
    ("chosen_nats_per_token", "Chosen, nats per token", words.thousandths),
    ("rejected_nats_per_token", "Rejected, nats per token", words.thousandths),
    ("chosen_fell", "Chosen fell", words.percent),
    ("margin_length_correlation", "Margin and length", words.decimal),
)

_COST: Figures = (
    ("tokens_processed", "Tokens", words.whole),
    ("flops", "FLOPs", words.scientific),
    ("peak_memory_bytes", "Peak memory", words.gigabytes),
    ("models_in_memory", "Models in memory", words.whole),
)

_DIFFERENCES: Figures = (
    ("heldout_accuracy", "Held-out accuracy", words.points),
    ("reward_model_score", "Reward-model score", words.decimal),
    ("response_tokens", "Response tokens", words.tenths),
)


def _score(summary: Row) -> Figures:
    return (("gold_score", f"{words.gold_name(summary)}, sd", words.decimal),)


def _compared(summary: Row) -> Figures:
    """What arms are compared in: what at least one pair of them was."""
    fields = list((summary.get("differences") or {}).values())
    return tuple(each for each in (*_score(summary), *_DIFFERENCES) if any(each[0] in row for row in fields))


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


def _share(saved: Any) -> Cell:
    """An accuracy, and whether it can be told from chance."""
    cell, standing = _measure(saved, words.percent), words.against_chance(measured(saved))
    return replace(cell, note=f"{cell.note}, {standing}") if standing else cell


def _figure(field: str, saved: Any, show: Callable[[float], str]) -> Cell:
    return _share(saved) if field.endswith("accuracy") else _measure(saved, show)


def _quality(summary: Row, arms: Sequence[str]) -> list[Line]:
    numbers = [summary["arms"][arm] for arm in arms]
    lines = [
        Line(key, title, [_figure(key, arm.get(key), show) for arm in numbers])
        for key, title, show in (*_score(summary), *_QUALITY)
        if any(key in arm for arm in numbers)  # runs of earlier versions lack some
    ]
    settings = [
        Cell(
            words.parameters(values).replace(" ", "\u00a0").replace(",\u00a0", ", "), _choice(summary, arm), prose=True
        )
        if (values := summary["arms"][arm].get("parameters"))
        else Cell(words.NOTHING)
        for arm in arms
    ]
    chosen = Line("parameters", "Settings of the objective", settings)
    return [chosen, *lines] if any(cell.prose for cell in settings) else lines


def _choice(summary: Row, arm: str) -> str:
    choice = words.choice(summary, arm)
    return f"{choice} on validation" if choice else ""


_WATCHED = {
    "chosen_falls": "chosen_fell",
    "length_drift": "response_tokens",
    "margin_follows_length": "margin_length_correlation",
    "repetition": "repetition",
    "sameness": "distinct_bigrams",
}
"""Kinds of notices, and the glossary entries of the figures behind them."""


def _notices(summary: Row) -> list[tuple[str, list[tuple[str, Term | None]]]]:
    """Per arm, in the order in which they first appear: each notice's text, and the term that it is about."""
    terms = {term.key: term for term in glossary(summary)}
    arms: dict[str, list[tuple[str, Term | None]]] = {}
    for notice in summary.get("notices") or []:
        term = terms.get(_WATCHED.get(str(notice.get("kind")), ""))
        arms.setdefault(str(notice.get("arm")), []).append((str(notice.get("text", "")), term))
    return list(arms.items())


def _candidate_figures(summary: Row) -> Figures:
    figures = (
        *_score(summary),
        ("kl_from_reference", "KL, nats", words.decimal),
        ("accuracy", "Accuracy", words.percent),
        ("reward_model_score", "Reward-model score", words.decimal),
        ("response_tokens", "Response tokens", words.tenths),
    )
    rows = [row for several in (summary.get("grid") or {}).values() for row in several]
    return tuple(each for each in figures if any(each[0] in row for row in rows))


def _grid(summary: Row) -> list[tuple[str, float, list[tuple[Row, str, list[Cell]]]]]:
    """Per method: its seconds in all, and each candidate's row, settings and figures on the validation split."""
    methods = []
    for method, candidates in (summary.get("grid") or {}).items():
        names = varied([row["parameters"] for row in candidates])
        rows = []
        for row in candidates:
            cells = [_figure(key, row.get(key), show) for key, _, show in _candidate_figures(summary)]
            cells.append(Cell(words.seconds(row["seconds"]) if row.get("seconds") else words.NOTHING))
            label = words.parameters({name: row["parameters"].get(name) for name in names})
            rows.append((row, label, cells))
        methods.append((method, sum(row.get("seconds") or 0.0 for row in candidates), rows))
    return methods


def _grid_figures(summary: Row, colours: dict[str, int]) -> Iterator[Markup]:
    """All methods in one figure, then each by itself, its points named."""
    candidates = summary.get("grid") or {}
    for method in (*([None] if len(candidates) > 1 else []), *candidates):
        svg = figures.grid(candidates, f"{words.gold_name(summary)} (sd)", colours, method=method)
        if svg:
            yield Markup(svg)


def _cost(summary: Row, arms: Sequence[str]) -> list[Line]:
    numbers = [summary["arms"][arm] for arm in arms]
    lines = [Line("seconds", "Training time", [_time(arm.get("seconds") or {}) for arm in numbers])]
    for key, title, show in _COST:
        lines.append(Line(key, title, [Cell(show(arm[key]) if arm.get(key) else words.NOTHING) for arm in numbers]))
    settings = [tuple(map(str, arm.get("settings_to_tune") or ())) for arm in numbers]
    lines.append(
        Line("settings_to_tune", "Settings to tune", [Cell(str(len(names)), names=names) for names in settings])
    )
    code = [Cell(words.whole(arm["lines_of_code"]) if arm.get("lines_of_code") else words.NOTHING) for arm in numbers]
    lines.append(Line("lines_of_code", "Lines of code", code))
    return lines


def _time(stages: Row) -> Cell:
    if not any(stages.values()):
        return Cell(words.NOTHING)
    by_stage = " + ".join(f"{stage} {words.seconds(spent)}" for stage, spent in stages.items())
    return Cell(words.seconds(sum(stages.values())), by_stage if len(stages) > 1 else "")


def _differences(summary: Row) -> list[tuple[str, list[Cell]]]:
    rows = []
    for title, fields in (summary.get("differences") or {}).items():
        named = " − ".join(words.arm_name(arm) for arm in title.split(" - "))
        cells = []
        for key, _, show in _compared(summary):
            found = measured(fields.get(key))
            cells.append(_measure(fields.get(key), show, strong=found is not None and found.detectable))
        rows.append((named, cells))
    return rows


def _learning(run: Run, colours: dict[str, int]) -> Iterator[Markup]:
    """The frontier first, then each measure over steps and over seconds."""
    gold = f"{words.gold_name(run.summary)} (sd)"
    before = figures.seconds_before(run.summary)
    titles = {
        "gold_score": gold,
        "heldout_accuracy": "Held-out accuracy",
        "reward_model_score": "Reward-model score",
    }
    drawn = [
        figures.learning_curve(run.evaluations, field, title, colours, over=over, started=before)
        for field, title in titles.items()
        for over in ("step", "seconds")
    ]
    kl, *watched = (
        figures.learning_curve(run.evaluations, field, title, colours, over="step")
        for field, title in (
            ("kl_from_reference", "KL from the reference (nats)"),
            ("chosen_nats_per_token", "Chosen response (nats per token)"),
            ("response_tokens", "Response tokens"),
        )
    )
    frontier = figures.frontier(run.evaluations, gold, colours)
    yield from (Markup(svg) for svg in (frontier, kl, *drawn, *watched) if svg)


_FIRST = ("loss", "accuracy", "margin", "reward", "kl")
_NO_METRIC = ("step", "seconds")


def _training(run: Run, colours: dict[str, int]) -> Iterator[tuple[str, int, int, list[Markup]]]:
    """Per stage: its name, its steps, the span of the running mean, and a curve for each of its metrics."""
    stages: dict[str, list[Row]] = {}
    for row in run.steps:
        stages.setdefault(str(row.get("stage")), []).append(row)
    for stage, rows in stages.items():
        metrics = sorted({key for row in rows for key in row} - set(_NO_METRIC))
        metrics.sort(key=lambda metric: _FIRST.index(metric) if metric in _FIRST else len(_FIRST))
        curves = [figures.training_curve(rows, metric, colours.get(stage, 0)) for metric in metrics]
        yield stage, len(rows), figures.smoothing(len(rows)), [Markup(svg) for svg in curves if svg]


def _generations(samples: Sequence[Row]) -> list[tuple[Row, list[Row]]]:
    """For the prompts of lowest index, each arm's first response; the reference's leads."""
    prompts: dict[int, dict[str, Row]] = {}
    for row in samples:
        prompts.setdefault(row["prompt_index"], {}).setdefault(row["arm"], row)
    shown = sorted(prompts)[:PROMPTS_SHOWN]
    by_arm = [sorted(prompts[index].values(), key=lambda row: row["arm"] != REFERENCE) for index in shown]
    return [(rows[0], rows) for rows in by_arm]
