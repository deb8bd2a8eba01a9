"""What becomes of an arm that cannot be measured, and of what its training warned of."""

import errno
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pairtune.comparison.arms import Arms, Trial, Trials
from pairtune.comparison.summary import _failed, _warned
from pairtune.engine.cost import Cost
from pairtune.errors import DivergedError, InputError
from pairtune.stages.stage import Done


def done(name: str, **facts: Any) -> Done:
    return Done(name, Path(name), facts, Cost())


def arms_of(monkeypatch: pytest.MonkeyPatch, error: Exception) -> Arms:
    """Two trained methods, of which dpo raises the error when it is measured."""
    arms: Any = object.__new__(Arms)
    trials = {}
    for name in ("dpo", "ipo"):
        candidate: Any = SimpleNamespace(name=name)
        trial = Trial(candidate, done(name))
        trials[name] = Trials([trial], trial)
    arms.context, arms.trials = SimpleNamespace(candidates=dict.fromkeys(trials)), trials

    def measure(arm: str, trial: Trial | None) -> Done:
        if arm == "dpo":
            raise error
        return done(f"measured {arm}")

    monkeypatch.setattr(arms, "measure", measure)
    found: Arms = arms
    return found


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (FloatingPointError("the KL is nan"), "FloatingPointError: the KL is nan"),
        (DivergedError("the model's numbers are not finite"), "the model's numbers are not finite"),
        (RuntimeError(""), "RuntimeError: "),
    ],
)
def test_it_has_failed_and_the_others_are_measured(
    monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arms = arms_of(monkeypatch, error)
    assert list(arms.measure_all()) == ["reference", "ipo"]
    assert arms.trials["dpo"].chosen is None
    assert _failed(arms.trials) == {"dpo": reason}
    assert f"dpo failed: {reason}" in capsys.readouterr().err


@pytest.mark.parametrize("error", [InputError("the judge cannot be read"), OSError(errno.ENOSPC, "No space left")])
def test_what_a_person_can_mend_ends_the_comparison(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    with pytest.raises(type(error)):
        arms_of(monkeypatch, error).measure_all()


def test_what_a_training_warned_of_is_told_of_its_arm() -> None:
    warning = {"figure": "loss", "text": "the loss rose from 0.693 to 8.7e+06; try a lower learning rate"}
    told = _warned({"pairs": done("pairs"), "dpo": done("dpo", warnings=[warning])})
    assert told == [{"arm": "dpo", "figure": "loss", "text": f"In training {warning['text']}."}]
