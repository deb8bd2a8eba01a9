"""Held-out examples as an objective itself sees them: its loss, and whether it prefers the labels to their opposite."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from transformers import PreTrainedModel

from pairtune.engine.examples import Examples, Passed, gathered, join, run_pass
from pairtune.engine.hidden import own_numbers, shared_passes
from pairtune.engine.mismatched import kl_baseline
from pairtune.objectives.loss import Loss
from pairtune.objectives.quantities import quantities


@dataclass(frozen=True)
class ExampleFigures:
    """One value per example, in their order; what pairs or the reference would be needed for is None without them.

    `own_wins`: 1 where the loss is lower than it would be with the labels exchanged, ½ where it is the same, else 0:
    the objective's own criterion of right and wrong. For an objective on the margin that is a margin above 0.
    `log_ratios`: of each pair's chosen and rejected response, or of each single response, to the reference, in nats.
    """

    losses: list[float]
    own_wins: list[float] | None
    log_ratios: list[list[float]] | None


@torch.no_grad()
def measure_examples(model: PreTrainedModel, loss: Loss, examples: Examples) -> ExampleFigures:
    """The objective's own loss of held-out examples, all taken as one step, and its own verdict on each pair."""
    groups = shared_passes(examples.rows, model.device)
    numbers_own = own_numbers(groups)
    passed_by = [run_pass(model, examples, groups[number], loss.needs) for number in numbers_own]
    order = [
        i for first in range(numbers_own.step) for group in groups[first :: numbers_own.step] for i in group
    ]  # rank after rank
    of_ranks = gathered(passed_by, torch.empty(0), model.device)
    passed, paired = join([each for each, _ in of_ranks]), examples.labels is None
    numbers = _numbers(model, examples, passed)
    loss_B = _loss(loss, passed, numbers, paired=paired)
    losses = _in_order(loss_B, order)  # where a step is sorted, of its quantiles, told apart by the same places
    if not paired:
        ratio_B = quantities(["logratio_B"], passed.tokens, passed.length_S, passed.label_S, {})["logratio_B"]
        return ExampleFigures(losses.tolist(), None, [[ratio] for ratio in _in_order(ratio_B, order).tolist()])
    opposite_B = _loss(loss, replace(passed, label_S=~passed.label_S), numbers, paired=True)
    own_B = (opposite_B > loss_B).double() + 0.5 * (opposite_B == loss_B).double()
    ratio_B2 = None
    if "reference" in passed.tokens:
        names = ["chosen_logratio_B", "rejected_logratio_B"]
        sides = quantities(names, passed.tokens, passed.length_S, passed.label_S, {}).values()
        ratio_B2 = torch.stack([_in_order(side_B, order) for side_B in sides], dim=1)
    own = _in_order(own_B, order)
    if loss.whole_step and ratio_B2 is not None:
        own = (ratio_B2[:, 0] - ratio_B2[:, 1]).sign() / 2 + 0.5
    return ExampleFigures(losses.tolist(), own.tolist(), None if ratio_B2 is None else ratio_B2.tolist())


def _numbers(model: PreTrainedModel, examples: Examples, passed: Passed) -> dict[str, Tensor]:
    """The numbers of a step; moving averages are the means of these examples, to which they would converge."""
    numbers: dict[str, Tensor] = {}
    if examples.labels is None:
        numbers["mean_length"] = passed.length_S[passed.label_S].float().mean()
    if examples.mismatched is not None and examples.mismatched_reference is not None:
        every = range(len(examples.rows))
        numbers["kl_baseline"] = kl_baseline(model, examples.mismatched, examples.mismatched_reference, every)
    if "reference" in passed.tokens:
        names = ["chosen_logratio_B", "rejected_logratio_B"]
        chosen_B, rejected_B = quantities(names, passed.tokens, passed.length_S, passed.label_S, {}).values()
        numbers["past_logratio"] = (chosen_B.mean() + rejected_B.mean()) / 2
        numbers["past_margin"] = chosen_B.mean() - rejected_B.mean()
    return numbers


def _loss(loss: Loss, passed: Passed, numbers: Mapping[str, Tensor], *, paired: bool) -> Tensor:
    given = quantities(loss.arguments, passed.tokens, passed.length_S, passed.label_S, passed.numbers(numbers))
    return loss(given, paired=paired)


def _in_order(value_B: Tensor, order: Sequence[int]) -> Tensor:
    """Values of examples in the order of the passes, laid in the order of the examples."""
    return torch.empty_like(value_B).index_copy_(0, torch.tensor(order, device=value_B.device), value_B)
