"""Agreement with TRL's own code on random inputs, where TRL is installed; its departures from the papers, measured.

TRL's trainers compute their losses in methods; here these are called with a made-up trainer and a made-up model that
looks its answers up, so that nothing but the formula is tested.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("trl", reason="TRL is not installed, and is no dependency")
dpo_trainer = pytest.importorskip("trl.trainer.dpo_trainer")
kto_trainer = pytest.importorskip("trl.trainer.kto_trainer")


class Lookup:
    """A model whose log-probabilities are given: row i's first token is i, and says which they are."""

    training = True

    def __init__(self, logprobs: list[Tensor], collisions: list[Tensor]) -> None:
        self.tables = {
            "log_probs": torch.nn.utils.rnn.pad_sequence(logprobs, batch_first=True),
            "log_sum_sq_probs": torch.nn.utils.rnn.pad_sequence(collisions, batch_first=True),
        }

    def __call__(self, *, input_ids: Tensor, **_: Any) -> Any:
        rows, width = input_ids[:, 0], input_ids.shape[1] - 1
        answers = {name: table[rows, :width] for name, table in self.tables.items()}
        nothing = torch.zeros(len(rows), width)
        return SimpleNamespace(**answers, entropy=nothing, mean_logits=nothing, is_top1=nothing.bool())


def trainer(policy: Lookup, reference: Lookup, **settings: Any) -> Any:
    """What TRL's methods read of `self`."""
    accelerator = SimpleNamespace(
        device=torch.device("cpu"), gather_for_metrics=lambda x: x, gather=lambda x: x, unwrap_model=lambda x: x
    )
    return SimpleNamespace(
        **{
            "model": policy,
            "ref_model": reference,
            "accelerator": accelerator,
            "args": SimpleNamespace(discopop_tau=0.05, gradient_checkpointing_kwargs=None),
            "aux_loss_enabled": False,
            "precompute_ref_logps": False,
            "ld_alpha": None,
            "f_divergence_type": "reverse_kl",
            "loss_weights": [1.0],
            "label_smoothing": 0.0,
            "use_weighting": False,
            "_metrics": defaultdict(lambda: defaultdict(list)),
            "_total_train_tokens": 0,
            "_tp_size": 1,
            **settings,
        }
    )


def rows(length_S: Tensor) -> tuple[Tensor, Tensor]:
    """Token ids and completion mask of responses after a prompt of one token, padded."""
    width = int(length_S.max()) + 1
    place = torch.arange(width)
    ids = torch.zeros(len(length_S), width, dtype=torch.long)
    ids[:, 0] = torch.arange(len(length_S))
    return ids, ((place > 0) & (place <= length_S[:, None])).long()


@pytest.fixture(autouse=True)
def _values_only() -> Iterator[None]:
    """No gradients are compared here, and torch warns of numbers read from tensors that have them."""
    with torch.no_grad():
        yield


@pytest.fixture
def trl_dpo(batch: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Callable[..., float]:
    """trl_dpo(loss_type, **settings): TRL's mean loss of the batch."""
    monkeypatch.setattr(dpo_trainer, "disable_gradient_checkpointing", lambda *_: nullcontext())

    def loss(loss_type: str, **settings: Any) -> float:
        pairs = batch()
        order = [*range(0, len(pairs.length_S), 2), *range(1, len(pairs.length_S), 2)]  # all chosen, then all rejected
        sizes = pairs.length_S.tolist()

        def laid(values_R: Tensor) -> list[Tensor]:
            parts = values_R.detach().float().split(sizes)
            return [parts[i] for i in order]

        policy = Lookup(laid(pairs.logprob_R), laid(pairs.collision_R))
        reference = Lookup(laid(pairs.reference_R), laid(pairs.collision_R))
        ids, mask = rows(pairs.length_S[order])
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "completion_mask": mask}
        made = trainer(policy, reference, loss_types=[loss_type], **settings)
        return float(dpo_trainer.DPOTrainer._compute_loss(made, policy, inputs, False))

    return loss


