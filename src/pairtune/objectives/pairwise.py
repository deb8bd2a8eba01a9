"""Objectives on pairs: the log-ratios of a chosen and a rejected response in, one loss per pair out.

Shape suffix: B, pairs. A log-ratio is log π(y|x) − log π_ref(y|x) in nats, summed over the response's tokens.
"""

import torch.nn.functional as F
from torch import Tensor


def dpo(chosen_logratio_B: Tensor, rejected_logratio_B: Tensor, *, beta: float) -> Tensor:
    """−log σ(β·(log-ratio of chosen − log-ratio of rejected)): Rafailov et al. 2023, arXiv 2305.18290, eq. 7.

    The negative log-likelihood of the pairs under Bradley–Terry when the reward is β·log-ratio. `beta` is the weight
    of KL(π‖π_ref) in the objective whose optimum this loss finds. At π = π_ref every loss is ln 2. Returns [B], nats.
    """
    return -F.logsigmoid(beta * (chosen_logratio_B - rejected_logratio_B))


def ipo(chosen_logratio_B: Tensor, rejected_logratio_B: Tensor, *, beta: float) -> Tensor:
    """(margin − 1/(2β))²: Azar et al. 2023, arXiv 2310.12036, eq. 17, where β is written τ.

    The margin is regressed onto a finite target, so deterministic labels do not drive the policy away from the
    reference without limit. `beta` weighs KL(π‖π_ref) against the preference probability itself. Returns [B].
    """
    return (chosen_logratio_B - rejected_logratio_B - 1 / (2 * beta)) ** 2
