"""What makes a decoding step cheap: keys and values that never move, and attention of one token a row over them.

The rows' new tokens go through the model as one flat sequence, as packs do, so the engine's compiled blocks serve.
Shape suffixes: T tokens of the prompts' pack, P prompts, B rows, L padded length, H heads, K key-value heads, D head
size, E hidden size.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel

from pairtune.data.pack import Pack, pack_prompts
from pairtune.engine.attention import LIBRARY, NotPackableError, attend, no_mask, refuse
from pairtune.engine.compile import fused_blocks
from pairtune.engine.cost import count_pass
from pairtune.engine.kernels import attend_one
from pairtune.models.body import body_of

NAME = "pairtune_decoding"
# The batch is made smaller when at least this share of its rows has finished.
LEAVE_AT = 0.2


class KeyValues:
    """The keys and values of all rows, layer by layer, in buffers made for the longest answer.

    Equal prompts are read once and copied to the rows that answer them. A finished row is left out of `slot_B`;
    nothing is moved. Raises NotPackableError for an architecture that does not show its attention.
    """

    leave_at = LEAVE_AT

    def __init__(self, model: PreTrainedModel, longest: int) -> None:
        self.model, self.longest = model, longest
        self.layers: list[tuple[Tensor, Tensor]] = []
        self.layer = 0  # whose turn it is
        self.pack: Pack | None = None
        self.slot_B = self.length_B = torch.empty(0, dtype=torch.long)

    def begin(self, prompts: Sequence[Sequence[int]]) -> Tensor:
        """Take in the prompts, equal ones once. Returns the hidden state after each one's last token: [B, E]."""
        device = self.model.device
        unique = {tuple(prompt): None for prompt in prompts}
        number = {prompt: i for i, prompt in enumerate(unique)}
        prompt_B = torch.tensor([number[tuple(prompt)] for prompt in prompts], device=device)
        self.pack = pack_prompts(list(unique)).to(device)
        size_P = torch.diff(self.pack.source_R, prepend=self.pack.source_R.new_tensor([-1]))
        self.slot_T = torch.repeat_interleave(torch.arange(len(unique), device=device), size_P)
        count_pass(self.model, tokens=len(self.slot_T), attended=self.pack.attended, predicted=0)
        hidden_PE = self._run(self.pack.tokens_T, self.pack.positions_T)[self.pack.source_R]
        self.pack = None
        if len(unique) < len(prompts):
            self.layers = [(keys[prompt_B], values[prompt_B]) for keys, values in self.layers]
        self.length_B, self.slot_B = size_P[prompt_B], torch.arange(len(prompts), device=device)
        self.seen = sum(map(len, prompts))  # of all rows, counted here: to ask a GPU is to wait for it
        return hidden_PE[prompt_B]

    def step(self, token_B: Tensor) -> Tensor:
        """Take in one token a row: the hidden states after them, [B, E]."""
        self.seen += len(token_B)
        count_pass(self.model, tokens=len(token_B), attended=self.seen, predicted=0)
        hidden_BE = self._next(token_B)
        self.length_B += 1
        return hidden_BE

    def keep(self, rows: Tensor) -> None:
        """Go on with these rows only, in the order they are in."""
        self.slot_B, self.length_B = self.slot_B[rows], self.length_B[rows]
        self.seen = int(self.length_B.sum())

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, scale: float, window: int | None, softcap: float | None
    ) -> Tensor:
        """The next layer's attention over prompts or of one new token a row: [1, H, T, D] -> [1, T, H, D]."""
        layer, self.layer = self.layer, self.layer + 1
        if self.pack is None:
            q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
            keys, values = self.layers[layer]
            slot_B, length_B = self.slot_B, self.length_B
            return attend_one(q, k, v, keys, values, slot_B, length_B, scale, window=window, softcap=softcap)[None]
        keys, values = (x.new_empty(self.pack.rows, x.shape[1], self.longest, x.shape[3]) for x in (key, value))
        if values.is_cuda:  # a masked weight of 0 meets what is not written yet, and 0·NaN would be NaN
            keys.zero_(), values.zero_()
        self.layers.append((keys, values))
        for buffer, x in zip(self.layers[layer], (key, value), strict=True):
            buffer[self.slot_T, :, self.pack.positions_T] = x[0].transpose(0, 1)
        arguments: dict[str, Any] = {
            "scaling": scale, "sliding_window": window, "softcap": softcap, "pack": self.pack
        }  # fmt: skip
        out: Tensor = attend(self.model, query, key, value, None, **arguments)[0]
        return out.contiguous()  # a kernel may lay it out as the queries are, but compiled blocks count on this

    def _next(self, token_B: Tensor) -> Tensor:
        """The step itself, which reads the rows' places and lengths and writes keys and values: [B, E]."""
        return self._run(token_B, self.length_B)

    def _run(self, tokens: Tensor, positions: Tensor) -> Tensor:
        config, body = self.model.config, body_of(self.model)
        assert body is not None, "a model is sampled from by this way after its check only"
        implementation, config._attn_implementation = config._attn_implementation, NAME
        self.layer = 0
        _running.append(self)
        try:
            with fused_blocks(self.model):
                output = body(input_ids=tokens[None], position_ids=positions[None], use_cache=False, key_values=self)
        finally:
            config._attn_implementation = implementation
            _running.pop()
        return output.last_hidden_state[0]  # type: ignore[no-any-return]


def attend_cached(
    module: Any,
    query_1HTD: Tensor,
    key_1KTD: Tensor,
    value_1KTD: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    key_values: KeyValues | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Attention over prompts (with a pack) or of one new token a row: [1, T or B, H, D]."""
    if key_values is None:
        raise NotPackableError("the model does not hand keyword arguments on to its attention")
    refuse(attention_mask, others)
    scale = query_1HTD.shape[-1] ** -0.5 if scaling is None else scaling
    return torch.ops.pairtune.attend_cached(query_1HTD, key_1KTD, value_1KTD, scale, sliding_window, softcap), None


# Attention as one operation that a compiler does not look into, so a block compiles to one graph instead of eight
# pieces of Python. It finds the keys and values here, for an operation takes numbers and tensors only.
_running: list[KeyValues] = []
LIBRARY.define("attend_cached(Tensor q, Tensor k, Tensor v, float scale, int? window, float? softcap) -> Tensor")
LIBRARY.impl("attend_cached", lambda *arguments: _running[-1].attend(*arguments), "CompositeExplicitAutograd")
torch.library.register_fake("pairtune::attend_cached", lambda q, *_: q.new_empty(*q.transpose(1, 2).shape))
AttentionInterface.register(NAME, attend_cached)
AttentionMaskInterface.register(NAME, no_mask)
