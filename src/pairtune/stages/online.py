"""PPO, RLOO, GRPO and online preference tuning: prompts and a reward in, a policy out."""

from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean

from transformers import PreTrainedModel

from pairtune.data.ends import end_ids
from pairtune.engine.own_score import OwnScore
from pairtune.evaluation.policy import log_ratios_to, write_answers
from pairtune.models.heads import ScalarModel
from pairtune.models.load import Tokenizer, frozen_copy, save_model
from pairtune.sampling.sampler import stream_seed
from pairtune.settings import Drawing, Online, Sampling
from pairtune.stages.stage import Facts
from pairtune.training.checkpoint import Journal
from pairtune.training.loop import Measure
from pairtune.training.online import Method, train_online

# Training prompts that are answered to measure how far a policy is from its reference.
DISTANCE_PROMPTS = 256


def online(
    folder: Path,
    *,
    name: str,
    policy: PreTrainedModel,
    make: Callable[[], Method],
    reward_model: ScalarModel | OwnScore,
    tokenizer: Tokenizer,
    prompts: Sequence[Sequence[int]],
    settings: Online,
    sampling: Drawing,
    seed: int,
    every: float = 0.0,
    measure: Measure | None = None,
) -> Facts:
    """Train a policy that still is the reference, and save it. Its last step, and the seconds of all its steps.

    make(): the method, whose optimisers then hold what learns of the policy.
    """
    if isinstance(reward_model, ScalarModel):
        reward_model.requires_grad_(False)
    journal = Journal(name, folder, every=every)
    reference = frozen_copy(policy)
    train_online(
        policy,
        make(),
        reward_model,
        reference,
        prompts,
        settings,
        sampling,
        end_ids=end_ids(tokenizer),
        seed=seed,
        journal=journal,
        measure=measure,
        distance=lambda: distance(policy, reference, tokenizer, prompts, settings, sampling, seed=seed),
    )
    save_model(policy, tokenizer, folder)
    return journal.end()


def distance(
    policy: PreTrainedModel,
    reference: PreTrainedModel,
    tokenizer: Tokenizer,
    prompts: Sequence[Sequence[int]],
    settings: Online,
    sampling: Drawing,
    *,
    seed: int,
) -> float:
    """KL(policy‖reference) in nats per response, by answers to training prompts at the temperature of training."""
    drawing = Sampling(
        max_new_tokens=sampling.max_new_tokens, batch_size=sampling.batch_size, temperature=settings.temperature
    )
    asked = list(dict.fromkeys(map(tuple, prompts)))[:DISTANCE_PROMPTS]
    answers = write_answers(policy, asked, drawing, end_ids=end_ids(tokenizer), seed=stream_seed(seed, "distance"))
    return fmean(log_ratios_to(reference, answers, temperature=settings.temperature))
