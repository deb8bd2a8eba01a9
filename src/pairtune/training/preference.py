"""Preference tuning: any objective of the catalogue, or a sum of them, on exactly what it needs."""

from collections import Counter
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from pairtune import parallel
from pairtune.data.pack import Tokens
from pairtune.engine.examples import Examples, Passed, gathered, join, run_pass
from pairtune.engine.logprob import idle_pass
from pairtune.engine.mismatched import kl_baseline
from pairtune.engine.sharded import keeping_up
from pairtune.errors import InputError
from pairtune.objectives.loss import Loss
from pairtune.objectives.objective import OF_ROWS, WEIGHTS
from pairtune.objectives.quantities import quantities
from pairtune.progress import say, significant
from pairtune.settings import Tuning
from pairtune.training.checkpoint import Journal
from pairtune.training.loop import Measure, fit, say_router
from pairtune.training.step import (
    Batches,
    enough_for,
    epoch_order,
    micro_batches,
    optimizer_of,
    own_share,
    step_batches,
)

# Share of its old value that a moving average over steps keeps at each step.
KEPT = 0.9


def train_preference(
    model: PreTrainedModel,
    examples: Examples,
    loss: Loss,
    settings: Tuning,
    *,
    seed: int,
    journal: Journal,
    measure: Measure | None = None,
) -> None:
    """Tune `model` in place on pairs, or on single responses with labels if the objective takes those."""
    mixing = next((term.objective.name for term in loss.terms if term.objective.unweighed), "")
    if mixing and examples.weights is not None:
        raise InputError(
            f"data: the rows have weights, and {mixing} compares the pairs of a step with each other and takes no "
            "weight_N; take another objective, or leave the column out"
        )
    if OF_ROWS in loss.arguments and examples.margins is None:
        raise InputError(
            'data: this objective takes the margin of each pair, and the rows have no column "margin"; --columns '
            "margin=NAME if it is called otherwise"
        )
    averages = {
        n: torch.zeros((), device=model.device) for n in loss.arguments if n in ("past_logratio", "past_margin")
    }

    def gradients(indices: Sequence[int]) -> dict[str, float]:
        numbers = dict(averages)
        if "mean_length" in loss.arguments:
            numbers["mean_length"] = torch.tensor(examples.mean_length(indices), device=model.device)
        if examples.mismatched is not None and examples.mismatched_reference is not None:
            others = examples.mismatched, examples.mismatched_reference
            baseline = kl_baseline(model, *others, indices, weights=examples.weights)
            numbers["kl_baseline"] = baseline
        groups = micro_batches(examples.rows, own_share(examples.rows, indices), model.device)
        idle = examples.rows[indices[0]]
        if loss.whole_step and (len(groups) > 1 or parallel.working() > 1):
            passed, loss_B = _in_two_passes(model, loss, examples, groups, numbers, idle=idle)
        else:
            passed, loss_B = _in_one_pass(model, loss, examples, groups, numbers, count=len(indices), idle=idle)
        if not journal.rows and len(loss.terms) > 1:
            say(_shares(loss.weighted(_values(loss, passed, numbers), paired=examples.labels is None)))
        figures = {"loss": float(_weighed(loss_B, passed).mean())} | _figures(passed, paired=examples.labels is None)
        figures |= {name: float(number) for name, number in numbers.items()}
        _update(averages, passed)
        return figures

    enough_for(examples.rows, settings)
    say_router(model)
    optimizer = optimizer_of(model, settings)
    fit(
        gradients,
        optimizer,
        settings,
        rows=examples.rows,
        batches=_batches(examples, settings, seed=seed),
        journal=journal,
        state=averages,
        measure=measure,
    )
    optimizer.release()


def _in_one_pass(
    model: PreTrainedModel,
    loss: Loss,
    examples: Examples,
    groups: Sequence[Sequence[int]],
    numbers: Mapping[str, Tensor],
    *,
    count: int,
    idle: Tokens,
) -> tuple[Passed, Tensor]:
    """Gradients of the mean loss over `count` examples, group by group: for a loss of each example by itself.

    idle: the row that a rank with fewer groups than another passes in vain where weights lie in parts.
    """
    passes, losses = [], [torch.empty(0, device=model.device)]
    with keeping_up(model, len(groups), lambda: idle_pass(model, idle)):
        for group in groups:
            passed = run_pass(model, examples, group, loss.needs)
            loss_B = _loss(loss, examples, passed, numbers)
            (_weighed(loss_B, passed).sum() / count).backward()
            passes.append(passed.detach())
            losses.append(loss_B.detach())
    of_ranks = gathered(passes, torch.cat(losses), model.device)
    return join([passed for passed, _ in of_ranks]), torch.cat([loss_B for _, loss_B in of_ranks])


