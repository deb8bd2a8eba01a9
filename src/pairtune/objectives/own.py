"""An objective from a person's own function, held to what the catalogue is held to before it trains anything.

    def my_dpo(chosen_logratio_B, rejected_logratio_B, *, beta: float = 0.1):
        '''DPO, in my own words.

        beta: weight of KL(π‖π_ref)
        '''
        return -(beta * (chosen_logratio_B - rejected_logratio_B)).sigmoid().log()

The names of its arguments say what it is given, as in `objective.py`; those after the `*` are its parameters, each with
a default, and what a line of the docstring says of one is its meaning in the help.
"""

from __future__ import annotations

import functools
import inspect
import itertools
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pairtune import own
from pairtune.errors import InputError
from pairtune.hints import nearest
from pairtune.objectives.objective import OF_ROWS, QUANTITY, STEP_NUMBERS, Objective, Parameter

if TYPE_CHECKING:
    from torch import Tensor

# Everything that an argument may be called.
KNOWN = [
    *(
        f"{side}{middle}_{shape}"
        for side, middle, shape in itertools.product(
            ("chosen_", "rejected_", ""), ("logprob", "logratio", "reference", "length", "collision"), "BRN"
        )
    ),
    *STEP_NUMBERS,
    OF_ROWS,
    "label_B",
]
# Made-up pairs that a function is tried on.
TRIED = 6


def objective_of(name: str) -> Objective:
    """The objective that `my_losses.py:my_dpo` is. Raises InputError if it cannot be one."""
    found = own.load(name)
    takes = inspect.signature(found.function).parameters.values()
    tensors = [each.name for each in takes if each.kind is not each.KEYWORD_ONLY]
    with_values = [each for each in takes if each.kind in (each.VAR_POSITIONAL, each.VAR_KEYWORD)]
    if with_values:
        raise InputError(f"{name}: *{with_values[0].name} says not what it needs; name each tensor and each parameter")
    _check_tensors(name, tensors)
    objective = Objective(
        loss=_checked(found, tensors),
        equation="",
        source=str(found.path),
        parameters={each.name: _parameter(found, each) for each in takes if each.kind is each.KEYWORD_ONLY},
        own=own.short(name),
        sha256=found.sha256,
    )
    _try(name, objective)
    return objective


def _check_tensors(name: str, tensors: list[str]) -> None:
    for argument in tensors:
        if not QUANTITY.match(argument) and argument not in KNOWN:
            near = nearest(argument, KNOWN)
            hint = f'did you mean "{near}"?' if near else "a parameter stands after a *, with a default: *, beta=0.1"
            raise InputError(f'{name}: there is nothing called "{argument}" to give it; {hint}')
    if not any("logprob_" in argument or "logratio_" in argument for argument in tensors):
        raise InputError(f"{name}: it takes no log-probability and no log-ratio, so there is nothing to train by")
    sides = [argument.startswith(("chosen_", "rejected_")) for argument in tensors if QUANTITY.match(argument)]
    if not all(sides) and (any(sides) or "label_B" not in tensors):
        raise InputError(
            f"{name}: it takes either chosen_ and rejected_ tensors, or those of responses by themselves with label_B"
        )
    if not any(argument.endswith(("_B", "_N")) for argument in tensors):
        raise InputError(f"{name}: it takes tokens (_R) and no length, so it cannot tell one response from the next")


def _parameter(found: own.Own, argument: inspect.Parameter) -> Parameter:
    """Its default from the signature, its meaning from the docstring's line on it."""
    default, name = argument.default, argument.name
    if default is argument.empty or isinstance(default, bool) or not isinstance(default, int | float):
        raise InputError(f'{found.name}: its parameter "{name}" needs a number as its default: {name}: float = 1.0')
    line = re.search(rf"^\s*{name}\s*:\s*(.+)$", found.function.__doc__ or "", re.MULTILINE)
    return Parameter(default=float(default), meaning=line[1].strip().rstrip(".") if line else "its own parameter")


def _checked(found: own.Own, tensors: list[str]) -> Callable[..., Tensor]:
    """The function with an eye on each call: what it raises is one line, and it must return a loss per example."""
    sized = next((i for i, name in enumerate(tensors) if name.endswith(("_B", "_N"))), 0)

    @functools.wraps(found.function)
    def loss(*given: Tensor, **parameters: float) -> Tensor:
        with found.watched():
            loss_B: Any = found.function(*given, **parameters)
        shape = tuple(getattr(loss_B, "shape", ()))
        if shape != (len(given[sized]),):
            what = f"a tensor of shape {list(shape)}" if hasattr(loss_B, "shape") else f"a {type(loss_B).__name__}"
            raise InputError(
                f"{found.name}: it returned {what} for {len(given[sized])} examples; it must return a loss for each, "
                "[B] - leave the mean to the training"
            )
        made: Tensor = loss_B
        return made

    return loss


def _try(name: str, objective: Objective) -> None:
    """Run it on made-up pairs: finite, with a gradient, no example's loss changed by the others unless it says so."""
    import torch  # whatever it was asked for needs it: the function, and the training

    from pairtune.objectives.quantities import quantities

    generator = torch.Generator().manual_seed(0)
    length_S = torch.randint(1, 6, (2 * TRIED,), generator=generator)
    value_KR = -0.05 - 2 * torch.rand(3, int(length_S.sum()), generator=generator)
    numbers = {"kl_baseline": 0.4, "past_logratio": -0.2, "past_margin": 0.3, "mean_length": 3.0}

    def of(first: int, last: int) -> tuple[Tensor, Tensor]:
        """The losses of some pairs, and the log-probabilities that they were made from."""
        start, end = int(length_S[: 2 * first].sum()), int(length_S[: 2 * last].sum())
        tokens = dict(zip(("logprob", "reference", "collision"), value_KR[:, start:end].clone(), strict=True))
        tokens["logprob"].requires_grad_()
        some_S = length_S[2 * first : 2 * last]
        label_S = torch.tensor([True, False]).repeat(last - first)
        number = {key: torch.tensor(value) for key, value in numbers.items()}
        number[OF_ROWS] = torch.arange(first, last) / TRIED
        given = quantities(objective.arguments, tokens, some_S, label_S, number)
        parameters = {key: parameter.default for key, parameter in objective.parameters.items()}
        return objective.loss(*given.values(), **parameters), tokens["logprob"]

    loss_B, logprob_R = of(0, TRIED)
    if not loss_B.is_floating_point() or not torch.isfinite(loss_B).all():
        raise InputError(
            f"{name}: on made-up log-probabilities it returned {_shown(loss_B)}; a loss is a finite number"
        )
    if not loss_B.requires_grad:
        raise InputError(f"{name}: its loss does not depend on the policy; return it without detach() or item()")
    loss_B.sum().backward()
    gradient_R = logprob_R.grad
    if gradient_R is None or not torch.isfinite(gradient_R).all() or not gradient_R.any():
        raise InputError(f"{name}: on made-up log-probabilities its gradient is 0 or not finite")
    alone_B = torch.cat([of(i, i + 1)[0] for i in range(TRIED)])
    if not objective.whole_step and not torch.allclose(alone_B, loss_B, rtol=1e-4, atol=1e-6):
        raise InputError(
            f"{name}: its loss of a pair changes with the other pairs, or by chance; if it is to mix the pairs of a "
            "step, its arguments end in _N"
        )


def _shown(loss_B: Tensor) -> str:
    return str([float(f"{value:.3g}") for value in loss_B.detach().tolist()])
