"""Objectives on the margin of a pair: log-ratio of chosen − log-ratio of rejected.

Shape suffix: B, pairs; N, all pairs of a step. A log-ratio is log π(y|x) − log π_ref(y|x) in nats, summed over the
response's tokens, written Δ_w for the chosen response and Δ_l for the rejected one. Each returns [B].
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pairtune.objectives.functions import bounded_exp, log_sigmoid

if TYPE_CHECKING:
    from torch import Tensor


def dpo(chosen_logratio_B: Tensor, rejected_logratio_B: Tensor, *, beta: float) -> Tensor:
    """The negative log-likelihood of the pairs under Bradley–Terry when the reward is β·log-ratio.

    −log σ(β·(Δ_w − Δ_l)): Rafailov et al. 2023, arXiv 2305.18290, eq. 7. `beta` is the weight of KL(π‖π_ref) in the
    objective whose optimum this loss finds. At π = π_ref every loss is ln 2.

    Minimiser: π ∝ π_ref·exp(r/β) where labels follow Bradley–Terry with reward r and pairs reach every response. With
    certain labels there is none: the margin grows without end.

    TRL: the same (`sigmoid`), but it takes a `label_smoothing` there that this loss ignores in silence.
    """
    return -log_sigmoid(beta * (chosen_logratio_B - rejected_logratio_B))


def cdpo(chosen_logratio_B: Tensor, rejected_logratio_B: Tensor, *, beta: float, label_smoothing: float) -> Tensor:
    """DPO that believes each label only with probability 1 − ε, so no pair can pull its margin to infinity.

    −(1 − ε)·log σ(β·(Δ_w − Δ_l)) − ε·log σ(−β·(Δ_w − Δ_l)): Mitchell 2023, "A note on DPO with noisy preferences and
    relationship to IPO", the section on conservative DPO.

    Minimiser: σ(β·margin) = (1 − ε)·p + ε·(1 − p), p the probability that this label is drawn, where margins can take
    these values (always with two responses to a prompt).

    TRL: not there any more; its `sigmoid` ignores `label_smoothing`.
    """
    logit_B = beta * (chosen_logratio_B - rejected_logratio_B)
    return -(1 - label_smoothing) * log_sigmoid(logit_B) - label_smoothing * log_sigmoid(-logit_B)


def robust_dpo(
    chosen_logratio_B: Tensor, rejected_logratio_B: Tensor, *, beta: float, label_smoothing: float
) -> Tensor:
    """DPO whose mean over labels flipped at rate ε is DPO's on the true labels: for noise whose rate is known.

    (−(1 − ε)·log σ(β·(Δ_w − Δ_l)) + ε·log σ(−β·(Δ_w − Δ_l))) / (1 − 2ε): Chowdhury et al. 2024, arXiv 2403.00409, the
    rDPO loss. A single pair's loss falls without bound as its margin grows; only the mean over labels is bounded.

    Minimiser: that of DPO on the labels before they were flipped at rate ε.

    TRL: the same (`robust`).
    """
    logit_B = beta * (chosen_logratio_B - rejected_logratio_B)
    clean_B, flipped_B = -log_sigmoid(logit_B), -log_sigmoid(-logit_B)
    return ((1 - label_smoothing) * clean_B - label_smoothing * flipped_B) / (1 - 2 * label_smoothing)


def ipo(chosen_logratio_B: Tensor, rejected_logratio_B: Tensor, *, beta: float) -> Tensor:
    """Regresses the margin onto a finite target, so certain labels do not drive the policy away without limit.

    (Δ_w − Δ_l − 1/(2β))²: Azar et al. 2023, arXiv 2310.12036, eq. 17, where β is written τ. `beta` weighs KL(π‖π_ref)
    against the preference probability itself, a number between 0 and 1, not against a reward.

    Minimiser: π ∝ π_ref·exp(p(y ≻ μ)/β) when both responses are drawn from μ.

    TRL: divides each log-ratio by its response's length before the square (`ipo`), by the authors' word the form used
    in their experiments: (Δ_w/|w| − Δ_l/|l| − 1/(2β))². The equation of the paper, and this function, have the sums.
    """
    return (chosen_logratio_B - rejected_logratio_B - 1 / (2 * beta)) ** 2


def hinge(chosen_logratio_B: Tensor, rejected_logratio_B: Tensor, *, beta: float) -> Tensor:
    """A pair stops teaching once β·margin has reached 1: SLiC's hinge on DPO's implicit reward.

    max(0, 1 − β·(Δ_w − Δ_l)): Liu et al. 2023, arXiv 2309.06657, the hinge-norm loss, γ written β. At π = π_ref every
    loss is 1. `slic` is the original, without a reference.

    Minimiser: any policy whose margins are at least 1/β, with certain labels; with two responses and noisy labels,
    exactly 1/β towards the more frequent label, whatever its frequency.

    TRL: the same (`hinge`).
    """
    return (1 - beta * (chosen_logratio_B - rejected_logratio_B)).relu()


def exo(chosen_logratio_B: Tensor, rejected_logratio_B: Tensor, *, beta: float, label_smoothing: float) -> Tensor:
    """Reverse KL where DPO has forward KL: from the policy's distribution over the pair to the smoothed label's.

    KL(q‖p) with q = (σ(β·(Δ_w − Δ_l)), the rest) and p = (1 − ε, ε): Ji et al. 2024, arXiv 2402.00856, eq. 16 with two
    responses (EXO-pref). ε must be above 0, or KL(q‖p) is infinite.

    Minimiser: β·margin = (2p − 1)·log((1 − ε)/ε), p the probability that this label is drawn, where margins can take
    these values (always with two responses to a prompt).

    TRL: the same (`exo_pair`); with its default `label_smoothing` of 0 the loss is infinite.
    """
    logit_B = beta * (chosen_logratio_B - rejected_logratio_B)
    smoothing = logit_B.new_tensor(label_smoothing)
    chosen_B = logit_B.sigmoid() * (log_sigmoid(logit_B) - (-smoothing).log1p())
    return chosen_B + (-logit_B).sigmoid() * (log_sigmoid(-logit_B) - smoothing.log())


def discopop(chosen_logratio_B: Tensor, rejected_logratio_B: Tensor, *, beta: float, tau: float) -> Tensor:
    """A blend of DPO's loss below the reference's margin and of exp(−β·margin) above it, found by program search.

    (1 − σ(z/τ))·(−log σ(z)) + σ(z/τ)·exp(−z) with z = β·(Δ_w − Δ_l): Lu et al. 2024, arXiv 2406.08414, eq. 5
    (log-ratio modulated loss). It is not convex. With τ = 0.05 there is a local minimum at z = −0.12, and at π = π_ref
    the loss falls towards it: a pair's margin goes down first, and a small or slow run may end there, with the rejected
    response ahead. Take a larger τ, from 0.11 on, to begin upwards.

    Minimiser: not known; certain labels have none.

    TRL: the same (`discopop`), but exp(−z)·σ(z/τ) is ∞·0 = NaN there for margins far below 0; here it is one exponent.
    """
    logit_B = beta * (chosen_logratio_B - rejected_logratio_B)
    exponential_B = bounded_exp(log_sigmoid(logit_B / tau) - logit_B)
    return -(-logit_B / tau).sigmoid() * log_sigmoid(logit_B) + exponential_B


def beta_dpo(
    chosen_logratio_N: Tensor,
    rejected_logratio_N: Tensor,
    past_margin: Tensor,
    weight_N: Tensor | None = None,
    *,
    beta: float,
    alpha: float,
) -> Tensor:
    """DPO whose β follows the batch: larger where margins are above their moving average, smaller below it.

    −log σ(β'·(Δ_w − Δ_l)) with β' = β·(1 + α·(mean margin of the batch − M₀)), no gradient through β': Wu et al. 2024,
    arXiv 2407.08639, batch-level calibration. M₀ is a moving average of earlier steps' mean margins; β' is at least
    β/1000. The paper's other half, drawing which pairs of a batch to train on, is no loss and is left out.

    Minimiser: that of DPO at the β' where margins no longer move, which is `beta` itself.

    TRL: not there. The authors' code takes the batch into M₀ before the difference, which is then 0.9 times as large.
    """
    margin_N = chosen_logratio_N - rejected_logratio_N
    now_N = margin_N.detach()
    now = now_N.mean() if weight_N is None else (weight_N * now_N).sum() / weight_N.sum()
    factor = (1 + alpha * (now - past_margin)).clamp(min=1e-3)
    return -log_sigmoid(beta * factor * margin_N)
