"""`pairtune ppo`, `rloo`, `grpo` and `online-dpo`: one command but for how the answers are learned from."""

from pathlib import Path

from transformers import PreTrainedModel

from pairtune.commands.figures import say_online
from pairtune.commands.inputs import given, load_reward_model, load_to_train, load_value_model, read_prompt_ids
from pairtune.commands.results import is_done, of_adapters, say_done, say_next, stage_of
from pairtune.configure import loss_online
from pairtune.engine.self_check import check_engine, rows_of_prompts
from pairtune.grid import check_groups
from pairtune.models import adapters
from pairtune.models.heads import ScalarModel
from pairtune.models.load import load_tokenizer
from pairtune.runs import GrpoRun, OnlineDpoRun, OnlineRun, PpoRun, RlooRun
from pairtune.settings import Online
from pairtune.stages.online import online
from pairtune.stages.stage import Facts
from pairtune.training.checkpoint import read_records
from pairtune.training.grouped import GroupRelative, LeaveOneOut
from pairtune.training.online import Method
from pairtune.training.online_pairs import OnlinePairs
from pairtune.training.ppo import ActorCritic


def run(settings: OnlineRun) -> Path:
    """Train against a reward model, or a function, by sampling from the policy. Returns the folder of the result."""
    name, how = _named(settings)
    check_groups(settings)
    if is_done(settings, name):
        return Path(settings.out)
    source = given(settings.reward_model, "reward_model")
    tokenizer = load_tokenizer(settings.model, trust_remote_code=settings.trust_remote_code)
    prompts, kept = read_prompt_ids(settings, tokenizer)
    reward_model = load_reward_model(settings, source, tokenizer)
    with stage_of(settings, name) as stage:
        policy = load_to_train(settings)
        scalars = [reward_model] if isinstance(reward_model, ScalarModel) else []
        value = None
        if isinstance(settings, PpoRun):
            value = load_value_model(settings, tokenizer, policy, reward_model)
            scalars.insert(0, value)
        elif scalars and settings.lora:
            adapters.share(scalars[0].body, policy)
        rows = rows_of_prompts(prompts)
        check_engine(policy, rows)
        if scalars:
            check_engine(scalars[0].body, rows, others=[each.body for each in scalars[1:]], quiet=True)

        def work(folder: Path) -> Facts:
            online(
                folder,
                name=name,
                policy=policy,
                make=lambda: _method(settings, policy, value),
                reward_model=reward_model,
                tokenizer=tokenizer,
                prompts=prompts,
                settings=how,
                sampling=settings.sampling,
                seed=settings.seed,
                every=settings.checkpoint_every,
            )
            told = kept.write(folder, model=settings.model) | of_adapters(settings, policy, tokenizer, folder)
            return {"prompts": len(prompts), "steps": how.steps, **told}

        say_done(stage.run(work))
        alone = isinstance(settings, PpoRun) and how.batch_size <= len(prompts)
        say_online(read_records(stage.folder), answers=how.batch_size, alone=alone)
        scored = ["--reward-model", settings.reward_model, "--data", "PAIRS"]
        say_next("evaluate", "--model", str(stage.folder), "--reference", settings.model, *scored)
        return stage.folder


def _named(settings: OnlineRun) -> tuple[str, Online]:
    """What the command is called, and its own settings."""
    match settings:
        case PpoRun():
            return "ppo", settings.ppo
        case RlooRun():
            return "rloo", settings.rloo
        case GrpoRun():
            return "grpo", settings.grpo
        case OnlineDpoRun():
            return "online-dpo", settings.online
    raise TypeError(f"{type(settings).__name__} is no command's")


def _method(settings: OnlineRun, policy: PreTrainedModel, value: ScalarModel | None) -> Method:
    """How the command learns from answers; `value` is there for PPO."""
    match settings:
        case PpoRun():
            assert value is not None
            return ActorCritic(policy, value, settings.ppo)
        case RlooRun():
            return LeaveOneOut(policy, settings.rloo)
        case GrpoRun():
            return GroupRelative(policy, settings.grpo)
        case OnlineDpoRun():
            return OnlinePairs(policy, loss_online(settings.online), settings.online)
    raise TypeError(f"{type(settings).__name__} is no command's")
