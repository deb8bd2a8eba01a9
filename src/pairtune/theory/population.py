"""Any objective's exact expected loss over a pair law, its gradient, and its minimiser over all policies.

Shape suffixes: X, prompts; Y, responses; W and L, chosen and rejected response; B, the pairs of a batch; N = X·Y, a
table laid flat. A policy is written π ∝ π_ref·exp(u): `u_XY` is the unknown and u = 0 is the reference.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize as scipy_minimize
from scipy.special import expit

from pairtune.theory.optimum import advantage
from pairtune.theory.world import Array, World, objective, tilt

NEWTON_STEPS = 30
STILL = 1e-3  # a Newton step below this share of u is rounding; on the way to infinity it stays near a thirtieth
FLAT = 1e-13  # directions whose curvature is below this share of the largest are flat: no Newton step goes there


class MarginLoss(NamedTuple):
    """A loss of one pair that depends on its margin alone, and its two derivatives, each element by element."""

    value: Callable[[Array], Array]
    slope: Callable[[Array], Array]
    curvature: Callable[[Array], Array]


def softplus(z: Array) -> Array:
    """log(1 + exp(z)) = −log σ(−z) without overflow, for real z or a complex step."""
    positive = z.real > 0
    result: Array = np.where(positive, z, 0) + np.log1p(np.exp(np.where(positive, -z, z)))
    return result


def dpo(*, beta: float) -> MarginLoss:
    """−log σ(β·margin), in nats: Rafailov et al. 2023, arXiv 2305.18290, eq. 7."""
    return MarginLoss(
        value=lambda margin: softplus(-beta * margin),
        slope=lambda margin: -beta * expit(-beta * margin),
        curvature=lambda margin: beta**2 * expit(beta * margin) * expit(-beta * margin),
    )


def ipo(*, beta: float) -> MarginLoss:
    """(margin − 1/(2β))²: Azar et al. 2023, arXiv 2310.12036, eq. 17, where β is written τ."""
    return MarginLoss(
        value=lambda margin: (margin - 1 / (2 * beta)) ** 2,
        slope=lambda margin: 2 * (margin - 1 / (2 * beta)),
        curvature=lambda margin: np.full_like(margin, 2.0),
    )


def margins(score_XY: Array) -> Array:
    """score(w) − score(l) for each ordered pair [X, W, L]. Anything added to a whole row, such as log Z, cancels."""
    result: Array = score_XY[:, :, None] - score_XY[:, None, :]
    return result


def expected_loss(loss: MarginLoss, logratio_XY: Array, weight_XWL: Array) -> Array:
    """Σ_{x,w,l} weight·loss(margin): the loss of the whole pair law, as a sum. Returns a scalar."""
    result: Array = (weight_XWL * loss.value(margins(logratio_XY))).sum()
    return result


@dataclass(frozen=True, kw_only=True)
class Problem:
    """What a minimiser needs of a function of u [X, Y]: its value, its gradient [X, Y], its Hessian [N, N]."""

    value: Callable[[Array], float]
    gradient: Callable[[Array], Array]
    hessian: Callable[[Array], Array]


def on_margins(loss: MarginLoss, weight_XWL: Array) -> Problem:
    """The expected loss of a pair law; the softmax's normaliser cancels in a margin, so u stands for the log-ratio."""

    def gradient(u_XY: Array) -> Array:
        pull_XWL = weight_XWL * loss.slope(margins(u_XY))
        result: Array = pull_XWL.sum(axis=2) - pull_XWL.sum(axis=1)
        return result

    def hessian(u_XY: Array) -> Array:
        bend_XWL = weight_XWL * loss.curvature(margins(u_XY))
        bend_XYY = bend_XWL + bend_XWL.swapaxes(1, 2)
        return block_diagonal(bend_XYY.sum(axis=2)[:, :, None] * np.eye(u_XY.shape[1]) - bend_XYY)

    return Problem(value=lambda u_XY: float(expected_loss(loss, u_XY, weight_XWL)), gradient=gradient, hessian=hessian)


