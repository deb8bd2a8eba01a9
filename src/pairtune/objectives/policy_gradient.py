"""The parts of PPO, RLOO and GRPO as pure functions: rewards, advantages, the clipped objectives.

Everything is ragged: B responses laid end to end as R tokens, `lengths` [B] saying where each ends, so no function
can count a padded token. Where K answers share each of P prompts, they lie side by side, [P, K]. Log-probabilities in
nats. Source, unless said otherwise: Schulman et al. 2017, arXiv 1707.06347, and Huang et al. 2023, "The N
implementation details of RLHF with PPO".
"""

from typing import NamedTuple

import torch
from torch import Tensor


def token_rewards(
    score_B: Tensor, logprob_R: Tensor, reference_R: Tensor, lengths_B: Tensor, *, kl_coefficient: float
) -> Tensor:
    """−c·(log π − log π_ref) at every token, and the answer's score at its last: [R] (Ziegler et al. 2019, eq. 2)."""
    reward_R = -kl_coefficient * (logprob_R - reference_R)
    last_B = lengths_B.cumsum(0) - 1
    return reward_R.index_add(0, last_B, score_B.to(reward_R.dtype))


def advantages(
    reward_R: Tensor, value_R: Tensor, lengths_B: Tensor, *, discount: float, gae_lambda: float
) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimation (Schulman et al. 2015, arXiv 1506.02438, eq. 16), and the returns A + V: [R].

    The value after an answer's last token is 0: the episode is over, ended or cut.
    """
    longest = max(lengths_B.tolist(), default=0)
    real_BL = torch.arange(longest, device=lengths_B.device) < lengths_B[:, None]
    reward_BL, value_BL = (x.new_zeros(real_BL.shape).masked_scatter(real_BL, x) for x in (reward_R, value_R))
    next_value_BL = torch.cat((value_BL[:, 1:], value_BL.new_zeros(len(value_BL), min(longest, 1))), dim=1)
    delta_BL = reward_BL + discount * next_value_BL - value_BL
    advantage_BL = torch.zeros_like(delta_BL)
    following_B = delta_BL.new_zeros(len(lengths_B))
    for t in reversed(range(longest)):  # behind an answer's end all is 0, and stays so
        following_B = delta_BL[:, t] + discount * gae_lambda * following_B
        advantage_BL[:, t] = following_B
    advantage_R = advantage_BL[real_BL]
    return advantage_R, advantage_R + value_R


def rewards_to_go(reward_R: Tensor, lengths_B: Tensor, *, discount: float) -> Tensor:
    """Σ_k γ^k·r_{t+k} to each answer's end: the returns that no value model has a part in, [R]."""
    return advantages(reward_R, torch.zeros_like(reward_R), lengths_B, discount=discount, gae_lambda=1.0)[1]


def whiten(values_R: Tensor) -> Tensor:
    """Shift to mean 0 and scale to standard deviation 1: for advantages."""
    return (values_R - values_R.mean()) * torch.rsqrt(values_R.var(unbiased=False) + 1e-8)


class Clipped(NamedTuple):
    """A loss per token, and whether the clipped branch was the one that counted."""

    loss_R: Tensor
    clipped_R: Tensor


def clipped_policy_loss(logprob_R: Tensor, old_R: Tensor, advantage_R: Tensor, *, clip: float) -> Clipped:
    """−min(ρA, clip(ρ, 1−ε, 1+ε)A) with ρ = π/π_old: Schulman et al. 2017, eq. 7. Returns [R]."""
    ratio_R = (logprob_R - old_R).exp()
    plain_R = -ratio_R * advantage_R
    clipped_R = -ratio_R.clamp(1 - clip, 1 + clip) * advantage_R
    return Clipped(torch.maximum(plain_R, clipped_R), (clipped_R > plain_R).detach())


def clipped_value_loss(value_R: Tensor, old_value_R: Tensor, return_R: Tensor, *, clip: float) -> Clipped:
    """½·max((V − G)², (clip(V, V_old ± ε) − G)²): the value may not run away from the old one. Returns [R]."""
    near_R = old_value_R + (value_R - old_value_R).clamp(-clip, clip)
    plain_R, clipped_R = (value_R - return_R) ** 2, (near_R - return_R) ** 2
    return Clipped(0.5 * torch.maximum(plain_R, clipped_R), (clipped_R > plain_R).detach())


def explained_variance(value_R: Tensor, return_R: Tensor) -> float:
    """1 − Var(G − V)/Var(G): 1 for values that foretell returns, 0 for a constant, less for worse; 0 if Var(G) is."""
    spread = float(return_R.var(unbiased=False))
    return 1 - float((return_R - value_R).var(unbiased=False)) / spread if spread > 0 else 0.0


def adapted_kl_coefficient(
    coefficient: float, kl: float, *, target: float, answers: int, horizon: int = 10_000
) -> float:
    """The adaptive controller of Ziegler et al. 2019, §2.2: a proportional error clipped to ±0.2."""
    error = min(max(kl / target - 1, -0.2), 0.2)
    return coefficient * (1 + error * answers / horizon)


def leave_one_out(reward_PK: Tensor) -> Tensor:
    """R_i − mean of the other answers' rewards: [P, K], K ≥ 2 (Ahmadian et al. 2024, arXiv 2402.14740, eq. 8).

    The others' mean does not depend on answer i, so Σ_i A_i·∇log π(y_i)/K has the policy gradient's very expectation.
    """
    others = reward_PK.shape[1] - 1
    advantage_PK = reward_PK - (reward_PK.sum(1, keepdim=True) - reward_PK) / others
    return advantage_PK.masked_fill(~told_apart(reward_PK)[:, None], 0.0)


def group_relative(reward_PK: Tensor, *, by_deviation: bool) -> Tensor:
    """R_i − mean of the prompt's answers, divided by their standard deviation if asked: [P, K], K ≥ 2.

    With the division: Shao et al. 2024, arXiv 2402.03300, §4.1.2 (the deviation of a sample, K − 1). Without: Liu et
    al. 2025, arXiv 2503.20783, eq. 3, and (K − 1)/K of `leave_one_out`; the division makes a prompt count more
    the less its answers' rewards differ. Of equal rewards, every advantage is 0.
    """
    advantage_PK = reward_PK - reward_PK.mean(1, keepdim=True)
    if by_deviation:
        advantage_PK = advantage_PK / (reward_PK.std(1, keepdim=True) + 1e-6)
    return advantage_PK.masked_fill(~told_apart(reward_PK)[:, None], 0.0)


def told_apart(reward_PK: Tensor) -> Tensor:
    """Whether a prompt's answers have rewards that differ: bool [P]. Where they do not, there is nothing to learn."""
    return reward_PK.amax(1) > reward_PK.amin(1)


def kl_of_tokens(logprob_R: Tensor, reference_R: Tensor) -> Tensor:
    """π_ref/π − log(π_ref/π) − 1 at each token drawn, the KL term of GRPO: [R] (Shao et al. 2024, eq. 4).

    Its mean over answers of π is KL(π‖π_ref); the mean of its *gradient* there is that of KL(π_ref‖π) of each token's
    distribution, for what is sampled is not differentiated (Tang & Munos 2025, arXiv 2506.09477).
    """
    difference_R = reference_R - logprob_R
    return difference_R.expm1() - difference_R
