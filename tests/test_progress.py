"""Numbers and nouns as people write them, and what a step shows of itself."""

from typing import Any

import pytest

from pairtune.data.pack import Tokens
from pairtune.progress import counted, significant
from pairtune.settings import Sft
from pairtune.training import loop
from pairtune.training.checkpoint import Journal
from pairtune.training.sft import train_sft


def test_one_is_one_and_many_are_many() -> None:
    found = [counted(n, "row") for n in (0, 1, 2, 1200)]
    assert found == ["0 rows", "1 row", "2 rows", "1,200 rows"]
    assert [counted(n, "entry", "entries") for n in (1, 2)] == ["1 entry", "2 entries"]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.6931, "0.693"), (1234.5, "1230"), (18.68, "18.7"), (5e-5, "5e-05"), (0.0, "0"), (-0.0314159, "-0.0314")],
)
def test_three_digits(value: float, text: str) -> None:
    assert significant(value) == text


def test_a_step_shows_its_loss_and_no_learning_rate(tiny_model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    notes: list[str] = []
    monkeypatch.setattr("pairtune.progress.Task.note", lambda self, text: notes.append(text))
    rows = [Tokens((5, 6), ((7, 8, 1),))] * 4
    train_sft(tiny_model(), rows, Sft(learning_rate=1e-5, batch_size=2), seed=0, journal=Journal("sft"))
    assert len(notes) == 2
    assert all(note.startswith("loss ") and "rate" not in note for note in notes)
    assert "learning_rate" not in loop.NOTED
