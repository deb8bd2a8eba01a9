"""The right values of one model, and how far pairtune's are from them: (difference, what may be) for each use.

float32 is held to float32. bfloat16 is held to the float32 values of the same weights, and may be off by some times
what plain bfloat16 transformers is off by.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, PreTrainedModel

from tests.survey import ours, plain
from tests.survey.material import PAIRS, ROWS, encoded
from tests.survey.plain import Row

DTYPES = ("float32", "bfloat16")
# Nats (or shares of a gradient's length) by which float32 may differ, and bfloat16 beyond what it differs by itself.
FLOAT32, BFLOAT16 = 1e-3, 0.02
# The temperature at which drawing is taken for greedy decoding: a token 14 times that below the best one is drawn once
# in a million times.
COLD, UNLIKELY = 0.01, 14
# Times that bfloat16 is rounded otherwise, to see what it is off by.
ROUNDINGS = 8
# The short `tune`.
BETA, RATE, CLIP, EPOCHS, HELDOUT = 0.5, 2e-3, 1.0, 2, 2.0


class Truth:
    """The right values of one folder. `absent` says of a dtype why plain transformers has none."""

    def __init__(self, folder: Path, dtypes: Sequence[str] = DTYPES) -> None:
        self.folder = folder
        self.absent: dict[str, str] = {}
        self.models: dict[str, PreTrainedModel] = {}
        self.logprobs: dict[str, Tensor] = {}
        self.gradients: dict[str, dict[str, Tensor]] = {}
        self.signal = self.noise = 0.0
        for dtype in ("float32", *(dtype for dtype in dtypes if dtype != "float32")):
            try:
                self.models[dtype] = load(folder, dtype)
                if not plain.is_causal(self.models[dtype], ROWS[-1].prompt):
                    raise ValueError("a token's logits depend on the tokens after it")
                with torch.no_grad():
                    self.logprobs[dtype] = _all_logprobs(self.models[dtype])
            except Exception as error:
                self.absent[dtype] = f"plain transformers fails: {first_line(error)}"
        if "float32" in self.absent:
            self.absent = dict.fromkeys(dtypes, self.absent["float32"])
            return
        self.model = self.models["float32"]
        with torch.no_grad():
            leaks = [plain.contaminated(self.model, row) - _second(self.model, row) for row in ROWS]
        self.signal = _rms(torch.cat(leaks))
        self.noise = max(_rms(each - self.logprobs["float32"]) for each in self.logprobs.values())

    def hold_logprobs(self, model: PreTrainedModel, dtype: str) -> tuple[float, float]:
        """Of the log-probabilities of all rows together and of each alone: typical plus largest, in nats."""
        right = self.logprobs["float32"]
        with torch.no_grad():
            together = ours.logprobs(model, ROWS)
            alone = torch.cat([ours.logprobs(model, [row]) for row in ROWS])
        differences = torch.cat([together - right, alone - right])
        if dtype == "float32":
            return float(differences.abs().max()), FLOAT32
        return _spread(differences), 2 * _spread(self.logprobs[dtype] - right) + BFLOAT16

    def hold_gradients(self, model: PreTrainedModel, dtype: str) -> tuple[float, float]:
        """Length of the difference of all gradients, as a share of the right gradient's length."""
        weights = torch.randn(len(self.logprobs["float32"]), generator=torch.Generator().manual_seed(5))
        found = ours.gradients(model, ROWS, weights)  # first: what cannot be trained has no plain gradients either
        for each in {"float32", dtype} - self.gradients.keys():
            self.gradients[each] = plain.gradients(self.models[each], ROWS, weights)
        right = self.gradients["float32"]
        error = _gradient_error(found, right)
        if dtype == "float32":
            return error, 10 * FLOAT32
        return error, 2 * _gradient_error(self.gradients[dtype], right) + BFLOAT16

    def hold_rewards(self, made: ours.Rewards, dtype: str) -> tuple[float, float]:
        """The largest difference of a reward: of the model, of its folder, and of its folder read by transformers."""
        right, plainly = (_rewards(self.models[each], made.weight_E, made.bias) for each in ("float32", dtype))
        found = [made.found, made.again, *([] if made.beside else [_classified(made.folder, dtype)])]
        error, scale = float((torch.stack(found) - right).abs().max()), max(1.0, float(right.abs().max()))
        if dtype == "float32":
            return error, FLOAT32 * scale
        return error, 3 * float((plainly - right).abs().max()) + BFLOAT16 * scale

    def hold_sampling(self, answers: Sequence[ours.Answer], dtype: str) -> tuple[float, float]:
        """The largest difference between the log-probability a token is said to be drawn with and the right one."""
        return self._hold_answers(answers, dtype, _drawn_errors, FLOAT32 if dtype == "float32" else BFLOAT16)

    def hold_greedy(self, answers: Sequence[ours.Answer], dtype: str) -> tuple[float, float]:
        """How far the logit of a token that was taken lies below the largest one."""
        return self._hold_answers(answers, dtype, _gaps, UNLIKELY * COLD)

    def _hold_answers(
        self, answers: Sequence[ours.Answer], dtype: str, errors: Any, allowed: float
    ) -> tuple[float, float]:
        """Against the model's forward over all that came before a token, or, where that is off, against its own cache.

        The two differ where a cache remembers keys that were turned for a shorter row. Where that is off too, bfloat16
        may be off by what it is off by when embeddings are rounded otherwise: a router's choice between two experts
        that are nearly even falls to either.
        """
        found: list[tuple[float, float]] = []
        for logits_of in (plain.next_logits, plain.cached_logits):
            error = noise = 0.0
            for answer in answers:
                try:
                    right = logits_of(self.model, answer.prompt, answer.tokens)
                except Exception:  # a model without a cache
                    break
                error = max(error, float(errors(answer, right).max()))
                if dtype != "float32":
                    plainly = logits_of(self.models[dtype], answer.prompt, answer.tokens)
                    noise = max(noise, float((_asked(plainly, answer) - _asked(right, answer)).abs().max()))
            else:
                found.append((error, allowed + 3 * noise))
                if error <= found[-1][1]:
                    return found[-1]
        if dtype == "float32":
            return found[0]
        return found[0][0], max(found[0][1], allowed + self._rounded_otherwise(answers, dtype))

    def _rounded_otherwise(self, answers: Sequence[ours.Answer], dtype: str) -> float:
        """What bfloat16 is off by at most when the embeddings are one rounding off."""
        noise = 0.0
        for answer in answers:
            right = _asked(plain.next_logits(self.model, answer.prompt, answer.tokens), answer)
            for seed in range(ROUNDINGS):
                with plain.rounded_otherwise(self.models[dtype], seed=seed) as model:
                    found = _asked(plain.next_logits(model, answer.prompt, answer.tokens), answer)
                noise = max(noise, float((found - right).abs().max()))
        return noise

    def hold_tuned(self, tuned: ours.Tuned, dtype: str) -> tuple[float, float]:
        """Difference of the trained margins from those that plain DPO gives, as a share of those (RMS)."""
        written = [encoded(pair) for pair in PAIRS]
        if not all(row in written for row in tuned.rows):
            raise AssertionError("tune trains on other tokens than the file's text has")
        with torch.no_grad():
            start = plain.margins(self.model, tuned.rows)
            found = plain.margins(load(tuned.folder, "float32"), tuned.rows) - start
        right = self._trained("float32", tuned) - start
        error = _rms(found - right) / _rms(right)
        if dtype == "float32":
            return error, 20 * FLOAT32
        return error, 3 * _rms(self._trained(dtype, tuned) - start - right) / _rms(right) + 5 * BFLOAT16

    def _trained(self, dtype: str, tuned: ours.Tuned) -> Tensor:
        """The margins after plain DPO in a dtype, computed in float32."""
        model = load(self.folder, dtype)
        plain.tune(model, tuned.rows, beta=BETA, rates=tuned.rates, clip=CLIP)
        with torch.no_grad():
            return plain.margins(model.float(), tuned.rows)


