"""Preference tuning computes what the objective names and no more, and each objective learns by its own measure."""

import copy
import math
import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from pairtune.data.pack import Tokens, pack
from pairtune.engine import examples as examples_module
from pairtune.engine import hidden, naive
from pairtune.engine.examples import Examples, prepare, run_pass
from pairtune.engine.hidden import hidden_states
from pairtune.engine.logprob import logprobs_and_collisions, token_logprobs
from pairtune.engine.mismatched import kl_baseline, mismatched_rows
from pairtune.errors import InputError
from pairtune.evaluation.heldout import log_ratios, margins, wins
from pairtune.evaluation.objective import measure_examples
from pairtune.objectives.catalog import OBJECTIVES
from pairtune.objectives.loss import loss_of
from pairtune.settings import Tuning
from pairtune.training.checkpoint import Journal
from pairtune.training.preference import _batches, train_preference
from pairtune.training.step import Optimizer

Pairs = Callable[..., list[Tokens]]
REFERENCE_FREE = [name for name, entry in OBJECTIVES.items() if "reference" not in entry.needs]


def easy_pairs(count: int, *, seed: int) -> list[Tokens]:
    """Pairs whose sides use a few tokens of their own, so that what is learned holds for pairs never seen."""
    chance = random.Random(seed)

    def pair(length: int) -> tuple[tuple[int, ...], ...]:
        return tuple((*(chance.randrange(first, first + 3) for _ in range(length)), 1) for first in (60, 80))

    return [Tokens((chance.randrange(10, 14), 20 + i), pair(chance.randrange(2, 5))) for i in range(count)]


def ready(model: PreTrainedModel, name: str, rows: list[Tokens], labels: list[bool] | None = None) -> Examples:
    """The examples of an objective, their reference being the model as it is."""
    found, _ = prepare(model, rows, loss_of(name).needs, labels=labels, seed=0)
    return found


def tune(model: PreTrainedModel, name: str, examples: Examples, journal: Journal, **settings: Any) -> None:
    chosen = Tuning(**{"learning_rate": 1e-3, "batch_size": 8, **settings})
    train_preference(model, examples, loss_of(name), chosen, seed=0, journal=journal)


@pytest.mark.parametrize("name", [*OBJECTIVES, "dpo+0.2*sft", "kto+simpo+0.5*aot-unpaired"])
def test_every_objective_lowers_its_own_held_out_loss(name: str, tiny_model: Any) -> None:
    model, journal = tiny_model(spread=1.0), Journal(name)
    train, held = (ready(model, name, easy_pairs(16, seed=seed)) for seed in (0, 1))
    before = measure_examples(model, loss_of(name), held)
    tune(model, name, train, journal, epochs=5, learning_rate=3e-3)
    after = measure_examples(model, loss_of(name), held)
    assert len(after.losses) == 16
    assert sum(after.losses) < sum(before.losses)
    assert after.own_wins is not None
    if name != "discopop":  # which begins downwards: see its docstring
        assert sum(after.own_wins) > 0.8 * 16
    assert (after.log_ratios is not None) == ("reference" in loss_of(name).needs)


# ---- nothing is computed that is not needed -----------------------------------------------------------------------


@pytest.mark.parametrize("name", REFERENCE_FREE)
def test_a_reference_free_objective_has_no_reference(
    name: str, tiny_model: Any, token_pairs: Pairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*_: Any, **__: Any) -> None:
        raise AssertionError("a reference was computed")

    monkeypatch.setattr(examples_module, "reference_logprobs", forbidden)
    found, cost = prepare(tiny_model(), token_pairs(4), loss_of(name).needs, seed=0)
    assert found == Examples(found.rows)
    assert cost.tokens == 0


