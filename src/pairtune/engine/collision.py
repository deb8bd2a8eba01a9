"""How concentrated the policy is at each response token, for objectives that weigh pairs by it."""

import torch
from torch import Tensor
from transformers import PreTrainedModel

from pairtune.data.pack import Pack
from pairtune.engine.cost import count_pass
from pairtune.engine.hidden import hidden_states
from pairtune.engine.logprob import CHUNK_ROWS, head_logprobs, plain_head


def logprobs_and_collisions(model: PreTrainedModel, pack: Pack) -> tuple[Tensor, Tensor]:
    """log π of every response token, differentiable, and log Σ_v π(v|·)² where it is chosen, without gradient: two [R].

    exp of the latter is the probability that two draws from π agree: 1 for a certain policy, 1/V for a uniform one.
    """
    hidden_RE = hidden_states(model, pack)[pack.source_R]
    count_pass(model, tokens=0, attended=0, predicted=len(pack.target_R))
    return head_logprobs(model, hidden_RE, pack.target_R), _collisions(model, hidden_RE.detach())


@torch.no_grad()
def _collisions(model: PreTrainedModel, hidden_RE: Tensor) -> Tensor:
    count_pass(model, tokens=0, attended=0, predicted=len(hidden_RE))
    weight_VE = plain_head(model).weight
    parts = []
    for hidden_CE in hidden_RE.split(CHUNK_ROWS[hidden_RE.device.type]):
        logits_CV = (hidden_CE @ weight_VE.T).float()
        parts.append((2 * logits_CV).logsumexp(-1) - 2 * logits_CV.logsumexp(-1))
    return torch.cat(parts)