def first_line(error: BaseException) -> str:
    """An error in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:160]


def load(folder: Path, dtype: str) -> PreTrainedModel:
    """A folder's model by transformers alone."""
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype))
    if getattr(model.config.get_text_config(), "attn_logit_softcapping", None) is not None:
        model.set_attn_implementation("eager")  # torch's fused attention, which some versions take, drops the cap
    return model.eval()


def _all_logprobs(model: PreTrainedModel) -> Tensor:
    return torch.cat([plain.logprobs(model, row) for row in ROWS])


def _second(model: PreTrainedModel, row: Row) -> Tensor:
    return plain.logprobs(model, Row(row.prompt, row.responses[1:]))


def _rewards(model: PreTrainedModel, weight_E: Tensor, bias: Tensor) -> Tensor:
    with torch.no_grad():
        states = [plain.last_hidden(model, (*row.prompt, *each)) for row in ROWS for each in row.responses]
    return torch.stack([state_E.float() @ weight_E + bias for state_E in states])


def _classified(folder: Path, dtype: str) -> Tensor:
    """The rewards of all responses by transformers' own class, and what the configuration adds to them."""
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=getattr(torch, dtype))
    if getattr(model.config.get_text_config(), "attn_logit_softcapping", None) is not None:
        model.set_attn_implementation("eager")
    ids = [torch.tensor([[*row.prompt, *response]]) for row in ROWS for response in row.responses]
    with torch.no_grad():
        return torch.stack([model(each).logits.float().flatten()[0] for each in ids]) + model.config.reward_offset


def _drawn_errors(answer: ours.Answer, right: Tensor) -> Tensor:
    return (torch.tensor(answer.logprobs) - _picked(torch.log_softmax(right, -1), answer)).abs()


def _gaps(answer: ours.Answer, right: Tensor) -> Tensor:
    return right.max(-1).values - _picked(right, answer)


def _picked(values: Tensor, answer: ours.Answer) -> Tensor:
    return values[range(len(answer.tokens)), list(answer.tokens)]


def _asked(logits: Tensor, answer: ours.Answer) -> Tensor:
    """The log-probabilities that an answer was made by: its own tokens', and each step's largest."""
    logprobs = torch.log_softmax(logits, -1)
    return torch.stack([_picked(logprobs, answer), logprobs.max(-1).values])


def _gradient_error(found: dict[str, Tensor], right: dict[str, Tensor]) -> float:
    zero = torch.zeros(())
    names = found.keys() | right.keys()
    wrong = sum(float((found.get(name, zero) - right.get(name, zero)).pow(2).sum()) for name in names)
    return (wrong / sum(float(gradient.pow(2).sum()) for gradient in right.values())) ** 0.5


def _spread(differences: Tensor) -> float:
    return _rms(differences) + float(differences.abs().max())


def _rms(values: Tensor) -> float:
    return float(values.double().pow(2).mean().sqrt())
