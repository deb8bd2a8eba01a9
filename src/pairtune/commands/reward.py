"""`pairtune reward`."""

from pathlib import Path

from pairtune.commands.figures import say_share
from pairtune.commands.inputs import load, split_pairs
from pairtune.commands.results import begin, check_out, finish, result_folder, say_next
from pairtune.engine.cost import measured
from pairtune.engine.self_check import check_engine
from pairtune.evaluation.heldout import accuracy, reward_margins
from pairtune.models.heads import ScalarModel
from pairtune.settings import RewardRun
from pairtune.training.checkpoint import Journal
from pairtune.training.reward import normalise, train_reward


def run(settings: RewardRun) -> Path:
    """Train a reward model and measure it on held-out pairs. Returns the folder of the result."""
    check_out(settings.out)
    train, heldout, tokenizer = split_pairs(settings)
    with result_folder(settings, "reward") as out:
        body = load(settings)
        check_engine(body, train)
        begin(out, settings, "reward")
        model = ScalarModel(body, seed=settings.seed)
        with measured() as cost:
            journal = Journal("reward", out, cost=cost)
            train_reward(model, train, settings.reward, seed=settings.seed, journal=journal)
        normalise(model, train)
        model.save(out, tokenizer)
        right = accuracy(reward_margins(model, heldout), heldout)
        say_share("held-out accuracy", right, "pair")
        finish(out, {"pairs": len(train), "heldout_accuracy": right.to_json()}, cost)
        say_next("ppo", "--model", settings.model, "--reward-model", str(out), "--data", settings.data)
        return out
