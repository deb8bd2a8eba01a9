"""DPO training: TRL at its best and by default, the plain padded loop, the machine's own rate, peak memory."""

import argparse
import sys
from collections.abc import Mapping
from typing import Any

from benchmarks.options import Options, add_flags, finish
from benchmarks.peers import TRL, WORKER
from benchmarks.processes import OURS, Result, Worker, prepared, rates, say, take_turns
from benchmarks.results import BenchmarkError, Row, versus

PAIRS, REPETITIONS, EPOCHS, BATCH, RATE = 16, 2, 2, 8, 5e-5
# The pairs that results are compared on: 20 steps of 2.
COMPARED, COMPARED_BATCH = 40, 2
LOSS_RELATIVE = 1e-4
# Two means over some thousand tokens that round alike differ by this much by chance.
CHANCE = 1.05

SAME = {"num_train_epochs": EPOCHS, "learning_rate": RATE, "max_length": 1024}
PLAIN_SEARCH = {"gradient_checkpointing": False, "bf16": True, "precompute_ref_log_probs": True}
# Everything that was tried for TRL, as (dtype of the weights, settings); a batch is always 8 pairs.
SEARCHED: tuple[tuple[str, Mapping[str, Any]], ...] = tuple(
    (dtype, {**PLAIN_SEARCH, **changes, "per_device_train_batch_size": size, "gradient_accumulation_steps": 8 // size})
    for dtype, size, changes in (
        ("float32", 1, {}),
        ("bfloat16", 1, {}),
        ("bfloat16", 1, {"bf16": False}),
        ("bfloat16", 1, {"bf16": False, "precompute_ref_log_probs": False}),
        ("bfloat16", 2, {}),
        ("bfloat16", 8, {}),
        ("bfloat16", 8, {"bf16": False}),
    )
)
BEST = SEARCHED[1]


def measure(options: Options) -> list[Row]:
    """The rows of the DPO benchmark. Raises BenchmarkError if our results are not the plain loop's."""
    count, repetitions = options.pairs or PAIRS, options.repetitions or REPETITIONS
    with prepared(model=options.model, data=options.data, pairs=count, warmup=BATCH, compared=COMPARED) as files:
        agreed = equal_results(files)
        results = take_turns(workers(files), repetitions=repetitions, unit="pairs/s")
    shared = {
        "data": files["described"],
        "both": f"batch of {BATCH} pairs, {EPOCHS} epochs with the reference, AdamW at {RATE:g}, {repetitions} runs",
        "equality": agreed,
    }
    ours, versions = rates(results["ours"]), TRL.versions()
    sides = {
        "trl-best": (f"weights {BEST[0]}, {said(BEST[1])}", versions),
        "trl-default": ("DPOConfig's defaults: float32 weights, bf16 autocast, gradient checkpointing", versions),
        "naive": ("engine/naive.py, bfloat16 with float32 masters, padded, reference live at every step", ""),
    }
    rows = [
        versus(name, "pairs/s", ours, rates(results[name]), peer_version=version, settings={**shared, "peer": told})
        for name, (told, version) in sides.items()
    ]
    achieved = [result["flops"] / result["seconds"] / 1e9 for result in results["ours"]]
    gemm = [result["gemm"] / 1e9 for result in results["ours"]]
    counted = "products that cannot be avoided: each prompt once, the head on responses, attention on visible pairs"
    told = {**shared, "counted": counted, "peer": "the best of a few large square bfloat16 products, same process"}
    rows.append(versus("gemm-share", "GFLOP/s", achieved, gemm, peer_version="", settings=told))
    peaks = {name: [result["peak_memory_bytes"] / 1e9 for result in part] for name, part in results.items()}
    for name, peer in (("memory", "trl-best"), ("memory-default", "trl-default")):
        told = {**shared, "peer": f"TRL as in {peer}"}
        row = versus(name, "GB", peaks["ours"], peaks[peer], peer_version=versions, settings=told, less_is_better=True)
        rows.append(row)
    return rows


def workers(files: Result) -> dict[str, Worker]:
    """The sides, in the order of their turns."""
    mine = {**_files(files), "dtype": "auto", "settings": _settings(BATCH)}
    dtype, best = BEST
    default = {**SAME, "per_device_train_batch_size": BATCH}
    return {
        "ours": Worker(OURS, {"task": "dpo", **mine}),
        "trl-best": _trl(files, dtype, best),
        "naive": Worker(OURS, {"task": "plain", **mine}),
        "trl-default": _trl(files, None, default),
    }


def equal_results(files: Result) -> str:
    """One line on how far our numbers are from the plain loop's. Raises BenchmarkError if that is too far."""
    job = {"task": "equality", "model": files["model"], "compared": files["compared"]}
    found = Worker(OURS, {**job, "settings": {**_settings(COMPARED_BATCH), "epochs": 1}}).run()
    line = (
        f"float32 losses of {found['steps']} steps within {found['loss_relative']:.1e} of the plain loop's; "
        f"bfloat16 from float32, mean per token: ours {found['logprob_ours']:.4f} nats, plain "
        f"{found['logprob_plain']:.4f}; mean of the losses: ours {found['loss_ours']:.4f}, plain "
        f"{found['loss_plain']:.4f}"
    )
    say(f"  {line}")
    if not found["loss_relative"] <= LOSS_RELATIVE:
        raise BenchmarkError(f"the float32 losses are not the plain loop's, so no speed counts ({line})")
    if not found["logprob_ours"] <= CHANCE * found["logprob_plain"]:
        raise BenchmarkError(f"our bfloat16 is further from float32 than the plain loop's ({line})")
    return line


def search(options: Options) -> None:
    """Time every setting tried for TRL, once, and say them from the fastest to the slowest."""
    with prepared(model=options.model, data=options.data, pairs=options.pairs or PAIRS, warmup=BATCH) as files:
        found = []
        for dtype, settings in SEARCHED:
            result = _trl(files, dtype, {**settings, "num_train_epochs": 1}).run()
            found.append((result["examples"] / result["seconds"], f"weights {dtype}, {said(settings)}"))
            say("  {:.3f} pairs/s: {}".format(*found[-1]))
    for rate, told in sorted(found, reverse=True):
        print(f"{rate:.3f} pairs/s: {told}")


def said(settings: Mapping[str, Any]) -> str:
    """TRL's settings in its own words."""
    return ", ".join(f"{name}={value}" for name, value in settings.items())


def _trl(files: Result, dtype: str | None, settings: Mapping[str, Any]) -> Worker:
    job = {"task": "dpo", **_files(files), "dtype": dtype, "options": {**SAME, **settings}}
    return Worker(WORKER, job, TRL.python())


def _files(files: Result) -> dict[str, Any]:
    return {name: files[name] for name in ("model", "pairs", "warmup")}


def _settings(batch: int) -> dict[str, Any]:
    return {"batch_size": batch, "epochs": EPOCHS, "learning_rate": RATE}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.dpo", description=__doc__)
    add_flags(parser)
    parser.add_argument("--search", action="store_true", help="time the settings tried for TRL instead, and stop")
    given = parser.parse_args()
    if given.search:
        search(Options(given.data, given.pairs, given.repetitions))
        sys.exit(0)
    sys.exit(finish(given, lambda options: {"dpo": measure(options)}))
