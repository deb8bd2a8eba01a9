"""Shared by all tests: tiny random models and a tiny real tokenizer, built here, so that nothing is downloaded.

Fixtures that are functions: `tiny_model(architecture)` gives a fresh random model of two layers,
`tiny_tokenizer(chat=)` a byte-level BPE tokenizer with BOS, EOS and PAD, `tiny_folder(tmp_path)` both, saved as a
Hugging Face folder.

A test that takes `architecture` runs once for each one that the engine packs. Every test has a cache folder of its
own, and none can reach a hub. A test marked `gpu` is skipped, and says so, where there is no CUDA device.
"""

import functools
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"  # before transformers is imported, which reads it once
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tests run side by side, a process for each core

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer as BareTokenizer
from tokenizers import decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM, GPTJPreTrainedModel, PreTrainedModel, PreTrainedTokenizerFast

from pairtune.data import pack
from pairtune.models.body import keep_caps
from pairtune.models.machine import Machine

for _number, _usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(_number) is signal.SIG_IGN:  # as `nohup` and jobs in the background have it, for good reason
        signal.signal(_number, _usual)

VOCABULARY = 300
"""Rows of the embedding of every tiny model; the tiny tokenizer has no more tokens."""

BOS, EOS, PAD = "<s>", "</s>", "<pad>"
BOS_ID, EOS_ID, PAD_ID = 0, 1, 2

SENTENCES = (
    "The film was a small wonder, warm and funny.",
    "The film was dull, and the plot went nowhere.",
    "I watched it with my wife, and we both loved the acting.",
    "Who wrote Emma? Jane Austen wrote Emma.",
)
"""What the tiny tokenizer was trained on."""

CHAT_TEMPLATE = (
    "{% for message in messages %}<s>{{ message['role'] }}: {{ message['content'] }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant: {% endif %}"
)

_SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}
_OWN: dict[str, dict[str, Any]] = {
    "gpt2": {
        "vocab_size": VOCABULARY,
        "n_embd": 32,
        "n_layer": 2,
        "n_head": 4,
        "n_positions": 512,
        "resid_pdrop": 0.1,  # as published: evaluation mode must silence it
        "attn_pdrop": 0.1,
        "embd_pdrop": 0.1,
    },
    "llama": _SIZES,
    "qwen2": _SIZES,
    "qwen3": {**_SIZES, "head_dim": 16},
    "mistral": {**_SIZES, "sliding_window": 6},  # shorter than the tests' longer prompts
    "gemma": {**_SIZES, "head_dim": 16},
    "gemma2": {
        **_SIZES,
        "head_dim": 16,
        "query_pre_attn_scalar": 16,
        "sliding_window": 6,
        "attn_logit_softcapping": 0.5,
        "final_logit_softcapping": 3.0,
    },
    "gpt_neox": {key: value for key, value in _SIZES.items() if key != "num_key_value_heads"},
    "cohere": {**_SIZES, "logit_scale": 1.5},
    "granite": {**_SIZES, "logits_scaling": 0.5, "attention_multiplier": 0.2, "residual_multiplier": 0.5},
    "phi": _SIZES,  # a head with a bias
    "gptj": {"vocab_size": VOCABULARY, "n_embd": 32, "n_layer": 2, "n_head": 4, "rotary_dim": 4, "n_positions": 512},
    "mixtral": {**_SIZES, "num_local_experts": 4, "num_experts_per_tok": 2},
    # masks that the model makes itself
    "qwen2_moe": {
        **_SIZES,
        "moe_intermediate_size": 16,
        "shared_expert_intermediate_size": 16,
        "num_experts": 4,
        "use_sliding_window": True,
        "sliding_window": 6,
        "max_window_layers": 1,
    },
    "llama4_text": {
        **_SIZES,
        "head_dim": 8,
        "intermediate_size_mlp": 64,
        "num_local_experts": 2,
        "attention_chunk_size": 8,
        "layer_types": ["chunked_attention", "full_attention"],
    },
    # tokens mixed outside of attention, or attention outside of transformers' interface
    "lfm2": {
        **_SIZES,
        "layer_types": ["conv", "full_attention"],
        "block_ff_dim": 64,
        "block_auto_adjust_ff_dim": False,
    },
    "bloom": {"vocab_size": VOCABULARY, "hidden_size": 32, "n_layer": 2, "n_head": 4},
    "falcon": {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4},
    "mpt": {"vocab_size": VOCABULARY, "d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": 512},
    "mamba": {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 8},
    "falcon_mamba": {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 8},
    "rwkv": {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "attention_hidden_size": 32},
    "jamba": {
        **_SIZES,
        "attn_layer_period": 2,
        "attn_layer_offset": 1,
        "num_experts": 2,
        "use_mamba_kernels": False,
        "mamba_d_state": 8,
        "mamba_dt_rank": 4,
    },
    # positions that no argument moves
    "bart": {
        "vocab_size": VOCABULARY,
        "d_model": 32,
        "decoder_layers": 2,
        "decoder_attention_heads": 4,
        "decoder_ffn_dim": 64,
        "max_position_embeddings": 512,
        "is_decoder": True,
        "is_encoder_decoder": False,
    },
    # as OPT-350m: the head reads another size than the blocks
    "opt": {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "word_embed_proj_dim": 16,
        "ffn_dim": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 512,
        "do_layer_norm_before": False,
    },
    # rotary frequencies that change with the longest row
    "phi3": {
        **_SIZES,
        "original_max_position_embeddings": 24,
        "rope_parameters": {
            "rope_type": "longrope",
            "rope_theta": 10000.0,
            "original_max_position_embeddings": 24,
            "short_factor": [1.0] * 4,
            "long_factor": [2.0, 4.0, 8.0, 16.0],
        },
    },
    "bert": {  # not causal, as long as nobody says is_decoder
        **{key: value for key, value in _SIZES.items() if key != "num_key_value_heads"},
    },
}

