"""The course's own answers are right, what is left open or planted wrong is not, and every notebook is read."""

import json
import re
import shutil
from pathlib import Path

import pytest

from pairtune.cli import main
from pairtune.commands.grade import defined, wrong
from pairtune.course.grading import QUESTIONS
from pairtune.course.notebook import Cell, read

COURSE = Path(__file__).parents[2] / "course"
NOTEBOOKS = sorted(COURSE.glob("*.py"))
# Of each exercise one usual mistake: what of the answer is replaced, and by what.
PLANTED = {
    "win_probability": ("first) - np", "second) - np"),
    "kl": ("np.log(reference[seen])", "reference[seen]"),
    "best_policy": ("/ beta", "* beta"),
    "response_logprob": (".sum(-1)", ".mean(-1)"),
    "my_dpo": ("beta * margin", "margin"),
    "gradient_weight": ("beta / (1", "1 / (1"),
    "accuracy": ("0.5 * ", ""),
    "mean_change": ("sum(log_ratios) / sum(tokens)", "sum(a / b for a, b in zip(log_ratios, tokens)) / len(tokens)"),
    "reward_loss": ("np.logaddexp(0, np.asarray(rejected_scores) - np.asarray(chosen_scores))",
                    "np.log1p(np.exp(np.asarray(rejected_scores) - np.asarray(chosen_scores)))"),
    "token_rewards": ("rewards[-1]", "rewards[0]"),
    "gae": ("discount * lam * advantage", "lam * advantage"),
    "clipped_loss": ("np.minimum", "np.maximum"),
    "paired_interval": ("ddof=1", "ddof=0"),
    "chance_of": ('"greater"', '"two-sided"'),
    "winners_curse": (".max(axis=1)", ".mean(axis=1)"),
    "ipo": ("2 * beta", "beta"),
    "features": ("3.0, 0.0", "0.0, 3.0"),
    "my_objective": ("-chosen_logratio_B)", "chosen_logratio_B)"),
}  # fmt: skip


def answered(path: Path, *, change: tuple[str, str] | None = None) -> list[Cell]:
    """The notebook with its answers put into the exercises."""
    cells = [cell for cell in read(path) if "exercise" not in cell.tags]
    return [
        cell._replace(tags=("exercise",), code=cell.code.replace(*change) if change else cell.code)
        if "answer" in cell.tags
        else cell
        for cell in cells
    ]


def test_the_notebooks_are_those_that_have_questions() -> None:
    assert [path.stem for path in NOTEBOOKS] == sorted(QUESTIONS)
    names = [question.name for questions in QUESTIONS.values() for question in questions]
    assert sorted(names) == sorted(PLANTED)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_answers_are_right_and_an_open_exercise_is_not(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    told = re.findall(r"^# ## Exercise (\d\.\d): ", text, re.MULTILINE)
    assert told == [question.number for question in QUESTIONS[path.stem]]
    names, failed = defined(answered(path))
    assert failed == []
    assert {question.name: wrong(question, names) for question in QUESTIONS[path.stem]} == dict.fromkeys(
        (question.name for question in QUESTIONS[path.stem]), ""
    )
    names, failed = defined(read(path))
    assert failed == []
    assert all(wrong(question, names) for question in QUESTIONS[path.stem])


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_usual_mistake_is_seen(path: Path) -> None:
    for question in QUESTIONS[path.stem]:
        before, after = PLANTED[question.name]
        cells = answered(path)
        assert sum(before in cell.code for cell in cells if "exercise" in cell.tags) >= 1, question.name
        names, _ = defined(answered(path, change=(before, after)))
        assert wrong(question, names), question.name


def test_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    open_one = shutil.copy(COURSE / "5_compare.py", tmp_path)
    assert main(["grade", str(open_one)]) == 1
    said = capsys.readouterr()
    assert "5.2 chance_of  not yet: of 19 of 30 it gives None" in said.out
    assert "0 of 3 right" in said.err
    cells = [
        {"cell_type": "code", "metadata": {"tags": list(cell.tags)}, "source": cell.code.splitlines(keepends=True)}
        for cell in answered(COURSE / "5_compare.py")
    ]
    notebook = tmp_path / "5_compare.ipynb"
    notebook.write_text(json.dumps({"cells": cells}), encoding="utf-8")
    assert main(["grade", str(notebook), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["wrong"] == {"5.1": "", "5.2": "", "5.3": ""}


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("missing.py", None, "does not exist"),
        ("mine.py", "# %%\nx = 1\n", '"mine.py" is no notebook of the course; it has 1_preferences, 2_dpo'),
        ("1_preferences.py", "x = 1\n", "a script whose cells begin with # %%"),
        ("1_preferences.ipynb", "{}", "is no notebook that can be read"),
        ("1_preferences.ipynb", "[1", "is no notebook that can be read"),
    ],
)
def test_what_is_no_notebook(
    name: str, text: str | None, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if text is not None:
        (tmp_path / name).write_text(text, encoding="utf-8")
    assert main(["grade", str(tmp_path / name)]) == 2
    assert said in capsys.readouterr().err


def test_a_cell_that_fails_is_told_and_the_others_are_graded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    notebook = tmp_path / "3_train.ipynb"
    cells = ["%matplotlib inline\n!pip list\nimport sys\n", "sys.exit(0)\ndef accuracy(c, r):\n    sys.exit(0)\n"]
    notebook.write_text(
        json.dumps(
            {
                "cells": [
                    {"cell_type": "code", "metadata": {"tags": ["exercise"] * place}, "source": source}
                    for place, source in enumerate(cells)
                ]
            }
        ),
        encoding="utf-8",
    )
    assert main(["grade", str(notebook)]) == 1
    assert "the cell at code cell 2 fails: SystemExit" in capsys.readouterr().err
    file = tmp_path / "3_train.py"
    file.write_text(
        '# %%\nimport nothing_of_the_kind\n\n# %% tags=["exercise"]\ndef accuracy(c, r):\n    raise ValueError("no")\n',
        encoding="utf-8",
    )
    assert main(["grade", str(file)]) == 1
    said = capsys.readouterr()
    assert "the cell at line 2 fails: ModuleNotFoundError" in said.err
    assert "3.1 accuracy  not yet: it fails: ValueError: no" in said.out
    assert "3.2 mean_change  not yet: there is no function mean_change" in said.out
