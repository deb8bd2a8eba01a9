"""The arms: each method's candidates trained, the best one chosen on validation data, and that one measured."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

from transformers import PreTrainedModel

from pairtune import disk
from pairtune.comparison.context import Context
from pairtune.comparison.measure import Snapshots, measure_arm
from pairtune.comparison.stages import Done
from pairtune.data.ends import end_ids
from pairtune.data.pack import Tokens
from pairtune.engine.cost import uncounted
from pairtune.engine.examples import Examples, prepare
from pairtune.errors import InputError
from pairtune.evaluation.heldout import wins
from pairtune.evaluation.objective import judge
from pairtune.grid import Candidate
from pairtune.models.load import frozen_copy, save_model
from pairtune.objectives.mixture import Loss
from pairtune.progress import say
from pairtune.settings import Ppo, parameters, to_mapping
from pairtune.training.checkpoint import Journal
from pairtune.training.first_loss import check_first_loss
from pairtune.training.ppo import train_ppo
from pairtune.training.preference import train_preference


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

    # ---- training ------------------------------------------------------------------------------------------------

    def check_disk(self) -> None:
        """Raises InputError if the disk clearly has no room for what is still to be trained."""
        context = self.context
        untrained = [
            candidate
            for candidate in context.every_candidate
            if not context.stages.kept(candidate.name, self._inputs(candidate))
            or not context.model_folder(candidate.name).is_dir()
        ]
        weights = sum(path.stat().st_size for path in context.model_folder("reference").glob("*.safetensors"))
        context.check_disk(weights / context.machine.dtype.itemsize, untrained)

    def train(self, method: str) -> Trials:
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
        except (InputError, KeyboardInterrupt):
            raise
        except Exception as error:  # a failed run is a result
            if disk.is_full(error):
                raise
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            say(f"  {candidate.name} failed: {reason}")
            return Trial(candidate, trained, failed=reason)

    def _train(self, candidate: Candidate) -> Done:
        name = candidate.name
        work: Callable[[Path], dict[str, Any]]
        if isinstance(candidate.how, Ppo):
            work, does = partial(self._ppo, name, candidate.how), "sampling, judging, updating"
        else:
            work, does = partial(self._tune, candidate, candidate.how), "preference tuning"
        inputs, leaves = self._inputs(candidate), self.context.model_folder(name)
        return self.context.stages.run(name, inputs, work, title=f"{name}: {does}", leaves=leaves)

    def _inputs(self, candidate: Candidate) -> dict[str, Any]:
        """What a candidate's training depends on."""
        settings = self.settings
        needs: dict[str, Any]
        if isinstance(candidate.how, Ppo):
            needs = {"reward": _key(self.reward), "ppo": to_mapping(candidate.how)}
            needs |= {"sampling": to_mapping(settings.sampling)}
        else:
            shared = {key: value for key, value in to_mapping(settings.preference).items() if key not in parameters()}
            needs = {"pairs": self.pairs.key, "preference": shared, "loss": candidate.how.to_json()}
        curve = [settings.evaluation.curve_points, settings.evaluation.curve_prompts]
        return {**needs, "curve": curve, "seed": settings.seed}

    def _tune(self, candidate: Candidate, loss: Loss, folder: Path) -> dict[str, Any]:
        """One preference objective on the pairs."""
        context, settings = self.context, self.settings
        model = context.load("reference")
        with uncounted():  # the reference's log-probabilities have stages of their own
            examples = self._examples(model, context.pairs.train, loss)
            snapshots = self._snapshots(folder, model, model)
        if examples.reference is not None:
            check_first_loss(model, examples.rows, examples.reference, loss)
        journal = Journal(candidate.method, folder, cost=context.stages.cost)
        train_preference(
            model,
            examples,
            loss,
            settings.preference,
            seed=settings.seed,
            journal=journal,
            measure=snapshots.take,
            measurements=settings.evaluation.curve_points,
        )
        save_model(model, context.tokenizer, context.model_folder(candidate.name))
        return _end(journal)

    def _ppo(self, name: str, ppo: Ppo, folder: Path) -> dict[str, Any]:
        """PPO on the training prompts with the reward model."""
        context, settings = self.context, self.settings
        policy = context.load("reference")
        reference = frozen_copy(policy)
        with uncounted():
            snapshots = self._snapshots(folder, policy, reference)
        journal = Journal("ppo", folder, cost=context.stages.cost)
        train_ppo(
            policy,
            context.load_scalar("reward"),
            context.load_scalar("reward").requires_grad_(False),
            reference,
            context.pairs.asked_prompts(context.pairs.train),
            ppo,
            settings.sampling,
            end_ids=end_ids(context.tokenizer),
            seed=settings.seed,
            journal=journal,
            measure=snapshots.take,
            measurements=settings.evaluation.curve_points,
        )
        save_model(policy, context.tokenizer, context.model_folder(name))
        return _end(journal)

    def _examples(self, reference: PreTrainedModel, rows: Sequence[Tokens], loss: Loss) -> Examples:
        """What an objective is computed on, the reference's part of it from the cache."""
        examples, _ = prepare(
            reference,
            rows,
            loss.arguments,
            needs_reference=loss.needs_reference,
            seed=self.settings.seed,
            tokens_per_pass=self.context.tokens_per_pass,
        )
        return examples

    def _snapshots(self, folder: Path, policy: PreTrainedModel, reference: PreTrainedModel) -> Snapshots:
        """Measurements along the training of a policy that is still the reference."""
        held, _ = self.context.logprobs(reference, self.context.pairs.heldout)
        pairs = self.context.pairs
        return Snapshots(folder, policy, pairs.heldout, pairs.asked, held, self.settings, self.context.tokenizer)

    # ---- measuring -----------------------------------------------------------------------------------------------

    def validate(self, name: str, trained: Done | None) -> Done:
        """A candidate, or the reference, on the validation pairs, which no held-out figure is taken on."""

        def work(folder: Path) -> dict[str, Any]:
            return self._measured(self.context.load(name), self.context.pairs.validation)

        inputs = {"arm": _key(trained), **self._measuring_inputs}
        return self.context.stages.run(f"validate_{name}", inputs, work, title=f"validating {name}")

    def measure(self, arm: str, trial: Trial | None) -> Done:
        """Every arm by the same definitions, on the same held-out prompts and pairs; the reference has no trial."""
        trained = trial.trained if trial else None

        def work(folder: Path) -> dict[str, Any]:
            policy = self.context.load(trial.candidate.name if trial else "reference")
            facts = self._measured(
                policy, self.context.pairs.heldout, Snapshots.load(trained.folder) if trained else []
            )
            return facts | {"own_wins": self._own_wins(trial.candidate, policy) if trial else None}

        inputs = {"arm": _key(trained), **self._measuring_inputs}
        return self.context.stages.run(f"measure_{arm}", inputs, work, title=f"measuring {arm}")

    @property
    def _measuring_inputs(self) -> dict[str, Any]:
        settings = self.settings
        return {
            "pairs": self.pairs.key,
            "reward": _key(self.reward),
            "gold": self.gold.key,
            "evaluation": to_mapping(settings.evaluation),
            "sampling": to_mapping(settings.sampling),
            "seed": settings.seed,
        }

    def _measured(
        self, policy: PreTrainedModel, rows: Sequence[Tokens], snapshots: Sequence[Mapping[str, Any]] = ()
    ) -> dict[str, Any]:
        reference = self.context.load("reference")
        return measure_arm(
            policy,
            reference,
            rows,
            self.context.pairs.asked,
            self.context.logprobs(reference, rows)[0],
            self.context.load_scalar("reward") if self.reward else None,
            self.context.external_score(self.gold),
            self.settings,
            self.context.tokenizer,
            snapshots=snapshots,
        )

    def _own_wins(self, candidate: Candidate, policy: PreTrainedModel) -> list[float] | None:
        """Held-out pairs by the method's own criterion: its loss, or the reward model that PPO obeys.

        None where it cannot be had: a baseline from responses to other prompts, of pairs with one prompt.
        """
        if isinstance(candidate.how, Ppo):
            return wins(self.reward.facts["margins"]) if self.reward else None
        held = self.context.pairs.heldout
        if "kl_baseline" in candidate.how.arguments and len({row.prompt for row in held}) < 2:
            return None
        reference = self.context.load("reference") if candidate.how.needs_reference else policy
        return judge(policy, candidate.how, self._examples(reference, held, candidate.how)).own_wins


def _key(done: Done | None) -> str | None:
    return done.key if done else None


def _end(journal: Journal) -> dict[str, Any]:
    """Where a training ended: its last step, and the seconds of all its steps."""
    return {name: journal.rows[-1][name] for name in ("step", "seconds")}


def _validation_score(trial: Trial) -> float:
    """Mean external score of the candidate's answers to the validation prompts."""
    assert trial.validated is not None
    return fmean(trial.validated.facts["gold"])
