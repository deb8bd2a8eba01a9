"""`pairtune ppo`."""

from pathlib import Path

from pairtune.commands.figures import say_ppo
from pairtune.commands.inputs import given, load, load_reward_model, read_prompt_ids
from pairtune.commands.results import begin, check_out, finish, result_folder, say_next
from pairtune.data.ends import end_ids
from pairtune.engine.cost import measured
from pairtune.engine.self_check import check_engine, rows_of_prompts
from pairtune.models.load import frozen_copy, load_tokenizer, save_model
from pairtune.settings import PpoRun
from pairtune.training.checkpoint import Journal
from pairtune.training.ppo import train_ppo


def run(settings: PpoRun) -> Path:
    """Train against a reward model with PPO. Returns the folder of the result."""
    check_out(settings.out)
    folder = given(settings.reward_model, "reward_model")
    tokenizer = load_tokenizer(settings.model, trust_remote_code=settings.trust_remote_code)
    prompts = read_prompt_ids(settings.data, settings.max_tokens, tokenizer)
    reward_model = load_reward_model(settings, folder, tokenizer)
    value = load_reward_model(settings, folder, tokenizer)
    reward_model.requires_grad_(False)
    with result_folder(settings, "ppo") as out:
        policy = load(settings)
        reference = frozen_copy(policy)
        rows = rows_of_prompts(prompts)
        check_engine(policy, rows, others=[reference])
        check_engine(reward_model.body, rows, others=[value.body], quiet=True)
        begin(out, settings, "ppo")
        with measured() as cost:
            journal = Journal("ppo", out, cost=cost)
            train_ppo(
                policy,
                value,
                reward_model,
                reference,
                prompts,
                settings.ppo,
                settings.sampling,
                end_ids=end_ids(tokenizer),
                seed=settings.seed,
                journal=journal,
            )
        save_model(policy, tokenizer, out)
        finish(out, {"prompts": len(prompts), "steps": settings.ppo.steps}, cost)
        say_ppo(journal.rows, answers=settings.ppo.batch_size, prompts=len(prompts))
        scored = ["--reward-model", settings.reward_model, "--data", "PAIRS"]
        say_next("evaluate", "--model", str(out), "--reference", settings.model, *scored)
        return out
