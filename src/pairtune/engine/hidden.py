"""Hidden states of a pack's tokens: packed where the architecture allows it, else padded, in the same layout.

Shape suffixes: T tokens of the pack, S responses, L padded length, E hidden size.
"""

import torch
from torch import Tensor
from transformers import PreTrainedModel

from pairtune.data.pack import Pack
from pairtune.engine.attention import NAME, NotPackableError
from pairtune.engine.cost import count_pass

_PADDED = "_pairtune_padded"


def hidden_states(model: PreTrainedModel, pack: Pack) -> Tensor:
    """The last hidden state (after the final norm) of every token of the pack: [T, E]."""
    count_pass(model, tokens=len(pack.tokens_T), attended=pack.attended, predicted=0)
    if is_padded(model):
        return padded_hidden_states(model, pack)
    body = model.base_model
    implementation = model.config._attn_implementation
    model.config._attn_implementation = NAME
    try:
        output = body(input_ids=pack.tokens_T[None], position_ids=pack.positions_T[None], use_cache=False, pack=pack)
    except TypeError as error:
        raise NotPackableError(f"the model's forward takes no further keyword arguments ({error})") from error
    finally:
        model.config._attn_implementation = implementation
    return output.last_hidden_state[0]  # type: ignore[no-any-return]


def padded_hidden_states(model: PreTrainedModel, pack: Pack) -> Tensor:
    """The same from one padded row per response, for architectures that packed rows would make wrong."""
    sequences_S = response_sequences(pack)
    length = max(len(places) for places in sequences_S)
    index_SL = torch.zeros(len(sequences_S), length, dtype=torch.long, device=pack.tokens_T.device)
    mask_SL = torch.zeros_like(index_SL)
    for i, places in enumerate(sequences_S):
        index_SL[i, : len(places)] = places
        mask_SL[i, : len(places)] = 1
    output = model.base_model(input_ids=pack.tokens_T[index_SL], attention_mask=mask_SL, use_cache=False)
    # A prompt's states are the same in each of its rows; writing them back in reverse keeps the first row's.
    real_SL = mask_SL.bool().flip(0)
    places, states = index_SL.flip(0)[real_SL], output.last_hidden_state.flip(0)[real_SL]
    last_writer_T = torch.zeros_like(pack.tokens_T)
    for i in range(len(places)):
        last_writer_T[places[i]] = i
    return states[last_writer_T]  # type: ignore[no-any-return]


def response_sequences(pack: Pack) -> list[Tensor]:
    """For each response, the places in the pack of its prompt's tokens and its own."""
    lengths = pack.lengths().tolist()
    own_S = pack.place_R.split(lengths)
    first_S = [source[0] for source in pack.source_R.split(lengths)]
    sequences = []
    for own, prompt_end in zip(own_S, first_S, strict=True):
        prompt_length = int(pack.positions_T[prompt_end]) + 1
        start = int(prompt_end) + 1 - prompt_length
        prompt = torch.arange(start, int(prompt_end) + 1, device=own.device)
        sequences.append(torch.cat((prompt, own)))
    return sequences


def is_padded(model: PreTrainedModel) -> bool:
    """Whether this model was switched to the padded path."""
    return bool(getattr(model, _PADDED, False))


def use_padded(model: PreTrainedModel) -> None:
    """Switch a model to the padded path for good."""
    setattr(model, _PADDED, True)
