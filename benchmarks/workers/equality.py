"""The same numbers out: our losses and log-probabilities against the plain padded loop's, in float32 and bfloat16."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from benchmarks.workers.common import Job
from benchmarks.workers.pairs import read_tokens
from benchmarks.workers.plain import train_plain
from pairtune.data.pack import Tokens
from pairtune.engine import naive
from pairtune.engine.examples import Examples
from pairtune.engine.reference import compute_logprobs
from pairtune.models.load import frozen_copy, load_model
from pairtune.models.machine import choose_machine
from pairtune.objectives.loss import loss_of
from pairtune.settings import Preference
from pairtune.training.checkpoint import Journal
from pairtune.training.preference import train_preference


def compare(job: Job) -> dict[str, Any]:
    """Train both ways in both dtypes on the job's `compared` pairs.

    Returns `steps`; `loss_relative`, the largest relative difference between the two float32 losses; and how far each
    way's bfloat16 lies from the plain loop's float32: `logprob_ours` and `logprob_plain` (mean |difference| per
    response token before training, nats), `loss_ours` and `loss_plain` (mean |difference| of the losses).
    """
    rows, settings = read_tokens(job["compared"]), Preference(**job["settings"])
    losses, logprobs = {}, {}
    for dtype in ("float32", "bfloat16"):
        for way in (_ours, _plain):
            losses[dtype, way], logprobs[dtype, way] = way(job["model"], dtype, rows, settings)
    exact_N, exact_R = losses["float32", _plain], logprobs["float32", _plain]
    result: dict[str, Any] = {
        "steps": len(exact_N),
        "loss_relative": float(((losses["float32", _ours] - exact_N).abs() / exact_N.abs()).max()),
    }
    for name, way in (("ours", _ours), ("plain", _plain)):
        result[f"logprob_{name}"] = float((logprobs["bfloat16", way] - exact_R).abs().mean())
        result[f"loss_{name}"] = float((losses["bfloat16", way] - exact_N).abs().mean())
    return result


def _ours(folder: str, dtype: str, rows: Sequence[Tokens], settings: Preference) -> tuple[Tensor, Tensor]:
    """The losses of every step, and the log-probabilities of all response tokens before the first."""
    model = load_model(folder, choose_machine(dtype))
    reference = compute_logprobs(model, rows)
    before = torch.cat([values.clone() for values in reference])
    journal = Journal("ours")
    train_preference(model, Examples(rows, reference=reference), loss_of("dpo"), settings, seed=0, journal=journal)
    return torch.tensor([row["loss"] for row in journal.rows], dtype=torch.float64), before


def _plain(folder: str, dtype: str, rows: Sequence[Tokens], settings: Preference) -> tuple[Tensor, Tensor]:
    model = load_model(folder, choose_machine(dtype))
    with torch.no_grad():
        before = [naive.response_logprobs(model, [row.prompt] * 2, row.responses) for row in rows]
    journal = Journal("plain")
    train_plain(model, frozen_copy(model), rows, settings, journal=journal)
    losses = torch.tensor([row["loss"] for row in journal.rows], dtype=torch.float64)
    return losses, torch.cat([part for parts in before for part in parts]).cpu()
