"""Stopped and gone on with is never having stopped, to the bit; a damaged checkpoint is not used."""

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from pairtune.data.pack import Tokens
from pairtune.engine.cost import Cost
from pairtune.engine.examples import Examples
from pairtune.models.heads import ScalarModel
from pairtune.models.load import frozen_copy
from pairtune.objectives.loss import loss_of
from pairtune.settings import Ppo, Reward, Sampling, Sft, Tuning
from pairtune.training import checkpoint
from pairtune.training.checkpoint import Journal, read_records
from pairtune.training.ppo import train_ppo
from pairtune.training.preference import train_preference
from pairtune.training.reward import train_reward
from pairtune.training.sft import train_sft

Pairs = Callable[..., list[Tokens]]


class Job:
    """One training on a fresh model; `run(journal)` does it and returns what it trained."""

    def __init__(self, tiny_model: Any, pairs: Pairs, reference_of: Any, dtype: torch.dtype) -> None:
        self.model = lambda seed=0: tiny_model(seed=seed).to(dtype)
        self.pairs, self.reference_of = pairs, reference_of

    def sft(self, journal: Journal) -> nn.Module:
        model = self.model()
        train_sft(model, self.pairs(10, responses=1), Sft(epochs=2, batch_size=4), seed=1, journal=journal)
        return model

    def reward(self, journal: Journal) -> nn.Module:
        model = ScalarModel(self.model())
        train_reward(model, self.pairs(10), Reward(epochs=2, batch_size=4), seed=1, journal=journal)
        return model

    def preference(self, journal: Journal) -> nn.Module:
        model, rows = self.model(), self.pairs(10)
        examples = Examples(rows, reference=self.reference_of(model, rows))
        settings = Tuning(epochs=2, batch_size=4, weight_decay=0.1)
        train_preference(model, examples, loss_of("beta-dpo+bco"), settings, seed=1, journal=journal)
        return model

    def ppo(self, journal: Journal) -> nn.Module:
        policy, value = self.model(), ScalarModel(self.model(1))
        reward_model = ScalarModel(self.model(2)).requires_grad_(False)
        train_ppo(
            policy,
            value,
            reward_model,
            frozen_copy(policy),
            [row.prompt for row in self.pairs(10)],
            Ppo(steps=5, batch_size=6, learning_rate=1e-3, kl_target=1.0, kl_coefficient=0.1),
            Sampling(max_new_tokens=6),
            end_ids=[1],
            seed=1,
            journal=journal,
        )
        return nn.ModuleList([policy, value])


