"""On a GPU: DPO of all weights and with adapters, two sizes with random weights, against TRL at its best settings.

    python -m benchmarks.gpu --tokenizer FOLDER --sizes 135m 1.5b --ways full lora

Random weights serve for speed: what a token costs does not depend on what it says. A peer that this interpreter already
has is used as it is, for machines that nothing can be installed on; the rows say its version.
"""

import argparse
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.dpo import EPOCHS, RATE, said
from benchmarks.options import Options, add_flags, finish
from benchmarks.peers import TRL, WORKER
from benchmarks.processes import OURS, Result, Worker, prepared, rates, say, take_turns
from benchmarks.results import BenchmarkError, Row, versus

PAIRS, REPETITIONS, BATCH = 512, 2, 64
PLAIN = {
    "num_train_epochs": EPOCHS,
    "learning_rate": RATE,
    "max_length": 1024,
    "gradient_checkpointing": False,
    "precompute_ref_log_probs": True,
}
# The dtype of TRL's weights, and whether its products are bfloat16 by autocast. Float32 weights with autocast keep what
# our float32 masters keep; bfloat16 weights lose small updates, and are the fastest that TRL can be asked for.
WEIGHTS = (("float32", True), ("bfloat16", False))


@dataclass(frozen=True)
class Size:
    """A model's shape by transformers' names, and how many pairs TRL takes at a time, from the best found."""

    shape: Mapping[str, Any]
    together: tuple[int, ...]


SMOLLM2 = {
    "model_type": "llama", "hidden_size": 576, "num_hidden_layers": 30, "num_attention_heads": 9,
    "num_key_value_heads": 3, "intermediate_size": 1536, "vocab_size": 49152, "tie_word_embeddings": True,
    "max_position_embeddings": 8192,
}  # fmt: skip
QWEN25 = {  # as a Llama, whose tokenizer is read as it is saved
    "model_type": "llama", "hidden_size": 1536, "num_hidden_layers": 28, "num_attention_heads": 12,
    "num_key_value_heads": 2, "intermediate_size": 8960, "vocab_size": 151936, "tie_word_embeddings": True,
    "max_position_embeddings": 32768,
}  # fmt: skip
Adapters = Mapping[str, int] | None
WAYS: dict[str, Adapters] = {"full": None, "lora": {"rank": 16, "alpha": 32}}  # all weights, or adapters beside them
SIZES = {"135m": Size(SMOLLM2, (32,)), "1.5b": Size(QWEN25, (8,))}  # 64 are out of memory at 135M


def measure(options: Options, sizes: list[str], ways: list[str], tokenizer: str) -> list[Row]:
    """The rows of every size."""
    return [row for name in sizes for row in _rows(options, name, SIZES[name], ways, tokenizer)]


def _rows(options: Options, name: str, size: Size, ways: list[str], tokenizer: str) -> list[Row]:
    count, repetitions = options.pairs or PAIRS, options.repetitions or REPETITIONS
    with prepared(
        model=tokenizer, data=options.data, pairs=count, warmup=BATCH, shape=dict(size.shape)
    ) as files:  # fmt: skip
        peers = {way: fastest(files, size, WAYS[way]) for way in ways}
        sides = {}
        for way in ways:
            sides[f"ours-{way}"] = _ours(files, WAYS[way])
            sides[f"trl-{way}"] = _trl(files, peers[way])
        results = take_turns(sides, repetitions=repetitions, unit="pairs/s")
    shared = {
        "data": files["described"],
        "model": f"{name}: {', '.join(f'{key} {value}' for key, value in size.shape.items())}; random weights",
        "both": f"batch of {BATCH} pairs, {EPOCHS} epochs with the reference, AdamW at {RATE:g}, {repetitions} runs",
    }
    versions, rows = TRL.versions(), []
    peaks = {side: [result["peak_memory_bytes"] / 1e9 for result in part] for side, part in results.items()}
    for way in ways:
        mine, theirs = f"ours-{way}", f"trl-{way}"
        peer = f"TRL, weights {peers[way]['dtype']}, {said(peers[way]['options'])}"
        told = {**shared, "peer": peer, **({"adapters": str(WAYS[way])} if WAYS[way] else {})}
        rows += [
            versus(f"{name}-{way}", "pairs/s", rates(results[mine]), rates(results[theirs]), peer_version=versions,
                   settings=told),
            versus(f"{name}-{way}-memory", "GB", peaks[mine], peaks[theirs], peer_version=versions, settings=told,
                   less_is_better=True),
        ]  # fmt: skip
    if "full" in ways:
        achieved = [result["flops"] / result["seconds"] / 1e12 for result in results["ours-full"]]
        gemm = [result["gemm"] / 1e12 for result in results["ours-full"]]
        counted = "products that cannot be avoided: each prompt once, the head on responses, attention on visible pairs"
        told = {**shared, "counted": counted, "peer": "the best of a few large square bfloat16 products, same process"}
        rows.append(versus(f"{name}-gemm-share", "TFLOP/s", achieved, gemm, peer_version="", settings=told))
    return rows


def fastest(files: Result, size: Size, lora: Adapters) -> dict[str, Any]:
    """TRL's dtype and settings that ran fastest on the warm-up's pairs. Raises BenchmarkError if none ran."""
    choices: list[dict[str, Any]] = [
        {"dtype": dtype, "lora": lora, "options": {
            **PLAIN, "bf16": autocast, "per_device_train_batch_size": together,
            "gradient_accumulation_steps": BATCH // together,
        }}
        for dtype, autocast in WEIGHTS for together in size.together
    ]  # fmt: skip
    found = Worker(WORKER, {"task": "search", **_files(files), "choices": choices}, TRL.python()).run()["found"]
    for choice, rate in zip(choices, found, strict=True):
        together, dtype = choice["options"]["per_device_train_batch_size"], str(choice["dtype"])
        told = rate if isinstance(rate, str) else f"{rate:.3g} pairs/s"
        say(f"  TRL, weights {dtype}, {together} pairs at a time{', adapters' if lora else ''}: {told}")
    ran = [(rate, choice) for choice, rate in zip(choices, found, strict=True) if not isinstance(rate, str)]
    if not ran:
        raise BenchmarkError(f"TRL ran with none of the settings tried: {found[0]}")
    return max(ran, key=lambda pair: pair[0])[1]


def _ours(files: Result, lora: Adapters) -> Worker:
    settings = {"batch_size": BATCH, "epochs": EPOCHS, "learning_rate": RATE}
    return Worker(OURS, {"task": "dpo", **_files(files), "dtype": "auto", "settings": settings, "lora": lora})


def _trl(files: Result, choice: Mapping[str, Any]) -> Worker:
    return Worker(WORKER, {"task": "dpo", **_files(files), **choice}, TRL.python())


def _files(files: Result) -> dict[str, Any]:
    return {name: files[name] for name in ("model", "pairs", "warmup")}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    add_flags(parser)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES), help="models to measure")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), help="all weights, or adapters")
    parser.add_argument("--tokenizer", metavar="FOLDER", default=Options.model, help="where the tokenizer lies")
    given = parser.parse_args()
    sys.exit(finish(given, lambda options: {"gpu": measure(options, given.sizes, given.ways, given.tokenizer)}))
