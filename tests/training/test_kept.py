"""Nothing that is not finite is kept, what went wrong is told, and a checkpoint is as often as it is cheap."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import PreTrainedModel

from pairtune.data.pack import Tokens
from pairtune.settings import Sft
from pairtune.training import checkpoint
from pairtune.training.checkpoint import Journal
from pairtune.training.loop import run_steps
from pairtune.training.sft import train_sft
from pairtune.training.step import Optimizer
from pairtune.training.watch import warnings

BROKEN: dict[str, Callable[[Optimizer, torch.Tensor], Any]] = {
    "weights": lambda optimizer, state: optimizer.masters[0].data.view(-1)[1].fill_(float("nan")),
    "the model's own": lambda optimizer, state: optimizer.parameters[0].data.view(-1)[0].fill_(float("-inf")),
    "a mean": lambda optimizer, state: optimizer.means[0].view(-1)[0].fill_(float("inf")),
    "a square": lambda optimizer, state: optimizer.squares[0].view(-1)[2].fill_(float("inf")),
    "what steps remember": lambda optimizer, state: state.fill_(float("nan")),
}


def train(folder: Path, *, breaks_in: int, how: str, steps: int = 4, value: bool = False) -> Journal:
    """Steps that do next to nothing, each kept; in one of them something becomes no number."""
    layers = [nn.Linear(3, 2).to(torch.bfloat16) for _ in range(2)]
    optimizers = {prefix: Optimizer(layer.parameters()) for prefix, layer in zip(("", "critic."), layers, strict=True)}
    state = torch.zeros(())

    def work(step: int) -> dict[str, float]:
        for optimizer, layer in zip(optimizers.values(), layers, strict=True):
            layer(torch.ones(1, 3, dtype=torch.bfloat16)).sum().backward()
            optimizer.step(learning_rate=1e-3, max_gradient_norm=1.0)
        if step == breaks_in:
            BROKEN[how](optimizers["critic." if value else ""], state)
        return {"loss": 1.0, "gradient_norm": 1.0}

    journal = Journal("stage", folder, every=1e-9)
    run_steps(steps, work, optimizers, {"state": state}, journal=journal, note=lambda figures: "", measure=None)
    return journal


@pytest.mark.parametrize("value", [False, True], ids=["policy", "value model"])
@pytest.mark.parametrize("how", list(BROKEN))
def test_a_state_that_is_not_finite_is_not_kept_and_the_good_one_stays(how: str, value: bool, tmp_path: Path) -> None:
    with pytest.raises(FloatingPointError, match="not finite"):
        train(tmp_path, breaks_in=3, how=how, value=value)
    step, _, tensors = Journal("stage", tmp_path).resume()
    assert step == 2
    assert all(bool(tensor.isfinite().all()) for tensor in tensors.values())


@pytest.mark.parametrize("how", list(BROKEN))
def test_the_last_step_is_looked_at_though_no_checkpoint_is_due(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Journal, "due", False)
    with pytest.raises(FloatingPointError, match="after step 4"):
        train(tmp_path, breaks_in=4, how=how)
    assert not list(tmp_path.glob("checkpoint*"))


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_ends_the_run(loss: float) -> None:
    optimizer = Optimizer(nn.Linear(3, 2).parameters())
    with pytest.raises(FloatingPointError, match=r"the loss is (nan|inf) at step 1"):
        run_steps(
            2,
            lambda step: {"loss": loss, "gradient_norm": 1.0},
            {"": optimizer},
            {},
            journal=Journal("stage"),
            note=lambda figures: "",
            measure=None,
        )


def test_a_learning_rate_far_too_high_is_told_and_stands_in_the_result(
    tiny_model: Callable[..., PreTrainedModel],
    token_pairs: Callable[..., list[Tokens]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    def trained(rate: float) -> Journal:
        journal = Journal("sft")
        settings = Sft(batch_size=2, learning_rate=rate, schedule="constant", warmup=0)
        train_sft(tiny_model(), token_pairs(10, responses=1), settings, seed=0, journal=journal)
        return journal

    assert trained(1e-3).warned() == {}
    assert capsys.readouterr().err == ""
    wild = trained(1e3)
    assert [warning["figure"] for warning in wild.end()["warnings"]] == ["loss", "gradient_norm", "weights"]
    told = capsys.readouterr().err
    assert "sft: the loss rose from" in told
    assert "sft: the norm of the weights grew" in told


def steps(losses: list[float], **others: float) -> list[dict[str, float]]:
    return [{"loss": loss, "gradient_norm": 1.0, **others} for loss in losses]


@pytest.mark.parametrize(
    ("rows", "grew", "figures"),
    [
        (steps([0.69, 0.6, 0.5]), 1.1, []),
        (steps([0.69, 0.6, 1.18]), 1.1, []),  # within what a small batch may be off by
        (steps([0.69, 0.6, 1.4]), 1.1, ["loss"]),
        (steps([-2.0, -1.0, 0.5]), 1.1, ["loss"]),
        (steps([0.69] * 18 + [9.0, 0.1]), 1.1, ["loss"]),  # the mean of the last tenth
        (steps([0.69] * 9 + [9.0] + [0.69] * 10), 1.1, ["loss"]),
        (steps([0.69] * 9 + [7.0] + [0.69] * 10), 1.1, []),
        (steps([0.69] * 20, gradient_norm=0.0), 1.1, ["gradient_norm"]),
        ([*steps([0.69] * 9), *steps([0.69], gradient_norm=0.0)], 1.1, ["gradient_norm"]),
        ([*steps([0.69] * 18), *steps([0.69], gradient_norm=0.0), *steps([0.69])], 1.1, []),
        (steps([0.69, 0.5]), 3.5, ["weights"]),
        (steps([0.0, 5.0], kl=12.0, response_tokens=8.0), 1.0, []),  # PPO's loss is no measure
        (steps([0.0, 0.0], kl=90.0, response_tokens=8.0), 1.0, ["kl_from_reference"]),
    ],
)
def test_what_is_warned_of(rows: list[dict[str, float]], grew: float, figures: list[str]) -> None:
    found = warnings(rows, {"": grew})
    assert [warning["figure"] for warning in found] == figures
    assert all(warning["text"] for warning in found)


def test_the_norm_before_the_first_step_is_kept_over_an_interruption(tmp_path: Path) -> None:
    layer = nn.Linear(3, 2)
    optimizer = Optimizer(layer.parameters())
    before = float(torch.cat([each.detach().flatten() for each in layer.parameters()]).norm())
    layer.weight.data.mul_(8)
    layer.bias.data.mul_(8)
    assert optimizer.growth() == pytest.approx(8)
    again = Optimizer(layer.parameters())
    assert again.growth() == pytest.approx(1)
    again.load_state(optimizer.state())
    assert again.growth() == pytest.approx(8)
    assert float(again.began) == pytest.approx(before)


def test_checkpoints_come_after_30_seconds_or_as_often_as_two_hundredths_of_the_time_allow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(checkpoint.time, "monotonic", lambda: now[0])
    save = checkpoint.save_file

    def slow(*given: Any, **named: Any) -> None:
        now[0] += 3.0  # what saving takes
        save(*given, **named)

    monkeypatch.setattr(checkpoint, "save_file", slow)

    def kept_at(journal: Journal) -> list[float]:
        times = []
        for step in range(1, 41):
            now[0] += 10
            before = journal.kept
            journal.checkpoint(step, 0.0, {"x": torch.ones(1)}, stopping=False)
            if journal.kept != before:
                times.append(now[0])
        return times

    first, second, *_ = kept_at(Journal("stage", tmp_path / "a"))
    assert first == 33.0  # 30 seconds of work, 3 of saving
    assert second - first == 153.0  # 3 seconds are 2% of 150
    now[0] = 0.0
    assert kept_at(Journal("stage", tmp_path / "b", every=20))[:3] == [23.0, 46.0, 69.0]


def test_what_a_crash_left_half_written_is_swept_and_its_step_done_again(tmp_path: Path) -> None:
    for name in ("checkpoint.safetensors.partial", "records.jsonl.partial", "settings.json.partial"):
        (tmp_path / name).write_text("half")
    (tmp_path / "records.jsonl").write_text('{"step": 1}\n{"st')
    journal = Journal("stage", tmp_path)
    assert journal.resume() == (0, 0.0, {})
    journal.record(step=1, loss=2.0)
    assert [path.name for path in tmp_path.iterdir()] == ["records.jsonl"]
    assert json.loads((tmp_path / "records.jsonl").read_text()) == {"step": 1, "loss": 2.0}
