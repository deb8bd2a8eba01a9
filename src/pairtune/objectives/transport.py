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
    chosen_logratio_N: Tensor,
    rejected_logratio_N: Tensor,
    weight_N: Tensor | None = None,
    *,
    beta: float,
    label_smoothing: float,
) -> Tensor:
    """AOT on unpaired data: log-ratios of chosen responses should dominate those of rejected ones as a distribution.

    Mean over i of the loss on β·(sorted Δ_w[i] − sorted Δ_l[i]): Melnyk et al. 2024, arXiv 2406.05882, unpaired AOT.
    Which responses belong to one prompt does not matter.

    Minimiser: not known in closed form; it is DPO's loss on other pairs, so certain labels have none.

    TRL: the same (`aot_unpaired`), on one device's micro-batch; here on the whole step.
    """
    return _coupled(chosen_logratio_N, rejected_logratio_N, weight_N, beta=beta, label_smoothing=label_smoothing)


def aot_paired(
    chosen_logprob_N: Tensor,
    rejected_logprob_N: Tensor,
    chosen_reference_N: Tensor,
    rejected_reference_N: Tensor,
    weight_N: Tensor | None = None,
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
    policy_N, reference_N = chosen_logprob_N - rejected_logprob_N, chosen_reference_N - rejected_reference_N
    return _coupled(policy_N, reference_N, weight_N, beta=beta, label_smoothing=label_smoothing)


def _coupled(upper_N: Tensor, lower_N: Tensor, weight_N: Tensor | None, **parameters: float) -> Tensor:
    """The loss on the quantiles of one side less those of the other, in the order of the sorted values.

    Rows with weights are distributions with such masses: their quantiles are constant between the sums of either side's
    masses. Then each row of the first side, in the rows' order, has the mean over its own stretch of quantiles, and the
    rows' mean by weight is the loss between the distributions: that of rows which stand there as often as they weigh.
    """
    if weight_N is None:
        return cdpo(upper_N.sort().values, lower_N.sort().values, **parameters)
    upper, lower = upper_N.argsort(), lower_N.argsort()
    mass_N = weight_N.double()
    ends, others = mass_N[upper].cumsum(0), mass_N[lower].cumsum(0)
    edge_K = ends.new_zeros(2 * len(ends))
    edge_K[: len(ends)], edge_K[len(ends) :] = ends, others
    edge_K = edge_K.sort().values
    mass_K = edge_K - edge_K.roll(1)
    mass_K[0] = edge_K[0]
    middle_K = edge_K - mass_K / 2
    upper_K, lower_K = (
        order[(middle_K[:, None] > ends_N[None]).sum(1).clamp(max=len(order) - 1)]
        for order, ends_N in ((upper, ends), (lower, others))
    )
    loss_K = cdpo(upper_N[upper_K], lower_N[lower_K], **parameters) * mass_K.to(upper_N.dtype)
    return upper_N.new_zeros(len(upper_N)).index_add(0, upper_K, loss_K) / weight_N
