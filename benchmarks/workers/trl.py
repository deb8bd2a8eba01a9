"""The peers' side: TRL's trainers and transformers' `generate`, run by the interpreter of a peer's environment.

Everything here is the documented way to use them. What is timed: what is timed on our side too (see `benchmarks`).
"""

import gc
import tempfile
from collections.abc import Callable, Iterable
from typing import Any

import torch
from datasets import Dataset, disable_progress_bars
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedModel,
)

from benchmarks.workers.common import Clock, Job, read_rows, serve

# What every trainer is told: one process, on the GPU if there is one, and nothing written, logged or shown.
QUIET = {
    "use_cpu": not torch.cuda.is_available(),
    "save_strategy": "no",
    "report_to": "none",
    "disable_tqdm": True,
    "logging_steps": 10**6,
}


def dpo(job: Job) -> dict[str, Any]:
    """DPO over the job's pairs; the reference's pass is timed wherever the settings put it."""
    from trl import DPOConfig, DPOTrainer

    rows, lora = read_rows(job["pairs"]), job.get("lora")
    tokenizer = AutoTokenizer.from_pretrained(job["model"])

    class Timed(DPOTrainer):  # type: ignore[misc]
        clock = Clock()

        def _precompute_ref_logps(self, *arguments: Any) -> Any:
            with self.clock.running():  # called by the constructor, which is not timed otherwise
                return super()._precompute_ref_logps(*arguments)

    def train(rows: list[dict[str, Any]], **changes: Any) -> float:
        Timed.clock = Clock()
        with tempfile.TemporaryDirectory() as folder:
            texts = Dataset.from_list([{side: row[side] for side in ("prompt", "chosen", "rejected")} for row in rows])
            trainer = Timed(
                model=_model(AutoModelForCausalLM, job) if job.get("dtype") else job["model"],
                args=DPOConfig(**{**QUIET, "output_dir": folder, **job["options"], **changes}),
                train_dataset=texts,
                processing_class=tokenizer,
                peft_config=_adapters(**lora) if lora else None,
            )
            _require_same_ids(trainer.train_dataset, rows)
            with Timed.clock.running():
                trainer.train()
        return Timed.clock.seconds

    _warm_up(job, train)
    return {"seconds": train(rows), "examples": len(rows) * job["options"]["num_train_epochs"]}


def _adapters(*, rank: int, alpha: int) -> Any:
    from peft import LoraConfig

    return LoraConfig(r=rank, lora_alpha=alpha, target_modules="all-linear", task_type="CAUSAL_LM")


def search(job: Job) -> dict[str, Any]:
    """Pairs a second of each of the job's settings over the warm-up's pairs; what went wrong where one fails."""
    found: list[float | str] = []
    for choice in job["choices"]:
        try:
            result = dpo({**job, **choice, "pairs": job["warmup"]})
            found.append(result["examples"] / result["seconds"])
        except Exception as error:  # out of memory, most of all
            found.append(f"{type(error).__name__}: {error}".splitlines()[0][:160])
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    return {"found": found}


def reward(job: Job) -> dict[str, Any]:
    """RewardTrainer over the job's pairs."""
    from trl import RewardConfig, RewardTrainer

    rows = read_rows(job["pairs"])
    tokenizer = AutoTokenizer.from_pretrained(job["model"])

    def train(rows: list[dict[str, Any]], **changes: Any) -> float:
        clock = Clock()
        sides = ("chosen", "rejected")
        ids = [{f"{side}_ids": row["prompt_ids"] + row[f"{side}_ids"] for side in sides} for row in rows]
        with tempfile.TemporaryDirectory() as folder:
            trainer = RewardTrainer(
                model=_model(AutoModelForSequenceClassification, job, num_labels=1),
                args=RewardConfig(**{**QUIET, "output_dir": folder, **job["options"], **changes}),
                train_dataset=Dataset.from_list(ids),
                processing_class=tokenizer,
            )
            with clock.running():
                trainer.train()
        return clock.seconds

    _warm_up(job, train)
    return {"seconds": train(rows), "examples": len(rows) * job["options"]["num_train_epochs"]}


