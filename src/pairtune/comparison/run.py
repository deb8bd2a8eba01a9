"""The comparison from start to end: each stage a method here, in the order in which they run."""

import dataclasses
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from pairtune import disk
from pairtune.comparison.measure import Snapshots, measure_arm
from pairtune.comparison.pairs import SharedPairs, gold_text, read_own_pairs, sample_review_pairs
from pairtune.comparison.plan import STAGES, check_disk, data_hash, model_hash, open_run, write_environment
from pairtune.comparison.stages import Done, Stages
from pairtune.comparison.summary import summarise
from pairtune.configure import losses_of
from pairtune.data import reviews
from pairtune.data.pack import Tokens
from pairtune.engine.cost import Cost, uncounted
from pairtune.engine.examples import prepare
from pairtune.engine.hidden import TOKENS_PER_PASS, is_padded, use_padded
from pairtune.engine.reference import reference_logprobs
from pairtune.engine.scalars import score_rewards
from pairtune.engine.unrelated import unrelated_rows
from pairtune.errors import InputError
from pairtune.evaluation.heldout import reward_margins, wins
from pairtune.evaluation.policy import Answer
from pairtune.evaluation.statistics import estimate
from pairtune.models.heads import ScalarModel, load_scalar_model
from pairtune.models.load import frozen_copy, load_model, load_tokenizer, save_model
from pairtune.models.machine import choose_machine
from pairtune.progress import say
from pairtune.settings import CompareRun, to_mapping
from pairtune.training.checkpoint import Journal
from pairtune.training.ppo import train_ppo
from pairtune.training.preference import train_preference
from pairtune.training.preflight import check_engine, check_first_loss, check_rows
from pairtune.training.reward import normalise, train_reward
from pairtune.training.sft import train_sft


def compare(settings: CompareRun) -> Path:
    """Run every stage that is not done yet and write the summary. Returns the run's folder.

    A method that fails is a result: it is named in the summary, and the others go on.
    """
    out = open_run(settings)
    return Comparison(settings, out).run()


