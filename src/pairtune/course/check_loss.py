"""A DPO loss of one's own, from logits on: held against the loss by hand, its gradient, and the theory's optimum.

    def my_dpo(policy, reference, chosen, rejected, beta):
        ...

`policy(ids)` and `reference(ids)` are models as transformers has them: `.logits` [B, T, V] of the next token. `chosen`
and `rejected` have `ids` [B, T] (prompt, response, padding behind) and `is_response` [B, T]. What is returned is the
mean loss of the pairs, or the loss of each [B]. Shape suffixes: B pairs, T positions, V vocabulary.
"""

import inspect
import math
from collections.abc import Sequence
from itertools import permutations
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from pairtune.course.dpo_by_hand import DPO, Form, Written, forms, losses
from pairtune.errors import InputError
from pairtune.own import Own
from pairtune.theory.optimum import optimal_policy
from pairtune.theory.preferences import bradley_terry
from pairtune.theory.world import World

ARGUMENTS = ("policy", "reference", "chosen", "rejected", "beta")
VOCABULARY, PADDING = 7, 0
# Of prompts and responses, in tokens: no two lengths that a mistake could confuse.
LENGTHS = (((3, 2), (3, 4)), ((1, 5), (1, 1)), ((4, 3), (4, 6)), ((2, 1), (2, 2)))
BETAS = (0.7, 0.1, 2.0)
# Float32 sums of a few tokens agree with float64's to this, relatively or absolutely.
CLOSE = 2e-4
# A policy that is this near to the optimum of a small world has found it.
FOUND = 0.02


class Side(NamedTuple):
    """One side of the pairs: `ids` [B, T], padding behind, and `is_response` [B, T], which are the response's."""

    ids: Tensor
    is_response: Tensor


class Finding(NamedTuple):
    """One thing that was looked at: what, whether it is right, and what was found."""

    what: str
    right: bool
    found: str


class _Output(NamedTuple):
    logits: Tensor


class Table(nn.Module):
    """A language model small enough to see through: the next token depends on the last two, and on the position."""

    def __init__(self, seed: int, *, spread: float = 1.0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        shape = (3, VOCABULARY + 20, VOCABULARY)
        self.weight = nn.Parameter(spread * torch.randn(shape, generator=generator))

    @property
    def device(self) -> torch.device:
        """Where it lies, as transformers' models say it."""
        return self.weight.device

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, **_: Any) -> _Output:
        """Logits of the token after each position: [B, T, V]."""
        before = nn.functional.pad(input_ids, (1, 0))[:, :-1]
        place = VOCABULARY + torch.arange(input_ids.shape[1]).expand_as(input_ids)
        return _Output(self.weight[0, input_ids] + self.weight[1, before] + self.weight[2, place])


def check_loss(own: Own) -> list[Finding]:
    """Everything that is looked at, in the order in which it is to be mended. Raises InputError if it cannot be run."""
    names = tuple(inspect.signature(own.function).parameters)
    if names != ARGUMENTS:
        raise InputError(f"{own.name}: its arguments are ({', '.join(names)}); a DPO loss has ({', '.join(ARGUMENTS)})")
    looks = (_start, _value, _gradient, _reference, _far, _optimum)
    findings: list[Finding] = []
    for look in looks:
        findings.append(look(own))
        if look in (_value, _gradient) and not findings[-1].right:
            break  # what follows would say the same in other words
    return findings


def _start(own: Own) -> Finding:
    """At π = π_ref every loss is ln 2."""
    what = "at π = π_ref the loss is ln 2"
    chosen, rejected = pairs(0)
    found = float(_mean(own, Table(1), Table(1), chosen, rejected, 0.7).detach())
    return Finding(what, abs(found - math.log(2)) < CLOSE, f"{found:.4f}, and ln 2 is {math.log(2):.4f}")


def _value(own: Own) -> Finding:
    """Away from there, at several β: the loss by hand, or the mistakes that give exactly these numbers."""
    what = "the loss is −log σ(β·(Δ_chosen − Δ_rejected)), Δ the log-ratio of the whole response"
    given, by_hand = [], []
    for i, beta in enumerate(BETAS):
        case = Table(2 * i + 2), Table(2 * i + 3), *pairs(i)
        given.append(float(_mean(own, *case, beta).detach()))
        by_hand.append((*_written(*case), beta))
    right = [_value_of(DPO, *each) for each in by_hand]
    if _same(given, right):
        return Finding(what, True, f"the same by hand, {len(BETAS)} batches, β {', '.join(map(str, BETAS))}")
    numbers = f"{given[0]:.4f} where by hand it is {right[0]:.4f} (β {BETAS[0]})"
    for form in forms():
        if form != DPO and _same(given, [_value_of(form, *each) for each in by_hand]):
            return Finding(what, False, f"{numbers}: {'; and '.join(form.mistakes())}")
    return Finding(what, False, f"{numbers}; it is none of the usual mistakes, nor up to three of them together")


