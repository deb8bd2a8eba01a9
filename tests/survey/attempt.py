"""One configuration through all uses: what pairtune makes of it against what is right, and the word for that."""

import dataclasses
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import PreTrainedModel

from pairtune.errors import InputError
from tests.survey import ours
from tests.survey.configs import Case
from tests.survey.material import PAIRS, PROMPTS, ROWS, tokenizer
from tests.survey.truth import BETA, CLIP, COLD, DTYPES, EPOCHS, HELDOUT, RATE, Truth, first_line
from tests.survey.weights import GAINS, random_model

RIGHT, REFUSED, WRONG, TRACEBACK = "right", "refused", "WRONG", "TRACEBACK"
LOUD = 0.1  # what bfloat16 may move of what a neighbour in view would, or the weights are too loud
USES = ("log-probabilities", "gradients", "rewards", "sampling", "greedy", "tune")


@dataclass
class Outcome:
    """How one use went in one dtype. `error` and `allowed`: the difference from what is right, and how much may be."""

    word: str
    error: float = 0.0
    allowed: float = 0.0
    line: str = ""


@dataclass
class Finding:
    """Everything about one configuration."""

    title: str
    architecture: str
    name: str
    path: dict[str, str] = field(default_factory=dict)  # of each dtype
    uses: dict[str, dict[str, Outcome]] = field(default_factory=dict)  # of each dtype
    absent: dict[str, str] = field(default_factory=dict)  # of a dtype, why plain transformers has no right value
    signal: float = 0.0  # how far another response in view would move a log-probability, in nats (RMS)
    noise: float = 0.0  # how far bfloat16 moves it in plain transformers
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """For a file."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Finding":
        """Of a file."""
        uses = {dtype: {use: Outcome(**each) for use, each in uses.items()} for dtype, uses in values["uses"].items()}
        return cls(**{**values, "uses": uses})


def survey(case: Case, *, dtypes: Sequence[str] = DTYPES, uses: Sequence[str] = USES) -> Finding:
    """Build the case's model and hold each use of it, in each dtype, against plain transformers."""
    began = time.monotonic()
    finding = Finding(case.title, case.architecture, case.name)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "model"
        tokenizer().save_pretrained(folder)
        truth = None
        try:
            truth = _telling_truth(case, folder, dtypes)
            finding.absent, finding.signal, finding.noise = truth.absent, truth.signal, truth.noise
        except Exception as error:
            finding.absent = dict.fromkeys(dtypes, f"plain transformers fails: {first_line(error)}")
            _save_what_there_is(case, folder)
        for dtype in dtypes:
            place = Path(scratch) / dtype
            place.mkdir()
            attempt = Attempt(finding, folder, dtype, place)
            for use in uses:
                attempt(use, None if dtype in finding.absent else truth)
    finding.seconds = round(time.monotonic() - began, 1)
    return finding


def _telling_truth(case: Case, folder: Path, dtypes: Sequence[str]) -> Truth:
    """The right values of random weights in which a neighbour in view would stand out from rounding."""
    for gain in GAINS:
        random_model(case.config(), gain=gain).save_pretrained(folder)
        truth = Truth(folder, dtypes)
        if truth.absent or truth.noise < LOUD * truth.signal:
            break
    return truth


class Attempt:
    """pairtune on one folder in one dtype; `attempt(use, truth)` notes in the finding how it went."""

    def __init__(self, finding: Finding, folder: Path, dtype: str, scratch: Path) -> None:
        self.finding, self.folder, self.dtype, self.scratch = finding, folder, dtype, scratch
        self._model: PreTrainedModel | None = None
        self.measures: dict[str, tuple[Callable[[], Any], str]] = {
            "log-probabilities": (self.model, "hold_logprobs"),
            "gradients": (self.model, "hold_gradients"),
            "rewards": (self.rewards, "hold_rewards"),
            "sampling": (lambda: self.answers(1.0), "hold_sampling"),
            "greedy": (lambda: self.answers(COLD), "hold_greedy"),
            "tune": (self.tuned, "hold_tuned"),
        }

    def __call__(self, use: str, truth: Truth | None) -> None:
        make, hold = self.measures[use]
        try:
            made = make()
            error, allowed = getattr(truth, hold)(made, self.dtype) if truth else (float("inf"), 0.0)
            outcome = Outcome(RIGHT if error <= allowed else WRONG, error, allowed)
        except InputError as refusal:
            outcome = Outcome(REFUSED, line=str(refusal).replace(str(self.folder), "MODEL"))
        except Exception as problem:
            outcome = Outcome(TRACEBACK, line=_where(problem))
        self.finding.uses.setdefault(self.dtype, {})[use] = outcome

    def model(self) -> PreTrainedModel:
        """The model behind pairtune's check."""
        if self._model is None:
            self._model = ours.opened(self.folder, ROWS, dtype=self.dtype)
            self.finding.path[self.dtype] = ours.path_of(self._model)
        return self._model

    def rewards(self) -> ours.Rewards:
        """A reward model, saved and read again."""
        return ours.rewards(self.model(), ROWS, dtype=self.dtype, scratch=self.scratch / "rewards")

    def answers(self, temperature: float) -> list[ours.Answer]:
        """What `pairtune generate` writes."""
        return ours.answers(
            self.folder, PROMPTS, dtype=self.dtype, temperature=temperature, scratch=self.scratch / str(temperature)
        )

    def tuned(self) -> ours.Tuned:
        """What `pairtune tune` leaves."""
        return ours.tuned(
            self.folder,
            PAIRS,
            dtype=self.dtype,
            scratch=self.scratch / "tune",
            heldout=HELDOUT,
            epochs=EPOCHS,
            batch_size=len(PAIRS),
            learning_rate=RATE,
            beta=BETA,
            warmup=0.0,
            max_gradient_norm=CLIP,
        )


def _save_what_there_is(case: Case, folder: Path) -> None:
    """What a person has whose model transformers cannot build: a folder with a configuration and some weights."""
    if (folder / "config.json").is_file():
        return
    save_file({"weight": torch.zeros(2)}, folder / "model.safetensors", metadata={"format": "pt"})
    try:
        case.config().save_pretrained(folder)
    except Exception:
        (folder / "config.json").write_text(f'{{"model_type": "{case.architecture}"}}', encoding="utf-8")


def _where(error: BaseException) -> str:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{first_line(error)} ({Path(frame.filename).name}:{frame.lineno})"
