"""`pairtune ppo`."""

from pathlib import Path

from pairtune.commands.figures import say_ppo
from pairtune.commands.inputs import given, load_reward_model, load_to_train, load_value_model, read_prompt_ids
from pairtune.commands.results import is_done, of_adapters, say_done, say_next, stage_of
from pairtune.engine.self_check import check_engine, rows_of_prompts
from pairtune.models.heads import ScalarModel
from pairtune.models.load import load_tokenizer
from pairtune.settings import PpoRun
from pairtune.stages.ppo import ppo
from pairtune.stages.stage import Facts
from pairtune.training.checkpoint import read_records


def run(settings: PpoRun) -> Path:
    """Train against a reward model with PPO. Returns the folder of the result."""
    if is_done(settings, "ppo"):
        return Path(settings.out)
    source = given(settings.reward_model, "reward_model")
    tokenizer = load_tokenizer(settings.model, trust_remote_code=settings.trust_remote_code)
    prompts, kept = read_prompt_ids(settings, tokenizer)
    reward_model = load_reward_model(settings, source, tokenizer)
    with stage_of(settings, "ppo") as stage:
        policy = load_to_train(settings)
        value = load_value_model(settings, tokenizer, policy, reward_model)
        rows = rows_of_prompts(prompts)
        check_engine(policy, rows)
        scorers = [reward_model.body] if isinstance(reward_model, ScalarModel) else []
        check_engine(value.body, rows, others=scorers, quiet=True)

        def work(folder: Path) -> Facts:
            ppo(
                folder,
                policy=policy,
                value=value,
                reward_model=reward_model,
                tokenizer=tokenizer,
                prompts=prompts,
                settings=settings.ppo,
                sampling=settings.sampling,
                seed=settings.seed,
                every=settings.checkpoint_every,
            )
            told = kept.write(folder, model=settings.model) | of_adapters(settings, policy, tokenizer, folder)
            return {"prompts": len(prompts), "steps": settings.ppo.steps, **told}

        say_done(stage.run(work))
        say_ppo(read_records(stage.folder), answers=settings.ppo.batch_size, prompts=len(prompts))
        scored = ["--reward-model", settings.reward_model, "--data", "PAIRS"]
        say_next("evaluate", "--model", str(stage.folder), "--reference", settings.model, *scored)
        return stage.folder
