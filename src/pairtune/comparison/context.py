"""What the stages of one comparison share: its settings, its folder, its data, and models loaded one at a time.

A stage is done once for the same inputs, and resumed where it was interrupted.
"""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import fields
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

from pairtune import own
from pairtune.comparison.pairs import SharedPairs, gold_text, split_own_pairs
from pairtune.comparison.plan import MODELS, STAGES, check_disk
from pairtune.comparison.sittings import Sittings
from pairtune.data import reviews
from pairtune.data.files import data_hash
from pairtune.data.pack import Tokens
from pairtune.data.schema import Pair, Rows
from pairtune.data.sources import asked_of
from pairtune.engine.content import structure
from pairtune.engine.cost import Cost
from pairtune.engine.own_score import OwnScore
from pairtune.engine.path import Paths, use_paths
from pairtune.engine.readers import load_reader
from pairtune.engine.reference import reference_logprobs
from pairtune.engine.self_check import check_engine
from pairtune.engine.value_heads import score_rewards
from pairtune.evaluation.policy import Answer
from pairtune.grid import Candidate, candidates, chooses
from pairtune.hashes import model_hash
from pairtune.manifest import RESULT
from pairtune.models import adapters
from pairtune.models.heads import ScalarModel
from pairtune.models.load import Tokenizer, load_model
from pairtune.models.machine import choose_machine
from pairtune.progress import duration, say
from pairtune.runs import CompareRun
from pairtune.settings import Adapting, Ppo
from pairtune.stages.measure import Score
from pairtune.stages.stage import Done, Stage, Work


