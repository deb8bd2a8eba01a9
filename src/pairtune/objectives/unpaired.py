"""Objectives on single responses with a label, desirable or not; a pair serves as one of each.

Shape suffix: B, responses. `label_B` is True where the response is desirable; `logratio_B` is Δ, its log-ratio in nats,
summed over tokens. Each returns [B], one loss per response; the loss of a pair is the mean of its two.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pairtune.objectives.functions import log_sigmoid

if TYPE_CHECKING:
    from torch import Tensor


def kto(
    logratio_B: Tensor,
    label_B: Tensor,
    kl_baseline: Tensor,
    *,
    beta: float,
    desirable_weight: float,
    undesirable_weight: float,
) -> Tensor:
    """Kahneman–Tversky: the value of a response saturates in gains and in losses, seen from where the policy now is.

    λ_D·(1 − σ(β·(Δ − z₀))) if desirable, λ_U·(1 − σ(β·(z₀ − Δ))) if not, z₀ = max(0, mean Δ of the step's prompts with
    responses to other prompts), no gradient through it: Ethayarajh et al. 2024, arXiv 2402.01306, the KTO loss. z₀
    estimates KL(π‖π_ref). At π = π_ref every loss is λ/2.

    Minimiser: none that is finite: a response whose desirable weight is larger rises without end, others fall; noisy
    labels are outvoted, not averaged.

    TRL: the same formula. It takes pairs apart into all chosen responses of a thousand pairs, then all rejected ones,
    and keeps that order, so a batch has one label only. Here a step of pairs has both of each, and single responses
    are laid so that every step has its share of either label. Its mismatched response is that of the row before in the
    same batch; here each prompt keeps a response to another prompt for the whole run, so that the reference's part is
    computed once.
    """
    gain_B = beta * (logratio_B - kl_baseline)
    return (desirable_weight * (-gain_B).sigmoid()).where(label_B, undesirable_weight * gain_B.sigmoid())


def bco(logratio_B: Tensor, label_B: Tensor, past_logratio: Tensor, *, beta: float) -> Tensor:
    """Binary classifier: logistic regression of the label on β·log-ratio, shifted to where the two classes meet.

    −log σ(β·(Δ − δ)) if desirable, −log σ(−β·(Δ − δ)) if not, δ = ½(mean Δ of desirable + mean Δ of undesirable), a
    moving average over steps, no gradient through it: Jung et al. 2024, arXiv 2404.04656, the BCO loss with its reward
    shift. The two losses of a pair bound DPO's from above. Weighting for different prompts of the two classes is left
    out.

    Minimiser: π(y) ∝ π_ref(y)·(p/(1 − p))^(1/β), p the share of y's labels that are desirable, if δ is the one at
    which this sums to 1.

    TRL: `bco_pair` of its DPOTrainer has no δ: −log σ(β·Δ_w) − log σ(−β·Δ_l). Its BCOTrainer, gone by 1.16, averaged δ
    over all responses seen, the current ones included.
    """
    logit_B = beta * (logratio_B - past_logratio)
    return -log_sigmoid(logit_B.where(label_B, -logit_B))