def generate(job: Job) -> dict[str, Any]:
    """`generate` on one left-padded batch: pure sampling, exactly `max_new_tokens` tokens a row."""
    rows = read_rows(job["prompts"])
    tokenizer = AutoTokenizer.from_pretrained(job["model"])
    model: Any = _model(AutoModelForCausalLM, job)
    config = GenerationConfig(
        do_sample=True,
        top_k=0,
        top_p=1.0,
        max_new_tokens=job["max_new_tokens"],
        eos_token_id=None,
        pad_token_id=tokenizer.pad_token_id,
    )
    model.generation_config.eos_token_id = None  # it would fill the gap in the configuration above

    def draw(rows: list[dict[str, Any]]) -> int:
        batch = tokenizer.pad({"input_ids": [row["ids"] for row in rows]}, padding_side="left", return_tensors="pt")
        answers = model.generate(**batch, generation_config=config)
        return int(answers.numel() - batch["input_ids"].numel())

    torch.manual_seed(0)
    clock = Clock()
    draw(rows)
    with clock.running():
        tokens = draw(rows)
    return {"seconds": clock.seconds, "examples": tokens}


def ppo(job: Job) -> dict[str, Any]:
    """`trl.experimental.ppo`: all of `train`, from the first answers to the last update."""
    from trl.experimental.ppo import PPOConfig, PPOTrainer

    rows = read_rows(job["prompts"])
    tokenizer = AutoTokenizer.from_pretrained(job["model"], padding_side="left")

    def train(rows: list[dict[str, Any]], **changes: Any) -> float:
        clock = Clock()
        scorers = [_model(AutoModelForSequenceClassification, job, num_labels=1) for _ in range(2)]
        for scorer in scorers:
            scorer.config.pad_token_id = tokenizer.pad_token_id
        with tempfile.TemporaryDirectory() as folder:
            trainer = PPOTrainer(
                args=PPOConfig(**{**QUIET, "output_dir": folder, **job["options"], **changes}),
                processing_class=tokenizer,
                model=_model(AutoModelForCausalLM, job),
                ref_model=_model(AutoModelForCausalLM, job),
                reward_model=scorers[0],
                value_model=scorers[1],
                train_dataset=Dataset.from_list([{"input_ids": row["ids"]} for row in rows]),
            )
            with clock.running():
                trainer.train()
        return clock.seconds

    one_step = job["options"]["per_device_train_batch_size"]
    train(rows[:one_step], total_episodes=one_step, learning_rate=0.0)
    gc.collect()
    return {"seconds": train(rows), "examples": job["options"]["total_episodes"]}


def versions(job: Job) -> dict[str, Any]:
    """The installed versions of the job's packages."""
    from importlib.metadata import version

    return {"versions": {name: version(name) for name in job["packages"]}}


def _warm_up(job: Job, train: Callable[..., float]) -> None:
    """One pass over the warm-up's pairs, at learning rate 0; trainer and model are then thrown away."""
    train(read_rows(job["warmup"]), num_train_epochs=1, learning_rate=0.0)
    gc.collect()


def _model(kind: Any, job: Job, **options: Any) -> PreTrainedModel:
    model: PreTrainedModel = kind.from_pretrained(job["model"], dtype=getattr(torch, job["dtype"]), **options)
    return model


def _require_same_ids(tokenised: Iterable[dict[str, Any]], rows: list[dict[str, Any]]) -> None:
    """TRL reads text; the tokens it makes of it must be those that our side trains on."""
    names = ("prompt_ids", "chosen_ids", "rejected_ids")
    for theirs, ours in zip(tokenised, rows, strict=True):
        if any(list(theirs[name]) != ours[name] for name in names):
            raise ValueError("TRL's token ids differ from ours; the two sides would train on different tokens")


if __name__ == "__main__":
    disable_progress_bars()
    serve({"dpo": dpo, "search": search, "reward": reward, "generate": generate, "ppo": ppo, "versions": versions})