class Comparison:
    """One run. What it holds between stages is paths and small numbers; models live inside a stage only."""

    def __init__(self, settings: CompareRun, out: Path) -> None:
        self.settings, self.out = settings, out
        self.losses = losses_of(settings)
        self.machine = choose_machine(settings.dtype)
        self.stages = Stages(out / STAGES)
        self.tokenizer = load_tokenizer(settings.model, trust_remote_code=settings.trust_remote_code)
        self.own_data = settings.data != "reviews"
        if self.own_data and not self.stages.finished("pairs"):
            assert self.own_pairs  # what is wrong with them is told before a model is loaded
        say(f"machine: {self.machine}")
        self.padded: bool | None = None  # whether the architecture needs the padded path, once that is known
        self.tokens_per_pass = TOKENS_PER_PASS[self.machine.device.type]

    def run(self) -> Path:
        """Every stage in order."""
        hashes = {"model": model_hash(self.settings.model), "data": self.data_hash}
        write_environment(self.out, self.settings, self.machine, hashes)
        root = {
            "hashes": hashes,
            "seed": self.settings.seed,
            "computes": f"{self.machine.device.type} {self.machine.dtype}",
        }
        gold = None if self.own_data else self.fit_gold(root)
        warm = self.warm_start(root, gold)
        pairs = self.make_pairs(warm, gold)
        logprobs, unrelated = self.reference_pass(pairs), self.unrelated_pass(pairs)
        judge = self.train_judge(pairs) if self.own_data else None
        reward = self.reward_model(pairs)
        arms: dict[str, Done | None] = {"reference": None}
        failed: dict[str, str] = {}
        for method in self.settings.methods:
            try:
                arms[method] = self.ppo(pairs, reward) if method == "ppo" else self.tune(method, pairs)
            except (InputError, KeyboardInterrupt):
                raise
            except Exception as error:  # a failed run is a result
                if disk.is_full(error):
                    raise
                failed[method] = f"{type(error).__name__}: {error}".splitlines()[0]
                say(f"  {method} failed: {failed[method]}")
        measured = {arm: self.measure(arm, done, pairs, gold, judge, reward) for arm, done in arms.items()}
        summarise(
            self.out,
            self.settings,
            tokenizer=self.tokenizer,
            stages={
                "gold": gold or judge,
                "warm_start": warm,
                "pairs": pairs,
                "reference": logprobs,
                "unrelated": unrelated,
                "reward": reward,
                **{arm: done for arm, done in arms.items() if done},
            },
            measured=measured,
            failed=failed,
            train=self.pairs.train,
            heldout=self.pairs.heldout,
        )
        return self.out

    # ---- what everything depends on ------------------------------------------------------------------------------

    @cached_property
    def data_hash(self) -> str:
        """SHA-256 of the data's file (or the name of a hub data set)."""
        return data_hash(self.settings.data) if self.own_data else reviews.content_hash()

    @cached_property
    def own_pairs(self) -> SharedPairs:
        """Somebody's own pairs, read and split."""
        return read_own_pairs(self.settings, self.tokenizer)

    @cached_property
    def reviews(self) -> list[reviews.Review]:
        """The built-in task's reviews."""
        return reviews.load_reviews()

    @cached_property
    def pairs(self) -> SharedPairs:
        """The pairs, once their stage is done."""
        return SharedPairs.load(self.out / "stages" / "pairs" / "pairs.jsonl")

    @property
    def reference_folder(self) -> Path:
        """The warm-started model."""
        return self.out / "models" / "reference"

    def load(self, name: str) -> PreTrainedModel:
        """One of the run's models, on the engine's path that is right for its architecture."""
        trust = self.settings.trust_remote_code
        return self._on_its_path(load_model(str(self.out / "models" / name), self.machine, trust_remote_code=trust))

    def load_scalar(self, name: str) -> ScalarModel:
        """One of the run's reward models, likewise."""
        trust = self.settings.trust_remote_code
        model, _ = load_scalar_model(str(self.out / "models" / name), self.machine, trust_remote_code=trust)
        self._on_its_path(model.body)
        return model

    def _on_its_path(self, model: PreTrainedModel) -> PreTrainedModel:
        """The first model of a run is checked against the oracle; the others have its architecture and its path."""
        if self.padded is None and self.stages.finished("pairs"):
            check_engine(model, self.pairs.train, quiet=True)
            self.padded = is_padded(model)
        elif self.padded:
            use_padded(model)
        return model

    # ---- the stages ----------------------------------------------------------------------------------------------

    def fit_gold(self, root: dict[str, Any]) -> Done:
        """The gold scorer, from the reviews' own labels."""

        def work(folder: Path) -> dict[str, Any]:
            scorer, right = reviews.fit_gold_scorer(self.reviews, seed=self.settings.seed)
            scorer.save(folder)
            return {"kind": "gold", "heldout_accuracy": estimate(right).to_json()}

        inputs = {"data": root["hashes"]["data"], "seed": root["seed"]}
        done = self.stages.run("gold", inputs, work, title="gold scorer: TF-IDF and logistic regression on the labels")
        accuracy = done.facts["heldout_accuracy"]
        say(f"  right on {accuracy['mean']:.1%} of {accuracy['n']} held-out reviews")
        return done

    def warm_start(self, root: dict[str, Any], gold: Done | None) -> Done:
        """SFT on reviews (or on the chosen side of one's own pairs); the result is the reference."""
        settings = self.settings

        def work(folder: Path) -> dict[str, Any]:
            model = load_model(settings.model, self.machine, trust_remote_code=settings.trust_remote_code)
            check_disk(self.out, sum(p.numel() * p.element_size() for p in model.parameters()))
            rows = self.demonstrations(gold)
            check_engine(model, rows)
            journal = Journal("sft", folder, cost=self.stages.cost)
            if settings.sft.epochs > 0:
                train_sft(model, rows, settings.sft, seed=settings.seed, journal=journal)
            save_model(model, self.tokenizer, self.reference_folder)
            return {"demonstrations": len(rows), "epochs": settings.sft.epochs}

        inputs = {
            **root,
            "gold": gold.key if gold else None,
            "sft": to_mapping(settings.sft),
            "split": [settings.heldout, settings.pairs] if self.own_data else None,
            "max_tokens": settings.max_tokens,
            "max_new_tokens": settings.sampling.max_new_tokens,
        }
        title = "warm start: supervised fine-tuning"
        return self.stages.run("warm_start", inputs, work, title=title, leaves=self.reference_folder)

    def demonstrations(self, gold: Done | None) -> list[Tokens]:
        """What warm start imitates."""
        settings = self.settings
        if gold is None:
            rows = self.own_pairs.train
            return [Tokens(row.prompt, row.responses[:1]) for row in rows[: settings.sft.demonstrations]]
        return reviews.demonstrations(
            self.reviews,
            self.tokenizer,
            reviews.GoldScorer.load(gold.folder),
            count=settings.sft.demonstrations,
            max_new_tokens=settings.sampling.max_new_tokens,
            seed=settings.seed,
        )

    def make_pairs(self, warm: Done, gold: Done | None) -> Done:
        """Pairs with labels, split by prompt."""
        settings = self.settings

        def work(folder: Path) -> dict[str, Any]:
            facts: dict[str, Any] = {}
            if gold is None:
                pairs = self.own_pairs
            else:
                scorer = reviews.GoldScorer.load(gold.folder)
                prompts = reviews.prompts(self.reviews, self.tokenizer, seed=settings.seed)
                pairs, facts = sample_review_pairs(self.load("reference"), self.tokenizer, scorer, prompts, settings)
            pairs.save(folder / "pairs.jsonl", self.tokenizer)
            bos = self.tokenizer.bos_token_id
            check_rows(pairs.train, pairs.heldout, self.tokenizer, end_id=self.tokenizer.eos_token_id, bos_id=bos)
            return facts

        inputs = {
            "warm_start": warm.key,
            "gold": gold.key if gold else None,
            "counts": [settings.pairs, settings.heldout],
            "sampling": to_mapping(settings.sampling),
            "max_tokens": settings.max_tokens,
        }
        title = "pairs: split by prompt" if self.own_data else "pairs: sampled from the reference, labelled by gold"
        done = self.stages.run("pairs", inputs, work, title=title)
        say(f"  {len(self.pairs.train)} training and {len(self.pairs.heldout)} held-out pairs")
        return done

    def reference_pass(self, pairs: Done) -> Done:
        """The reference's log-probabilities of every response, once. Its cost is that of the training pairs.

        Methods without a reference need none of the training pairs; measuring always needs the held-out ones.
        """
        wanted = any(loss.needs_reference for loss in self.losses.values())

        def work(folder: Path) -> dict[str, Any]:
            model = self.load("reference")
            cost = Cost()
            if wanted:
                _, cost = reference_logprobs(model, self.pairs.train, tokens_per_pass=self.tokens_per_pass, say=say)
            reference_logprobs(model, self.pairs.heldout, tokens_per_pass=self.tokens_per_pass, say=say)
            return {"cost": cost.to_json()}

        inputs = {"pairs": pairs.key, "training": wanted}
        return self.stages.run("reference", inputs, work, title="reference: its log-probabilities, once")

    def unrelated_pass(self, pairs: Done) -> Done | None:
        """The reference's log-probabilities of responses to other prompts, for methods that estimate a KL by them."""
        if not any("kl_baseline" in loss.arguments for loss in self.losses.values()):
            return None

        def work(folder: Path) -> dict[str, Any]:
            rows = unrelated_rows(self.pairs.train, seed=self.settings.seed)
            _, cost = reference_logprobs(self.load("reference"), rows, tokens_per_pass=self.tokens_per_pass, say=say)
            return {"cost": cost.to_json()}

        inputs = {"pairs": pairs.key, "seed": self.settings.seed}
        return self.stages.run("unrelated", inputs, work, title="reference: of responses to other prompts, once")

    def tune(self, objective: str, pairs: Done) -> Done:
        """One preference objective on the pairs."""
        settings, loss = self.settings, self.losses[objective]

        def work(folder: Path) -> dict[str, Any]:
            model = self.load("reference")
            with uncounted():  # the reference's log-probabilities have stages of their own
                examples, _ = prepare(
                    model,
                    self.pairs.train,
                    loss.arguments,
                    needs_reference=loss.needs_reference,
                    seed=settings.seed,
                    tokens_per_pass=self.tokens_per_pass,
                )
            held, _ = reference_logprobs(model, self.pairs.heldout, tokens_per_pass=self.tokens_per_pass)
            if examples.reference is not None:
                check_first_loss(model, examples.rows, examples.reference)
            snapshots = Snapshots(folder, model, self.pairs.heldout, held, settings, self.tokenizer)
            train_preference(
                model,
                examples,
                loss,
                settings.preference,
                seed=settings.seed,
                journal=Journal(objective, folder, cost=self.stages.cost),
                measure=snapshots.take,
                measurements=settings.evaluation.curve_points,
            )
            save_model(model, self.tokenizer, self.out / "models" / objective)
            return {}

        shared = dataclasses.replace(settings.preference, parameters={})  # the loss has those that are its own
        inputs = {
            "pairs": pairs.key,
            "preference": to_mapping(shared),
            "loss": loss.to_json(),
            **self.curve_inputs,
        }
        leaves = self.out / "models" / objective
        return self.stages.run(objective, inputs, work, title=f"{objective}: preference tuning", leaves=leaves)

    @property
    def curve_inputs(self) -> dict[str, Any]:
        """What the measurements along the way depend on."""
        evaluation = self.settings.evaluation
        return {"curve": [evaluation.curve_points, evaluation.curve_prompts], "seed": self.settings.seed}

    def train_judge(self, pairs: Done) -> Done:
        """A reward model on the third part of one's own pairs: the score that no arm is trained on."""
        return self._fit_reward("judge", self.pairs.judge, pairs, title="judge: a reward model on pairs kept apart")

    def reward_model(self, pairs: Done) -> Done:
        """The reward model, on the same pairs as preference tuning."""
        return self._fit_reward("reward", self.pairs.train, pairs, title="reward model: Bradley-Terry on the pairs")

    def _fit_reward(self, name: str, rows: Sequence[Tokens], pairs: Done, *, title: str) -> Done:
        settings = self.settings

        def work(folder: Path) -> dict[str, Any]:
            model = ScalarModel(self.load("reference"), seed=settings.seed)
            journal = Journal(name, folder, cost=self.stages.cost)
            train_reward(model, rows, settings.reward, seed=settings.seed, journal=journal)
            normalise(model, rows)
            model.save(self.out / "models" / name, self.tokenizer)
            with uncounted():
                margins = reward_margins(model, self.pairs.heldout)
            return {"kind": "judge", "margins": margins}

        inputs = {"pairs": pairs.key, "reward": to_mapping(settings.reward), "seed": settings.seed}
        done = self.stages.run(name, inputs, work, title=title, leaves=self.out / "models" / name)
        accuracy = estimate(wins(done.facts["margins"]), [row.prompt for row in self.pairs.heldout])
        done.facts["heldout_accuracy"] = accuracy.to_json()
        say(f"  right on {accuracy.mean:.1%} of {accuracy.n} held-out pairs")
        return done

    def ppo(self, pairs: Done, reward: Done) -> Done:
        """PPO on the training prompts with the reward model."""
        settings = self.settings

        def work(folder: Path) -> dict[str, Any]:
            policy = self.load("reference")
            reference = frozen_copy(policy)
            reward_model = self.load_scalar("reward").requires_grad_(False)
            value = self.load_scalar("reward")
            held, _ = reference_logprobs(reference, self.pairs.heldout, tokens_per_pass=self.tokens_per_pass)
            snapshots = Snapshots(folder, policy, self.pairs.heldout, held, settings, self.tokenizer)
            train_ppo(
                policy,
                value,
                reward_model,
                reference,
                [row.prompt for row in self.pairs.train],
                settings.ppo,
                settings.sampling,
                end_ids=[self.tokenizer.eos_token_id],
                seed=settings.seed,
                journal=Journal("ppo", folder, cost=self.stages.cost),
                measure=snapshots.take,
                measurements=settings.evaluation.curve_points,
            )
            save_model(policy, self.tokenizer, self.out / "models" / "ppo")
            return {}

        inputs = {
            "reward": reward.key,
            "ppo": to_mapping(settings.ppo),
            "sampling": to_mapping(settings.sampling),
            **self.curve_inputs,
        }
        leaves = self.out / "models" / "ppo"
        return self.stages.run("ppo", inputs, work, title="ppo: sampling, judging, updating", leaves=leaves)

    def measure(
        self, arm: str, done: Done | None, pairs: Done, gold: Done | None, judge: Done | None, reward: Done
    ) -> Done:
        """Every arm by the same definitions, on the same held-out prompts and pairs."""
        settings = self.settings

        def work(folder: Path) -> dict[str, Any]:
            reference = self.load("reference")
            held, _ = reference_logprobs(reference, self.pairs.heldout, tokens_per_pass=self.tokens_per_pass)
            policy = reference if done is None else self.load(arm)
            reward_model = self.load_scalar("reward")
            return measure_arm(
                policy,
                reference,
                self.pairs.heldout,
                held,
                reward_model,
                self.external_score(gold),
                settings,
                self.tokenizer,
                snapshots=Snapshots.load(done.folder) if done else [],
            )

        inputs = {
            "arm": done.key if done else None,
            "pairs": pairs.key,
            "reward": reward.key,
            "judge": judge.key if judge else None,
            "evaluation": to_mapping(settings.evaluation),
            "sampling": to_mapping(settings.sampling),
            "seed": settings.seed,
        }
        return self.stages.run(f"measure_{arm}", inputs, work, title=f"measuring {arm}")

    def external_score(self, gold: Done | None) -> Any:
        """Answers in, one score each out, by a scorer that no arm was trained on."""
        if gold is not None:
            scorer = reviews.GoldScorer.load(gold.folder)

            def by_gold(answers: Sequence[Answer]) -> list[float]:
                texts = [gold_text(self.tokenizer, answer.prompt, answer.response) for answer in answers]
                return [float(score) for score in scorer(texts)]

            return by_gold
        model = self.load_scalar("judge")

        def by_judge(answers: Sequence[Answer]) -> list[float]:
            return [score[0] for score in score_rewards(model, [answer.tokens for answer in answers])]

        return by_judge