@pytest.fixture(params=[torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def job(request: pytest.FixtureRequest, tiny_model: Any, token_pairs: Pairs, reference_of: Any) -> Job:
    return Job(tiny_model, token_pairs, reference_of, request.param)


def untimed(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


@pytest.mark.parametrize("stage", ["sft", "reward", "preference", "ppo"])
@pytest.mark.parametrize("stop", [1, 3])
def test_a_run_gone_on_with_is_the_run_never_stopped_to_the_bit(
    job: Job, stage: str, stop: int, tmp_path: Path, stopped_journal: Any, weights: Any
) -> None:
    train = getattr(job, stage)
    whole = Journal(stage, tmp_path / "whole")
    expected = weights(train(whole))

    with pytest.raises(KeyboardInterrupt):
        train(stopped_journal(stage, tmp_path / "parts", stop))
    assert (tmp_path / "parts" / "checkpoint.safetensors").is_file()
    rest = Journal(stage, tmp_path / "parts")
    found = weights(train(rest))

    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert untimed(rest.rows) == untimed(whole.rows)
    lines = (tmp_path / "parts" / "records.jsonl").read_text().splitlines()
    assert untimed([json.loads(line) for line in lines]) == untimed(whole.rows)
    if stage == "ppo":
        coefficients = [row["kl_coefficient"] for row in whole.rows]
        assert len(set(coefficients)) == len(coefficients)  # the adaptive weight moved, and was kept


def test_seconds_and_cost_go_on_where_they_stopped(
    job: Job, tmp_path: Path, stopped_journal: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = Cost(tokens=100, flops=5.0), Cost(tokens=20, flops=1.0, peak_memory_bytes=7)
    with pytest.raises(KeyboardInterrupt):
        job.sft(stopped_journal("sft", tmp_path, 2, cost=first))
    journal = Journal("sft", tmp_path, cost=second)
    job.sft(journal)
    assert (second.tokens, second.flops, second.peak_memory_bytes) == (120, 6.0, 7)
    seconds = [row["seconds"] for row in journal.rows]
    assert second.seconds > 0
    assert seconds == sorted(seconds)


def test_records_of_steps_after_the_checkpoint_are_taken_back(tmp_path: Path) -> None:
    journal = Journal("stage", tmp_path)
    for step in (1, 2, 3):
        journal.record(step=step, loss=float(step))
        if step == 2:
            with pytest.raises(KeyboardInterrupt):
                journal.checkpoint(2, 1.5, {"x": torch.ones(1)}, stopping=True)
    with (tmp_path / "records.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')  # the line that a crash cut
    again = Journal("stage", tmp_path)
    assert again.resume()[:2] == (2, 1.5)
    assert [row["step"] for row in again.rows] == [1, 2]
    assert (tmp_path / "records.jsonl").read_text().count("\n") == 2


def flip(path: Path, place: float) -> None:
    content = bytearray(path.read_bytes())
    content[min(int(len(content) * place), len(content) - 1)] ^= 4
    path.write_bytes(content)


def of_another_stage(path: Path) -> None:
    """Whole, and right for itself: the checkpoint of other settings."""
    other = path.parent / "other"
    other.mkdir()
    (other / "settings.json").write_text("{}")
    journal = Journal("sft", other)
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    with pytest.raises(KeyboardInterrupt):
        journal.checkpoint(2, 1.0, {name: value + 1 for name, value in tensors.items()}, stopping=True)
    (other / "checkpoint.safetensors").replace(path)


DAMAGES: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "cut": ("cannot be used", lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])),
    "empty": ("it is empty", lambda path: path.write_bytes(b"")),
    "garbage": ("cannot be used", lambda path: path.write_bytes(os.urandom(200))),
    "no facts": ("does not say what it is", lambda path: save_file({"x": torch.ones(1)}, path)),
    "a byte of its header": ("cannot be used", lambda path: flip(path, 0.0005)),
    "a byte of its weights": ("it is not what was written", lambda path: flip(path, 0.5)),
    "its last byte": ("it is not what was written", lambda path: flip(path, 1.0)),
    "another stage's": ("it is another stage's", of_another_stage),
    "records' byte": ("records.jsonl is not what it was", lambda path: flip(path.with_name("records.jsonl"), 0.01)),
    "records cut": ("records.jsonl is not what it was", lambda path: path.with_name("records.jsonl").write_bytes(b"")),
    "records gone": ("records.jsonl is not what it was", lambda path: path.with_name("records.jsonl").unlink()),
}


class Undisturbed(NamedTuple):
    """A training of six steps: what it gives, what it records, its folder as it was after the fourth."""

    job: Job
    weights: dict[str, Tensor]
    rows: list[dict[str, Any]]
    stopped: Path


@pytest.fixture(scope="module")
def undisturbed(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_model: Any,
    token_pairs: Pairs,
    reference_of: Any,
    stopped_journal: Any,
    weights: Any,
) -> Undisturbed:
    job, folder = Job(tiny_model, token_pairs, reference_of, torch.float32), tmp_path_factory.mktemp("stopped")
    whole = Journal("sft")
    expected = weights(job.sft(whole))
    (folder / "settings.json").write_text('{"rests on": "this"}')
    with pytest.raises(KeyboardInterrupt):
        job.sft(stopped_journal("sft", folder, 4, every=1e-9))
    assert {path.name for path in folder.iterdir()} == {
        *("settings.json", "records.jsonl", "checkpoint.safetensors", "checkpoint.earlier.safetensors"),
    }
    return Undisturbed(job, expected, untimed(whole.rows), folder)


@pytest.mark.parametrize("both", [False, True], ids=["the latest", "both"])
@pytest.mark.parametrize("damage", list(DAMAGES))
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(
    damage: str, both: bool, undisturbed: Undisturbed, tmp_path: Path, weights: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """With nothing to go on from the stage begins again; the result is always the undisturbed one's, to the bit."""
    folder = tmp_path / "run"
    shutil.copytree(undisturbed.stopped, folder)
    said, do = DAMAGES[damage]
    do(folder / "checkpoint.safetensors")
    if both and "records" not in damage:
        shutil.copy(folder / "checkpoint.safetensors", folder / "checkpoint.earlier.safetensors")
    journal = Journal("sft", folder)
    found = weights(undisturbed.job.sft(journal))
    told = capsys.readouterr().err
    assert said in told
    again = both or "records" in damage
    assert ("this stage begins again" in told) == again
    assert ("the one before it is used\n  going on at step 4" in told) == (not again)
    assert all(torch.equal(found[name], undisturbed.weights[name]) for name in undisturbed.weights)
    assert untimed(journal.rows) == undisturbed.rows
    assert untimed(read_records(folder)) == undisturbed.rows


def test_records_damaged_after_the_earlier_checkpoint_cost_no_more_than_that(
    undisturbed: Undisturbed, tmp_path: Path, weights: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(undisturbed.stopped, folder)
    flip(folder / "records.jsonl", 0.99)
    journal = Journal("sft", folder)
    found = weights(undisturbed.job.sft(journal))
    assert "going on at step 4" in capsys.readouterr().err
    assert all(torch.equal(found[name], undisturbed.weights[name]) for name in undisturbed.weights)
    assert untimed(journal.rows) == undisturbed.rows


@pytest.mark.parametrize("at", range(12))
def test_a_kill_between_any_two_writes_of_a_checkpoint_leaves_a_folder_that_goes_on(
    at: int, undisturbed: Undisturbed, tmp_path: Path, weights: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """Going on (the records' rewriting) and keeping a checkpoint: stopped before the first, the second, ... call."""
    folder = tmp_path / "run"
    shutil.copytree(undisturbed.stopped, folder)
    with (folder / "records.jsonl").open("a") as file:
        file.write('{"kind": "step", "step": 5, "lo')
    calls = [0]

    class Kill(BaseException):
        """No code of ours catches it; what cleans up after an error does not run."""

    def dying(call: Callable[..., Any]) -> Callable[..., Any]:
        def before(*given: Any, **named: Any) -> Any:
            calls[0] += 1
            if calls[0] > at:
                raise Kill
            return call(*given, **named)

        return before

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", dying(os.fsync))
        patched.setattr(os, "link", dying(os.link))
        for name in ("replace", "unlink", "write_bytes"):
            patched.setattr(Path, name, dying(getattr(Path, name)))
        patched.setattr(checkpoint, "save_file", dying(checkpoint.save_file))
        with pytest.raises(Kill):
            undisturbed.job.sft(Journal("sft", folder, every=1e-9))
    journal = Journal("sft", folder)
    found = weights(undisturbed.job.sft(journal))
    assert "going on at step" in capsys.readouterr().err
    assert all(torch.equal(found[name], undisturbed.weights[name]) for name in undisturbed.weights)
    assert untimed(read_records(folder)) == undisturbed.rows
    assert not list(folder.glob("*.partial"))


def test_a_checkpoint_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal("stage", tmp_path, every=1e-9)
    journal.checkpoint(1, 0.0, {"x": torch.ones(3)}, stopping=False)

    def full(tensors: dict[str, Tensor], path: Path, **_: Any) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pairtune.training.checkpoint.save_file", full)
    with pytest.raises(OSError, match="No space"):
        journal.checkpoint(2, 0.0, {"x": torch.zeros(3)}, stopping=False)
    step, _, tensors = Journal("stage", tmp_path).resume()
    assert step == 1
    assert torch.equal(tensors["x"], torch.ones(3))


def test_checkpoints_are_kept_no_more_often_than_asked(tmp_path: Path) -> None:
    journal = Journal("stage", tmp_path, every=1000.0)
    journal.checkpoint(1, 0.0, {"x": torch.ones(1)}, stopping=False)
    assert not (tmp_path / "checkpoint.safetensors").exists()


def test_a_journal_without_a_folder_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    journal = Journal("stage", every=1e-9)
    assert journal.resume() == (0, 0.0, {})
    journal.record(step=1)
    journal.checkpoint(1, 0.0, {}, stopping=False)
    assert journal.rows == [{"step": 1}]
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_sft_stops_after_the_step_it_is_in(
    tiny_model: Callable[..., PreTrainedModel], token_pairs: Pairs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal("sft", tmp_path)
    record = journal.record

    def record_and_interrupt(**row: Any) -> None:
        record(**row)
        if row["step"] == 2:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(journal, "record", record_and_interrupt)
    with pytest.raises(KeyboardInterrupt):
        train_sft(tiny_model(), token_pairs(10, responses=1), Sft(batch_size=2), seed=0, journal=journal)
    assert [row["step"] for row in journal.rows] == [1, 2]
    assert Journal("sft", tmp_path).resume()[0] == 2