NOISY = {"beta": 0.3, "label_smoothing": 0.2}
AGREE = [
    ("dpo", "sigmoid", {"beta": 0.3}, {"beta": 0.3}),
    ("robust-dpo", "robust", NOISY, NOISY),
    ("hinge", "hinge", {"beta": 0.3}, {"beta": 0.3}),
    ("exo", "exo_pair", NOISY, NOISY),
    ("discopop", "discopop", {"beta": 0.3}, {"beta": 0.3}),
    ("sppo", "sppo_hard", {"beta": 0.3}, {"beta": 0.3}),
    ("nca", "nca_pair", {"beta": 0.3}, {"beta": 0.3}),
    ("apo-zero", "apo_zero", {"beta": 0.3}, {"beta": 0.3}),
    ("apo-down", "apo_down", {"beta": 0.3}, {"beta": 0.3}),
    ("aot-paired", "aot", NOISY, NOISY),
    ("aot-unpaired", "aot_unpaired", NOISY, NOISY),
    ("dpo-norm", "sigmoid_norm", {"beta": 3.0}, {"beta": 3.0}),
    ("ld-dpo", "sigmoid", {"beta": 0.3, "alpha": 0.4}, {"beta": 0.3, "ld_alpha": 0.4}),
    ("fdpo-forward-kl", "sigmoid", {"beta": 0.3}, {"beta": 0.3, "f_divergence_type": "forward_kl"}),
    ("fdpo-js", "sigmoid", {"beta": 0.3}, {"beta": 0.3, "f_divergence_type": "js_divergence"}),
    (
        "fdpo-alpha",
        "sigmoid",
        {"beta": 0.3, "alpha": 0.3},
        {"beta": 0.3, "f_divergence_type": "alpha_divergence", "f_alpha_divergence_coef": 1 - 0.3},
    ),
]


@pytest.mark.parametrize(("name", "loss_type", "ours", "theirs"), AGREE, ids=[case[0] for case in AGREE])
def test_the_same(
    name: str, loss_type: str, ours: Any, theirs: Any, batch: Callable[..., Any], trl_dpo: Callable[..., float]
) -> None:
    assert float(batch().loss(name, **ours).mean()) == pytest.approx(trl_dpo(loss_type, **theirs), rel=1e-5)


def test_the_same_where_no_weight_of_wpo_passes_1(batch: Callable[..., Any], trl_dpo: Callable[..., float]) -> None:
    """TRL has no bound on the weight: the pairs on which ours bites are why the two means differ."""
    pairs = batch()
    values = pairs.quantities(("chosen_logprob_B", "chosen_collision_B", "chosen_length_B"))
    other = pairs.quantities(("rejected_logprob_B", "rejected_collision_B", "rejected_length_B"))
    mean = [(logprob - collision) / length for logprob, collision, length in (values.values(), other.values())]
    unbounded_B = sum(mean).exp() * pairs.loss("dpo", beta=0.3)
    assert float(unbounded_B.mean()) == pytest.approx(trl_dpo("sigmoid", beta=0.3, use_weighting=True), rel=1e-5)
    torch.testing.assert_close(pairs.loss("wpo", beta=0.3), unbounded_B.minimum(pairs.loss("dpo", beta=0.3)))


def test_where_trl_departs_from_the_paper(batch: Callable[..., Any], trl_dpo: Callable[..., float]) -> None:
    """IPO by length, BCO without its shift, label smoothing ignored: as docs/objectives.md says."""
    pairs = batch()
    names = ("chosen_logratio_B", "rejected_logratio_B", "chosen_length_B", "rejected_length_B")
    chosen_B, rejected_B, length_B, other_B = pairs.quantities(names).values()
    ipo_B = (chosen_B / length_B - rejected_B / other_B - 1 / (2 * 0.3)) ** 2
    assert float(ipo_B.mean()) == pytest.approx(trl_dpo("ipo", beta=0.3), rel=1e-5)
    assert float(pairs.loss("ipo", beta=0.3).mean()) != pytest.approx(trl_dpo("ipo", beta=0.3), rel=0.01)

    pairs.numbers["past_logratio"] = torch.zeros(()).double()
    twice = 2 * float(pairs.loss("bco", beta=0.3).mean())  # a pair's loss is the mean of its two, TRL's their sum
    assert twice == pytest.approx(trl_dpo("bco_pair", beta=0.3), rel=1e-5)

    assert trl_dpo("sigmoid", beta=0.3, label_smoothing=0.3) == trl_dpo("sigmoid", beta=0.3)


def test_imitation_is_per_token_of_the_batch(batch: Callable[..., Any], trl_dpo: Callable[..., float]) -> None:
    pairs = batch()
    pairs.numbers["mean_length"] = pairs.length_S[0::2].double().mean()
    assert float(pairs.loss("sft").mean()) == pytest.approx(trl_dpo("sft", beta=0.3), rel=1e-5)


