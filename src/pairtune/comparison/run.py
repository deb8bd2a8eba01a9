"""The comparison from start to end: what every arm depends on, stage by stage in the order in which they run."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from pairtune import clock, manifest, own
from pairtune.comparison.arms import Arms
from pairtune.comparison.context import Context
from pairtune.comparison.pairs import SharedPairs, sample_review_pairs
from pairtune.comparison.plan import open_run, run_folder, write_environment
from pairtune.comparison.sittings import Sittings
from pairtune.comparison.sizes import settle
from pairtune.comparison.summary import summarise, tell_time
from pairtune.data import reviews
from pairtune.data.ends import end_ids
from pairtune.data.left_out import write_left_out
from pairtune.data.pack import Tokens
from pairtune.data.preflight import check_rows
from pairtune.data.prompt_format import in_format
from pairtune.data.schema import Pair, Rows
from pairtune.data.sources import asked_of, read_pairs
from pairtune.data.trained import hashes_of, keep
from pairtune.engine.cost import Cost, uncounted
from pairtune.engine.kernels import round_into
from pairtune.engine.mismatched import mismatched_rows
from pairtune.engine.self_check import check_engine
from pairtune.evaluation.heldout import accuracy, reward_margins
from pairtune.evaluation.statistics import share
from pairtune.grid import rewarded
from pairtune.hashes import model_hash
from pairtune.holding import held
from pairtune.models import adapters
from pairtune.models.load import Tokenizer, load_model, load_tokenizer, resolve
from pairtune.objectives.loss import Loss
from pairtune.progress import printable, say
from pairtune.runs import CompareRun
from pairtune.sampling.sampler import stream_seed
from pairtune.settings import LARGEST_SEED
from pairtune.settings_list import to_mapping
from pairtune.stages.reward import reward
from pairtune.stages.sft import sft
from pairtune.stages.stage import Done
from pairtune.stopping import told

# report(folder, count): makes what is to be made of the summary; `count()` puts the run's time so far into it.
Report = Callable[[Path, Callable[[], None]], object]


def compare(settings: CompareRun, *, report: Report | None = None) -> Path:
    """Run every stage that is not done yet and write the summary. Returns the run's folder.

    A method that fails is a result: it is named in the summary, and the others go on. What one's own data decide is
    settled first. The clock stops after the report.
    """
    began = clock.began()
    run_folder(settings)  # what is wrong with it is told before anything is read
    tokenizer = load_tokenizer(settings.model, trust_remote_code=settings.trust_remote_code)
    given = None
    if settings.data != "reviews":
        given = in_format(read_pairs(settings.data, asked=asked_of(settings)), tokenizer, settings.prompt_format)
        settings = settle(settings, given.rows, tokenizer)
    with held(run_folder(settings)):
        return _compared(settings, tokenizer, given, report=report, began=began)


def _compared(
    settings: CompareRun, tokenizer: Tokenizer, given: Rows[Pair] | None, *, report: Report | None, began: float
) -> Path:
    """The comparison, its folder this run's alone."""
    out = open_run(settings)
    write_left_out(out, given.skipped if given else ())
    with Sittings(out / manifest.SITTINGS, began=began).under_way() as sittings:

        def count() -> None:
            tell_time(out, sittings.finish())

        try:
            Comparison(Context(settings, out, tokenizer, given, sittings)).run()
        except KeyboardInterrupt as error:
            raise told(error, "the same command goes on from the stages that are finished") from error
        count()
        if report:
            report(out, count)
    manifest.seal_run(out)
    return out


