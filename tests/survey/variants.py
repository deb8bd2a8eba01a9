"""What an architecture's tiny configuration needs beyond small sizes, and configurations of its further mechanisms."""

from typing import Any

Fields = dict[str, Any]

_MAMBA_HEADS: Fields = {"mamba_n_heads": 8, "mamba_d_head": 16}
_LATENT: Fields = {"head_dim": 8}  # of latent attention only the rotary part has a head size
_SLIDING_AND_FULL: Fields = {"num_hidden_layers": 2, "layer_types": ["sliding_attention", "full_attention"]}
_DOTS3_NOTE: Fields = {
    "per_layer_config": {},
    "num_hidden_layers": 2,
    "mlp_layer_types": ["dense", "sparse"],
    "layer_types": ["indexed_attention", "indexed_attention"],
}
_GEMMA3N: Fields = {
    "num_hidden_layers": 4,
    "num_kv_shared_layers": 2,
    "layer_types": ["sliding_attention", "full_attention"] * 2,
    "activation_sparsity_pattern": [0.5, 0.0, 0.0, 0.0],
    "intermediate_size": [96] * 4,
}
_QWEN4: Fields = {
    "indexer_n_heads": 2,
    "indexer_kv_heads": 1,
    "indexer_head_dim": 16,
    "indexer_budget": 16,
    "indexer_compress_ratio": 4,
}

OVERRIDES: dict[str, Fields] = {
    "axk1": _LATENT,
    "bamba": {**_MAMBA_HEADS, "attn_layer_indices": [1]},
    "cohere_compass_text": {
        "rope_parameters": {
            "full_attention": {"rope_type": "default", "rope_theta": 1e4},
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e3},
        },
        **_SLIDING_AND_FULL,
    },
    "blt": {
        "encoder_hash_byte_group_vocab": 50,
        "encoder_config": {"hidden_size_global": 64},
        "decoder_config": {"hidden_size_global": 64},
    },
    "dbrx": {"attn_config": {"rope_theta": 1e4, "kv_n_heads": 2, "clip_qkv": 8.0}},
    "deepseek_v2": {**_LATENT, "num_experts_per_tok": 2},
    "deepseek_v3": _LATENT,
    "dots1": {"n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2},
    "dots3_note": {
        "text_config": {**_DOTS3_NOTE},
        "vision_config": {"adapter_in_dim": 64, "adapter_out_dim": 64, "per_layer_config": None},
        "audio_config": {"adapter_input_size": 64, "adapter_out_dim": 64},
    },
    "dots3_note_text": _DOTS3_NOTE,
    "falcon_h1": {**_MAMBA_HEADS, "mamba_d_ssm": 128},
    "gemma3n_text": _GEMMA3N,
    "gemma4_assistant": {
        "published": {"text_config": {"hidden_size_per_layer_input": 0, "vocab_size_per_layer_input": 0}}
    },
    "glm4_moe_lite": _LATENT,
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "granitemoehybrid": {**_MAMBA_HEADS, "num_hidden_layers": 2, "layer_types": ["linear_attention", "full_attention"]},
    "hunyuan_v1_dense": {"head_dim": 16},
    "hunyuan_v1_moe": {"head_dim": 16},
    "inkling2_text": {"unpadded_vocab_size": 272},
    "inkling2_loop_text": {"unpadded_vocab_size": 272},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "lfm2": {"num_hidden_layers": 2, "layer_types": ["conv", "full_attention"]},
    "lfm2_moe": {"num_hidden_layers": 3, "num_dense_layers": 1, "layer_types": ["conv", "full_attention", "conv"]},
    "longcat_flash": _LATENT,
    "mamba2": {"num_heads": 8, "head_dim": 16},
    "ministral": {"head_dim": 16, **_SLIDING_AND_FULL},
    "nemotron": {"head_dim": 16, "num_key_value_heads": 2},
    "qwen4_exp": {"text_config": _QWEN4},
    "qwen4_exp_text": _QWEN4,
    "recurrent_gemma": {"num_hidden_layers": 3},
    "reformer": {"is_decoder": True, "axial_pos_embds": False},
    "roc_bert": {"shape_embed_dim": 16, "shape_vocab_size": 272, "pronunciation_embed_dim": 16},
    "sarvam_mla": _LATENT,
    "xmod": {"default_language": "en_XX"},
    "youtu": _LATENT,
    "xlstm": {"hidden_size": 128},
    "zamba": {"num_hidden_layers": 4, "layers_block_type": ["linear_attention", "hybrid"] * 2},
    "zamba2": {"num_hidden_layers": 4, "layers_block_type": ["linear_attention", "hybrid"] * 2},
    "zaya": {"num_experts_per_tok": 1, "router_hidden_size": 16},
}


