"""The loop that every training shares: resumption, step, record, measurement, checkpoint."""

import functools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from pairtune import parallel
from pairtune.data.pack import Tokens
from pairtune.engine.cost import mixtures, uncounted
from pairtune.engine.hidden import hold_passes, passes_held, passes_of
from pairtune.engine.self_check import failing_in_a_line
from pairtune.errors import InputError
from pairtune.progress import say, significant, task
from pairtune.settings import Optimisation
from pairtune.stopping import interruptible
from pairtune.training.checkpoint import Journal
from pairtune.training.room import within_memory
from pairtune.training.step import Optimizer, learning_rate
from pairtune.training.watch import warnings

# gradients(indices): run the step's examples forward and backward, normalised by their number; its figures come back.
Gradients = Callable[[Sequence[int]], dict[str, float]]
# What a checkpoint calls the most tokens in a pass, where memory had no room for as many as were asked for.
HALVED = "tokens_per_pass"
# Of a step's figures, those that tell the person waiting how it goes.
NOTED = ("loss", "accuracy", "desirable_logratio", "undesirable_logratio")


class Measure(Protocol):
    """Takes so many measurements along a training, the last of them at its end, by others: see `measuring_points`."""

    points: int

    def take(self, step: int, seconds: float) -> None:
        """Measure after a step; the time that it takes is not training time."""


def fit(
    gradients: Gradients,
    optimizer: Optimizer,
    settings: Optimisation,
    *,
    rows: Sequence[Tokens],
    batches: Sequence[Sequence[int]],
    journal: Journal,
    state: Mapping[str, Tensor] | None = None,
    measure: Measure | None = None,
) -> None:
    """Train on fixed examples, the `rows` of each step's in turn. `state`: as for `run_steps`."""
    device = optimizer.parameters[0].device

    def work(step: int) -> dict[str, float]:
        indices = batches[step - 1]
        figures = within_memory(lambda: gradients(indices), [rows[i] for i in indices], [optimizer], device)
        given = {"peak": settings.learning_rate, "warmup": settings.warmup}
        rate = learning_rate(step, len(batches), **given, schedule=settings.schedule)
        norm = optimizer.step(learning_rate=rate, max_gradient_norm=settings.max_gradient_norm)
        return figures | {"learning_rate": rate, "gradient_norm": norm}

    run_steps(
        len(batches),
        work,
        {"": optimizer},
        state or {},
        journal=journal,
        note=lambda figures: "  ".join(f"{name} {significant(figures[name])}" for name in NOTED if name in figures),
        measure=measure,
    )


@passes_of(0)  # what memory has no room for in this training is no other's
def run_steps(
    steps: int,
    work: Callable[[int], dict[str, float]],
    optimizers: Mapping[str, Optimizer],
    state: Mapping[str, Tensor],
    *,
    journal: Journal,
    note: Callable[[Mapping[str, float]], str],
    measure: Measure | None,
    ended: Callable[[int, Mapping[str, float]], bool] | None = None,
) -> None:
    """Do the work of each step, from the last checkpoint on; its figures are recorded and shown on the progress line.

    ended(step, figures): whether training ends after a step before the last; what it takes to see is no training.

    optimizers: by the prefix that their tensors have in a checkpoint. state: what the work remembers from step to step,
    kept in checkpoints beside them, and put back in place.
    """
    points = measuring_points(steps, measure.points) if measure else set()
    held = passes_held()
    done, seconds, tensors = journal.resume(functools.partial(_take, optimizers))
    if done > steps:
        raise InputError(
            f"out: the checkpoint there is of step {done}, and this training has {steps}; give another --out"
        )
    if tensors:
        for prefix, optimizer in optimizers.items():
            optimizer.load_state({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
        for name, value in state.items():
            value.copy_(tensors[name])
        hold_passes(int(tensors.get(HALVED, 0)) or passes_held())
    parallel.check_equal({"the weights at the start": sum(optimizer.size() for optimizer in optimizers.values())})
    with task(journal.stage, steps, done) as progress, interruptible(journal.left) as interruption:
        step = done
        for step in range(done + 1, steps + 1):
            began = time.perf_counter()
            with failing_in_a_line("trained"):
                figures = work(step)
            if not math.isfinite(figures.get("loss", 0.0)):
                raise FloatingPointError(f"the loss is {figures['loss']} at step {step}")
            seconds += time.perf_counter() - began
            journal.record(kind="step", stage=journal.stage, step=step, seconds=round(seconds, 3), **figures)
            progress.note(note(figures))
            progress.advance()
            over = ended is not None and step < steps and ended(step, figures)
            asked, due = parallel.any_of(interruption.asked, journal.due)
            if over and asked:
                raise KeyboardInterrupt
            if over:
                break
            measured = measure and step in points
            if measured or asked or due:
                check_finite(step, optimizers, state)
            if measure and measured:
                with uncounted():
                    measure.take(step, seconds)
            kept = {prefix + k: v for prefix, optimizer in optimizers.items() for k, v in optimizer.state().items()}
            if passes_held() != held:
                kept[HALVED] = torch.tensor(passes_held())
            journal.checkpoint(step, seconds, kept | dict(state), due=due, stopping=asked)
        check_finite(step, optimizers, state)
    grew = {prefix.rstrip("."): optimizer.growth() for prefix, optimizer in optimizers.items()}
    journal.warnings = warnings(journal.rows, grew)
    for warning in journal.warnings:
        say(f"  {journal.stage}: {warning['text']}")


def _take(optimizers: Mapping[str, Optimizer], name: str, tensor: Tensor) -> Tensor:
    """What this rank holds of a checkpoint's tensor."""
    for prefix, optimizer in optimizers.items():
        if name.startswith(prefix):
            tensor = optimizer.take(name.removeprefix(prefix), tensor)
    return tensor


def check_finite(step: int, optimizers: Mapping[str, Optimizer], state: Mapping[str, Tensor]) -> None:
    """Raises FloatingPointError if what was learned, or what steps remember, is no number: it is not to be kept."""
    for optimizer in optimizers.values():
        if what := optimizer.not_finite():
            raise FloatingPointError(f"after step {step} {what} are not finite")
    for name, value in state.items():
        if not bool(value.isfinite().all()):
            raise FloatingPointError(f"after step {step} {name} is not finite")
    parallel.check_equal({"the weights": sum(optimizer.size() for optimizer in optimizers.values())})


def say_router(model: nn.Module) -> None:
    """Say what is left out of a mixture of experts: the loss that keeps its router from favouring a few."""
    experts = sum(1 for _ in mixtures(model))
    if experts:
        say(f"  a mixture of experts ({experts} layers): its router's auxiliary loss (router_aux_loss) is not added")


def measuring_points(steps: int, measurements: int) -> set[int]:
    """Steps along the way at which to measure, evenly spread.

    The end is the last of so many measurements. It is not among these: who trained a model measures it in full.
    """
    count = min(measurements, steps)
    return {round(steps * i / count) for i in range(1, count)}
