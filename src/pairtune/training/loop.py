"""The loop that every training on fixed examples shares: order, schedule, step, record, checkpoint, measurement."""

import time
from collections.abc import Callable, Sequence

from torch import Tensor

from pairtune.engine.cost import uncounted
from pairtune.progress import task
from pairtune.settings import Optimisation
from pairtune.training.checkpoint import Journal, interruptible
from pairtune.training.step import Optimizer, learning_rate

# gradients(indices): run the step's examples forward and backward, normalised by their number; its figures come back.
Gradients = Callable[[Sequence[int]], dict[str, float]]
# measure(step, seconds): called before the first step (step 0) and at chosen steps; its time is not training time.
Measure = Callable[[int, float], None]


def fit(
    gradients: Gradients,
    optimizer: Optimizer,
    settings: Optimisation,
    *,
    batches: Sequence[Sequence[int]],
    journal: Journal,
    state: dict[str, Tensor] | None = None,
    measure: Measure | None = None,
    measurements: int = 0,
) -> None:
    """Train on each step's examples in turn; a checkpoint is gone on from.

    `state` is what the gradients remember from step to step: kept in checkpoints, and put back in place.
    """
    state = state or {}
    points = measuring_points(len(batches), measurements) if measure else set()
    done, seconds, tensors = journal.resume()
    if tensors:
        optimizer.load_state(tensors)
        for name, value in state.items():
            value.copy_(tensors[name])
    with task(journal.stage, len(batches), done) as progress, interruptible() as interruption:
        for step, indices in enumerate(batches, 1):
            if step <= done:
                continue
            if measure and step == 1 and points:
                with uncounted():
                    measure(0, 0.0)
            began = time.perf_counter()
            figures = gradients(indices)
            rate = learning_rate(step, len(batches), peak=settings.learning_rate, warmup=settings.warmup)
            norm = optimizer.step(learning_rate=rate, max_gradient_norm=settings.max_gradient_norm)
            seconds += time.perf_counter() - began
            journal.record(
                kind="step",
                stage=journal.stage,
                step=step,
                seconds=round(seconds, 3),
                **figures,
                learning_rate=rate,
                gradient_norm=norm,
            )
            progress.note("  ".join(f"{name} {value:.3f}" for name, value in list(figures.items())[:2]))
            progress.advance()
            if measure and step in points:
                with uncounted():
                    measure(step, seconds)
            journal.checkpoint(step, seconds, optimizer.state() | state, stopping=interruption.asked)


def measuring_points(steps: int, measurements: int) -> set[int]:
    """Steps at which to measure, evenly spread, the last included."""
    count = min(measurements, steps)
    return {round(steps * (i + 1) / count) for i in range(count)}