def _gradient(own: Own) -> Finding:
    """Of the policy's weights, against central differences of the loss by hand."""
    what = "its gradient moves the policy as the loss by hand does"
    policy, reference, (chosen, rejected), beta = Table(2), Table(3), pairs(1), 0.7
    loss = _mean(own, policy, reference, chosen, rejected, beta)
    if not loss.requires_grad:
        return Finding(what, False, "no gradient reaches the policy: detach(), item(), no_grad() or numpy on the way")
    loss.backward()
    if policy.weight.grad is None:
        return Finding(what, False, "no gradient reaches the policy")
    generator, worst = np.random.default_rng(0), 0.0
    with torch.no_grad():
        for _ in range(4):
            direction = torch.from_numpy(generator.normal(size=tuple(policy.weight.shape))).float()
            case = (reference, chosen, rejected, beta)
            ahead, behind = (_by_hand(_moved(policy, step * direction), *case) for step in (1e-2, -1e-2))
            slope = (ahead - behind) / 2e-2
            worst = max(worst, abs(float((policy.weight.grad * direction).sum()) - slope) / (abs(slope) + 1e-2))
    return Finding(what, worst < 0.02, f"in 4 directions within {100 * worst:.1f}% of the loss's slope")


def _reference(own: Own) -> Finding:
    """It stays as it is, and so does what was given."""
    what = "the reference learns nothing, and nothing that was given is changed"
    policy, reference, (chosen, rejected) = Table(2), Table(3), pairs(2)
    before = [tensor.clone() for tensor in (*chosen, *rejected, policy.weight.detach(), reference.weight.detach())]
    _mean(own, policy, reference, chosen, rejected, 0.7).backward()
    if reference.weight.grad is not None and bool(reference.weight.grad.any()):
        return Finding(what, False, "a gradient reaches the reference; call it under torch.no_grad()")
    after = (*chosen, *rejected, policy.weight.detach(), reference.weight.detach())
    same = all(torch.equal(one, other) for one, other in zip(before, after, strict=True))
    return Finding(what, same, "so it is" if same else "ids, masks or weights are changed in place")


def _far(own: Own) -> Finding:
    """Where a margin is very large, σ rounds to 0 and its logarithm is infinite, unless it is one function."""
    what = "far from the reference it stays finite"
    chosen, rejected = pairs(0)
    for seed in range(6):
        policy, reference = Table(20 + seed, spread=100.0), Table(40 + seed, spread=100.0)
        loss = _mean(own, policy, reference, chosen, rejected, 2.0)
        loss.backward()
        gradient = policy.weight.grad
        finite = gradient is not None and bool(torch.isfinite(torch.cat((loss.reshape(1), gradient.flatten()))).all())
        by_hand = _by_hand(policy, reference, chosen, rejected, 2.0)
        if not finite or not _same([float(loss.detach())], [by_hand]):
            found = f"it is {float(loss.detach()):.4g} where by hand it is {by_hand:.4g}"
            return Finding(what, False, f"{found}; use logsigmoid and log_softmax, which are one function each")
    return Finding(what, True, "margins of some hundreds of nats")