def on_rlhf(world: World) -> Problem:
    """Minus the KL-constrained objective, averaged over prompts: what PPO would descend if its sums were exact."""

    def gradient(u_XY: Array) -> Array:
        policy_XY = tilt(world.reference_XY, u_XY)
        result: Array = -world.prompt_X[:, None] * policy_XY * advantage(world, policy_XY)
        return result

    def hessian(u_XY: Array) -> Array:
        policy_XY = tilt(world.reference_XY, u_XY)
        slope_XY, eye_YY = policy_XY * advantage(world, policy_XY), np.eye(u_XY.shape[1])
        cross_XYY = slope_XY[:, :, None] * policy_XY[:, None, :]
        spread_XYY = policy_XY[:, :, None] * (eye_YY - policy_XY[:, None, :])
        bend_XYY = slope_XY[:, :, None] * eye_YY - cross_XYY - cross_XYY.swapaxes(1, 2) - world.beta * spread_XYY
        return block_diagonal(-world.prompt_X[:, None, None] * bend_XYY)

    def value(u_XY: Array) -> float:
        return -float(world.prompt_X @ objective(world, tilt(world.reference_XY, u_XY)))

    return Problem(value=value, gradient=gradient, hessian=hessian)


def catalogued(
    name: str,
    weight_XWL: Array,
    reference_XY: Array,
    *,
    length_XY: Array | None = None,
    kl_baseline: float = 0.0,
    past_logratio: float = 0.0,
    **parameters: float,
) -> Problem:
    """The expected loss of any objective of the catalogue, or of a sum of them, differentiated by torch in float64.

    `parameters` replace the catalogue's defaults. A response has `length_XY` tokens (one if that is not given), all as
    likely as each other. The numbers of a step are held fixed. Raises ValueError on a name or a parameter not in the
    catalogue, and on an objective that mixes the pairs of a step, which no sum over a pair law can express.
    """
    import torch  # heavy, and needed only for a loss that is written in torch

    from pairtune.objectives.loss import loss_of
    from pairtune.objectives.quantities import quantities

    loss = loss_of(name, parameters)
    if loss.whole_step:
        raise ValueError(f"{name} mixes the pairs of a step; its expected loss is no sum over pairs")
    sides = np.stack(np.nonzero(weight_XWL))  # [3, B]: prompt, chosen, rejected
    weight_B = torch.from_numpy(weight_XWL[tuple(sides)])
    prompt_S, response_S = np.repeat(sides[0], 2), sides[1:].T.ravel()
    ones_XY = np.ones(reference_XY.shape, dtype=int)
    length_S = torch.from_numpy((ones_XY if length_XY is None else length_XY)[prompt_S, response_S])
    label_S = torch.tensor([True, False]).repeat(len(weight_B))
    log_reference_XY = torch.from_numpy(np.log(reference_XY))
    numbers = {
        "kl_baseline": torch.tensor(kl_baseline),
        "past_logratio": torch.tensor(past_logratio),
        "mean_length": (weight_B * length_S[label_S]).sum() / weight_B.sum(),
    }

    def tokens(table_XY: torch.Tensor) -> torch.Tensor:
        return (table_XY[prompt_S, response_S] / length_S).repeat_interleave(length_S)

    def mean_loss(u_XY: torch.Tensor) -> torch.Tensor:
        policy_XY = torch.log_softmax(log_reference_XY + u_XY, dim=-1)
        collision_XY = (2 * policy_XY.detach()).logsumexp(-1, keepdim=True).expand_as(policy_XY)
        tables = {"logprob": policy_XY, "reference": log_reference_XY, "collision": collision_XY}
        values = {name: tokens(table_XY) for name, table_XY in tables.items()}
        return (weight_B * loss(quantities(loss.arguments, values, length_S, label_S, numbers))).sum()

    def gradient(u_XY: Array) -> Array:
        leaf_XY = torch.tensor(u_XY, dtype=torch.float64, requires_grad=True)
        mean_loss(leaf_XY).backward()
        assert leaf_XY.grad is not None
        return leaf_XY.grad.numpy()

    def hessian(u_XY: Array) -> Array:
        point_XY = torch.tensor(u_XY, dtype=torch.float64)
        table = torch.autograd.functional.hessian(mean_loss, point_XY)
        return np.asarray(table).reshape(u_XY.size, u_XY.size)

    return Problem(
        value=lambda u_XY: float(mean_loss(torch.tensor(u_XY, dtype=torch.float64))),
        gradient=gradient,
        hessian=hessian,
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Minimum:
    """Where a minimisation ended.

    `logratio_XY` is u: the log-ratio up to a constant per prompt. `gradient` is the largest slope left, `newton_step`
    how far one more Newton step would move u. `attained` says that this is a minimum and not a stop on the way to
    infinity, where the slope is tiny as well; see `is_attained`.
    """

    logratio_XY: Array
    value: float
    gradient: float
    newton_step: float
    attained: bool


def minimise(problem: Problem, start_XY: Array) -> Minimum:
    """The minimiser reached from a start: scipy's trust-region Newton method, then Newton steps down to rounding.

    scipy compares values, so it stops at the square root of rounding; the last steps compare gradients. Both move only
    where the loss has a slope, so what no pair constrains stays where it started.
    """
    shape, options = start_XY.shape, {"gtol": 1e-8, "max_trust_radius": 10.0, "maxiter": 1000}
    found = scipy_minimize(
        lambda flat_N: problem.value(flat_N.reshape(shape)),
        start_XY.ravel(),
        jac=lambda flat_N: problem.gradient(flat_N.reshape(shape)).ravel(),
        hess=lambda flat_N: problem.hessian(flat_N.reshape(shape)),
        method="trust-ncg",
        options=options,
    )
    u_XY: Array = found.x.reshape(shape)
    value, gradient_XY = problem.value(u_XY), problem.gradient(u_XY)
    for _ in range(NEWTON_STEPS):
        ahead_XY = u_XY + newton_step(problem, u_XY, gradient_XY)
        value_there, gradient_there_XY = problem.value(ahead_XY), problem.gradient(ahead_XY)
        uphill = value_there > value + 1e-14 * (1 + abs(value))
        if uphill or not np.abs(gradient_there_XY).max() < np.abs(gradient_XY).max():
            break
        u_XY, value, gradient_XY = ahead_XY, value_there, gradient_there_XY
    step_XY = newton_step(problem, u_XY, gradient_XY)
    return Minimum(
        logratio_XY=u_XY,
        value=value,
        gradient=float(np.abs(gradient_XY).max()),
        newton_step=float(np.abs(step_XY).max()),
        attained=is_attained(problem, start_XY, u_XY, gradient_XY, step_XY),
    )


def is_attained(problem: Problem, start_XY: Array, u_XY: Array, gradient_XY: Array, step_XY: Array) -> bool:
    """Whether u is a minimum: no slope, no Newton step left, no downward curvature, and nothing lost in flat land.

    A loss that falls all the way to infinity ends with a tiny slope too, but then either the Newton steps are still
    long, or u has gone far in a direction that has become flat. A direction that was flat from the start has not moved.
    A minimum that is itself almost flat may be called not attained; the opposite error is the one to avoid.
    """
    curvature_N, direction_NN = np.linalg.eigh(problem.hessian(u_XY))
    flat_N = curvature_N <= FLAT * curvature_N.max()
    strayed_N = (u_XY - start_XY).ravel() @ direction_NN[:, flat_N]
    size = 1 + np.abs(u_XY).max()
    return bool(
        np.abs(gradient_XY).max() <= 1e-10
        and np.abs(step_XY).max() <= STILL * size
        and curvature_N.min() >= -1e-9 * max(curvature_N.max(), 0.0)
        and np.abs(strayed_N).max(initial=0.0) <= 1e-6 * size
    )


def newton_step(problem: Problem, u_XY: Array, gradient_XY: Array) -> Array:
    """The shortest step [X, Y] that would take the gradient to zero if the Hessian stayed as it is."""
    step_N = np.linalg.lstsq(problem.hessian(u_XY), -gradient_XY.ravel(), rcond=FLAT)[0]
    result: Array = step_N.reshape(u_XY.shape)
    return result


def block_diagonal(block_XYY: Array) -> Array:
    """One block per prompt, since no prompt's policy touches another's: [X, Y, Y] to [N, N]."""
    prompts, responses, _ = block_XYY.shape
    full_XYXY = np.zeros((prompts, responses, prompts, responses))
    full_XYXY[np.arange(prompts), :, np.arange(prompts), :] = block_XYY
    return full_XYXY.reshape(prompts * responses, prompts * responses)
