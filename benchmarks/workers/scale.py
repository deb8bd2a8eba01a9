"""Cost and memory of a whole `pairtune tune` on more and more pairs, with a random model small enough not to matter."""

import json
import random
import tempfile
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import WordLevel
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

import pairtune
from benchmarks.workers.common import Clock, Job
from pairtune.engine.cost import measured

WORDS = 4000  # of the made-up language, one token each; ids above 256 are objects of their own in Python
PROMPT_WORDS, RESPONSE_WORDS = (8, 40), (4, 24)
# The first run pays for imports and first calls; the second is what a run costs whatever its pairs.
FIXED_PAIRS = 64
SIZES = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "max_position_embeddings": 512,
}  # fmt: skip


def measure(job: Job) -> dict[str, Any]:
    """Tune on `pairs` pairs, and on the same pairs with a second objective if the job says so.

    Returns `seconds` (of the pairs above FIXED_PAIRS) and `examples` (their number); with a second objective also both
    runs' seconds and `first_reference` and `second_reference`, the tokens that their reference passes took.
    """
    with tempfile.TemporaryDirectory(prefix="pairtune-benchmark-") as name:
        folder = Path(name)
        few = [write_pairs(folder / f"{seed}.jsonl", FIXED_PAIRS, seed=seed)[0] for seed in (1, 2)]
        large, reference = write_pairs(folder / "large.jsonl", job["pairs"], seed=0)
        settings = {"model": str(make_model(folder / "model")), "heldout": 16, "batch_size": 32, "dtype": "float32"}
        _tune(folder / "first", data=few[0], **settings)
        fixed, _ = _tune(folder / "fixed", data=few[1], **settings)
        seconds, tokens = _tune(folder / "dpo", data=large, **settings)
        result = {"seconds": seconds - fixed, "examples": job["pairs"] - FIXED_PAIRS}
        if job["second_objective"]:
            again, tokens_again = _tune(folder / "ipo", data=large, objective="ipo", **settings)
            # Both train and measure on the same tokens; what the first had more was its reference.
            second = tokens_again - (tokens - reference)
            result |= {"first_seconds": seconds, "second_seconds": again}
            result |= {"first_reference": reference, "second_reference": second}
    return result


def make_model(folder: Path) -> Path:
    """A random two-layer model and a tokenizer with a token for each word, as a Hugging Face folder."""
    words = {name: number for number, name in enumerate(("<pad>", "<end>", *(f"w{n}" for n in range(WORDS))))}
    bare = Tokenizer(WordLevel(words, unk_token="<pad>"))
    bare.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=bare, eos_token="<end>", pad_token="<pad>").save_pretrained(folder)
    special = {"bos_token_id": None, "eos_token_id": 1, "pad_token_id": 0}
    torch.manual_seed(0)
    config = AutoConfig.for_model("llama", vocab_size=len(words), **SIZES, **special)
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(folder)
    return folder


def write_pairs(path: Path, count: int, *, seed: int) -> tuple[str, int]:
    """Write random pairs that all differ; returns the file and the tokens of its rows, each prompt once."""
    chance, tokens = random.Random(seed), 0
    with path.open("w", encoding="utf-8") as file:
        for _ in range(count):
            lengths = [chance.randint(*bounds) for bounds in (PROMPT_WORDS, RESPONSE_WORDS, RESPONSE_WORDS)]
            texts = [" ".join(f"w{chance.randrange(WORDS)}" for _ in range(length)) for length in lengths]
            file.write(json.dumps(dict(zip(("prompt", "chosen", "rejected"), texts, strict=True))) + "\n")
            tokens += sum(lengths) + 2  # an end-of-text token after each response
    return str(path), tokens


def _tune(out: Path, **settings: Any) -> tuple[float, int]:
    """The seconds of one run, and the tokens that it took through a model."""
    clock = Clock()
    with measured() as cost, clock.running():
        pairtune.tune(out=str(out), **settings)
    return clock.seconds, cost.tokens
