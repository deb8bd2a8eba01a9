"""Ctrl-C, SIGTERM and SIGHUP are one thing: the step ends, a checkpoint is kept, a line says what comes next."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pairtune.cli import main
from pairtune.stopping import SIGNALS, Stopped, interruptible, stoppable
from pairtune.training.checkpoint import Journal

CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}


@pytest.fixture(autouse=True)
def nothing_is_left() -> Any:
    """Whatever a test does, the handlers afterwards are those from before."""
    before = [signal.getsignal(number) for number in SIGNALS]
    yield
    assert [signal.getsignal(number) for number in SIGNALS] == before


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Any) -> str:
    return str(tiny_folder(tmp_path_factory.mktemp("models")))


@pytest.fixture
def given(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """given(command): its words, on a tiny model and 24 pairs in the current folder."""
    monkeypatch.chdir(tmp_path)
    rows = [{"prompt": f"Film {i} was", "chosen": f" a wonder {i}", "rejected": f" dull, {i} long"} for i in range(24)]
    Path("pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    common = ["--model", model, "--data", "pairs.jsonl", "--dtype", "float32", "--out", "out"]
    own = {"compare": ["--methods", "dpo", "--heldout", "6", "--sampling-max-new-tokens", "4", "--sft-epochs", "0"]}
    return lambda command: [command, *common, "--batch-size", "4", *own.get(command, [])]


def signals_in_step(monkeypatch: pytest.MonkeyPatch, stage: str, step: int, *numbers: int) -> None:
    """Planted: signals come one after the other while that step is under way."""
    record = Journal.record

    def recorded(self: Journal, **row: Any) -> None:
        record(self, **row)
        if self.stage == stage and row["step"] == step:
            for number in numbers:
                signal.raise_signal(number)

    monkeypatch.setattr(Journal, "record", recorded)


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_lets_the_step_finish_and_the_second_stops_at_once(
    number: int, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = []

    def twice() -> None:
        with interruptible(lambda: "it goes on") as interruption:
            seen.append(interruption.asked)
            signal.raise_signal(number)
            seen.append(interruption.asked)
            signal.raise_signal(number)
            seen.append(True)  # the second did not stop it

    with pytest.raises(Stopped) as stopped:
        twice()
    assert seen == [False, True]
    assert (stopped.value.number, stopped.value.left) == (number, "it goes on")
    assert "stopping after this step" in capsys.readouterr().err


def test_of_several_ranks_a_signal_that_comes_twice_at_once_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C reaches a rank from the terminal and from its launcher."""
    monkeypatch.setattr("pairtune.stopping.size", lambda: 2)
    with interruptible() as interruption:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        assert interruption.asked
        interruption.since -= 4  # seconds later it is another
        with pytest.raises(Stopped):
            signal.raise_signal(signal.SIGTERM)


@pytest.mark.parametrize(("command", "number"), [("tune", signal.SIGHUP), ("compare", signal.SIGTERM)])
def test_a_signal_ends_the_step_keeps_a_checkpoint_and_says_so(
    command: str,
    number: int,
    given: Callable[..., list[str]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with monkeypatch.context() as patched:
        signals_in_step(patched, "dpo", 2, number)
        assert main(given(command)) == CODES[number]
    told = capsys.readouterr().err
    assert told.splitlines()[-1] == "stopped; the same command goes on at step 3"
    assert "Traceback" not in told
    assert len(list(Path("out").rglob("checkpoint.safetensors"))) == 1
    assert main(given(command)) == 0
    assert "going on at step 3" in capsys.readouterr().err
    folder = "out/models/dpo" if command == "compare" else "out"
    steps = [json.loads(line)["step"] for line in Path(folder, "records.jsonl").read_text().splitlines()]
    assert steps == list(range(1, len(steps) + 1))


def test_stopped_at_once_says_what_begins_again(
    given: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    signals_in_step(monkeypatch, "dpo", 2, signal.SIGINT, signal.SIGINT)
    assert main(given("tune")) == 130
    assert capsys.readouterr().err.splitlines()[-1] == "stopped; the same command begins this stage again"
    assert not list(Path("out").rglob("checkpoint*"))


def test_between_stages_a_comparison_goes_on_from_what_is_finished(
    given: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("pairtune.comparison.run.Comparison.run", lambda self: signal.raise_signal(signal.SIGTERM))
    assert main(given("compare")) == 143
    said = "stopped; the same command goes on from the stages that are finished"
    assert capsys.readouterr().err.splitlines()[-1] == said


@pytest.mark.parametrize("number", SIGNALS)
def test_outside_of_steps_it_stops_at_once(
    number: int,
    given: Callable[..., list[str]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("pairtune.commands.tune.load_to_train", lambda settings: signal.raise_signal(number))
    assert main(given("tune")) == CODES[number]
    assert capsys.readouterr().err.splitlines()[-1] == "stopped"
    assert not Path("out").exists()


def test_what_is_ignored_stays_ignored_and_somebody_elses_handler_stands() -> None:
    """`nohup` ignores SIGHUP; a program that calls us may heed SIGTERM itself."""
    heard: list[int] = []
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN), signal.signal(signal.SIGTERM, lambda *_: heard.append(1))
    try:
        with stoppable(), interruptible() as interruption:
            signal.raise_signal(signal.SIGHUP)
            signal.raise_signal(signal.SIGTERM)
            assert not interruption.asked
            signal.raise_signal(signal.SIGINT)
            assert interruption.asked
    finally:
        signal.signal(signal.SIGHUP, before[0])
        signal.signal(signal.SIGTERM, before[1])
    assert heard == [1]


def test_in_a_thread_no_handler_is_set() -> None:
    before, seen = [signal.getsignal(number) for number in SIGNALS], []

    def inside() -> None:
        with stoppable(), interruptible() as interruption:
            seen.append(([signal.getsignal(number) for number in SIGNALS], interruption.asked))

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert seen == [(before, False)]


def test_a_terminal_that_has_gone_keeps_nothing_from_being_kept(tmp_path: Path) -> None:
    """Writing to it fails then, and a second time by a library's hand."""
    script = (
        "import os, signal, sys, pathlib\n"
        "from pairtune.stopping import interruptible\n"
        "sys.stdin.readline()  # the terminal has gone by now\n"
        "with interruptible() as interruption:\n"
        "    os.kill(os.getpid(), signal.SIGHUP)\n"
        "    print('this goes nowhere', flush=True)\n"
        "    pathlib.Path(sys.argv[1]).write_text(str(interruption.asked))\n"
    )
    ours, theirs = os.openpty()
    kept = tmp_path / "kept"
    streams: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": theirs, "stderr": theirs}
    with subprocess.Popen([sys.executable, "-c", script, str(kept)], **streams, start_new_session=True) as process:
        os.close(theirs)
        os.close(ours)
        assert process.stdin is not None
        process.stdin.close()
    assert process.returncode == 0
    assert kept.read_text() == "True"
