"""Tiny configurations of every causal language model that transformers has, and of what should be refused.

A published configuration is made small by the names of its fields: sizes by the table `SIZES`, and of its layers one of
each kind is kept. `OVERRIDES` holds what an architecture needs beyond that, `VARIANTS` further configurations whose
mechanism the published one leaves out.
"""

import copy
import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from transformers import CONFIG_MAPPING, PreTrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from tests.survey.variants import OVERRIDES, VARIANTS

VOCABULARY = 272
"""Every byte, and sixteen more."""
BOS_ID, EOS_ID, PAD_ID = 0, 1, 2
WINDOW = 8
"""What tokens of a sliding window or a chunk see; most of the survey's rows are longer."""
LEARNED_POSITIONS = 256
"""Rows of a table of positions; the survey's rows are shorter."""

LAYERS = [
    "num_hidden_layers",
    "n_layer",
    "n_layers",
    "num_layers",
    "decoder_layers",
    "encoder_layers",
    "num_encoder_layers",
    "num_decoder_layers",
]
KEY_VALUE_HEADS = ("num_key_value_heads", "num_kv_heads")


def _each(size: int, names: str) -> dict[str, int]:
    return dict.fromkeys(names.split(), size)


SIZES: dict[str, int] = {
    **_each(VOCABULARY, "vocab_size decoder_vocab_size vocab_size_per_layer_input"),
    **_each(
        64,
        "hidden_size d_model n_embd emb_dim embedding_size word_embed_proj_dim lru_width input_embedding_size "
        "output_embedding_size dim_model_base mamba_d_ssm backbone_hidden_size",
    ),
    **_each(
        96,
        "intermediate_size ffn_dim decoder_ffn_dim encoder_ffn_dim n_inner d_inner dff dim_ff ffn_hidden_size "
        "shared_intermediate_size intermediate_size_mlp dense_intermediate_size feed_forward_size",
    ),
    **_each(
        32,
        "moe_intermediate_size shared_expert_intermediate_size shared_experts_intermediate_size "
        "expert_ffn_hidden_size moe_shared_expert_intermediate_size prefix_dense_intermediate_size",
    ),
    **_each(
        4,
        "num_attention_heads n_head n_heads num_heads decoder_attention_heads encoder_attention_heads "
        "num_encoder_attention_heads num_decoder_attention_heads swa_num_attention_heads linear_num_heads "
        "linear_num_value_heads mamba_num_heads indexer_n_heads",
    ),
    **_each(2, "linear_num_key_heads n_groups mamba_n_groups swa_num_key_value_heads"),
    **_each(
        16,
        "head_dim global_head_dim swa_head_dim v_head_dim qk_nope_head_dim linear_head_dim linear_key_head_dim "
        "linear_value_head_dim kv_channels dim_head attention_head_size index_head_dim indexer_head_dim "
        "mamba_head_dim rotary_dim swa_v_head_dim index_topk index_n_heads",
    ),
    **_each(8, "qk_rope_head_dim hidden_size_per_layer_input laurel_rank"),
    **_each(24, "qk_head_dim q_lora_rank kv_lora_rank o_lora_rank moe_latent_size index_lora_rank"),
    **_each(4, "num_experts n_routed_experts num_local_experts moe_num_experts"),
    **_each(2, "num_experts_per_tok num_experts_per_token moe_topk moe_k top_k_experts moe_top_k"),
    **_each(1, "n_group topk_group num_expert_group o_groups"),
    **_each(LEARNED_POSITIONS, "n_positions n_ctx max_target_positions"),
    **_each(8, "state_size mamba_d_state ssm_state_size time_step_rank mamba_dt_rank"),
    **_each(16, "chunk_size mamba_chunk_size"),
    **_each(
        WINDOW,
        "sliding_window sliding_window_size attention_window_size window_size attention_chunk_size local_attention "
        "swa_window_size",
    ),
}
"""Fields of configurations that hold a size, and what it is in a tiny model. What is 0, False or None stays so."""

NOT_GIVEN = {"transformers_version", "architectures", "dtype", "ignore_keys_at_rope_validation"}
"""Fields of a configuration that are not what a model is made of."""

