"""DPO for other divergences than KL(π‖π_ref): the reward hidden in a policy is β·f'(π/π_ref) instead of β·log(π/π_ref).

All are −log σ(β·(f'(u_w) − f'(u_l))) with u = exp(Δ) the density ratio of a response: Wang et al. 2023, arXiv
2309.16240, theorem 1. With reverse KL, f'(u) = log u + 1, that is `dpo` itself. Their minimiser is the policy with
f'(π/π_ref) = r/β + a constant for each prompt: the best for the reward r when the penalty is β times that divergence.

Shape suffix: B, pairs. Log-ratios in nats, summed over tokens. Each returns [B]. Where exp would overflow, at 20 nats
and more in favour of the reference, it goes on as its tangent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pairtune.objectives.functions import bounded_exp, log_sigmoid

if TYPE_CHECKING:
    from torch import Tensor


def fdpo_forward_kl(chosen_logratio_B: Tensor, rejected_logratio_B: Tensor, *, beta: float) -> Tensor:
    """f-DPO with forward KL, KL(π_ref‖π), which covers every mode of the reference: f'(u) = −1/u.

    −log σ(β·(exp(−Δ_l) − exp(−Δ_w))): Wang et al. 2023, arXiv 2309.16240, theorem 1 with forward KL. It cares most
    for responses that the policy has lost, exponentially.

    Minimiser: π = π_ref·β/(c − r), c a constant for each prompt, where labels follow Bradley–Terry with reward r.

    TRL: the same (`f_divergence_type="forward_kl"`), without a bound on the exponent.
    """
    return -log_sigmoid(beta * (bounded_exp(-rejected_logratio_B) - bounded_exp(-chosen_logratio_B)))


def fdpo_js(chosen_logratio_B: Tensor, rejected_logratio_B: Tensor, *, beta: float) -> Tensor:
    """f-DPO with the Jensen–Shannon divergence, between the two KLs: f'(u) = log(2u/(1 + u)), bounded above by log 2.

    −log σ(β·(log σ(Δ_w) − log σ(Δ_l))): Wang et al. 2023, arXiv 2309.16240, theorem 1 with Jensen–Shannon (log 2
    cancels).

    Minimiser: log(2u/(1 + u)) = r/β + c, u = π/π_ref, where labels follow Bradley–Terry with reward r.

    TRL: the same (`f_divergence_type="js_divergence"`).
    """
    return -log_sigmoid(beta * (log_sigmoid(chosen_logratio_B) - log_sigmoid(rejected_logratio_B)))


def fdpo_alpha(chosen_logratio_B: Tensor, rejected_logratio_B: Tensor, *, beta: float, alpha: float) -> Tensor:
    """f-DPO with an α-divergence, from reverse KL (α near 0) to forward KL (α = 1): f'(u) = (1 − u^−α)/α.

    −log σ(β·(exp(−α·Δ_l) − exp(−α·Δ_w))/α): Wang et al. 2023, arXiv 2309.16240, theorem 1 with α-divergence.

    Minimiser: (1 − u^−α)/α = r/β + c, u = π/π_ref, where labels follow Bradley–Terry with reward r.

    TRL: the same (`f_divergence_type="alpha_divergence"`), its coefficient being 1 − α: f'(u) = (u^(a−1) − 1)/(a − 1),
    so that its default a = 0.5 is α = 0.5 here, and a = 1 is reverse KL. Its exponent stops at 80 nats, where the
    gradient vanishes.
    """
    return -log_sigmoid(
        beta * (bounded_exp(-alpha * rejected_logratio_B) - bounded_exp(-alpha * chosen_logratio_B)) / alpha
    )