class Context:
    """What is held between stages is paths and small numbers; models live inside a stage only."""

    def __init__(
        self, settings: CompareRun, out: Path, tokenizer: Tokenizer, own: Rows[Pair] | None, sittings: Sittings
    ) -> None:
        self.settings, self.out, self.tokenizer, self.own = settings, out, tokenizer, own
        self.candidates = candidates(settings)
        self.machine = choose_machine(settings.dtype)
        self.sittings = sittings
        self.own_data = own is not None
        self.pairs = SharedPairs((), ())  # until their stage is done
        if self.own_data and not (out / STAGES / "pairs" / RESULT).is_file():
            assert self.own_pairs  # what is wrong with them is told before a model is loaded
        say(f"machine: {self.machine}")
        self.paths: dict[str, Paths] = {}  # of each architecture, once a model of it has been checked

    @property
    def every_candidate(self) -> list[Candidate]:
        """The candidates of all methods, in the order in which they are trained."""
        return [candidate for several in self.candidates.values() for candidate in several]

    @property
    def validation(self) -> int:
        """Pairs to choose by: none where no method has several candidates."""
        return self.settings.validation if chooses(self.candidates) else 0

    @cached_property
    def data_hash(self) -> str:
        """SHA-256 of the data's file (or the name of a hub data set)."""
        return data_hash(self.settings.data, asked_of(self.settings)) if self.own_data else reviews.content_hash()

    @property
    def split(self) -> list[Any] | None:
        """What becomes of somebody's own pairs, beside their content; the built-in task goes on from text."""
        if self.own is None:
            return None
        return [self.settings.heldout, self.settings.pairs, self.validation, self.own.prompt_format]

    @cached_property
    def own_pairs(self) -> SharedPairs:
        """Somebody's own pairs, read and split."""
        assert self.own is not None
        return split_own_pairs(self.own, self.settings, self.tokenizer)

    @cached_property
    def reviews(self) -> list[reviews.Review]:
        """The built-in task's reviews."""
        return reviews.load_reviews()

    def model_folder(self, name: str) -> Path:
        """Where one of the run's models lies: "reference" is the warm-started one."""
        return self.out / MODELS / name

    def stage(self, name: str, rests_on: Mapping[str, Any], *, model: str = "") -> Stage:
        """One of the run's stages; `model`: what the model is called that it leaves, if it leaves one."""
        folder = self.model_folder(model) if model else self.out / STAGES / name
        return Stage(folder, {"stage": name, **rests_on})

    def done(self, stage: Stage, work: Work, *, title: str) -> Done:
        """The stage's result: an earlier run's, if it rests on the same, or else of the work, which is told of."""
        if kept := stage.finished():
            say(f"{title}: kept from an earlier run ({duration(kept.cost.seconds)})")
            self.sittings.keep(stage.key)
            return kept
        if stage.folder.exists() and (not stage.begun or stage.changed()):
            shutil.rmtree(stage.folder)
        say(title)
        with self.sittings.working_on(stage.key):
            done = stage.run(work)
        say(f"  done in {duration(done.cost.seconds)}")
        return done

    def check_disk(self, parameters: float, untrained: Sequence[Candidate], *, shared: int = 0) -> None:
        """Raises InputError if the disk clearly has no room for these candidates' training and `shared` more models.

        Adapters are small.
        """
        fresh = [each for each in untrained if not any(self.model_folder(each.name).glob("model*.safetensors"))]
        check_disk(
            self.out,
            0 if self.settings.lora else parameters,
            value_bytes=self.machine.dtype.itemsize,
            models=len(fresh) + shared,
            learning=max((2 if isinstance(candidate.how, Ppo) else 1 for candidate in untrained), default=0),
        )

    def load(self, name: str) -> PreTrainedModel:
        """One of the run's models, on the engine's path that is right for its architecture."""
        trust = self.settings.trust_remote_code
        return self.on_its_path(load_model(str(self.model_folder(name)), self.machine, trust_remote_code=trust))

    def load_to_train(self, name: str, *, seed: int | None = None) -> PreTrainedModel:
        """One of the run's models as it is to learn: the whole of it, or fresh adapters beside weights that stay.

        seed: of the adapters, if it is not the run's.
        """
        model = self.load(name)
        if self.settings.lora:
            base = str(self.model_folder(name).resolve())
            adapters.adapt(model, self.settings, base=base, seed=self.settings.seed if seed is None else seed)
        return model

    @property
    def adapted(self) -> dict[str, Any]:
        """What the results of learning rest on beside their own settings: nothing, or what is asked of adapters."""
        if not self.settings.lora:
            return {}
        return {"adapters": {entry.name: getattr(self.settings, entry.name) for entry in fields(Adapting)}}

    def base_facts(self, name: str) -> dict[str, str]:
        """What a result with adapters says of the model that they belong to."""
        return {"base_sha256": model_hash(str(self.model_folder(name)))} if self.settings.lora else {}

    def load_scalar(self, name: str) -> ScalarModel:
        """One of the run's reward models, likewise; "judge", which no arm is trained on, may be an external one."""
        source = (self.settings.judge if name == "judge" else "") or str(self.model_folder(name))
        trust = self.settings.trust_remote_code
        model = load_reader(source, self.machine, self.tokenizer, setting=name, trust_remote_code=trust)
        self.on_its_path(model.body)
        return model

    def load_judge(self) -> ScalarModel | OwnScore:
        """What scores all arms and trains none: a reward model, the run's own or an external one, or a function."""
        if own.is_own(self.settings.judge):
            return OwnScore(self.settings.judge, self.tokenizer)
        return self.load_scalar("judge")

    def on_its_path(self, model: PreTrainedModel) -> PreTrainedModel:
        """What the check of a run's first model finds right is right for all that were trained from it."""
        paths = self.paths.setdefault(structure(model), Paths())
        use_paths(model, paths)
        if paths.engine is None and self.pairs.train:
            check_engine(model, self.pairs.train, quiet=True)
        return model

    def logprobs(
        self, reference: PreTrainedModel, rows: Sequence[Tokens], *, verbose: bool = False
    ) -> tuple[Sequence[Tensor], Cost]:
        """The reference's log-probabilities of every response token, and their cost; `verbose` says what was cached."""
        tell = say if verbose else lambda line: None
        return reference_logprobs(reference, rows, say=tell)

    def external_score(self, gold: Done) -> Score:
        """Answers in, one score each out, by a scorer that no arm was trained on: the gold scorer, or the judge."""
        if gold.facts["kind"] == "gold":
            scorer = reviews.GoldScorer.load(gold.folder)

            def by_gold(answers: Sequence[Answer]) -> list[float]:
                texts = [gold_text(self.tokenizer, answer.prompt, answer.response) for answer in answers]
                return [float(score) for score in scorer(texts)]

            return by_gold
        model = self.load_judge()

        def by_judge(answers: Sequence[Answer]) -> list[float]:
            return [score[0] for score in score_rewards(model, [answer.tokens for answer in answers])]

        return by_judge