WITHOUT_CAUSAL_LM = ("t5", "t5gemma", "clip", "vit")
"""Architectures that a person might point at and that transformers has no causal language model for: some of them."""


@dataclass(frozen=True)
class Case:
    """One configuration of one architecture."""

    architecture: str
    name: str
    fields: dict[str, Any] = field(default_factory=dict)

    @property
    def title(self) -> str:
        return f"{self.architecture} {self.name}".strip()

    def config(self) -> PreTrainedConfig:
        """The tiny configuration."""
        return tiny_config(self.architecture, **self.fields)


def tiny_config(architecture: str, **fields: Any) -> PreTrainedConfig:
    """The architecture's published configuration, made small; `fields` have the last word."""
    chosen = copy.deepcopy({**OVERRIDES.get(architecture, {}), **fields})
    config_class = CONFIG_MAPPING[architecture]
    published = config_class(**chosen.pop("published", {}))
    return _rebuilt(published, chosen)


def _rebuilt(published: PreTrainedConfig, chosen: dict[str, Any]) -> PreTrainedConfig:
    config_class = type(published)
    own = dataclasses.fields(config_class)
    given = {entry.name for entry in own} - {entry.name for entry in own if _is_worked_out(entry, published)}
    parts = {
        name: _rebuilt(value, chosen.pop(name, {}))
        for name, value in vars(published).items()
        if isinstance(value, PreTrainedConfig)
    }
    fields = shrunk({name: copy.deepcopy(value) for name, value in vars(published).items() if name not in parts})
    fields = {name: value for name, value in fields.items() if name in given - NOT_GIVEN}
    return config_class(**{**fields, **parts, **chosen})


def _is_worked_out(entry: "dataclasses.Field[Any]", published: PreTrainedConfig) -> bool:
    """Whether a number is what the class made of other fields: it is left to the class."""
    now = vars(published).get(entry.name)
    sized = entry.name in (*SIZES, *LAYERS, *KEY_VALUE_HEADS)
    return isinstance(now, int | float) and now != entry.default and not sized


def shrunk(fields: dict[str, Any]) -> dict[str, Any]:
    """The same fields with the sizes of `SIZES`, one layer of each kind, and no dropout."""
    small = {name: _size(name, value, fields) for name, value in fields.items()}
    for count in LAYERS:
        if isinstance(layers := fields.get(count), int) and layers:
            kept = _kinds(fields, layers)
            small[count] = len(kept)
            small |= {name: type(fields[name])(fields[name][i] for i in kept) for name in _per_layer(fields, layers)}
    return small


def _size(name: str, value: Any, fields: dict[str, Any]) -> Any:
    if name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        return {"bos_token_id": BOS_ID, "eos_token_id": EOS_ID, "pad_token_id": PAD_ID}[name]
    if name in KEY_VALUE_HEADS:
        heads = fields.get("num_attention_heads") or fields.get("n_head")
        return value if value in (None, 1) else 2 if value != heads else 4
    if "drop" in name and isinstance(value, float):
        return 0.0
    if name == "max_position_embeddings":
        return LEARNED_POSITIONS
    return SIZES[name] if name in SIZES and value and not isinstance(value, bool) else value


def _per_layer(fields: dict[str, Any], layers: int) -> list[str]:
    return [
        name
        for name, value in fields.items()
        if isinstance(value, list | tuple) and len(value) == layers and name != "eos_token_id"
    ]


def _kinds(fields: dict[str, Any], layers: int) -> list[int]:
    """One layer of each kind, as the lists with an entry a layer tell them apart, and two layers at least."""
    lists = [fields[name] for name in _per_layer(fields, layers)]
    seen: dict[str, int] = {}
    for i in range(layers):
        seen.setdefault(repr([each[i] for each in lists]), i)
    kept = sorted(seen.values())[:4]
    return kept if len(kept) > 1 else sorted({*kept, *range(min(2, layers))})


def cases() -> Iterator[Case]:
    """Every architecture as published, then its variants."""
    for architecture in (*MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, *WITHOUT_CAUSAL_LM):
        yield Case(architecture, "")
        for name, fields in VARIANTS.get(architecture, {}).items():
            yield Case(architecture, name, fields)
