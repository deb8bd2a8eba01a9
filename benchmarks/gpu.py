"""On a GPU: DPO at two sizes with random weights, against TRL at the best settings found; share of the card's peak.

    python -m benchmarks.gpu --tokenizer FOLDER --sizes 135m 1.5b

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
from benchmarks.results import Row, versus

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
SIZES = {"135m": Size(SMOLLM2, (64, 32)), "1.5b": Size(QWEN25, (16, 8))}


def measure(options: Options, sizes: list[str], tokenizer: str) -> list[Row]:
    """The rows of every size."""
    return [row for name in sizes for row in _rows(options, name, SIZES[name], tokenizer)]


def _rows(options: Options, name: str, size: Size, tokenizer: str) -> list[Row]:
    count, repetitions = options.pairs or PAIRS, options.repetitions or REPETITIONS
    with prepared(
        model=tokenizer, data=options.data, pairs=count, warmup=BATCH, shape=dict(size.shape)
    ) as files:  # fmt: skip
        best = fastest(files, size)
        sides = {
            "ours": _ours(files),
            **{f"trl-{dtype}": _trl(files, dtype, options) for dtype, options in best.items()},
        }
        results = take_turns(sides, repetitions=repetitions, unit="pairs/s")
    shared = {
        "data": files["described"],
        "model": f"{name}: {', '.join(f'{key} {value}' for key, value in size.shape.items())}; random weights",
        "both": f"batch of {BATCH} pairs, {EPOCHS} epochs with the reference, AdamW at {RATE:g}, {repetitions} runs",
    }
    versions, rows = TRL.versions(), []
    peaks = {side: [result["peak_memory_bytes"] / 1e9 for result in part] for side, part in results.items()}
    for side in list(sides)[1:]:
        told = {**shared, "peer": f"TRL, weights {side.removeprefix('trl-')}, {said(sides[side].job['options'])}"}
        for what, unit, values in (("pairs", "pairs/s", None), ("memory", "GB", peaks)):
            mine, theirs = (values["ours"], values[side]) if values else (rates(results["ours"]), rates(results[side]))
            rows.append(versus(f"{name}-{side}-{what}", unit, mine, theirs, peer_version=versions, settings=told,
                               less_is_better=values is not None))  # fmt: skip
    achieved = [result["flops"] / result["seconds"] / 1e12 for result in results["ours"]]
    gemm = [result["gemm"] / 1e12 for result in results["ours"]]
    counted = "products that cannot be avoided: each prompt once, the head on responses, attention on visible pairs"
    told = {**shared, "counted": counted, "peer": "the best of a few large square bfloat16 products, same process"}
    return [*rows, versus(f"{name}-gemm-share", "TFLOP/s", achieved, gemm, peer_version="", settings=told)]


def fastest(files: Result, size: Size) -> dict[str, Mapping[str, Any]]:
    """For each dtype of TRL's weights, the settings that ran fastest on the warm-up's pairs."""
    choices: list[dict[str, Any]] = [
        {"dtype": dtype, "options": {
            **PLAIN, "bf16": autocast, "per_device_train_batch_size": together,
            "gradient_accumulation_steps": BATCH // together,
        }}
        for dtype, autocast in WEIGHTS for together in size.together
    ]  # fmt: skip
    found = Worker(WORKER, {"task": "search", **_files(files), "choices": choices}, TRL.python()).run()["found"]
    best: dict[str, tuple[float, Mapping[str, Any]]] = {}
    for choice, rate in zip(choices, found, strict=True):
        together, dtype = choice["options"]["per_device_train_batch_size"], str(choice["dtype"])
        told = rate if isinstance(rate, str) else f"{rate:.3g} pairs/s"
        say(f"  TRL, weights {dtype}, {together} pairs at a time: {told}")
        if not isinstance(rate, str) and rate > best.get(dtype, (0.0, {}))[0]:
            best[dtype] = (rate, choice["options"])
    return {dtype: options for dtype, (_, options) in best.items()}


def _ours(files: Result) -> Worker:
    settings = {"batch_size": BATCH, "epochs": EPOCHS, "learning_rate": RATE}
    return Worker(OURS, {"task": "dpo", **_files(files), "dtype": "auto", "settings": settings})


def _trl(files: Result, dtype: str, options: Mapping[str, Any]) -> Worker:
    return Worker(WORKER, {"task": "dpo", **_files(files), "dtype": dtype, "options": options}, TRL.python())


def _files(files: Result) -> dict[str, Any]:
    return {name: files[name] for name in ("model", "pairs", "warmup")}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    add_flags(parser)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES), help="models to measure")
    parser.add_argument("--tokenizer", metavar="FOLDER", default=Options.model, help="where the tokenizer lies")
    given = parser.parse_args()
    sys.exit(finish(given, lambda options: {"gpu": measure(options, given.sizes, given.tokenizer)}))
