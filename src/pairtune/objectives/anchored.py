"""Objectives on pairs that say where each log-ratio should be, not only how far apart the two are.

DPO is content when both fall, as long as the rejected one falls faster; these are not. Shape suffix: B, pairs. Δ_w and
Δ_l are the log-ratios of the chosen and the rejected response, in nats, summed over tokens. Each returns [B].
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pairtune.objectives.functions import log_sigmoid
from pairtune.objectives.pairwise import dpo

if TYPE_CHECKING:
    from torch import Tensor


def sppo(chosen_logratio_B: Tensor, rejected_logratio_B: Tensor, *, beta: float) -> Tensor:
    """One step of self-play: the log-ratio of each response is regressed onto how often it wins, winning being 1 or 0.

    (Δ_w − 1/(2β))² + (Δ_l + 1/(2β))²: Wu et al. 2024, arXiv 2405.00675, eq. 4.7 with P = 1 for the chosen response and
    0 for the rejected one, β written 1/η. The paper estimates P by a preference model over several samples.

    Minimiser: Δ(y) = (2·p(y) − 1)/(2β), p the share of its pairs that y wins, where a policy that sums to 1 can have
    these log-ratios.

    TRL: the same (`sppo_hard`).
    """
    return (chosen_logratio_B - 0.5 / beta) ** 2 + (rejected_logratio_B + 0.5 / beta) ** 2


def nca(chosen_logratio_B: Tensor, rejected_logratio_B: Tensor, *, beta: float) -> Tensor:
    """Tells the chosen response from a draw of the pair by noise contrast: rewards are fixed, not only differences.

    −log σ(β·Δ_w) − ½·log σ(−β·Δ_w) − ½·log σ(−β·Δ_l): Chen et al. 2024, arXiv 2402.05369, the NCA loss for two
    responses. At π = π_ref every loss is 2·ln 2.

    Minimiser: β·Δ(y) = log(2·p(y)), p the share of its pairs that y wins, where a policy can have these log-ratios.
    With β = 1 and pairs drawn from π_ref it always can: π is the distribution of winners.

    TRL: the same (`nca_pair`).
    """
    chosen_B, rejected_B = beta * chosen_logratio_B, beta * rejected_logratio_B
    return -log_sigmoid(chosen_B) - 0.5 * log_sigmoid(-chosen_B) - 0.5 * log_sigmoid(-rejected_B)


def apo_zero(chosen_logratio_B: Tensor, rejected_logratio_B: Tensor, *, beta: float) -> Tensor:
    """Raises the chosen response and lowers the rejected one, each by itself: for chosen ones better than the model's.

    1 − σ(β·Δ_w) + σ(β·Δ_l): D'Oosterlinck et al. 2024, arXiv 2408.06266, eq. 7. At π = π_ref every loss is 1.

    Minimiser: none that is finite: probability moves without end to the responses that win more than half their pairs.

    TRL: the same (`apo_zero`).
    """
    return (-beta * chosen_logratio_B).sigmoid() + (beta * rejected_logratio_B).sigmoid()


def apo_down(chosen_logratio_B: Tensor, rejected_logratio_B: Tensor, *, beta: float) -> Tensor:
    """Lowers both responses, the rejected one more: for chosen responses that are worse than the model's own.

    σ(β·Δ_w) + 1 − σ(β·(Δ_w − Δ_l)): D'Oosterlinck et al. 2024, arXiv 2408.06266, eq. 8. At π = π_ref every loss is 1.

    Minimiser: not known in closed form. With two responses to a prompt there is none that is finite at β = 0.1, and a
    finite one at β = 3.

    TRL: the same (`apo_down`).
    """
    return (beta * chosen_logratio_B).sigmoid() + (-beta * (chosen_logratio_B - rejected_logratio_B)).sigmoid()


def dpop(chosen_logratio_B: Tensor, rejected_logratio_B: Tensor, *, beta: float, penalty: float) -> Tensor:
    """DPO-Positive: the margin counts less by λ for every nat that the chosen response has lost to the reference.

    −log σ(β·(Δ_w − Δ_l − λ·max(0, −Δ_w))): Pal et al. 2024, arXiv 2402.13228, the DPOP loss. For pairs that differ in
    few tokens, where DPO lowers both responses.

    Minimiser: that of DPO if no response falls below the reference there; else not known.

    TRL: not there.
    """
    lost_B = (-chosen_logratio_B).relu()
    return -log_sigmoid(beta * (chosen_logratio_B - rejected_logratio_B - penalty * lost_B))


def cal_dpo(chosen_logratio_B: Tensor, rejected_logratio_B: Tensor, *, beta: float) -> Tensor:
    """Calibrated DPO: the loss on the margin, and a pull of each log-ratio to +1/(2β) or −1/(2β).

    −log σ(Δ_w − Δ_l) + (Δ_w − 1/(2β))² + (Δ_l + 1/(2β))²: Xiao et al. 2024, arXiv 2412.14516, the Cal-DPO objective.
    β is in the targets only; the first term has the bare margin.

    Minimiser: not known in closed form; the paper proves that the calibrated loss bounds a reverse KL to the optimum.

    TRL: not there.
    """
    return dpo(chosen_logratio_B, rejected_logratio_B, beta=1.0) + sppo(
        chosen_logratio_B, rejected_logratio_B, beta=beta
    )


def rpo(
    chosen_logratio_B: Tensor,
    rejected_logratio_B: Tensor,
    chosen_logprob_B: Tensor,
    chosen_length_B: Tensor,
    *,
    beta: float,
    alpha: float,
) -> Tensor:
    """Imitation of the chosen response and DPO together: keeps its probability from falling. For chains of reasoning.

    −log π(w|x)/|w| − α·log σ(β·(Δ_w − Δ_l)): Pang et al. 2024, arXiv 2404.19733, the DPO+NLL loss.

    Minimiser: not known in closed form; imitation alone ends at the distribution of winners, DPO at its own optimum.

    TRL: `rpo_alpha` was the weight of the other term, the imitation; today it is the sum of `sigmoid` and `sft`. Its
    imitation is a mean over all tokens of a batch, so long responses count more; the paper's is a mean per response.
    """
    imitation_B = -chosen_logprob_B / chosen_length_B
    return imitation_B + alpha * dpo(chosen_logratio_B, rejected_logratio_B, beta=beta)
