"""Hidden states of a pack's tokens: packed where the architecture allows it, else padded, in the same layout.

Shape suffixes: T tokens of the pack, S responses, L padded length, E hidden size.
"""

import torch
from torch import Tensor
from transformers import PreTrainedModel

from pairtune.data.pack import Pack
from pairtune.engine import attention
from pairtune.engine.attention import NAME, NotPackableError
from pairtune.engine.cost import count_pass
from pairtune.engine.fusion import fused_blocks

# Tokens in one forward and backward pass. Larger packs run a little faster and hold more activations.
TOKENS_PER_PASS = {"cpu": 3072, "cuda": 16384}

_PADDED = "_pairtune_padded"


def hidden_states(model: PreTrainedModel, pack: Pack) -> Tensor:
    """The last hidden state (after the final norm) of every token of the pack: [T, E].

    Raises NotPackableError for an architecture that packed rows would make wrong.
    """
    if is_padded(model):
        return padded_hidden_states(model, pack)
    count_pass(model, tokens=len(pack.tokens_T), attended=pack.attended, predicted=0)
    body = model.base_model
    implementation = model.config._attn_implementation
    model.config._attn_implementation, calls = NAME, attention.calls()
    try:
        with fused_blocks(model):
            output = body(
                input_ids=pack.tokens_T[None], position_ids=pack.positions_T[None], use_cache=False, pack=pack
            )
    except TypeError as error:
        if "unexpected keyword argument" not in str(error):
            raise
        raise NotPackableError(f"the model's forward takes no further keyword arguments ({error})") from error
    finally:
        model.config._attn_implementation = implementation
    if attention.calls() == calls:
        raise NotPackableError("the model's attention does not go through transformers' attention interface")
    return output.last_hidden_state[0]  # type: ignore[no-any-return]


def padded_hidden_states(model: PreTrainedModel, pack: Pack) -> Tensor:
    """The same from one padded row per response, for architectures that packed rows would make wrong."""
    index_SL, real_SL = response_rows(pack)
    lengths_S = real_SL.sum(-1)
    count_pass(model, tokens=int(lengths_S.sum()), attended=int((lengths_S * (lengths_S + 1) // 2).sum()), predicted=0)
    output = model.base_model(input_ids=pack.tokens_T[index_SL], attention_mask=real_SL.long(), use_cache=False)
    # A prompt's states are the same in each of its rows: every token takes its first.
    slot_R = real_SL.flatten().nonzero()[:, 0]
    slot_T = pack.tokens_T.new_full(pack.tokens_T.shape, real_SL.numel())
    slot_T = slot_T.scatter_reduce(0, index_SL[real_SL], slot_R, "amin")
    return output.last_hidden_state.flatten(0, 1)[slot_T]  # type: ignore[no-any-return]


def response_rows(pack: Pack) -> tuple[Tensor, Tensor]:
    """Each response after its prompt: their places in the pack, 0 where padded [S, L], and where they are real."""
    lengths_S = pack.lengths()
    first_S = pack.last_S + 1 - lengths_S
    prompt_S = pack.positions_T[first_S]  # a response's first position is its prompt's length
    start_S = pack.source_R[lengths_S.cumsum(0) - lengths_S] + 1 - prompt_S
    offset_1L = torch.arange(int((prompt_S + lengths_S).max()), device=pack.tokens_T.device)[None]
    of_prompt_SL = offset_1L < prompt_S[:, None]
    real_SL = offset_1L < (prompt_S + lengths_S)[:, None]
    index_SL = offset_1L + torch.where(of_prompt_SL, start_S[:, None], (first_S - prompt_S)[:, None])
    return index_SL.masked_fill(~real_SL, 0), real_SL


def is_padded(model: PreTrainedModel) -> bool:
    """Whether this model was switched to the padded path."""
    return bool(getattr(model, _PADDED, False))


def use_padded(model: PreTrainedModel) -> None:
    """Switch a model to the padded path for good."""
    setattr(model, _PADDED, True)
