"""The log-probabilities of a pack's response tokens, by the path that the model's check has found right.

Shape suffixes: R response tokens, V vocabulary.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from transformers import PreTrainedModel

from pairtune.data.pack import Pack, Tokens
from pairtune.data.pack import pack as pack_rows
from pairtune.engine.cost import count_pass
from pairtune.engine.head import CHUNK_ROWS, head_logprobs, head_of
from pairtune.engine.hidden import check_finite, path_for
from pairtune.engine.own import logits_logprobs, own_response_logits
from pairtune.engine.packed import packed_hidden_states
from pairtune.engine.sharded import at_hand


def token_logprobs(model: PreTrainedModel, pack: Pack, *, temperature: float = 1.0) -> Tensor:
    """log π(token | what came before it) of every response token of the pack: [R], nats, float32, differentiable.

    Raises InputError if the model cannot be computed with, or if a hidden state or a logit is not finite.
    """
    return at_hand(model, lambda: _logprobs(model, pack, temperature, colliding=False))[0]


def idle_pass(model: PreTrainedModel, row: Tokens) -> None:
    """A pass of a rank that has no more examples in a step; it adds 0 to every gradient where there are gradients."""
    nothing = token_logprobs(model, pack_rows([row]).to(model.device)).sum() * 0.0
    if nothing.requires_grad:
        nothing.backward()


def logprobs_and_collisions(model: PreTrainedModel, pack: Pack) -> tuple[Tensor, Tensor]:
    """log π of every response token, differentiable, and log Σ_v π(v|·)² where it is chosen, without gradient: two [R].

    exp of the latter is the probability that two draws from π agree: 1 for a certain policy, 1/V for a uniform one.
    For objectives that weigh pairs by how concentrated the policy is.
    """
    logprob_R, collision_R = at_hand(model, lambda: _logprobs(model, pack, 1.0, colliding=True))
    assert collision_R is not None
    return logprob_R, collision_R


def _logprobs(
    model: PreTrainedModel, pack: Pack, temperature: float, *, colliding: bool
) -> tuple[Tensor, Tensor | None]:
    path, collision_R = path_for(model, pack), None
    if path != "packed":
        logits_RV = own_response_logits(model, pack, alone=path == "alone")
        logprob_R = logits_logprobs(logits_RV, pack.target_R, temperature)
        check_finite(logprob_R)
        return logprob_R, collisions(logits_RV.detach()) if colliding else None
    hidden_TE = packed_hidden_states(model, pack)
    hidden_RE = hidden_TE[pack.source_R]
    count_pass(model, tokens=0, attended=0, predicted=len(pack.target_R))
    logprob_R = head_logprobs(model, hidden_RE, pack.target_R, temperature=temperature)
    check_finite(hidden_TE, logprob_R)
    if colliding:
        count_pass(model, tokens=0, attended=0, predicted=len(pack.target_R))
        collision_R = collisions(hidden_RE.detach(), head_of(model).logits)
    return logprob_R, collision_R


@torch.no_grad()
def collisions(values: Tensor, logits_of: Callable[[Tensor], Tensor] = lambda logits: logits) -> Tensor:
    """log Σ_v π(v)² of every row, without all rows of float32 logits at once."""
    parts = []
    for part in values.split(CHUNK_ROWS[values.device.type]):
        logits_CV = logits_of(part).float()
        parts.append((2 * logits_CV).logsumexp(-1) - 2 * logits_CV.logsumexp(-1))
    return torch.cat(parts)
