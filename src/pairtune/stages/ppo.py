"""PPO: prompts and a reward model in, a policy out."""

from collections.abc import Sequence
from pathlib import Path

from transformers import PreTrainedModel

from pairtune.data.ends import end_ids
from pairtune.engine.own_score import OwnScore
from pairtune.models.heads import ScalarModel
from pairtune.models.load import Tokenizer, frozen_copy, save_model
from pairtune.settings import Drawing, Ppo
from pairtune.stages.stage import Facts
from pairtune.training.checkpoint import Journal
from pairtune.training.loop import Measure
from pairtune.training.ppo import train_ppo


def ppo(
    folder: Path,
    *,
    policy: PreTrainedModel,
    value: ScalarModel,
    reward_model: ScalarModel | OwnScore,
    tokenizer: Tokenizer,
    prompts: Sequence[Sequence[int]],
    settings: Ppo,
    sampling: Drawing,
    seed: int,
    measure: Measure | None = None,
) -> Facts:
    """Train a policy that still is the reference, and save it. Its last step, and the seconds of all its steps.

    value: a second copy of the reward model, which learns; if that is a function, the policy with a scalar on top.
    """
    if isinstance(reward_model, ScalarModel):
        reward_model.requires_grad_(False)
    journal = Journal("ppo", folder)
    train_ppo(
        policy,
        value,
        reward_model,
        frozen_copy(policy),
        prompts,
        settings,
        sampling,
        end_ids=end_ids(tokenizer),
        seed=seed,
        journal=journal,
        measure=measure,
    )
    save_model(policy, tokenizer, folder)
    return journal.end()
