"""The whole run's seconds: every sitting from the start of its command, cut-off ones too, and what was kept."""

import json
import time
from pathlib import Path

import pytest

from pairtune.comparison import sittings
from pairtune.comparison.sittings import Sittings


class Clock:
    """A clock that is put forward by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(sittings.time, "monotonic", clock.monotonic)
    return clock


class Command:
    """A sitting: 5 seconds of imports, then stages, 1 second before each."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self.clock, began = clock, clock.now
        clock.now += 5
        self.sitting = Sittings(path, began=began)

    def work(self, key: str, seconds: float) -> None:
        self.clock.now += 1
        with self.sitting.working_on(key):
            self.clock.now += seconds

    def end(self, *, finished: bool = True) -> dict[str, object]:
        whole = self.sitting.finish() if finished else {}
        self.sitting.note()
        return whole


def test_one_sitting_is_all_of_its_time(tmp_path: Path, clock: Clock) -> None:
    command = Command(tmp_path / "s.json", clock)
    command.work("a", 10)
    command.work("b", 20)
    clock.now += 4  # drawing the report
    assert command.end() == {"seconds": 41, "sittings": [41], "kept_seconds": 0}


def test_sittings_of_an_interrupted_run_are_summed(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "s.json"
    first = Command(path, clock)
    first.work("a", 10)
    first.work("b", 7)
    first.end(finished=False)
    clock.now += 10_000  # the night between
    second = Command(path, clock)
    second.sitting.keep("a")
    second.work("b", 20)
    assert second.end() == {"seconds": 50, "sittings": [24, 26], "kept_seconds": 0}

    # A third finds everything done: the run took what it took.
    third = Command(path, clock)
    third.sitting.keep("a")
    third.sitting.keep("b")
    assert third.end() == {"seconds": 50, "sittings": [24, 26], "kept_seconds": 0}
    assert len(json.loads(path.read_text())) == 2


def test_work_kept_from_an_earlier_run_counts_at_what_it_took(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "s.json"
    first = Command(path, clock)
    first.work("a", 10)
    first.work("b", 20)
    first.end()
    second = Command(path, clock)  # b is asked for with another setting
    second.sitting.keep("a")
    second.work("b2", 30)
    assert second.end() == {"seconds": 46, "sittings": [36], "kept_seconds": 10}
    third = Command(path, clock)  # nothing is worked on, but it is not the second's result
    third.sitting.keep("a")
    assert third.end() == {"seconds": 15, "sittings": [5], "kept_seconds": 10}


def test_a_sitting_that_did_nothing_and_was_cut_off_is_none(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "s.json"
    Command(path, clock).end(finished=False)
    assert not path.exists()


def test_a_damaged_note_is_as_none(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "s.json"
    for text in ("", "{", "3", '[{"seconds": 1}]', "[3]"):
        path.write_text(text)
        command = Command(path, clock)
        command.work("a", 1)
        assert command.sitting.finish()["seconds"] == 7


def test_a_sitting_is_noted_while_it_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a crash leaves: the thread writes without being asked."""
    monkeypatch.setattr(sittings, "NOTED_EVERY", 0.01)
    path = tmp_path / "s.json"
    with Sittings(path).under_way() as sitting, sitting.working_on("a"):
        for _ in range(500):
            if path.is_file():
                break
            time.sleep(0.01)
        (noted,) = json.loads(path.read_text())
        assert 0 < noted["stages"]["a"] <= noted["seconds"], "the stage under way counts as far as it has come"


def test_an_interruption_is_noted(tmp_path: Path) -> None:
    path = tmp_path / "s.json"
    with pytest.raises(KeyboardInterrupt), Sittings(path).under_way() as sitting, sitting.working_on("a"):
        raise KeyboardInterrupt
    assert list(json.loads(path.read_text())[0]["stages"]) == ["a"]
