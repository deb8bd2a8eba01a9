"""Scalars read from hidden states: a reward at each response's last token, a value wherever a token is chosen."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from pairtune.data.pack import Tokens, pack
from pairtune.engine.hidden import from_ranks, hidden_states, own_numbers, passes, shared_passes
from pairtune.engine.own_score import OwnScore
from pairtune.models.heads import ScalarModel


@torch.no_grad()
def score_rewards(model: ScalarModel | OwnScore, rows: Sequence[Tokens]) -> list[list[float]]:
    """The reward of every response, read at its last real token: one list a row, in the row's order.

    Behind an answer's end that is what the reward model's own chat template ends with (`engine/readers.py`).
    """
    if isinstance(model, OwnScore):
        return model.score(rows)
    if model.behind:
        rows = [_as_read(row, model.behind) for row in rows]
    device = model.body.device
    rewards: list[list[float]] = [[] for _ in rows]
    groups, found = shared_passes(rows, device), {}
    for number in own_numbers(groups):
        batch = pack([rows[i] for i in groups[number]]).to(device)
        reward_S: Tensor = model.scalars(hidden_states(model.body, batch)[batch.last_S])
        found[number] = torch.stack([batch.row_S.to(reward_S.dtype), reward_S]).cpu()
    for group, found_2S in zip(groups, from_ranks(groups, found), strict=True):
        for row, reward in zip(found_2S[0].tolist(), found_2S[1].tolist(), strict=True):
            rewards[group[int(row)]].append(reward)
    return rewards


def _as_read(row: Tokens, behind: Mapping[int, tuple[int, ...]]) -> Tokens:
    return Tokens(row.prompt, tuple((*response, *behind.get(response[-1], ())) for response in row.responses))


def compute_values(model: ScalarModel, rows: Sequence[Tokens]) -> list[Tensor]:
    """The value of every state in which a token of a one-response row is chosen: one [length] tensor a row.

    Differentiable, unless called without gradients: then its activations are not kept.
    """
    device = model.body.device
    result: list[Tensor] = [torch.empty(0)] * len(rows)
    for group in passes(rows, device):
        batch = pack([rows[i] for i in group]).to(device)
        value_R = model.scalars(hidden_states(model.body, batch)[batch.source_R]).cpu()
        for i, values in zip(group, value_R.split([len(rows[i].responses[0]) for i in group]), strict=True):
            result[i] = values.clone()
    return result
