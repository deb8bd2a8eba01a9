"""The arms: each method's candidates trained, the best one chosen on validation data, and that one measured."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from transformers import PreTrainedModel

from pairtune import disk
from pairtune.comparison.context import Context
from pairtune.data.ends import end_ids
from pairtune.data.pack import Tokens
from pairtune.engine.cost import uncounted
from pairtune.engine.examples import prepare
from pairtune.errors import DivergedError, InputError
from pairtune.evaluation.heldout import wins
from pairtune.evaluation.objective import measure_examples
from pairtune.evaluation.policy import Answer
from pairtune.grid import BestOf, Candidate, loss_in, samples
from pairtune.models import adapters
from pairtune.models.heads import ScalarModel, learner_of
from pairtune.objectives.loss import Loss
from pairtune.progress import say
from pairtune.sampling.sampler import stream_seed
from pairtune.settings import Grpo, Online, OnlinePreference, Ppo, Rloo
from pairtune.settings_list import parameters, to_mapping
from pairtune.stages.best_of import best_of
from pairtune.stages.measure import Snapshots, distinct_prompts, judged, measure
from pairtune.stages.online import distance, online
from pairtune.stages.preference import tune
from pairtune.stages.stage import Done, Facts, Stage
from pairtune.training.grouped import GroupRelative, LeaveOneOut
from pairtune.training.online import Method
from pairtune.training.online_pairs import OnlinePairs
from pairtune.training.ppo import ActorCritic


@dataclass(frozen=True)
class Trial:
    """What became of a candidate: trained, measured on validation data where there is a choice, or failed."""

    candidate: Candidate
    trained: Done | None = None
    validated: Done | None = None
    failed: str | None = None


@dataclass(frozen=True)
class Trials:
    """A method's candidates; `chosen` is the one that stands for it, None if all failed."""

    every: list[Trial]
    chosen: Trial | None = None


