"""The DPO loss from logits, in numpy and float64, right or with any of the usual mistakes in it.

It shares no code with the engine or the objectives: it is what those, and a learner's own, are held against.
Shape suffixes: B pairs, T positions, V vocabulary.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from itertools import combinations

import numpy as np
import numpy.typing as npt
from scipy.special import logsumexp

Array = npt.NDArray[np.float64]
Whole = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Written:
    """One side of the pairs as two models read it: logits [B, T, V], ids [B, T], which ids are the response's."""

    policy_BTV: Array
    reference_BTV: Array
    ids_BT: Whole
    is_response_BT: npt.NDArray[np.bool_]
    is_real_BT: npt.NDArray[np.bool_]  # no padding


@dataclass(frozen=True)
class Form:
    """How a loss is written: each field's first value is DPO's."""

    tokens: str = "response"
    labels: str = "next"
    scores: str = "log-softmax"
    over_tokens: str = "sum"
    reference: str = "subtracted"
    sides: str = "chosen - rejected"
    beta: str = "times the difference"
    link: str = "-log sigmoid"
    over_pairs: str = "mean"

    def mistakes(self) -> list[str]:
        """What it gets wrong, a sentence each."""
        mine = {field.name: getattr(self, field.name) for field in fields(self)}
        return [MISTAKES[name, value] for name, value in mine.items() if value != getattr(DPO, name)]


DPO = Form()

MISTAKES = {
    (
        "tokens",
        "prompt too",
    ): "the prompt's tokens are counted; only the response's belong to log π(y|x), though of one "
    "prompt on both sides they cancel",
    ("tokens", "padding too"): "every position is counted, prompt and padding too; only the response's tokens belong",
    ("tokens", "response and padding"): "padding is counted behind the responses",
    ("tokens", "all but the last"): "the response's last token, its end of text, is left out",
    ("tokens", "all but the first"): "the response's first token is left out; the prompt's last position foretells it",
    (
        "labels",
        "same",
    ): "a position's logits are read for the token there; they are of the NEXT token: shift by one",
    ("scores", "probabilities"): "probabilities are added where log-probabilities belong: log_softmax, not softmax",
    ("scores", "raw logits"): "raw logits are added; they are no log-probabilities until log_softmax",
    ("over_tokens", "mean"): "a response's log-probability is the SUM over its tokens; here it is their mean",
    ("reference", "missing"): "the reference is missing: the loss is of log π and not of log π − log π_ref",
    ("reference", "added"): "the reference's log-probability is added where it is to be subtracted",
    ("reference", "alone"): "the policy is not in it: the reference's log-probabilities stand in its place",
    (
        "sides",
        "rejected - chosen",
    ): "the sign is turned round: chosen and rejected are swapped, and it learns the worse answer",
    ("sides", "chosen + rejected"): "chosen and rejected are added; their DIFFERENCE is the margin",
    ("sides", "chosen"): "the rejected response is not in it",
    ("beta", "missing"): "β is missing",
    ("beta", "divided by"): "the margin is divided by β where it is to be multiplied",
    ("beta", "outside"): "β multiplies the loss; it belongs inside the sigmoid",
    ("beta", "squared"): "β is multiplied in twice",
    ("beta", "on the chosen side"): "β multiplies the chosen side only",
    ("link", "-sigmoid"): "the logarithm is missing: the loss is −log σ, not −σ",
    ("link", "log sigmoid"): "the minus is missing: what is to be minimised is MINUS log σ",
    ("link", "-log2 sigmoid"): "the logarithm is to base 2",
    ("link", "-margin"): "the sigmoid is missing",
    ("link", "hinge"): "it is the hinge max(0, 1 − β·margin), SLiC's loss and not DPO's",
    ("link", "ipo"): "it is (margin − 1/(2β))², IPO's loss and not DPO's",
    ("link", "exponential"): "it is exp(−β·margin), the exponential loss and not DPO's",
    ("over_pairs", "sum"): "the pairs' losses are added; a step's loss is their mean",
}