@pytest.mark.parametrize("name", list(OBJECTIVES))
def test_only_what_is_named_is_computed(
    name: str, tiny_model: Any, token_pairs: Pairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, counts = tiny_model(), {"collision": 0}

    def counting(*args: Any) -> Any:
        counts["collision"] += 1
        return logprobs_and_collisions(*args)

    monkeypatch.setattr(examples_module, "logprobs_and_collisions", counting)
    examples, journal = ready(model, name, token_pairs(8)), Journal(name)
    assert (examples.mismatched is not None) == (name == "kto")
    tune(model, name, examples, journal, epochs=1)
    assert counts["collision"] == (1 if name == "wpo" else 0)
    assert ("kl_baseline" in journal.rows[0]) == (name == "kto")
    assert ("margin" in journal.rows[0]) == (name not in REFERENCE_FREE)
    assert ("chosen_logprob" in journal.rows[0]) == (name in REFERENCE_FREE)


# ---- what is computed is right ------------------------------------------------------------------------------------


def test_token_values_reach_the_loss_in_their_places(tiny_model: Any, token_pairs: Pairs) -> None:
    """LD-DPO and unlikelihood of packed rows, against the padded oracle and a loop over tokens."""
    model, rows = tiny_model(), token_pairs(5)
    other = tiny_model(seed=1)
    examples = ready(other, "ld-dpo", rows)
    with torch.no_grad():
        found = {name: measure_examples(model, loss_of(name), examples).losses for name in ("ld-dpo", "unlikelihood")}
        for i, row in enumerate(rows):
            (chosen, rejected), (frozen_chosen, frozen_rejected) = (
                naive.response_logprobs(each, [row.prompt] * 2, row.responses) for each in (model, other)
            )
            common = min(len(chosen), len(rejected))
            scores = []
            for own, frozen in ((chosen, frozen_chosen), (rejected, frozen_rejected)):
                weights = torch.tensor([1.0 if t < common else 0.5 for t in range(len(own))])
                scores.append(float(((own - frozen) * weights).sum()))
            ld = -torch.nn.functional.logsigmoid(torch.tensor(0.1 * (scores[0] - scores[1])))
            assert found["ld-dpo"][i] == pytest.approx(float(ld), rel=1e-4)
            unlikely = -chosen.sum() - 0.1 * torch.log1p(-rejected.exp()).sum()
            mean = sum(len(each.responses[0]) for each in rows) / len(rows)  # tokens of a chosen response
            assert found["unlikelihood"][i] == pytest.approx(float(unlikely) / mean, rel=1e-4)


@pytest.mark.parametrize("tokens_per_pass", [4096, 24])  # one pass a step, and several
def test_imitation_in_a_sum_is_the_mean_per_token_of_the_step(
    tokens_per_pass: int,
    tiny_model: Any,
    token_pairs: Pairs,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The first loss of dpo+0.2*sft: ln 2, and a fifth of transformers' own cross-entropy over the chosen tokens."""
    monkeypatch.setitem(hidden.TOKENS_PER_PASS, "cpu", tokens_per_pass)
    model, rows = tiny_model(), token_pairs(12)
    with torch.no_grad():
        tokens = [
            -model(torch.tensor([[*row.prompt, *row.responses[0]]])).logits.log_softmax(-1)[0, at - 1, token]
            for row in rows
            for at, token in enumerate(row.responses[0], len(row.prompt))
        ]
    imitation, ln2 = 0.2 * float(torch.stack(tokens).mean()), math.log(2)
    examples, journal = ready(model, "dpo+0.2*sft", rows), Journal("dpo+0.2*sft")
    capsys.readouterr()
    tune(model, "dpo+0.2*sft", examples, journal, epochs=2, batch_size=12)
    assert journal.rows[0]["loss"] == pytest.approx(ln2 + imitation, rel=1e-4)
    said = capsys.readouterr().err.splitlines()
    share = imitation / (ln2 + imitation)
    assert said == [f"loss: dpo 0.693 ({1 - share:.0%}), 0.2*sft {imitation:.3g} ({share:.0%})"]  # once


def test_the_shares_of_a_single_objective_are_not_told(
    tiny_model: Any, token_pairs: Pairs, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tiny_model()
    tune(model, "cpo", ready(model, "cpo", token_pairs(8)), Journal("cpo"))
    assert capsys.readouterr().err == ""


def test_collisions_are_those_of_the_whole_distribution(tiny_model: Any, token_pairs: Pairs) -> None:
    model, batch = tiny_model(), pack(token_pairs(3))
    logprob_R, collision_R = logprobs_and_collisions(model, batch)
    torch.testing.assert_close(logprob_R, token_logprobs(model, batch))
    logits = model.get_output_embeddings()(hidden_states(model, batch)[batch.source_R])
    torch.testing.assert_close(collision_R, (logits.softmax(-1) ** 2).sum(-1).log(), rtol=1e-5, atol=1e-6)
    assert logprob_R.requires_grad
    assert not collision_R.requires_grad


def test_held_out_margins_and_own_criterion(tiny_model: Any, token_pairs: Pairs) -> None:
    """For an objective on the margin, its own criterion is the margin's sign, in the order of the rows."""
    model = tiny_model()
    held = ready(tiny_model(seed=1), "dpo", token_pairs(12))
    assert held.reference is not None
    expected = log_ratios(model, held.rows, held.reference)
    for name in ("dpo", "ipo", "aot-unpaired", "beta-dpo"):
        measured = measure_examples(model, loss_of(name), held)
        assert measured.log_ratios is not None
        torch.testing.assert_close(torch.tensor(measured.log_ratios), torch.tensor(expected), rtol=1e-4, atol=1e-5)
        assert measured.own_wins == wins(margins(expected))
    assert measure_examples(tiny_model(seed=1), loss_of("dpo"), held).own_wins == pytest.approx([0.5] * 12, abs=0.5)


# ---- KTO's baseline -----------------------------------------------------------------------------------------------


def test_mismatched_rows_have_another_prompts_responses(token_pairs: Pairs) -> None:
    rows = token_pairs(9)
    rows += [Tokens(row.prompt, row.responses[::-1]) for row in rows[:4]]  # prompts with two rows
    found = mismatched_rows(rows, seed=3)
    owner = {row.responses: row.prompt for row in rows}
    assert [row.prompt for row in found] == [row.prompt for row in rows]
    assert all(owner[row.responses] != row.prompt for row in found)
    assert sorted(row.responses for row in found) == sorted(row.responses for row in rows), "each response once"
    assert found == mismatched_rows(rows, seed=3) != mismatched_rows(rows, seed=4)
    with pytest.raises(InputError, match="all rows have the same prompt; hold out more"):
        mismatched_rows([rows[0], Tokens(rows[0].prompt, ((5, 1), (6, 1)))], seed=0)


def test_the_kl_baseline_is_the_mean_log_ratio_of_mismatched_responses(tiny_model: Any, token_pairs: Pairs) -> None:
    model, frozen = tiny_model(seed=2), tiny_model()
    examples = ready(frozen, "kto", token_pairs(6))
    assert examples.mismatched is not None
    for indices in ([0, 3, 5], [1, 2, 4], range(6)):
        ratios = []
        for i in indices:
            row = examples.mismatched[i]
            with torch.no_grad():
                own, reference = (
                    naive.response_logprobs(each, [row.prompt] * 2, row.responses) for each in (model, frozen)
                )
            ratios += [float((a - b).sum()) for a, b in zip(own, reference, strict=True)]
        expected = max(0.0, sum(ratios) / len(ratios))
        assert baseline_of(model, examples, indices) == pytest.approx(expected, rel=1e-4, abs=1e-5)
    assert baseline_of(frozen, examples, range(6)) == pytest.approx(0, abs=1e-5)
    turned = ready(model, "kto", token_pairs(6))  # the same log-ratios with the other sign
    both = [baseline_of(model, examples, range(6)), baseline_of(frozen, turned, range(6))]
    assert min(both) == 0 < max(both), "an estimate below 0 counts as 0"


def test_no_gradient_flows_through_the_baseline(
    tiny_model: Any, token_pairs: Pairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The step's gradient is that of KTO with the baseline's value put in as a number."""
    frozen, rows = tiny_model(), token_pairs(6)
    examples = ready(frozen, "kto", rows)
    gathered = gradients_of(tiny_model(seed=2), "kto", examples, monkeypatch)

    model = tiny_model(seed=2)
    baseline = baseline_of(model, examples, range(6))
    chosen, rejected = naive.pair_logprobs(model, rows)
    with torch.no_grad():
        frozen_chosen, frozen_rejected = naive.pair_logprobs(frozen, rows)
    gain, pain = chosen - frozen_chosen - baseline, baseline - (rejected - frozen_rejected)
    ((1 - torch.sigmoid(0.1 * gain)) / 2 + (1 - torch.sigmoid(0.1 * pain)) / 2).mean().backward()
    expected = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    assert ((gathered - expected).norm() / expected.norm()).item() < 1e-4


def baseline_of(model: PreTrainedModel, examples: Examples, indices: Sequence[int]) -> float:
    assert examples.mismatched is not None
    assert examples.mismatched_reference is not None
    return float(kl_baseline(model, examples.mismatched, examples.mismatched_reference, indices))


def gradients_of(model: PreTrainedModel, name: str, examples: Examples, monkeypatch: pytest.MonkeyPatch) -> Tensor:
    """The gradient of one step on all the examples."""
    kept: list[Tensor] = []

    def keep(optimizer: Optimizer, **_: float) -> float:
        kept.append(torch.cat([g.flatten() for g in optimizer.gradients if g is not None]))
        return 0.0

    with monkeypatch.context() as patched:
        patched.setattr(Optimizer, "step", keep)
        tune(model, name, examples, Journal(name), batch_size=len(examples.rows), epochs=1)
    return kept[0]


@pytest.mark.parametrize("name", ["kto", "bco", "beta-dpo", "aot-paired", "aot-unpaired+0.3*wpo", "ld-dpo", "simpo"])
def test_micro_batches_give_the_gradient_of_one_pass(
    name: str, tiny_model: Any, token_pairs: Pairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a loss mixes the examples of a step: its log-probabilities are gathered first, then differentiated."""
    examples = ready(tiny_model(), name, token_pairs(11))
    found = []
    for budget in (100_000, 45):
        monkeypatch.setitem(hidden.TOKENS_PER_PASS, "cpu", budget)
        found.append(gradients_of(tiny_model(seed=2), name, examples, monkeypatch))
    whole, parts = (each.double() for each in found)
    assert ((whole - parts).norm() / whole.norm()).item() < 1e-5


# ---- moving averages and labels -----------------------------------------------------------------------------------


def test_moving_averages_follow_the_steps_before(tiny_model: Any, token_pairs: Pairs) -> None:
    model, journal = tiny_model(), Journal("")
    tune(model, "beta-dpo+bco", ready(model, "dpo", token_pairs(16)), journal, batch_size=4, epochs=2)
    shift = gap = 0.0
    for row in journal.rows:
        assert row["past_logratio"] == pytest.approx(shift, rel=1e-4, abs=1e-6)
        assert row["past_margin"] == pytest.approx(gap, rel=1e-4, abs=1e-6)
        shift = 0.9 * shift + 0.1 * (row["chosen_logratio"] + row["rejected_logratio"]) / 2
        gap = 0.9 * gap + 0.1 * row["margin"]
    assert gap > 0.05


def single(rows: list[Tokens]) -> tuple[list[Tokens], list[bool]]:
    """Pairs as single responses: all chosen ones, then all rejected ones, as a careless data set has them."""
    return [Tokens(row.prompt, (row.responses[side],)) for side in (0, 1) for row in rows], [True] * len(rows) + [
        False
    ] * len(rows)


@pytest.mark.parametrize("name", ["kto", "bco", "kto+0.5*bco"])
def test_single_responses_with_labels_teach_too(name: str, tiny_model: Any, token_pairs: Pairs) -> None:
    model, journal = tiny_model(), Journal(name)
    train, held = (ready(model, name, *single(token_pairs(16, seed=seed))) for seed in (0, 1))
    before = measure_examples(model, loss_of(name), held)
    tune(model, name, train, journal, epochs=4)
    after = measure_examples(model, loss_of(name), held)
    assert after.own_wins is None
    assert after.log_ratios is not None
    assert [len(ratios) for ratios in after.log_ratios] == [1] * 32
    assert len(after.losses) == 32
    assert sum(after.losses) < sum(before.losses)
    assert journal.rows[-1]["desirable_logratio"] > journal.rows[-1]["undesirable_logratio"]


def test_every_step_has_its_share_of_either_label(tiny_model: Any) -> None:
    labels = [True] * 30 + [False] * 10
    examples = Examples([Tokens((3,), ((4, 1),))] * 40, labels)
    batches = _batches(examples, Tuning(batch_size=8, epochs=2), seed=5)
    assert [len(batch) for batch in batches] == [8] * 10
    assert {sum(labels[i] for i in batch) for batch in batches} == {6}
    for epoch in (batches[:5], batches[5:]):
        assert sorted(i for batch in epoch for i in batch) == list(range(40))
    assert batches[:5] != batches[5:]
    assert [*batches] == [*_batches(examples, Tuning(batch_size=8, epochs=2), seed=5)]
    assert [*batches] != [*_batches(examples, Tuning(batch_size=8, epochs=2), seed=6)]


def test_a_pass_over_labelled_rows_knows_their_labels(tiny_model: Any, token_pairs: Pairs) -> None:
    rows, labels = single(token_pairs(2))
    passed = run_pass(tiny_model(), Examples(rows, labels), [3, 0, 2], ())
    assert passed.label_S.tolist() == [False, True, False]
    assert passed.length_S.tolist() == [len(rows[i].responses[0]) for i in (3, 0, 2)]
    assert set(passed.tokens) == {"logprob"}


def test_the_policy_is_left_alone_by_measuring(tiny_model: Any, token_pairs: Pairs) -> None:
    model = tiny_model()
    held, before = ready(model, "kto", token_pairs(4)), copy.deepcopy(model.state_dict())
    measure_examples(model, loss_of("kto"), held)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
