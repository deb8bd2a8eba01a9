"""Alignment by optimal transport: the whole distribution of a batch's log-ratios is compared, not pair by pair.

In one dimension optimal transport sorts: the i-th smallest of one side is matched with the i-th smallest of the other.
Shape suffix: N, all pairs of an optimiser step. Log-ratios in nats, summed over tokens. Each returns [N], in the order
of the sorted values. Both are from Melnyk et al. 2024, arXiv 2406.05882, with the logistic loss.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pairtune.objectives.pairwise import cdpo

if TYPE_CHECKING:
    from torch import Tensor


def aot_unpaired(
    chosen_logratio_N: Tensor, rejected_logratio_N: Tensor, *, beta: float, label_smoothing: float
) -> Tensor:
    """AOT on unpaired data: log-ratios of chosen responses should dominate those of rejected ones as a distribution.

    Mean over i of the loss on β·(sorted Δ_w[i] − sorted Δ_l[i]): Melnyk et al. 2024, arXiv 2406.05882, unpaired AOT.
    Which responses belong to one prompt does not matter.

    Minimiser: not known in closed form; it is DPO's loss on other pairs, so certain labels have none.

    TRL: the same (`aot_unpaired`), on one device's micro-batch; here on the whole step.
    """
    return cdpo(
        chosen_logratio_N.sort().values, rejected_logratio_N.sort().values, beta=beta, label_smoothing=label_smoothing
    )


def aot_paired(
    chosen_logprob_N: Tensor,
    rejected_logprob_N: Tensor,
    chosen_reference_N: Tensor,
    rejected_reference_N: Tensor,
    *,
    beta: float,
    label_smoothing: float,
) -> Tensor:
    """AOT on pairs: the policy's gaps log π(w) − log π(l) should dominate the reference's as a distribution.

    Mean over i of the loss on β·(sorted gap of π[i] − sorted gap of π_ref[i]): Melnyk et al. 2024, arXiv 2406.05882,
    paired AOT. A batch of one pair is DPO.

    Minimiser: not known in closed form; certain labels have none.

    TRL: the same (`aot`), on one device's micro-batch; here on the whole step.
    """
    policy_N = (chosen_logprob_N - rejected_logprob_N).sort().values
    reference_N = (chosen_reference_N - rejected_reference_N).sort().values
    return cdpo(policy_N, reference_N, beta=beta, label_smoothing=label_smoothing)
