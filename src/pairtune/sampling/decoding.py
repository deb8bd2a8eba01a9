"""What makes one decoding step cheap: a cache that never moves, and attention for one query without copies.

Shape suffixes: B rows, H heads, K key-value heads, D head size, t tokens cached so far.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, Cache, DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "pairtune_decoding"


class RoomyLayer(DynamicLayer):
    """A layer's keys and values in one buffer made for the longest answer, instead of a new copy every step."""

    def __init__(self, longest: int) -> None:
        super().__init__()
        self.longest, self.filled = longest, 0

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Write the new keys and values behind the old; returns views of all so far, [B, K, t, D]."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            rows, heads, _length, _size = key_states.shape
            self.key_buffer = key_states.new_empty(rows, heads, self.longest, key_states.shape[-1])
            self.value_buffer = value_states.new_empty(rows, heads, self.longest, value_states.shape[-1])
        end = self.filled + key_states.shape[-2]
        self.key_buffer[:, :, self.filled : end] = key_states
        self.value_buffer[:, :, self.filled : end] = value_states
        self.filled = end
        return self._show()

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep these rows only."""
        self.key_buffer, self.value_buffer = self.key_buffer[indices], self.value_buffer[indices]
        self._show()

    def _show(self) -> tuple[Tensor, Tensor]:
        keys, values = self.key_buffer[:, :, : self.filled], self.value_buffer[:, :, : self.filled]
        self.keys, self.values = keys, values
        return keys, values


def make_cache(model: PreTrainedModel, longest: int) -> Cache:
    """A cache for `longest` tokens a row; transformers' own where layers are not plain (or sliding) attention."""
    config = model.config.get_text_config(decoder=True)
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    if kinds <= {"full_attention", "sliding_attention"}:
        return Cache(layers=[RoomyLayer(longest) for _ in range(config.num_hidden_layers)])
    return DynamicCache(config=model.config)


def attend_one(
    module: nn.Module,
    query_BHLD: Tensor,
    key_BKtD: Tensor,
    value_BKtD: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **others: Any,
) -> tuple[Tensor, None]:
    """Attention of one new token a row: [B, 1, H, D]. Longer queries, and what is unusual, go to torch's own."""
    rows, heads, length, size = query_BHLD.shape
    groups = key_BKtD.shape[1]
    plain = others.get("softcap") is None and others.get("s_aux") is None and others.get("position_bias") is None
    if length > 1 or dropout or not plain or query_BHLD.is_cuda:
        return sdpa_attention_forward(
            module, query_BHLD, key_BKtD, value_BKtD, attention_mask, scaling=scaling, dropout=dropout, **others
        )
    # Heads that share keys are stacked as rows of one small product, so nothing is repeated and nothing is moved.
    stacked = query_BHLD.reshape(rows * groups, heads // groups, size)
    scores = torch.bmm(stacked, key_BKtD.flatten(0, 1).transpose(1, 2)).float()
    scores *= size**-0.5 if scaling is None else scaling
    scores_BKGt = scores.view(rows, groups, heads // groups, -1)
    if attention_mask is not None:
        scores_BKGt.masked_fill_(~attention_mask, -torch.inf)
    weights = scores.softmax(-1).to(query_BHLD.dtype)
    out = torch.bmm(weights, value_BKtD.flatten(0, 1))
    return out.view(rows, 1, heads, size), None


AttentionInterface.register(NAME, attend_one)
AttentionMaskInterface.register(NAME, sdpa_mask)