def test_kto(batch: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The loss, and the baseline: the mean log-ratio of mismatched rows, not below 0."""
    monkeypatch.setattr(kto_trainer, "disable_gradient_checkpointing", lambda *_: nullcontext())
    pairs, mismatched = batch(), batch(seed=1)
    count = len(pairs.length_S)
    for sign in (1, -1):
        ratio_R = sign * (mismatched.logprob_R - mismatched.reference_R).detach().abs()
        both = [
            [*own.detach().float().split(pairs.length_S.tolist()), *other.float().split(mismatched.length_S.tolist())]
            for own, other in (
                (pairs.logprob_R, mismatched.reference_R + ratio_R),
                (pairs.reference_R, mismatched.reference_R),
            )
        ]
        policy, reference = (Lookup(each, each) for each in both)
        ids, mask = rows(torch.cat([pairs.length_S, mismatched.length_S]))
        inputs = {
            "input_ids": ids[:count],
            "attention_mask": mask[:count],
            "completion_mask": mask[:count],
            "KL_input_ids": ids[count:],
            "KL_attention_mask": mask[count:],
            "KL_completion_mask": mask[count:],
            "label": torch.tensor([True, False]).repeat(count // 2),
        }
        made = trainer(
            policy,
            reference,
            loss_type="kto",
            beta=0.3,
            desirable_weight=1.2,
            undesirable_weight=0.7,
            calculate_KL=True,
        )
        made._compute_kl_logps = lambda *given, made=made: kto_trainer.KTOTrainer._compute_kl_logps(made, *given)
        theirs = float(kto_trainer.KTOTrainer._compute_loss(made, policy, inputs, False))
        baseline = max(0.0, float(ratio_R.sum()) / count)
        pairs.numbers["kl_baseline"] = torch.tensor(baseline).double()
        ours = pairs.loss("kto", beta=0.3, desirable_weight=1.2, undesirable_weight=0.7)
        assert float(ours.mean()) == pytest.approx(theirs, rel=1e-5)
        assert made._metrics["train"]["kl"] == [pytest.approx(baseline, rel=1e-5)]


def test_simpo_and_cpo(batch: Callable[..., Any]) -> None:
    cpo_trainer = pytest.importorskip("trl.experimental.cpo.cpo_trainer")
    pairs = batch()
    names = ("chosen_logprob_B", "rejected_logprob_B", "chosen_length_B", "rejected_length_B")
    chosen_B, rejected_B, length_B, other_B = pairs.quantities(names).values()
    usual = {"alpha": 0.0, "label_smoothing": 0.0, "accelerator": SimpleNamespace(device="cpu")}
    simpo = SimpleNamespace(**usual, loss_type="simpo", beta=2.0, simpo_gamma=0.7)
    theirs, *_ = cpo_trainer.CPOTrainer.cpo_loss(simpo, chosen_B / length_B, rejected_B / other_B)
    torch.testing.assert_close(pairs.loss("simpo", beta=2.0, gamma=0.7), theirs)
    cpo = SimpleNamespace(**usual, loss_type="sigmoid", beta=0.3)
    theirs, *_ = cpo_trainer.CPOTrainer.cpo_loss(cpo, chosen_B, rejected_B)
    torch.testing.assert_close(pairs.loss("cpo", beta=0.3, sft_weight=0.0), theirs)


def test_orpo(batch: Callable[..., Any]) -> None:
    """Its odds ratio; its imitation, a mean over the tokens of prompts and responses, is not the paper's."""
    orpo_trainer = pytest.importorskip("trl.experimental.orpo.orpo_trainer")
    pairs = batch(dtype=torch.float32)
    names = ("chosen_logprob_B", "rejected_logprob_B", "chosen_length_B", "rejected_length_B")
    chosen_B, rejected_B, length_B, other_B = pairs.quantities(names).values()
    made = SimpleNamespace(beta=0.4, accelerator=SimpleNamespace(device="cpu"))
    theirs, *_ = orpo_trainer.ORPOTrainer.odds_ratio_loss(made, chosen_B / length_B, rejected_B / other_B)
    torch.testing.assert_close(pairs.loss("orpo", odds_weight=0.4) + chosen_B / length_B, -theirs)
