"""What each name of the report means, in the words of the page: its figures, and what stands beside them."""

from dataclasses import dataclass

from pairtune.report import figures
from pairtune.report.records import Row


@dataclass(frozen=True)
class Term:
    """One entry; key is the name of the field in summary.json where there is one."""

    key: str
    name: str
    meaning: str


def glossary(summary: Row) -> tuple[Term, ...]:
    """The terms of a run's page: its score under its own name, and none for what the run has not."""
    of_arms = (Term(each.key, each.name, each.text) for each in figures.of_run(summary))
    grid = (_grid(summary),) if summary.get("grid") else ()
    return (*GENERAL, *of_arms, *grid)


def _grid(summary: Row) -> Term:
    return Term(
        "grid",
        "Grid, validation split",
        "A method trained at several values gives several candidates. All are measured on the validation split: "
        "pairs that nothing is trained on and that no held-out figure uses. The one with the highest mean "
        f"{figures.score_name(summary)} there is chosen. The best of several looks a little better on the split that "
        "chose it than it is; the held-out figures of the arms are free of that.",
    )


# What is no figure of an arm.
GENERAL = (
    Term(
        "interval",
        "95% interval, n",
        "n counts the values behind a mean. The interval is a percentile bootstrap over prompts: "
        "whole prompts are drawn again, with all their values; of an accuracy it is the exact one, wider where prompts "
        "repeat. It covers the choice of prompts and samples, but not another training seed.",
    ),
    Term(
        "difference",
        "Paired difference",
        "First minus second on the same prompts, subtracted before averaging. Where its interval "
        "holds zero, there is no detectable difference. The intervals of one figure hold together with 95%, those of "
        "the arms against each other and those against the reference: each is as much wider as takes care that the "
        "best of several is not taken for better because there are several.",
    ),
    Term(
        "log_ratio",
        "Log-ratio",
        "log π(y|x) − log π_ref(y|x), in nats, summed over the response's tokens.",
    ),
    Term(
        "parameters",
        "Settings of the objective",
        "The values that the arm was trained with. Where several were tried, those chosen in the grid.",
    ),
)