class Arms:
    """Trains and measures, on what the comparison's other stages have made: pairs, reward model, external score."""

    def __init__(self, context: Context, *, pairs: Done, reward: Done | None, gold: Done) -> None:
        self.context, self.settings = context, context.settings
        self.pairs, self.reward, self.gold = pairs, reward, gold
        self.trials: dict[str, Trials] = {}
        self._distances: dict[float, float] = {}  # of the matched method, by the temperature of its answers
        kinds = {method: several[0].how for method, several in context.candidates.items()}
        preference = [method for method, how in kinds.items() if isinstance(how, Loss)]
        both = preference and any(isinstance(how, Online) for how in kinds.values())
        self.matched = preference[0] if self.settings.match_kl and both else None

    # ---- training ------------------------------------------------------------------------------------------------

    def check_disk(self) -> None:
        """Raises InputError if the disk clearly has no room for what is still to be trained."""
        context = self.context
        learning = [each for each in context.every_candidate if not isinstance(each.how, BestOf)]
        untrained = [each for each in learning if not self._stage(each).finished()]
        weights = sum(path.stat().st_size for path in context.model_folder("reference").glob("*.safetensors"))
        context.check_disk(weights / context.machine.dtype.itemsize, untrained)

    def train_all(self) -> None:
        """Every method's candidates. Those that sample come last: where they are to end may be known only then."""
        for method in sorted(self.context.candidates, key=samples):
            self.trials[method] = self._train_method(method)

    def _train_method(self, method: str) -> Trials:
        """Every candidate of a method; a candidate that fails is a result, and the others go on."""
        several = self.context.candidates[method]
        trials = [self._try(candidate, validate=len(several) > 1) for candidate in several]
        finished = [trial for trial in trials if not trial.failed]
        if not finished:
            return Trials(trials)
        chosen = max(finished, key=_validation_score) if len(several) > 1 else finished[0]
        if len(several) > 1:
            say(f"  {chosen.candidate.name} is chosen: the highest mean score on validation data")
        return Trials(trials, chosen)

    def _try(self, candidate: Candidate, *, validate: bool) -> Trial:
        trained = None
        try:
            trained = self._train(candidate)
            validated = self.validate(candidate.name, trained) if validate else None
            return Trial(candidate, trained, validated)
        except Exception as error:
            return Trial(candidate, trained, failed=_reason(candidate, error))

    def _stage(self, candidate: Candidate) -> Stage:
        """A candidate's training, with all that it rests on."""
        settings = self.settings
        needs: dict[str, Any]
        if isinstance(candidate.how, BestOf):
            needs = {"pairs": self.pairs.key, "reward": _key(self.reward), "prompts": settings.evaluation.prompts}
            needs |= {"sampling": to_mapping(settings.sampling), "seed": settings.seed}
            return self.context.stage(candidate.name, needs)
        if isinstance(candidate.how, Online):
            how = to_mapping(candidate.how)
            needs = {"reward": _key(self.reward), "ppo" if isinstance(candidate.how, Ppo) else "online": how}
            if isinstance(candidate.how, OnlinePreference):
                needs |= {"loss": loss_in(candidate.how).to_json()}
            needs |= {"sampling": to_mapping(settings.sampling)}
            if self.matched:
                matched = [self._stage(each).key for each in self.context.candidates[self.matched]]
                needs |= {"matched": matched}
        else:
            shared = {key: value for key, value in to_mapping(settings.preference).items() if key not in parameters()}
            needs = {"pairs": self.pairs.key, "preference": shared, "loss": candidate.how.to_json()}
        curve = [settings.evaluation.curve_points, settings.evaluation.curve_prompts]
        rests_on = {**needs, **self.context.adapted, "curve": curve, "seed": settings.seed}
        return self.context.stage(candidate.name, rests_on, model=candidate.name)

    def _train(self, candidate: Candidate) -> Done:
        how = candidate.how
        if isinstance(how, BestOf):
            return self._draw(candidate, how.answers)
        does = "preference tuning" if isinstance(how, Loss) else "sampling, scoring, updating"

        def work(folder: Path) -> Facts:
            policy = self.context.load_to_train("reference")
            told = self.context.base_facts("reference")
            if isinstance(how, Loss):
                return self._tune(folder, policy, candidate, how) | told
            kl = self._distance(how)
            facts = self._online(folder, policy, candidate, replace(how, kl_stop=kl) if kl else how)
            return facts | told | ({"matched": {"arm": self.matched, "kl": kl, "steps": how.steps}} if kl else {})

        return self.context.done(self._stage(candidate), work, title=f"{candidate.name}: {does}")

    def _draw(self, candidate: Candidate, answers: int) -> Done:
        """Best of n: nothing is trained, and what is told of it is all drawn and chosen here."""
        context, settings = self.context, self.settings

        def work(folder: Path) -> Facts:
            return best_of(
                context.load("reference"),
                context.load_scalar("reward"),
                distinct_prompts(context.pairs.heldout)[: settings.evaluation.prompts],
                answers=answers,
                sampling=settings.sampling,
                end_ids=end_ids(context.tokenizer),
                seed=stream_seed(settings.seed, candidate.name),
            )

        title = f"{candidate.name}: {answers} answers of the reference to each prompt, the reward model's best"
        return context.done(self._stage(candidate), work, title=title)

    def _tune(self, folder: Path, policy: PreTrainedModel, candidate: Candidate, loss: Loss) -> Facts:
        """One preference objective on the pairs. The reference's log-probabilities have stages of their own."""
        context, settings = self.context, self.settings
        with uncounted():
            examples, _ = prepare(policy, context.pairs.train, loss.needs, seed=settings.seed)
            snapshots = self._snapshots(folder, policy)
        return tune(
            folder,
            name=candidate.method,
            model=policy,
            tokenizer=context.tokenizer,
            examples=examples,
            loss=loss,
            settings=settings.preference,
            seed=settings.seed,
            every=settings.checkpoint_every,
            measure=snapshots,
        )

    def _online(self, folder: Path, policy: PreTrainedModel, candidate: Candidate, how: Online) -> Facts:
        """A method that samples, on the training prompts with the reward model."""
        context, settings = self.context, self.settings
        with uncounted():
            snapshots = self._snapshots(folder, policy)
        reward_model = context.load_scalar("reward")
        if settings.lora:
            adapters.share(reward_model.body, policy)
        return online(
            folder,
            name=candidate.method,
            policy=policy,
            make=self._method(policy, reward_model, how),
            reward_model=reward_model,
            tokenizer=context.tokenizer,
            prompts=[row.question for row in context.pairs.train],
            settings=how,
            sampling=settings.sampling,
            seed=settings.seed,
            every=settings.checkpoint_every,
            measure=snapshots,
        )

    def _method(self, policy: PreTrainedModel, reward_model: ScalarModel, how: Online) -> Callable[[], Method]:
        """How a candidate learns; PPO's value model is loaded here, the policy's optimiser is made when it is called.

        PPO's is a second copy of the reward model, or adapters beside it.
        """
        match how:
            case Ppo():
                shared = self.settings.lora
                value = (
                    learner_of(reward_model, self.settings, seed=self.settings.seed)
                    if shared
                    else self.context.load_scalar("reward")
                )
                return lambda: ActorCritic(policy, value, how)
            case Rloo():
                return lambda: LeaveOneOut(policy, how)
            case Grpo():
                return lambda: GroupRelative(policy, how)
            case OnlinePreference():
                return lambda: OnlinePairs(policy, loss_in(how), how)
        raise TypeError(f"{type(how).__name__} is no method's")

    def _distance(self, how: Online) -> float:
        """How far the matched method's answers to training prompts are from the reference, in nats; 0 if none is."""
        chosen = self.trials[self.matched].chosen if self.matched else None
        if chosen is None or chosen.trained is None:
            return 0.0
        context, settings = self.context, self.settings
        name = chosen.candidate.name
        if how.temperature not in self._distances:
            with uncounted():
                self._distances[how.temperature] = distance(
                    context.load(name),
                    context.load("reference"),
                    context.tokenizer,
                    [row.question for row in context.pairs.train],
                    how,
                    settings.sampling,
                    seed=settings.seed,
                )
        kl = self._distances[how.temperature]
        if kl <= 0:
            say(f"  the answers of {name} are no measurable KL from the reference: it goes all its steps")
            return 0.0
        say(f"  to end at a KL of {kl:.2f} nats per response from the reference, where {name} has come to")
        return kl

    def _snapshots(self, folder: Path, policy: PreTrainedModel) -> Snapshots:
        """Measurements along the training of a policy that still is the reference."""
        held, _ = self.context.logprobs(policy, self.context.pairs.heldout)
        pairs = self.context.pairs
        return Snapshots(folder, policy, pairs.heldout, held, self.settings, self.context.tokenizer)

    # ---- measuring -----------------------------------------------------------------------------------------------

    def validate(self, name: str, trained: Done | None) -> Done:
        """A candidate, or the reference, on the validation pairs, which no held-out figure is taken on."""

        def work(folder: Path) -> Facts:
            return self._measured(self.context.load(name), self.context.pairs.validation)

        stage = self.context.stage(f"validate_{name}", self._measuring(trained))
        return self.context.done(stage, work, title=f"validating {name}")

    def measure_all(self) -> dict[str, Done]:
        """The reference, and what stands for each method; a method that cannot be measured has failed."""
        measured = {"reference": self.measure("reference", None)}
        for method in self.context.candidates:
            found = self.trials[method]
            if chosen := found.chosen:
                try:
                    measured[method] = self.measure(method, chosen)
                except Exception as error:
                    failed = replace(chosen, failed=_reason(chosen.candidate, error))
                    self.trials[method] = Trials([failed if each is chosen else each for each in found.every])
        return measured

    def measure(self, arm: str, trial: Trial | None) -> Done:
        """Every arm by the same definitions, on the same held-out prompts and pairs; the reference has no trial."""
        trained = trial.trained if trial else None

        def work(folder: Path) -> Facts:
            if trial and trained and isinstance(trial.candidate.how, BestOf):
                return self._measured_best(trained)
            policy = self.context.load(trial.candidate.name if trial else "reference")
            snapshots = Snapshots.load(trained.folder, before=trained.facts["step"]) if trained else []
            facts = self._measured(policy, self.context.pairs.heldout, snapshots)
            return facts | {"own_wins": self._own_wins(trial.candidate, policy) if trial else None}

        return self.context.done(
            self.context.stage(f"measure_{arm}", self._measuring(trained)), work, title=f"measuring {arm}"
        )

    def measure_others(self) -> dict[str, Done]:
        """By name, candidates that were not chosen, on the curve's prompts: points of their methods' frontiers."""
        found = {}
        for trial in (trial for trials in self.trials.values() for trial in trials.every if trial is not trials.chosen):
            if trial.trained and not trial.failed:
                try:
                    found[trial.candidate.name] = self._measure_other(trial.candidate.name, trial.trained)
                except Exception as error:
                    _reason(trial.candidate, error)
        return found

    def _measure_other(self, name: str, trained: Done) -> Done:
        rows = self.context.pairs.heldout[: self.settings.evaluation.curve_prompts]

        def work(folder: Path) -> Facts:
            snapshots = Snapshots.load(trained.folder, before=trained.facts["step"])
            return self._measured(self.context.load(name), rows, snapshots)

        stage = self.context.stage(f"frontier_{name}", self._measuring(trained))
        return self.context.done(stage, work, title=f"measuring {name}, for its method's frontier")

    def _measuring(self, trained: Done | None) -> dict[str, Any]:
        """What measuring rests on."""
        settings = self.settings
        return {
            "arm": _key(trained),
            "pairs": self.pairs.key,
            "reward": _key(self.reward),
            "gold": self.gold.key,
            "evaluation": to_mapping(settings.evaluation),
            "sampling": to_mapping(settings.sampling),
            "seed": settings.seed,
        }

    def _measured(
        self, policy: PreTrainedModel, rows: Sequence[Tokens], snapshots: Sequence[Mapping[str, Any]] = ()
    ) -> Facts:
        context, settings = self.context, self.settings
        reference = context.load("reference")
        return measure(
            policy,
            reference,
            rows,
            context.logprobs(reference, rows)[0],
            distinct_prompts(rows)[: settings.evaluation.prompts],
            sampling=settings.sampling,
            end_ids=end_ids(context.tokenizer),
            seed=stream_seed(settings.seed, "measure"),
            reward_model=context.load_scalar("reward") if self.reward else None,
            score=context.external_score(self.gold),
            snapshots=snapshots,
        )

    def _measured_best(self, drawn: Done) -> Facts:
        """What there is of an arm whose probabilities of given responses nobody knows: figures of its answers."""
        answers = [Answer.from_json(fields) for fields in drawn.facts["answers"]]
        figures = judged(answers, self.context.load_scalar("reward"), self.context.external_score(self.gold))
        known = {"answers": drawn.facts["answers"], "log_ratio": drawn.facts["kl"]}
        return {**known, **figures, "own_wins": wins(self.reward.facts["margins"]) if self.reward else None}

    def _own_wins(self, candidate: Candidate, policy: PreTrainedModel) -> list[float] | None:
        """Held-out pairs by the method's own criterion: its loss, or the reward model that it obeys.

        None where it cannot be had: a baseline from responses to other prompts, of pairs with one prompt.
        """
        if not isinstance(candidate.how, Loss):
            return wins(self.reward.facts["margins"]) if self.reward else None
        held = self.context.pairs.heldout
        if "mismatched" in candidate.how.needs and len({row.prompt for row in held}) < 2:
            return None
        reference = self.context.load("reference") if "reference" in candidate.how.needs else policy
        examples, _ = prepare(reference, held, candidate.how.needs, seed=self.settings.seed)
        return measure_examples(policy, candidate.how, examples).own_wins


def _reason(candidate: Candidate, error: Exception) -> str:
    """Why a candidate failed, which is said: a failed run is a result. Raises what is a person's to mend."""
    if disk.is_full(error) or (isinstance(error, InputError) and not isinstance(error, DivergedError)):
        raise error
    reason = str(error) if isinstance(error, DivergedError) else f"{type(error).__name__}: {error}"
    reason = (reason.splitlines() or [""])[0]
    say(f"  {candidate.name} failed: {reason}")
    return reason


def _key(done: Done | None) -> str | None:
    return done.key if done else None


def _validation_score(trial: Trial) -> float:
    """Mean external score of the candidate's answers to the validation prompts."""
    assert trial.validated is not None
    return fmean(trial.validated.facts["gold"])