def forms() -> Iterator[Form]:
    """DPO's, then those with one mistake, with two and with three in different places."""
    for count in range(4):
        for chosen in combinations(MISTAKES, count):
            changed = dict(chosen)
            if len(changed) == count:
                yield replace(DPO, **changed)


def losses(chosen: Written, rejected: Written, beta: float, form: Form = DPO) -> Array:
    """The loss of each pair: [B], or [1] for a form that adds the pairs up."""
    sides = []
    for side in (chosen, rejected):
        policy_B, reference_B = (_summed(logits, side, form) for logits in (side.policy_BTV, side.reference_BTV))
        sides.append(_against(policy_B, reference_B, form))
    first, second = sides
    if form.beta == "on the chosen side":
        first = beta * first
    margin_B = {
        "chosen - rejected": first - second,
        "rejected - chosen": second - first,
        "chosen + rejected": first + second,
        "chosen": first,
    }[form.sides]
    loss_B = _linked(margin_B, beta, form)
    return loss_B.sum(keepdims=True) if form.over_pairs == "sum" else loss_B


def _summed(logits_BTV: Array, side: Written, form: Form) -> Array:
    """What stands for log π(y|x): [B]."""
    score_BTV = _scores(logits_BTV, form)
    if form.labels == "next":
        score_BTV, labels_BT = score_BTV[:, :-1], side.ids_BT[:, 1:]
        counted_BT = _counted(side, form)[:, 1:]
    else:
        labels_BT, counted_BT = side.ids_BT, _counted(side, form)
    score_BT = np.take_along_axis(score_BTV, labels_BT[..., None], axis=-1)[..., 0]
    total_B: Array = (score_BT * counted_BT).sum(-1)
    return total_B / np.maximum(counted_BT.sum(-1), 1) if form.over_tokens == "mean" else total_B


def _counted(side: Written, form: Form) -> npt.NDArray[np.bool_]:
    """Which tokens count: [B, T]."""
    response, real = side.is_response_BT, side.is_real_BT
    place_BT = response.cumsum(1)
    return {
        "response": response,
        "prompt too": real,
        "padding too": np.ones_like(real),
        "response and padding": response | ~real,
        "all but the last": response & (place_BT < place_BT[:, -1:]),
        "all but the first": response & (place_BT > 1),
    }[form.tokens]


def _scores(logits_BTV: Array, form: Form) -> Array:
    """Of every token of the vocabulary: [B, T, V]."""
    if form.scores == "raw logits":
        return logits_BTV
    logprob_BTV = logits_BTV - logsumexp(logits_BTV, axis=-1, keepdims=True)
    result: Array = np.exp(logprob_BTV) if form.scores == "probabilities" else logprob_BTV
    return result


def _against(policy_B: Array, reference_B: Array, form: Form) -> Array:
    return {
        "subtracted": policy_B - reference_B,
        "missing": policy_B,
        "added": policy_B + reference_B,
        "alone": reference_B,
    }[form.reference]


def _linked(margin_B: Array, beta: float, form: Form) -> Array:
    inside = {
        "times the difference": beta * margin_B,
        "missing": margin_B,
        "divided by": margin_B / beta,
        "outside": margin_B,
        "squared": beta**2 * margin_B,
        "on the chosen side": margin_B,
    }[form.beta]
    with np.errstate(over="ignore"):
        loss_B: Array = {
            "-log sigmoid": np.logaddexp(0, -inside),
            "log sigmoid": -np.logaddexp(0, -inside),
            "-log2 sigmoid": np.logaddexp(0, -inside) / np.log(2),
            "-sigmoid": -np.exp(-np.logaddexp(0, -inside)),
            "-margin": -inside,
            "hinge": np.maximum(0, 1 - inside),
            "ipo": (margin_B - 1 / (2 * beta)) ** 2,
            "exponential": np.exp(-inside),
        }[form.link]
    return beta * loss_B if form.beta == "outside" else loss_B