class Comparison:
    """The stages that come before the arms, and what is written after them."""

    def __init__(self, context: Context) -> None:
        self.context, self.settings, self.out = context, context.settings, context.out
        self.tokenizer = context.tokenizer

    def run(self) -> Path:
        """Every stage in order."""
        context, settings = self.context, self.settings
        hashes = {"model": model_hash(resolve(settings.model)), "data": context.data_hash}
        write_environment(self.out, settings, context.machine, hashes)
        computes = f"{context.machine.device.type} {context.machine.dtype}"
        root = {"hashes": hashes, "seed": settings.seed, "computes": computes}
        gold = None if context.own_data else self.fit_gold(root)
        warm = self.warm_start(root, gold)
        pairs = self.make_pairs(warm, gold)
        logprobs, mismatched = self.reference_pass(pairs), self.mismatched_pass(pairs)
        external = gold or self.train_judge(pairs)
        rewards = self.reward_model(pairs) if any(map(rewarded, settings.methods)) else None  # nothing else needs it
        arms = Arms(context, pairs=pairs, reward=rewards, gold=external)
        arms.check_disk()
        arms.train_all()
        validated = arms.validate("reference", None) if context.validation else None
        measured, others = arms.measure_all(), arms.measure_others()
        before = {"reference": logprobs, "mismatched": mismatched, "reward": rewards}
        summarise(
            self.out,
            settings,
            tokenizer=self.tokenizer,
            stages={"gold": external, "warm_start": warm, "pairs": pairs}
            | {name: done for name, done in before.items() if done},
            trials={method: arms.trials[method] for method in context.candidates},
            measured=measured,
            others=others,
            validated=validated,
            pairs=context.pairs,
        )
        return self.out

    def fit_gold(self, root: dict[str, Any]) -> Done:
        """The gold scorer, from the reviews' own labels."""

        def work(folder: Path) -> dict[str, Any]:
            scorer, right = reviews.fit_gold_scorer(self.context.reviews, seed=self.settings.seed)
            scorer.save(folder)
            return {"kind": "gold", "heldout_accuracy": share(right).to_json()}

        stage = self.context.stage("gold", {"data": root["hashes"]["data"], "seed": root["seed"]})
        done = self.context.done(stage, work, title="gold scorer: TF-IDF and logistic regression on the labels")
        accuracy = done.facts["heldout_accuracy"]
        say(f"  right on {accuracy['mean']:.1%} of {accuracy['n']} held-out reviews")
        return done

    def warm_start(self, root: dict[str, Any], gold: Done | None) -> Done:
        """SFT on reviews (or on the chosen side of one's own pairs); the result is the reference."""
        settings = self.settings

        def work(folder: Path) -> dict[str, Any]:
            model = self._given_model()
            shared = 2 + self.context.own_data  # reference, reward model, judge
            parameters = sum(p.numel() for p in model.parameters())
            self.context.check_disk(parameters, self.context.every_candidate, shared=shared)
            rows = self.demonstrations(gold)
            if settings.lora and settings.sft.epochs:
                adapters.adapt(model, settings, base="", seed=settings.seed)
            check_engine(model, rows)
            return sft(
                folder,
                model=model,
                tokenizer=self.tokenizer,
                rows=rows,
                settings=settings.sft,
                seed=settings.seed,
                every=settings.checkpoint_every,
                whole=True,
            )

        rests_on = {
            **root,
            "gold": gold.key if gold else None,
            "sft": to_mapping(settings.sft),
            "split": self.context.split,
            "max_tokens": settings.max_tokens,
            "max_new_tokens": settings.sampling.max_new_tokens,
            **self.context.adapted,
        }
        tunes = settings.sft.epochs > 0
        title = "warm start: supervised fine-tuning" if tunes else "reference: the model as it is"
        return self.context.done(self.context.stage("warm_start", rests_on, model="reference"), work, title=title)

    def demonstrations(self, gold: Done | None) -> list[Tokens]:
        """What warm start imitates."""
        settings = self.settings
        if gold is None:
            rows = self.context.own_pairs.train
            some = rows[: settings.sft.demonstrations]
            return [Tokens(row.prompt, row.responses[:1], weight=row.weight) for row in some]
        return reviews.demonstrations(
            self.context.reviews,
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
                pairs = self.context.own_pairs
            else:
                scorer = reviews.GoldScorer.load(gold.folder)
                prompts = reviews.prompts(self.context.reviews, self.tokenizer, seed=settings.seed)
                pairs, facts = sample_review_pairs(
                    self.context.load("reference"),
                    self.tokenizer,
                    scorer,
                    prompts,
                    settings,
                    validation=self.context.validation,
                )
            pairs.save(folder / "pairs.jsonl", self.tokenizer)
            texts = (str(self.tokenizer.decode(list(row.prompt))) for row in pairs.train)
            keep(folder, hashes_of(texts) if pairs.prompts is None else pairs.prompts, model=settings.model)
            others = [*pairs.heldout, *pairs.validation]
            ends, own = end_ids(self.tokenizer), self.context.own_data
            check_rows(pairs.train, others, self.tokenizer, end_ids=ends, places=pairs.places, say_longer=not own)
            return facts

        rests_on = {
            "warm_start": warm.key,
            "gold": gold.key if gold else None,
            "counts": [settings.pairs, settings.heldout, self.context.validation],
            "sampling": to_mapping(settings.sampling),
            "max_tokens": settings.max_tokens,
        }
        title = (
            "pairs: split by prompt" if self.context.own_data else "pairs: sampled from the reference, labelled by gold"
        )
        done = self.context.done(self.context.stage("pairs", rests_on), work, title=title)
        self.context.pairs = SharedPairs.load(done.folder / "pairs.jsonl")
        sizes = [(len(self.context.pairs.train), "training"), (len(self.context.pairs.heldout), "held-out")]
        sizes += [(len(self.context.pairs.validation), "validation")] * bool(self.context.validation)
        say(f"  {', '.join(f'{size} {part}' for size, part in sizes)} pairs")
        return done

    def reference_pass(self, pairs: Done) -> Done:
        """The reference's log-probabilities of every response, once. Its cost is that of the training pairs.

        Methods without a reference need none of the training pairs; measuring always needs the others.
        """
        wanted = any("reference" in loss.needs for loss in self.losses)

        def work(folder: Path) -> dict[str, Any]:
            model = self.context.load("reference")
            cost = Cost()
            if wanted:
                _, cost = self.context.logprobs(model, self.context.pairs.train, verbose=True)
            for rows in filter(len, (self.context.pairs.heldout, self.context.pairs.validation)):
                self.context.logprobs(model, rows, verbose=True)
            return {"cost": cost.to_json()}

        stage = self.context.stage("reference", {"pairs": pairs.key, "training": wanted})
        of = "" if wanted else " of what is measured on"
        return self.context.done(stage, work, title=f"reference: its log-probabilities{of}, once")

    @property
    def losses(self) -> list[Loss]:
        """Every loss that is to be trained."""
        return [candidate.how for candidate in self.context.every_candidate if isinstance(candidate.how, Loss)]

    def mismatched_pass(self, pairs: Done) -> Done | None:
        """The reference's log-probabilities of responses to other prompts, for methods that estimate a KL by them."""
        if not any("mismatched" in loss.needs for loss in self.losses):
            return None

        def work(folder: Path) -> dict[str, Any]:
            rows = mismatched_rows(self.context.pairs.train, seed=self.settings.seed)
            _, cost = self.context.logprobs(self.context.load("reference"), rows, verbose=True)
            return {"cost": cost.to_json()}

        stage = self.context.stage("mismatched", {"pairs": pairs.key, "seed": self.settings.seed})
        return self.context.done(stage, work, title="reference: of responses to other prompts, once")

    def train_judge(self, pairs: Done) -> Done:
        """The score that no arm is trained on: a reward model on the third part of one's own pairs, or one given.

        What it shares with the reward model that arms obey, it is wrong about as they are: it has another seed, and
        starts from the model as it was before its warm start, where there was one and no adapters lie beside it.
        """
        if self.settings.judge:
            return self._given_judge(pairs)
        seed = stream_seed(self.settings.seed, "judge") % LARGEST_SEED
        before = self.settings.sft.epochs > 0 and not self.settings.lora
        apart = "another seed" + ", and from the model as it was before its warm start" * before

        def body() -> PreTrainedModel:
            if not before:
                return self.context.load_to_train("reference", seed=seed)
            return self._given_model()

        title = f"judge: a reward model on pairs kept apart, with {apart}"
        return self._fit_reward("judge", self.context.pairs.judge, pairs, body, seed=seed, title=title, apart=apart)

    def reward_model(self, pairs: Done) -> Done:
        """The reward model, on the same pairs as preference tuning."""
        title, seed = "reward model: Bradley-Terry on the pairs", self.settings.seed

        def body() -> PreTrainedModel:
            return self.context.load_to_train("reference", seed=seed)

        return self._fit_reward("reward", self.context.pairs.train, pairs, body, seed=seed, title=title)

    def _given_model(self) -> PreTrainedModel:
        """The model that was given, whole, before any warm start."""
        trust = self.settings.trust_remote_code
        loaded = load_model(self.settings.model, self.context.machine, trust_remote_code=trust)
        return self.context.on_its_path(adapters.whole(loaded, round_into))

    def _given_judge(self, pairs: Done) -> Done:
        def work(folder: Path) -> dict[str, Any]:
            with uncounted():
                margins = reward_margins(self.context.load_judge(), self.context.pairs.heldout)
            return {"kind": "judge", "margins": margins}

        judge = self.settings.judge
        known = own.sha256(judge) if own.is_own(judge) else model_hash(resolve(judge))
        stage = self.context.stage("judge", {"pairs": pairs.key, "judge": known})
        return self._told(self.context.done(stage, work, title=f"judge: {printable(judge)}"))

    def _fit_reward(
        self,
        name: str,
        rows: Sequence[Tokens],
        pairs: Done,
        body: Callable[[], PreTrainedModel],
        *,
        seed: int,
        title: str,
        apart: str = "",
    ) -> Done:
        settings = self.settings

        def work(folder: Path) -> dict[str, Any]:
            facts = reward(
                folder,
                name=name,
                body=body(),
                tokenizer=self.tokenizer,
                rows=rows,
                heldout=self.context.pairs.heldout,
                settings=settings.reward,
                seed=seed,
                every=settings.checkpoint_every,
            )
            told = {"apart": apart} if apart else {}
            return {"kind": "judge", **told, **facts, **self.context.base_facts("reference")}

        rests_on = {"pairs": pairs.key, "reward": to_mapping(settings.reward), "seed": seed}
        rests_on |= {"apart": apart} if apart else {}
        rests_on |= self.context.adapted
        return self._told(self.context.done(self.context.stage(name, rests_on, model=name), work, title=title))

    def _told(self, done: Done) -> Done:
        """A reward model's stage with its accuracy on the held-out pairs."""
        right = accuracy(done.facts["margins"], self.context.pairs.heldout)
        done.facts["heldout_accuracy"] = right.to_json()
        said = {"above": "", "below": ", below chance", "level": ", which cannot be told from chance"}
        say(f"  right on {right.mean:.1%} of {right.n} held-out pairs{said[right.against_chance]}")
        return done
