"""One configuration through all uses: what pairtune makes of it against what is right, and the word for that."""

import dataclasses
import random
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer as BareTokenizer
from tokenizers import decoders, models, pre_tokenizers
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from pairtune.errors import InputError
from tests.survey import ours, plain
from tests.survey.configs import BOS_ID, EOS_ID, PAD_ID, Case
from tests.survey.plain import Row
from tests.survey.weights import random_model

RIGHT, REFUSED, WRONG, TRACEBACK, ABSENT = "right", "refused", "WRONG", "TRACEBACK", "absent"
DTYPES = ("float32", "bfloat16")
SPECIAL = {"<s>": BOS_ID, "</s>": EOS_ID, "<pad>": PAD_ID}
BETA, RATE, CLIP, EPOCHS = 0.5, 2e-3, 1.0, 3


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
    absent: str = ""  # why transformers itself has no causal language model here
    signal: float = 0.0  # how far another response in view would move a log-probability, in nats (RMS)
    noise: float = 0.0  # how far bfloat16 moves it in plain transformers
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Finding":
        uses = {
            dtype: {use: Outcome(**outcome) for use, outcome in each.items()} for dtype, each in values["uses"].items()
        }
        return cls(**{**values, "uses": uses})


def survey(case: Case, *, dtypes: Sequence[str] = DTYPES) -> Finding:
    """Build the case's model and hold every use of it, in every dtype, against plain transformers."""
    began = time.monotonic()
    finding = Finding(case.title, case.architecture, case.name)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "model"
        _tokenizer().save_pretrained(folder)
        try:
            random_model(case.config()).save_pretrained(folder)
            truth = Truth(folder)
        except Exception as error:
            finding.absent = _first_line(error)
            _save_config_only(case, folder)
            truth = None
        if truth:
            finding.absent, finding.signal, finding.noise = truth.absent, truth.signal, truth.noise
        for dtype in dtypes:
            _survey_dtype(finding, truth if not finding.absent else None, folder, dtype, Path(scratch))
    finding.seconds = round(time.monotonic() - began, 1)
    return finding


def _survey_dtype(finding: Finding, truth: "Truth | None", folder: Path, dtype: str, scratch: Path) -> None:
    uses: dict[str, Outcome] = {}
    opened: list[PreTrainedModel] = []

    def model() -> PreTrainedModel:
        if not opened:
            opened.append(ours.opened(folder, ROWS, dtype=dtype))
            finding.path[dtype] = ours.path_of(opened[0])
        return opened[0]

    def attempt(use: str, measure: Callable[[], tuple[float, float]]) -> None:
        try:
            error, allowed = measure()
        except InputError as refusal:
            uses[use] = Outcome(REFUSED, line=str(refusal))
        except Exception as problem:
            uses[use] = Outcome(TRACEBACK, line=_where(problem))
        else:
            word = RIGHT if error <= allowed and truth is not None else WRONG
            uses[use] = Outcome(word, error, allowed)

    def nothing_is_right(compute: Callable[[], Any]) -> Callable[[], tuple[float, float]]:
        return lambda: (compute(), (0.0, 0.0))[1]

    place = scratch / dtype
    place.mkdir()
    if truth is None:
        attempt("log-probabilities", nothing_is_right(lambda: ours.logprobs(model(), ROWS)))
        attempt("decoding", nothing_is_right(lambda: _answers(folder, dtype, place, temperature=1.0)))
        attempt("tune", nothing_is_right(lambda: _tuned(folder, dtype, place)))
    else:
        attempt("log-probabilities", lambda: truth.hold_logprobs(model(), dtype))
        attempt("gradients", lambda: truth.hold_gradients(model(), dtype))
        attempt("rewards", lambda: truth.hold_rewards(model(), dtype))
        attempt("sampling", lambda: truth.hold_sampling(_answers(folder, dtype, place, temperature=1.0), dtype))
        attempt("greedy", lambda: truth.hold_greedy(_answers(folder, dtype, place, temperature=COLD), dtype))
        attempt("tune", lambda: truth.hold_tuned(_tuned(folder, dtype, place), dtype))
    finding.uses[dtype] = uses