# GPT-J's attention goes through transformers' interface in some of its versions only.
_GPTJ = ("gptj",) if getattr(GPTJPreTrainedModel, "_supports_attention_backend", False) else ()
PACKED = (
    *("gpt2", "llama", "qwen2", "qwen3", "mistral", "gemma", "gpt_neox"),
    *("gemma2", "cohere", "granite", "phi", *_GPTJ, "mixtral"),
)
"""The architectures that the engine runs on packed rows, those whose logits are capped, scaled or biased among them."""

OWN = ("lfm2", "bloom", "falcon", "mpt", "mamba", "falcon_mamba", "rwkv", "jamba", "bart", "llama4_text", "qwen2_moe")
"""The architectures that only their own forward pass gets right."""


def pytest_configure(config: pytest.Config) -> None:
    torch.set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device, and there is none here"))


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """pairtune's cache is an empty folder of this test's own; the hub is out of reach."""
    monkeypatch.setenv("PAIRTUNE_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def _model(architecture: str = "llama", *, seed: int = 0, spread: float = 10.0, **overrides: Any) -> PreTrainedModel:
    """A random model of two layers and hidden size 32 in evaluation mode, float32, built from its config.

    Its weights are `spread` times larger than a fresh model's, and its biases are not zero, so that its predictions
    differ enough from the uniform for an error in positions or masks to show. `overrides` go into the config.
    """
    fields = {
        "bos_token_id": BOS_ID,
        "eos_token_id": EOS_ID,
        "pad_token_id": PAD_ID,
        "tie_word_embeddings": False,
        **_OWN[architecture],
        **overrides,
    }
    config = AutoConfig.for_model(architecture, **fields)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        keep_caps(model)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.dim() > 1:
                    parameter.mul_(spread)
                elif name.endswith("bias"):
                    parameter.normal_(std=0.1)
    model.config.use_cache = False
    return model.eval()


@functools.cache
def _bare_tokenizer() -> str:
    bare = BareTokenizer(models.BPE())
    bare.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bare.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[BOS, EOS, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bare.train_from_iterator(SENTENCES, trainer)
    return bare.to_str()


def _tokenizer(*, chat: bool = False) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of 300 tokens that adds no special tokens by itself; `chat` gives it a template."""
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=BareTokenizer.from_str(_bare_tokenizer()), bos_token=BOS, eos_token=EOS, pad_token=PAD
    )
    if chat:
        tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def _folder(folder: Path, architecture: str = "llama", *, chat: bool = False, **for_the_model: Any) -> Path:
    """Save a tiny model and its tokenizer under `folder`/model, and return that path: what `--model` would be given."""
    path = folder / "model"
    _model(architecture, **for_the_model).save_pretrained(path)
    _tokenizer(chat=chat).save_pretrained(path)
    return path


@pytest.fixture(scope="session")
def tiny_model() -> Callable[..., PreTrainedModel]:
    """tiny_model(architecture="llama", *, seed=0, spread=10.0, **overrides): a fresh random float32 model."""
    return _model


@pytest.fixture(scope="session")
def tiny_tokenizer() -> Callable[..., PreTrainedTokenizerFast]:
    """tiny_tokenizer(chat=False): a fresh byte-level BPE tokenizer of 300 tokens; `chat` gives it a chat template."""
    return _tokenizer


@pytest.fixture
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test runs in an empty folder of its own."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def tiny_folder() -> Callable[..., Path]:
    """tiny_folder(folder, architecture="llama", *, chat=False, **for_the_model): the path of a saved model."""
    return _folder


@pytest.fixture(params=PACKED)
def architecture(request: pytest.FixtureRequest) -> str:
    """The name of each architecture that the engine runs on packed rows, in turn."""
    return str(request.param)


@pytest.fixture(params=OWN)
def unpackable(request: pytest.FixtureRequest) -> str:
    """The name of each architecture that only its own forward pass gets right, in turn."""
    return str(request.param)


@pytest.fixture(scope="session")
def cpu() -> Machine:
    """The machine that tests compute on: the processor, in float32."""
    return Machine(torch.device("cpu"), torch.float32, "the tests ask for it")


@pytest.fixture
def blind_to_branches(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """A planted fault, once it is called: a token sees all that lies before it in its row, another response too."""

    def plant() -> None:
        def of_rows(position: np.ndarray) -> Any:
            place = np.arange(len(position))
            return segments(place - np.maximum.accumulate(np.where(position == 0, place, 0)))

        monkeypatch.setattr(pack, "_segments", of_rows)

    segments = pack._segments
    return plant