def _optimum(own: Own) -> Finding:
    """Minimised over all policies of a world of four answers, it is to end at π_ref·exp(r/β)/Z."""
    what = "its minimum is π_ref·exp(r/β)/Z, the optimum under the KL constraint"
    reference_Y, reward_Y, beta = np.array([0.1, 0.2, 0.4, 0.3]), np.array([1.0, 0.5, 0.0, -1.0]), 0.5
    world = World(prompt_X=np.ones(1), reference_XY=reference_Y[None], reward_XY=reward_Y[None], beta=beta)
    wins_YY = bradley_terry(reward_Y[None])[0]
    ordered = list(permutations(range(4), 2))  # (winner, loser)
    weight_B = torch.tensor([wins_YY[pair] for pair in ordered], dtype=torch.float32)
    policy, reference = _Answers(reference_Y), _Answers(reference_Y)
    answers = [Side(torch.tensor([[5, 1 + y]]), torch.tensor([[False, True]])) for y in range(4)]
    optimizer = torch.optim.LBFGS([policy.logit], lr=1, max_iter=60, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        each = [_mean(own, policy, reference, answers[w], answers[other], beta) for w, other in ordered]
        loss = (weight_B * torch.stack(each)).sum() / weight_B.sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    found, best = policy.logit.detach().double().softmax(0).numpy(), optimal_policy(world)[0]
    shown, expected = (", ".join(f"{value:.2f}" for value in values) for values in (found, best))
    return Finding(what, float(abs(found - best).max()) < FOUND, f"({shown}) where it is ({expected})")


class _Answers(nn.Module):
    """A policy of one prompt and four answers of one token each."""

    def __init__(self, probability_Y: np.ndarray[Any, Any]) -> None:
        super().__init__()
        self.logit = nn.Parameter(torch.from_numpy(np.log(probability_Y)).float())

    @property
    def device(self) -> torch.device:
        """Where it lies."""
        return self.logit.device

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, **_: Any) -> _Output:
        """The answers' logits at every position; other tokens are all but impossible."""
        row = torch.full((VOCABULARY,), -100.0)
        row = torch.cat((row[:1], self.logit, row[5:]))
        return _Output(row.expand(*input_ids.shape, -1))


def pairs(seed: int) -> tuple[Side, Side]:
    """Four pairs, padded behind to the longest of their side.

    Both sides of a pair have prompts of their own: of one prompt the tokens would cancel, wrongly counted or not.
    """
    generator = torch.Generator().manual_seed(seed)

    def some(count: int) -> list[int]:
        return torch.randint(1, VOCABULARY, (count,), generator=generator).tolist()

    sides = []
    for which in range(2):
        rows = [(some(pair[which][0]), some(pair[which][1])) for pair in LENGTHS]
        longest = max(len(prompt) + len(response) for prompt, response in rows)
        ids = torch.full((len(rows), longest), PADDING)
        is_response = torch.zeros(len(rows), longest, dtype=torch.bool)
        for b, (prompt, response) in enumerate(rows):
            ids[b, : len(prompt) + len(response)] = torch.tensor([*prompt, *response])
            is_response[b, len(prompt) : len(prompt) + len(response)] = True
        sides.append(Side(ids, is_response))
    return sides[0], sides[1]


def _mean(own: Own, policy: nn.Module, reference: nn.Module, chosen: Side, rejected: Side, beta: float) -> Tensor:
    """The mean loss that the function gives."""
    with own.watched():
        loss = own.function(policy, reference, chosen, rejected, beta)
    if not isinstance(loss, Tensor) or loss.shape not in ((), (len(chosen.ids),)):
        what = f"a tensor of shape {list(loss.shape)}" if isinstance(loss, Tensor) else f"a {type(loss).__name__}"
        raise InputError(f"{own.name}: it returned {what}; return the mean loss of the pairs, or the loss of each, [B]")
    return loss.mean()


def _by_hand(policy: nn.Module, reference: nn.Module, chosen: Side, rejected: Side, beta: float) -> float:
    """What the function is to give."""
    return _value_of(DPO, *_written(policy, reference, chosen, rejected), beta)


def _written(policy: nn.Module, reference: nn.Module, chosen: Side, rejected: Side) -> tuple[Written, Written]:
    """Both sides as the loss by hand has them."""
    with torch.no_grad():
        first, second = (
            Written(
                policy_BTV=policy(side.ids).logits.double().numpy(),
                reference_BTV=reference(side.ids).logits.double().numpy(),
                ids_BT=side.ids.numpy(),
                is_response_BT=side.is_response.numpy(),
                is_real_BT=(side.ids != PADDING).numpy(),
            )
            for side in (chosen, rejected)
        )
    return first, second


def _value_of(form: Form, chosen: Written, rejected: Written, beta: float) -> float:
    return float(losses(chosen, rejected, beta, form).mean())


def _same(found: Sequence[float], expected: Sequence[float]) -> bool:
    pairs = zip(found, expected, strict=True)
    return all(math.isfinite(a) and abs(a - b) <= CLOSE * max(1.0, abs(b)) for a, b in pairs)


def _moved(model: Table, by: Tensor) -> Table:
    other = Table(0)
    other.weight.copy_(model.weight + by)
    return other
