"""DPO that looks at tokens: how many a response has, where they stand, how likely the policy would write them.

Shape suffixes: B, pairs; R, the tokens of one side's responses end to end. Log-ratios in nats. Each returns [B].
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pairtune.objectives.functions import log_sigmoid, places, token_sums
from pairtune.objectives.pairwise import dpo

if TYPE_CHECKING:
    from torch import Tensor


def dpo_norm(
    chosen_logratio_B: Tensor,
    rejected_logratio_B: Tensor,
    chosen_length_B: Tensor,
    rejected_length_B: Tensor,
    *,
    beta: float,
) -> Tensor:
    """DPO on mean log-ratios, so that a long response cannot win by its length. β is some 20 times as large as DPO's.

    −log σ(β·(Δ_w/|w| − Δ_l/|l|)): Lambert et al. 2024 (Tülu 3), arXiv 2411.15124, length-normalised DPO.

    Minimiser: Δ(y)/|y| = r(y)/β + a constant for each prompt, where labels follow Bradley–Terry with reward r; so a
    longer response moves further for the same reward.

    TRL: the same (`sigmoid_norm`).
    """
    return dpo(chosen_logratio_B / chosen_length_B, rejected_logratio_B / rejected_length_B, beta=beta)


def r_dpo(
    chosen_logratio_B: Tensor,
    rejected_logratio_B: Tensor,
    chosen_length_B: Tensor,
    rejected_length_B: Tensor,
    *,
    beta: float,
    alpha: float,
) -> Tensor:
    """Length-regularised DPO: labels are explained by the reward and by α per token, and the latter is not learned.

    −log σ(β·(Δ_w − Δ_l) + α·(|w| − |l|)): Park et al. 2024, arXiv 2403.19159, the length-regularised loss. A chosen
    response that is longer has part of its victory explained by length, and so teaches less.

    Minimiser: π ∝ π_ref·exp((r − α·|y|)/β), the optimum when every token costs α, where labels follow Bradley–Terry
    with reward r.

    TRL: not there.
    """
    return -log_sigmoid(
        beta * (chosen_logratio_B - rejected_logratio_B) + alpha * (chosen_length_B - rejected_length_B)
    )


def ld_dpo(
    chosen_logratio_R: Tensor,
    rejected_logratio_R: Tensor,
    chosen_length_B: Tensor,
    rejected_length_B: Tensor,
    *,
    beta: float,
    alpha: float,
) -> Tensor:
    """Length-desensitised DPO: tokens past the length of the shorter response count α of what the others do.

    −log σ(β·(Δ'_w − Δ'_l)), Δ' = Σ of the first min(|w|, |l|) tokens' log-ratios + α·Σ of the rest: Liu et al. 2024,
    arXiv 2409.06411, the LD-DPO loss. α = 1 is DPO.

    Minimiser: not known; where all responses are as long, DPO's.

    TRL: the same (`ld_alpha`).
    """
    common_B = chosen_length_B.minimum(rejected_length_B)

    def weighted(logratio_R: Tensor, length_B: Tensor) -> Tensor:
        common_R = places(length_B) < common_B.repeat_interleave(length_B)
        return token_sums(logratio_R.where(common_R, alpha * logratio_R), length_B)

    chosen_B, rejected_B = (
        weighted(chosen_logratio_R, chosen_length_B),
        weighted(rejected_logratio_R, rejected_length_B),
    )
    return dpo(chosen_B, rejected_B, beta=beta)


def wpo(
    chosen_logratio_B: Tensor,
    rejected_logratio_B: Tensor,
    chosen_logprob_B: Tensor,
    rejected_logprob_B: Tensor,
    chosen_collision_B: Tensor,
    rejected_collision_B: Tensor,
    chosen_length_B: Tensor,
    rejected_length_B: Tensor,
    *,
    beta: float,
) -> Tensor:
    """DPO with each pair weighted by how likely the policy would write both responses: offline pairs as if its own.

    −w(w)·w(l)·log σ(β·(Δ_w − Δ_l)), w(y) = exp(mean over tokens of log π(y_t|·) − log Σ_v π(v|·)²), no gradient through
    the weight and the product at most 1: Zhou et al. 2024, arXiv 2406.11827, eq. 2, with sampled alignment (a token
    that is as likely as a usual draw has weight 1).

    Minimiser: DPO's is a fixed point where pairs reach every response: there each pair, whatever its weight, pulls both
    ways alike.

    TRL: the same (`use_weighting`), without the bound of 1 that the authors' code has.
    """
    own_B = (chosen_logprob_B.detach() - chosen_collision_B) / chosen_length_B
    other_B = (rejected_logprob_B.detach() - rejected_collision_B) / rejected_length_B
    return (own_B + other_B).clamp(max=0).exp() * dpo(chosen_logratio_B, rejected_logratio_B, beta=beta)