def _rope(kind: str, **fields: Any) -> Fields:
    """Rotary embeddings of another kind, which rows longer than 32 tokens have left what was trained."""
    parameters = {"rope_type": kind, "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 32, **fields}
    return {"rope_parameters": parameters, "max_position_embeddings": 128}


_DYNAMIC = {**_rope("dynamic"), "max_position_embeddings": 32}  # whose factor depends on a row's length
_WINDOW: Fields = {"sliding_window": 8, "use_sliding_window": True, "max_window_layers": 1, "layer_types": None}
_LONG: Fields = _rope("longrope", short_factor=[1.0] * 8, long_factor=[1.0 + i for i in range(8)])
_DECODER = {"decoder": {"is_decoder": True}}  # what was published is an encoder, whose tokens see what follows

VARIANTS: dict[str, dict[str, Fields]] = {
    **dict.fromkeys(
        [
            "bert",
            "bert-generation",
            "big_bird",
            "camembert",
            "data2vec-text",
            "electra",
            "ernie",
            "megatron-bert",
            "rembert",
            "roberta",
            "roberta-prelayernorm",
            "roc_bert",
            "roformer",
            "xlm-roberta",
            "xlm-roberta-xl",
            "xmod",
        ],
        _DECODER,
    ),
    "bamba": {"without attention": {"attn_layer_indices": []}},
    "bloom": {"residual after the norm": {"apply_residual_connection_post_layernorm": True}},
    "cohere": {"query and key norms": {"use_qk_norm": True, "logit_scale": 0.5}, "dynamic rotary": _DYNAMIC},
    "cohere2": {"large logits": {"logit_scale": 2.0}},
    "deepseek_v2": {"groups": {"topk_method": "group_limited_greedy", "n_group": 2, "topk_group": 1}},
    "deepseek_v3": {"groups": {"n_group": 2, "topk_group": 1}, "whole queries": {"q_lora_rank": None}},
    "dots1": {"window": {"layer_types": ["sliding_attention", "full_attention"]}},
    "doge": {
        "window": {"sliding_window": 8},
        "few keys kept": {"keep_window_size": 8},
        "experts": {"is_moe": True, "num_experts": 16, "num_experts_per_tok": 4},
    },
    "falcon": {
        "alibi": {"alibi": True},
        "new decoder": {"new_decoder_architecture": True, "num_kv_heads": 2},
        "many keys": {"multi_query": False, "parallel_attn": False, "bias": True},
        "dynamic rotary": _DYNAMIC,
    },
    "falcon_h1": {
        "multipliers": {
            "lm_head_multiplier": 0.5,
            "embedding_multiplier": 2.0,
            "key_multiplier": 0.5,
            "mamba_rms_norm": True,
            "ssm_multipliers": [0.5, 1.5, 1.2, 0.8, 0.7],
        }
    },
    "gemma2": {"tight caps": {"attn_logit_softcapping": 1.0, "final_logit_softcapping": 2.0}},
    "gemma3_text": {"caps": {"attn_logit_softcapping": 1.0, "final_logit_softcapping": 2.0}},
    "gemma4_text": {
        "experts": {"enable_moe_block": True, "num_experts": 4, "top_k_experts": 2, "moe_intermediate_size": 32},
        "keys are values": {"attention_k_eq_v": True},
    },
    "gpt2": {
        "scores scaled by layer": {"scale_attn_by_inverse_layer_idx": True, "reorder_and_upcast_attn": True},
        "untied": {"tie_word_embeddings": False},
    },
    "gpt_bigcode": {"many keys": {"multi_query": False}},
    "gpt_neox": {"one after another": {"use_parallel_residual": False}, "dynamic rotary": _DYNAMIC},
    "granite": {
        "multipliers": {
            "logits_scaling": 4.0,
            "residual_multiplier": 0.5,
            "attention_multiplier": 0.1,
            "embedding_multiplier": 3.0,
        }
    },
    "granitemoehybrid": {"attention only": {"layer_types": ["full_attention"] * 2}},
    "hrm_text": {"prefix seen one way": {"prefix_lm": False}},
    "jamba": {"without experts": {"num_experts": 1, "num_experts_per_tok": 1}},
    "llama": {
        "linear rotary": _rope("linear"),
        "dynamic rotary": _DYNAMIC,
        "yarn": _rope("yarn"),
        "longrope": _LONG,
        "llama3 rotary": _rope("llama3", low_freq_factor=1.0, high_freq_factor=4.0),
        "one key head": {"num_key_value_heads": 1},
        "layers that differ": {"per_layer_config": {0: {"intermediate_size": 64}}},
        "biases, tied": {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True},
    },
    "laguna": {"window": {"layer_types": ["sliding_attention", "full_attention"]}},
    "mellum": {"window": {"layer_types": ["sliding_attention", "full_attention"]}},
    "minimax": {"window": {"sliding_window": 8}},
    "ministral3": {"window": {"sliding_window": 8}},
    "nemotron_h": {"window": {"sliding_window": 8}},
    "phi4_multimodal": {"window": {"sliding_window": 8}},
    "llama4_text": {"scores grow": {"floor_scale": 4, "attn_scale": 0.5}},
    "mistral": {"without a window": {"sliding_window": None}, "yarn": _rope("yarn")},
    "mpt": {"learned positions": {"attn_config": {"alibi": False}}, "clipped": {"attn_config": {"clip_qkv": 0.5}}},
    "olmo": {"clipped": {"clip_qkv": 0.5}},
    "olmoe": {"clipped": {"clip_qkv": 0.5}},
    "opt": {
        "as 350m": {"word_embed_proj_dim": 32, "do_layer_norm_before": False},
    },
    "phi": {"query and key norms": {"qk_layernorm": True}, "dynamic rotary": _DYNAMIC},
    "phi3": {
        "window": {"sliding_window": 8},
        "longrope": {**_LONG, "original_max_position_embeddings": 32},
    },
    "phimoe": {"window": {"sliding_window": 8}},
    "qwen2": {"window": _WINDOW, "dynamic rotary": _DYNAMIC},
    "qwen2_moe": {"window": _WINDOW},
    "qwen3": {"window": _WINDOW, "yarn": _rope("yarn")},
    "qwen3_moe": {"window": {**_WINDOW, "max_window_layers": 0}},
    "smollm3": {"window": _WINDOW},
    "stablelm": {
        "parallel": {"use_parallel_residual": True, "qk_layernorm": True, "use_qkv_bias": True},
        "dynamic rotary": _DYNAMIC,
    },
    "starcoder2": {"window": {"sliding_window": 8}},
    "mixtral": {"window": {"sliding_window": 8}},
    "xlm": {"causal": {"causal": True}},
    "zamba2": {"adapters and rotary": {"use_shared_attention_adapter": True, "adapter_rank": 8, "use_mem_rope": True}},
    "zaya": {"window": {"layer_types": ["hybrid", "hybrid_sliding"], "sliding_window": 8}},
}
