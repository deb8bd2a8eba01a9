"""Hidden states of a pack's tokens from one flat row: the fast path, right for models that pass their check.

Shape suffixes: T tokens of the pack, E hidden size.
"""

from torch import Tensor
from transformers import PreTrainedModel

from pairtune.data.pack import Pack
from pairtune.engine import attention, varlen
from pairtune.engine.attention import NAME, NotPackableError
from pairtune.engine.compile import fused_blocks, is_large, obstacle
from pairtune.engine.cost import count_pass
from pairtune.models.body import body_of


def packed_hidden_states(model: PreTrainedModel, pack: Pack) -> Tensor:
    """The last hidden state (after the final norm) of every token of the pack: [T, E].

    Raises NotPackableError for an architecture that packed rows would make wrong.
    """
    count_pass(model, tokens=len(pack.tokens_T), attended=pack.attended, predicted=0)
    body = body_of(model)
    if body is None:
        raise NotPackableError("the model does not show its body")
    implementation = model.config._attn_implementation
    model.config._attn_implementation, calls = NAME, attention.calls()
    flash = varlen.shared_kernel(model) if is_large(model) and not obstacle() else None
    beside = {"pack": pack} if flash is None else {"pack": pack, "flash": flash}
    try:
        with fused_blocks(model):
            output = body(input_ids=pack.tokens_T[None], position_ids=pack.positions_T[None], use_cache=False, **beside)
    except TypeError as error:
        if "unexpected keyword argument" not in str(error):
            raise
        raise NotPackableError(f"the model's forward takes no further keyword arguments ({error})") from error
    finally:
        model.config._attn_implementation = implementation
    if flash is None and attention.calls() == calls:
        raise NotPackableError("the model's attention does not go through transformers' attention interface")
    return output.last_hidden_state[0]  # type: ignore[no-any-return]
