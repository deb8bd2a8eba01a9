"""From token log-probabilities to the tensors that a loss names (see objective.py): sums, sides, log-ratios.

Shape suffixes: R, response tokens end to end; S, the responses.
"""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from pairtune.objectives.objective import QUANTITY


def quantities(
    arguments: Iterable[str],
    tokens: Mapping[str, Tensor],
    length_S: Tensor,
    label_S: Tensor,
    numbers: Mapping[str, Tensor],
) -> dict[str, Tensor]:
    """What `arguments` name.

    `tokens` holds values per token [R]: "logprob", and "reference" and "collision" where a name needs them. `label_S`
    (bool) says which responses are chosen, or desirable; the responses of a pair follow each other. `numbers` holds
    the numbers of the whole step.
    """
    response_R = torch.repeat_interleave(length_S)
    found: dict[str, Tensor] = {}
    for name in arguments:
        if name in numbers:
            found[name] = numbers[name]
        elif name == "label_B":
            found[name] = label_S
        else:
            found[name] = _quantity(name, tokens, length_S, label_S, response_R)
    return found


def _quantity(name: str, tokens: Mapping[str, Tensor], length_S: Tensor, label_S: Tensor, response_R: Tensor) -> Tensor:
    match = QUANTITY.match(name)
    assert match, f"{name} is no quantity that a loss can name"
    side, base, shape = match.groups()
    wanted_S = label_S if side == "chosen_" else ~label_S if side else torch.ones_like(label_S)
    if base == "length":
        return length_S[wanted_S]
    value_R = tokens["logprob"] - tokens["reference"] if base == "logratio" else tokens[base]
    if shape == "R":
        return value_R[wanted_S[response_R]]
    return value_R.new_zeros(len(length_S)).index_add(0, response_R, value_R)[wanted_S]