class Truth:
    """The right values of one folder, each computed when it is first asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.models = {dtype: _load(folder, dtype) for dtype in DTYPES}
        self.model = self.models["float32"]
        self.absent = "" if plain.is_causal(self.model, ROWS[-1].prompt) else "its tokens see the tokens after them"
        self.signal = self.noise = 0.0
        if self.absent:
            return
        with torch.no_grad():
            self.logprobs = {dtype: _all_logprobs(model, ROWS) for dtype, model in self.models.items()}
            leaks = [plain.contaminated(self.model, row) - _second(self.model, row) for row in ROWS]
        self.signal = _rms(torch.cat(leaks))
        self.noise = _rms(self.logprobs["bfloat16"] - self.logprobs["float32"])
        self.gradients: dict[str, dict[str, Tensor]] = {}

    def hold_logprobs(self, model: PreTrainedModel, dtype: str) -> tuple[float, float]:
        """Largest difference of a token's log-probability, of all rows together and of each alone, in nats."""
        right = self.logprobs["float32"]
        with torch.no_grad():
            together = ours.logprobs(model, ROWS)
            alone = torch.cat([ours.logprobs(model, [row]) for row in ROWS])
        differences = torch.cat([together - right, alone - right]).abs()
        if dtype == "float32":
            return float(differences.max()), FLOAT32
        plainly = (self.logprobs[dtype] - right).abs()
        # Twice the typical error, and no token further off than twice the worst one.
        return _rms(differences) + float(differences.max()), 2 * (_rms(plainly) + float(plainly.max())) + BFLOAT16

    def hold_gradients(self, model: PreTrainedModel, dtype: str) -> tuple[float, float]:
        """Length of the difference of all gradients, as a share of the right gradient's length."""
        weights = torch.randn(len(self.logprobs["float32"]), generator=torch.Generator().manual_seed(5))
        for each in ("float32", dtype):
            if each not in self.gradients:
                self.gradients[each] = plain.gradients(self.models[each], ROWS, weights)
        right = self.gradients["float32"]
        error = _gradient_error(ours.gradients(model, ROWS, weights), right)
        if dtype == "float32":
            return error, 10 * FLOAT32
        return error, 2 * _gradient_error(self.gradients[dtype], right) + BFLOAT16

    def hold_rewards(self, model: PreTrainedModel, dtype: str) -> tuple[float, float]:
        """Largest difference of a reward."""
        weight_E, bias, found = ours.rewards(model, ROWS)

        def rewards(plain_model: PreTrainedModel) -> Tensor:
            with torch.no_grad():
                hidden = [plain.last_hidden(plain_model, (*r.prompt, *each)) for r in ROWS for each in r.responses]
            return torch.stack([hidden_E.float() @ weight_E + bias for hidden_E in hidden])

        right = rewards(self.model)
        error, scale = float((found - right).abs().max()), max(1.0, float(right.abs().max()))
        if dtype == "float32":
            return error, FLOAT32 * scale
        return error, 3 * float((rewards(self.models[dtype]) - right).abs().max()) + BFLOAT16 * scale

    def hold_sampling(self, answers: Sequence[ours.Answer], dtype: str) -> tuple[float, float]:
        """Largest difference between the log-probability a token is said to be drawn with and the right one."""
        return min(self._sampling(answers, dtype, by) for by in (plain.next_logits, plain.cached_logits))

    def _sampling(self, answers: Sequence[ours.Answer], dtype: str, logits_by: Any) -> tuple[float, float]:
        errors, noises = [0.0], [0.0]
        for answer in answers:
            picked = (range(len(answer.tokens)), list(answer.tokens))
            right = _tempered(logits_by(self.model, answer.prompt, answer.tokens))[picked]
            errors.append(float((torch.tensor(answer.logprobs) - right).abs().max()))
            if dtype != "float32":
                plainly = _tempered(logits_by(self.models[dtype], answer.prompt, answer.tokens))[picked]
                noises.append(float((plainly - right).abs().max()))
        return max(errors), FLOAT32 if dtype == "float32" else 3 * max(noises) + BFLOAT16

    def hold_greedy(self, answers: Sequence[ours.Answer], dtype: str) -> tuple[float, float]:
        """How far the logit of a token that was taken lies below the largest one."""
        return min(self._greedy(answers, dtype, by) for by in (plain.next_logits, plain.cached_logits))

    def _greedy(self, answers: Sequence[ours.Answer], dtype: str, logits_by: Any) -> tuple[float, float]:
        gaps, noises = [0.0], [0.0]
        for answer in answers:
            right = logits_by(self.model, answer.prompt, answer.tokens)
            taken = right[range(len(answer.tokens)), list(answer.tokens)]
            gaps.append(float((right.max(-1).values - taken).max()))
            if dtype != "float32":
                noises.append(float((logits_by(self.models[dtype], answer.prompt, answer.tokens) - right).abs().max()))
        # A token that far below the best one is drawn once in a million times at this temperature.
        return max(gaps), 14 * COLD + (FLOAT32 if dtype == "float32" else 3 * max(noises))

    def hold_tuned(self, tuned: ours.Tuned, dtype: str) -> tuple[float, float]:
        """Difference of the trained margins from those that plain DPO gives, as a share of those (RMS)."""
        written = {(row.prompt, row.responses) for row in map(_row, PAIRS)}
        if not all((row.prompt, row.responses) in written for row in tuned.rows):
            raise AssertionError("tune trains on other tokens than the file's text has")
        with torch.no_grad():
            start = plain.margins(self.model, tuned.rows)
            found = plain.margins(_load(tuned.folder, "float32"), tuned.rows) - start

        def trained(by: str) -> Tensor:
            model = _load(self.folder, by)
            plain.tune(model, tuned.rows, beta=BETA, rates=tuned.rates, clip=CLIP)
            with torch.no_grad():
                return plain.margins(model.float(), tuned.rows) - start

        right = trained("float32")
        error = _rms(found - right) / _rms(right)
        return error, 0.02 if dtype == "float32" else 3 * _rms(trained(dtype) - right) / _rms(right) + 0.1


