"""`pairtune reward`."""

from pathlib import Path

from pairtune import parallel
from pairtune.commands.figures import say_share
from pairtune.commands.inputs import OF_REWARDS, load_to_train, split_pairs
from pairtune.commands.results import MERGED, base_facts, is_done, say_done, say_next, stage_of
from pairtune.engine.self_check import check_engine
from pairtune.evaluation.heldout import accuracy
from pairtune.runs import RewardRun
from pairtune.stages.reward import reward
from pairtune.stages.stage import Facts


def run(settings: RewardRun) -> Path:
    """Train a reward model and measure it on held-out pairs. Returns the folder of the result."""
    if is_done(settings, "reward"):
        return Path(settings.out)
    with parallel.first_before_others():
        train, heldout, tokenizer, kept = split_pairs(settings, margins=OF_REWARDS)
    with stage_of(settings, "reward") as stage:
        with parallel.first_before_others():
            body = load_to_train(settings)
            check_engine(body, train)

        def work(folder: Path) -> Facts:
            found = reward(
                folder,
                body=body,
                tokenizer=tokenizer,
                rows=train,
                heldout=heldout,
                settings=settings.reward,
                seed=settings.seed,
                every=settings.checkpoint_every,
                shard=settings.shard,
                merged=folder / MERGED if settings.merge else None,
            )
            told = kept.write(folder, model=settings.model) | base_facts(settings)
            right = accuracy(found["margins"], heldout)
            say_share("held-out accuracy", right, "pair")
            return {"pairs": len(train), "heldout_accuracy": right.to_json(), **told}

        say_done(stage.run(work))
        say_next("ppo", "--model", settings.model, "--reward-model", str(stage.folder), "--data", settings.data)
        return stage.folder
