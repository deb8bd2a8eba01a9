"""Our side: the trainings and the sampler that `pairtune` runs, and the plain padded loop they are compared with."""

import platform
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import PreTrainedModel

from benchmarks.workers import equality, pairs, scale
from benchmarks.workers.common import Clock, Job, read_rows, serve
from benchmarks.workers.plain import train_plain
from pairtune.data.pack import Tokens, pack
from pairtune.engine.cost import active_parameters
from pairtune.engine.examples import prepare
from pairtune.models import adapters
from pairtune.models.heads import ScalarModel
from pairtune.models.load import frozen_copy, load_model
from pairtune.models.machine import choose_machine, describe_machine
from pairtune.objectives.loss import loss_of
from pairtune.sampling.sampler import sample
from pairtune.settings import Adapting, Ppo, Preference, Reward, Sampling
from pairtune.training.checkpoint import Journal
from pairtune.training.ppo import train_ppo
from pairtune.training.preference import train_preference
from pairtune.training.reward import train_reward

# Square bfloat16 products whose best rate is the machine's.
GEMM_SIZES, GEMM_TRIES = {"cpu": (2048, 4096), "cuda": (8192, 16384)}, 4


def dpo(job: Job) -> dict[str, Any]:
    """DPO through the reference cache and `train_preference`; afterwards the machine's rate of matrix products."""
    model = load_model(job["model"], choose_machine(job["dtype"]))
    if lora := job.get("lora"):
        how = Adapting(lora=True, lora_rank=lora["rank"], lora_alpha=lora["alpha"])
        adapters.adapt(model, how, base=job["model"], seed=0)

    def train(rows: Sequence[Tokens], settings: Preference) -> None:
        loss = loss_of("dpo")
        examples, _ = prepare(model, rows, loss.needs, seed=0)
        train_preference(model, examples, loss, settings, seed=0, journal=Journal("dpo"))

    result = _timed(job, train)
    flops = unavoidable_flops(model, pairs.read_tokens(job["pairs"]), epochs=job["settings"]["epochs"])
    return {**result, "flops": flops, "gemm": gemm_rate(model.device)}


def plain(job: Job) -> dict[str, Any]:
    """DPO as plain loops do it: padded, two passes a side of which the reference's is made again at every step."""
    model = load_model(job["model"], choose_machine(job["dtype"]))
    reference = frozen_copy(model)

    def train(rows: Sequence[Tokens], settings: Preference) -> None:
        train_plain(model, reference, rows, settings, journal=Journal("plain"))

    return _timed(job, train)


def reward(job: Job) -> dict[str, Any]:
    """A reward model through `train_reward`."""
    model = ScalarModel(load_model(job["model"], choose_machine(job["dtype"])))

    def train(rows: Sequence[Tokens], settings: Reward) -> None:
        train_reward(model, rows, settings, seed=0, journal=Journal("reward"))

    return _timed(job, train, kind=Reward)


def generate(job: Job) -> dict[str, Any]:
    """`sample` on one batch; nothing ends an answer, so both sides write every token."""
    model = load_model(job["model"], choose_machine(job["dtype"]))
    prompts = [row["ids"] for row in read_rows(job["prompts"])]

    def draw(prompts: Sequence[Sequence[int]]) -> int:
        new = job["max_new_tokens"]
        answers = sample(model, prompts, end_ids=[], max_new_tokens=new, seed=0, batch_size=len(prompts))
        return sum(len(answer.response) for answer in answers)

    clock = Clock()
    draw(prompts)
    with clock.running():
        tokens = draw(prompts)
    return {"seconds": clock.seconds, "examples": tokens}


def ppo(job: Job) -> dict[str, Any]:
    """All of `train_ppo`, from the first answers to the last update."""
    machine = choose_machine(job["dtype"])
    prompts = [row["ids"] for row in read_rows(job["prompts"])]

    def train(settings: Ppo) -> float:
        clock = Clock()
        policy = load_model(job["model"], machine)
        reference = frozen_copy(policy)
        scorer, value = (ScalarModel(load_model(job["model"], machine), seed=seed) for seed in range(2))
        scorer.requires_grad_(False)
        sampling = Sampling(max_new_tokens=job["max_new_tokens"])
        with clock.running():
            train_ppo(policy, value, scorer, reference, prompts, settings, sampling, end_ids=[], seed=0,
                      journal=Journal("ppo"))  # fmt: skip
        return clock.seconds

    still = {"learning_rate": 0.0, "value_learning_rate": 0.0}
    train(Ppo(**{**job["settings"], **still, "steps": 1}))
    settings = Ppo(**job["settings"])
    return {"seconds": train(settings), "examples": settings.steps * settings.batch_size}


def machine(job: Job) -> dict[str, Any]:
    """One line about where this runs."""
    facts = describe_machine()
    parts = [facts["processor"], f"{facts['threads']} threads", f"GPU: {facts['gpu']}", f"torch {torch.__version__}"]
    return {"machine": ", ".join(map(str, [*parts, f"Python {platform.python_version()}"]))}


def unavoidable_flops(model: PreTrainedModel, rows: Sequence[Tokens], *, epochs: int) -> float:
    """FLOPs of matrix products that DPO cannot do without, as `engine/cost.py` counts them.

    Each prompt once, the head on response tokens only, attention on pairs of tokens that see each other only; one
    forward for the reference, three forwards' worth for every epoch.
    """
    batch, config = pack(rows), model.config.get_text_config()
    heads, size = config.num_attention_heads, config.hidden_size
    width = heads * (getattr(config, "head_dim", None) or size // heads)
    body = 2 * len(batch.tokens_T) * active_parameters(model)
    attention = 4 * batch.attended * config.num_hidden_layers * width
    head = 2 * len(batch.target_R) * size * config.vocab_size
    flops: float = (1.0 + 3 * epochs) * (body + attention + head)
    return flops


def gemm_rate(device: torch.device) -> float:
    """The best rate of a few large square bfloat16 products, in FLOP/s."""
    best = 0.0
    for size in GEMM_SIZES[device.type]:
        left, right = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
        for _ in range(GEMM_TRIES):
            began = time.perf_counter()
            left @ right
            if device.type == "cuda":
                torch.cuda.synchronize()
            best = max(best, 2 * size**3 / (time.perf_counter() - began))
    return best


def _timed(job: Job, train: Callable[[Sequence[Tokens], Any], None], kind: type = Preference) -> dict[str, Any]:
    """One pass over the warm-up's pairs at learning rate 0, not counted, then the whole training, counted."""
    rows, warmup = pairs.read_tokens(job["pairs"]), pairs.read_tokens(job["warmup"])
    settings = kind(**job["settings"])
    train(warmup, kind(**{**job["settings"], "epochs": 1, "learning_rate": 0.0}))
    clock = Clock()
    with clock.running():
        train(rows, settings)
    return {"seconds": clock.seconds, "examples": len(rows) * settings.epochs}


if __name__ == "__main__":
    serve({
        "prepare": pairs.prepare, "dpo": dpo, "plain": plain, "reward": reward, "generate": generate, "ppo": ppo,
        "equality": equality.compare, "scale": scale.measure, "machine": machine,
    })  # fmt: skip