FLOAT32, BFLOAT16, COLD = 1e-3, 0.02, 0.01


def _answers(folder: Path, dtype: str, scratch: Path, *, temperature: float) -> list[ours.Answer]:
    return ours.answers(folder, PROMPTS, dtype=dtype, temperature=temperature, scratch=scratch)


def _tuned(folder: Path, dtype: str, scratch: Path) -> ours.Tuned:
    return ours.tuned(
        folder,
        PAIRS,
        dtype=dtype,
        scratch=scratch,
        heldout=2.0,
        epochs=EPOCHS,
        batch_size=len(PAIRS),
        learning_rate=RATE,
        beta=BETA,
        warmup=0.0,
        max_gradient_norm=CLIP,
    )


def _load(folder: Path, dtype: str) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()


def _save_config_only(case: Case, folder: Path) -> None:
    """What a person has whose model cannot be built: a folder with a configuration and some weights."""
    from safetensors.torch import save_file

    folder.mkdir(exist_ok=True)
    save_file({"weight": torch.zeros(2)}, folder / "model.safetensors", metadata={"format": "pt"})
    try:
        case.config().save_pretrained(folder)
    except Exception:
        (folder / "config.json").write_text(f'{{"model_type": "{case.architecture}"}}', encoding="utf-8")


def _tokenizer() -> PreTrainedTokenizerFast:
    """A token for every byte."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {**SPECIAL, **{letter: len(SPECIAL) + i for i, letter in enumerate(alphabet)}}
    bare = BareTokenizer(models.BPE(vocab=vocabulary, merges=[]))
    bare.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bare.decoder = decoders.ByteLevel()
    bare.add_special_tokens(list(SPECIAL))
    return PreTrainedTokenizerFast(tokenizer_object=bare, bos_token="<s>", eos_token="</s>", pad_token="<pad>")


def _random_row(chance: random.Random, prompt: int, *responses: int) -> Row:
    def ids(length: int) -> tuple[int, ...]:
        return tuple(chance.randrange(3, 250) for _ in range(length))

    return Row(ids(prompt), tuple(ids(length) for length in responses))


def _random_pair(chance: random.Random, prompt: int, chosen: int, rejected: int) -> dict[str, str]:
    def text(length: int) -> str:
        return "".join(chance.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(length))

    return {"prompt": text(prompt), "chosen": text(chosen), "rejected": text(rejected)}


def _row(pair: dict[str, str]) -> Row:
    tokenizer = _tokenizer()
    prompt, chosen, rejected = (tuple(tokenizer(pair[name])["input_ids"]) for name in ("prompt", "chosen", "rejected"))
    return Row(prompt, ((*chosen, EOS_ID), (*rejected, EOS_ID)))


# Rows of different lengths, the last one longer than every window, chunk and original number of positions.
ROWS = [_random_row(random.Random(i), *lengths) for i, lengths in enumerate([(5, 6, 3), (2, 1, 11), (34, 21, 26)])]
PAIRS = [
    _random_pair(random.Random(i), *lengths)
    for i, lengths in enumerate([(4, 6, 9), (12, 3, 14), (30, 20, 8), (7, 5, 5), (3, 12, 2), (9, 7, 4)])
]
PROMPTS = [_random_pair(random.Random(10 + i), length, 1, 1)["prompt"] for i, length in enumerate((3, 11, 29, 1))]


def _all_logprobs(model: PreTrainedModel, rows: Sequence[Row]) -> Tensor:
    return torch.cat([plain.logprobs(model, row) for row in rows])


def _second(model: PreTrainedModel, row: Row) -> Tensor:
    return plain.logprobs(model, Row(row.prompt, row.responses[1:]))


def _gradient_error(found: dict[str, Tensor], right: dict[str, Tensor]) -> float:
    names = found.keys() | right.keys()
    zero = torch.zeros(())
    wrong = sum(float((found.get(name, zero) - right.get(name, zero)).pow(2).sum()) for name in names)
    return (wrong / sum(float(gradient.pow(2).sum()) for gradient in right.values())) ** 0.5


def _tempered(logits: Tensor) -> Tensor:
    return torch.log_softmax(logits, -1)


def _rms(values: Tensor) -> float:
    return float(values.double().pow(2).mean().sqrt())


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:160]


def _where(error: BaseException) -> str:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{_first_line(error)} ({Path(frame.filename).name}:{frame.lineno})"