def _in_two_passes(
    model: PreTrainedModel,
    loss: Loss,
    examples: Examples,
    groups: Sequence[Sequence[int]],
    numbers: Mapping[str, Tensor],
    *,
    idle: Tokens,
) -> tuple[Passed, Tensor]:
    """The same for a loss that mixes the examples of a step which does not fit into one pass.

    The first passes give the log-probabilities, the loss its gradient to them, the second passes carry it on.
    """
    with torch.no_grad(), keeping_up(model, len(groups), lambda: idle_pass(model, idle)):
        passes = [run_pass(model, examples, group, loss.needs) for group in groups]
    of_ranks = [each for each, _ in gathered(passes, torch.empty(0), model.device)]
    passed = join(of_ranks)
    logprob_R = passed.tokens["logprob"].requires_grad_()
    loss_B = _loss(loss, examples, passed, numbers)
    _weighed(loss_B, passed).mean().backward()
    assert logprob_R.grad is not None
    own_R = logprob_R.grad.split([len(each.tokens["logprob"]) for each in of_ranks])[parallel.rank()]
    parts = own_R.split([len(each.tokens["logprob"]) for each in passes])
    with keeping_up(model, len(groups), lambda: idle_pass(model, idle)):
        for group, gradient_R in zip(groups, parts, strict=True):
            run_pass(model, examples, group, ()).tokens["logprob"].backward(gradient_R)
    return passed.detach(), loss_B.detach()


def _weighed(loss_B: Tensor, passed: Passed) -> Tensor:
    """The examples' losses, each as often as its row counts: their mean is the step's loss."""
    return loss_B if passed.weight_N is None else loss_B * passed.weight_N


def _loss(loss: Loss, examples: Examples, passed: Passed, numbers: Mapping[str, Tensor]) -> Tensor:
    return loss(_values(loss, passed, numbers), paired=examples.labels is None)


def _values(loss: Loss, passed: Passed, numbers: Mapping[str, Tensor]) -> dict[str, Tensor]:
    found = quantities(loss.arguments, passed.tokens, passed.length_S, passed.label_S, passed.numbers(numbers))
    return found if passed.weight_N is None else {**found, WEIGHTS: passed.weight_N}


def _shares(term_B: Mapping[str, Tensor]) -> str:
    """What each term of a sum is of the first step's loss: loss: dpo 0.693 (57%), 0.2*sft 0.515 (43%)."""
    means = {name: float(loss_B.mean()) for name, loss_B in term_B.items()}
    whole = sum(map(abs, means.values())) or 1.0
    return "loss: " + ", ".join(f"{name} {significant(mean)} ({abs(mean) / whole:.0%})" for name, mean in means.items())


def _figures(passed: Passed, *, paired: bool) -> dict[str, float]:
    """What a step records of its examples: sums over tokens in nats, of log-ratios where there is a reference."""
    kind = "logratio" if "reference" in passed.tokens else "logprob"
    names = [f"chosen_{kind}_B", f"rejected_{kind}_B"]
    chosen_B, rejected_B = quantities(names, passed.tokens, passed.length_S, passed.label_S, {}).values()
    if not paired:
        sides = (("desirable", chosen_B), ("undesirable", rejected_B))
        return {f"{side}_{kind}": float(value_B.mean()) for side, value_B in sides if len(value_B)}
    figures = {f"chosen_{kind}": float(chosen_B.mean()), f"rejected_{kind}": float(rejected_B.mean())}
    if kind == "logprob":
        return figures
    margin_B = chosen_B - rejected_B
    accuracy = float(((margin_B > 0).float() + 0.5 * (margin_B == 0).float()).mean())
    return {"accuracy": accuracy, "margin": float(margin_B.mean())} | figures


def _update(averages: Mapping[str, Tensor], passed: Passed) -> None:
    """Take a step's mean log-ratios into the moving averages."""
    if not averages:
        return
    names = ["chosen_logratio_B", "rejected_logratio_B"]
    chosen_B, rejected_B = quantities(names, passed.tokens, passed.length_S, passed.label_S, {}).values()
    if len(chosen_B) and len(rejected_B):
        chosen = passed.side_mean(chosen_B, desirable=True)
        rejected = passed.side_mean(rejected_B, desirable=False)
        for name, now in (("past_logratio", (chosen + rejected) / 2), ("past_margin", chosen - rejected)):
            if name in averages:
                averages[name].lerp_(now, 1 - KEPT)


def _batches(examples: Examples, settings: Tuning, *, seed: int) -> Batches:
    """Every step's examples, in an order of seed and epoch alone; of single responses, its share of either label."""
    size, labels = settings.batch_size, examples.labels
    if labels is None:
        return step_batches(len(examples.rows), batch_size=size, epochs=settings.epochs, seed=seed)
    total = Counter(labels)

    def ordered(epoch: int) -> list[int]:
        order, seen, place = epoch_order(len(labels), seed=seed, epoch=epoch), Counter[bool](), {}
        for i in order:
            place[i] = (seen[labels[i]] + 0.5) / total[labels[i]]
            seen[labels[i]] += 1
        order.sort(key=place.__getitem__)
        return order

    return Batches(ordered, len(labels), batch_size=size, epochs=settings.epochs)
