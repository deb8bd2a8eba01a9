"""Objectives that need no reference: one model in memory, and nothing to compute before the first step.

Shape suffixes: B, pairs; R, the tokens of one side's responses end to end. A log-probability is log π(y|x) in nats,
summed over tokens; `mean_length` is the mean number of tokens of the step's chosen responses. Each returns [B].
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pairtune.objectives.functions import log1m_exp, log_sigmoid, token_sums

if TYPE_CHECKING:
    from torch import Tensor


def simpo(
    chosen_logprob_B: Tensor,
    rejected_logprob_B: Tensor,
    chosen_length_B: Tensor,
    rejected_length_B: Tensor,
    *,
    beta: float,
    gamma: float,
) -> Tensor:
    """The mean log-probability per token is the reward, which is what decoding ranks by; γ is the margin to reach.

    −log σ(β·log π(w|x)/|w| − β·log π(l|x)/|l| − γ): Meng et al. 2024, arXiv 2405.14734, eq. 6. β is a scale of rewards
    and no weight of a KL: nothing holds the policy to where it started but the learning rate.

    Minimiser: with γ = 0, mean log-probabilities that differ by log(p/(1 − p))/β, p the probability that this label is
    drawn, where a policy can have them. γ stretches the differences: with z = β·difference, p·σ(γ − z) =
    (1 − p)·σ(γ + z).

    TRL: the same when its CPOTrainer is given `loss_type="simpo"` and `cpo_alpha=0`; its default of 1 adds imitation of
    the chosen response.
    """
    reward_B = chosen_logprob_B / chosen_length_B - rejected_logprob_B / rejected_length_B
    return -log_sigmoid(beta * reward_B - gamma)


def cpo(
    chosen_logprob_B: Tensor, rejected_logprob_B: Tensor, mean_length: Tensor, *, beta: float, sft_weight: float
) -> Tensor:
    """DPO with a uniform reference, and imitation of the chosen response to keep the policy in place.

    −log σ(β·(log π(w|x) − log π(l|x))) − λ·log π(w|x)/L: Xu et al. 2024, arXiv 2401.08417, eq. 3 and the behaviour
    cloning term, λ = 1 there, L the mean number of tokens of the step's chosen responses. The paper's formula has no L;
    its authors' published code takes the mean per token over a batch. Without L imitation is nearly all of the loss. β
    is the weight of KL(π‖uniform), as DPO's is of KL(π‖π_ref): a larger one spreads the policy over more responses, and
    does not hold it to where it started.

    Minimiser: with λ = 0, π ∝ exp(r/β) where labels follow Bradley–Terry with reward r: the policy with the largest
    E r − β·KL(π‖uniform). Else not known.

    TRL: the same (`cpo_alpha` is λ).
    """
    imitation_B = -chosen_logprob_B / mean_length
    return -log_sigmoid(beta * (chosen_logprob_B - rejected_logprob_B)) + sft_weight * imitation_B


def orpo(
    chosen_logprob_B: Tensor,
    rejected_logprob_B: Tensor,
    chosen_length_B: Tensor,
    rejected_length_B: Tensor,
    *,
    odds_weight: float,
) -> Tensor:
    """Imitation of the chosen response with a penalty on the odds of the rejected one: both stages in one.

    −ℓ_w − λ·log σ(log odds_w − log odds_l), ℓ = log π(y|x)/|y|, log odds = ℓ − log(1 − exp ℓ): Hong et al. 2024, arXiv
    2403.07691, eqs. 6 and 7. λ is `odds_weight`.

    Minimiser: not known.

    TRL: its imitation counts the prompt's tokens too, and is a mean over all tokens of a batch; its `beta` is λ.
    """
    chosen_B, rejected_B = chosen_logprob_B / chosen_length_B, rejected_logprob_B / rejected_length_B
    log_odds_B = chosen_B - rejected_B - (log1m_exp(chosen_B) - log1m_exp(rejected_B))
    return -chosen_B - odds_weight * log_sigmoid(log_odds_B)


def slic(chosen_logprob_B: Tensor, rejected_logprob_B: Tensor, *, delta: float, sft_weight: float) -> Tensor:
    """Calibration by a hinge on log-probabilities, with imitation of the chosen response against drift.

    max(0, δ − log π(w|x) + log π(l|x)) − λ·log π(w|x): Zhao et al. 2023, arXiv 2305.10425, the SLiC-HF loss with the
    chosen response as the regularisation's target. `hinge` is the same idea on log-ratios.

    Minimiser: not known with λ above 0; with λ = 0 and certain labels, any policy with gaps of at least δ.

    TRL: not there.
    """
    return (delta - chosen_logprob_B + rejected_logprob_B).relu() - sft_weight * chosen_logprob_B


def sft(chosen_logprob_B: Tensor, mean_length: Tensor) -> Tensor:
    """Plain imitation of the chosen response: the baseline that ignores what was rejected; in a sum, what holds it up.

    −log π(w|x)/L, L the mean number of tokens of the step's chosen responses, so over a step the mean nats per token:
    maximum likelihood, as `pairtune sft` has it. The baseline Preferred-FT of Rafailov et al. 2023, arXiv 2305.18290,
    section 6. The weight of a sum then means something: of `dpo+0.2*sft` imitation is a share like a fifth, not nearly
    all, as it would be summed over the tokens. Divided by each response's own length, as in `rpo` and `orpo`, short
    responses would count more.

    Minimiser: the distribution of chosen responses.

    TRL: the same (`sft`), so `dpo+0.2*sft` is its `["sigmoid", "sft"]` with weights 1 and 0.2.
    """
    return -chosen_logprob_B / mean_length


def unlikelihood(
    chosen_logprob_B: Tensor,
    rejected_logprob_R: Tensor,
    rejected_length_B: Tensor,
    mean_length: Tensor,
    *,
    alpha: float,
) -> Tensor:
    """Imitation of the chosen response, and every token of the rejected one made unlikely: the oldest of baselines.

    (−log π(w|x) − α·Σ_t log(1 − π(l_t|x, l_<t)))/L, L as in `sft`: Welleck et al. 2019, arXiv 1908.04319, the
    unlikelihood loss with the rejected response's tokens as negative candidates; as a baseline in Rafailov et al. 2023,
    section 6.

    Minimiser: with α = 0, the distribution of chosen responses; else not known. Tokens that both responses share are
    pushed both ways.

    TRL: not there.
    """
    unlikely_B = token_sums(log1m_exp(rejected_logprob_R), rejected_length_B)
    return -(chosen_logprob_B + alpha * unlikely_B) / mean_length
