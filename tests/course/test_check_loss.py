"""A learner's DPO loss: the right one passes; each of the usual mistakes, as people write them, is named."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

import pairtune
from pairtune.cli import main
from pairtune.course.check_loss import Finding, Table, check_loss, pairs
from pairtune.course.dpo_by_hand import DPO, MISTAKES, forms
from pairtune.own import Own


def findings(function: Callable[..., Any]) -> list[Finding]:
    return check_loss(Own("mine", function, Path(__file__), ""))


def wrong(function: Callable[..., Any]) -> str:
    return " | ".join(finding.found for finding in findings(function) if not finding.right)


def logprob(model: Any, side: Any) -> Tensor:
    """As it is: logits of the position before, the response's tokens, their sum."""
    logprob_BTV = model(side.ids.to(model.device)).logits[:, :-1].log_softmax(-1)
    logprob_BT = logprob_BTV.gather(-1, side.ids[:, 1:, None])[..., 0]
    return (logprob_BT * side.is_response[:, 1:]).sum(-1)


def loss_of(
    *,
    score: Callable[[Any, Any], Tensor] = logprob,
    margin: Callable[..., Tensor] = lambda c, r, rc, rr: (c - rc) - (r - rr),
    link: Callable[[Tensor, float], Tensor] = lambda m, beta: -logsigmoid(beta * m),
) -> Callable[..., Any]:
    def mine(policy: Any, reference: Any, chosen: Any, rejected: Any, beta: float) -> Tensor:
        with torch.no_grad():
            frozen = [score(reference, side) for side in (chosen, rejected)]
        return link(margin(*(score(policy, side) for side in (chosen, rejected)), *frozen), beta).mean()

    return mine


def test_the_right_loss_is_right_in_everything() -> None:
    found = findings(loss_of())
    assert len(found) == 6
    assert wrong(loss_of()) == ""


def test_the_loss_of_each_pair_will_do() -> None:
    def each(policy: Any, reference: Any, chosen: Any, rejected: Any, beta: float) -> Tensor:
        with torch.no_grad():
            frozen = logprob(reference, chosen) - logprob(reference, rejected)
        return -logsigmoid(beta * (logprob(policy, chosen) - logprob(policy, rejected) - frozen))

    assert wrong(each) == ""


def unshifted(model: Any, side: Any) -> Tensor:
    scored = model(side.ids).logits.log_softmax(-1).gather(-1, side.ids[..., None])[..., 0]
    return (scored * side.is_response).sum(-1)


def counting(mask: Callable[[Any], Tensor]) -> Callable[[Any, Any], Tensor]:
    def score(model: Any, side: Any) -> Tensor:
        scored = model(side.ids).logits[:, :-1].log_softmax(-1).gather(-1, side.ids[:, 1:, None])[..., 0]
        return (scored * mask(side)[:, 1:]).sum(-1)

    return score


def averaged(model: Any, side: Any) -> Tensor:
    return logprob(model, side) / side.is_response.sum(-1)


def of_softmax(model: Any, side: Any) -> Tensor:
    scored = model(side.ids).logits[:, :-1].softmax(-1).gather(-1, side.ids[:, 1:, None])[..., 0]
    return (scored * side.is_response[:, 1:]).sum(-1)


def of_logits(model: Any, side: Any) -> Tensor:
    scored = model(side.ids).logits[:, :-1].gather(-1, side.ids[:, 1:, None])[..., 0]
    return (scored * side.is_response[:, 1:]).sum(-1)


SLIPS: dict[str, tuple[dict[str, Any], str]] = {
    "sign": ({"margin": lambda c, r, rc, rr: (r - rr) - (c - rc)}, "turned round"),
    "no beta": ({"link": lambda m, beta: -logsigmoid(m)}, "β is missing"),
    "divided by beta": ({"link": lambda m, beta: -logsigmoid(m / beta)}, "divided by β"),
    "beta outside": ({"link": lambda m, beta: -beta * logsigmoid(m)}, "belongs inside the sigmoid"),
    "no reference": ({"margin": lambda c, r, rc, rr: c - r}, "reference is missing"),
    "reference added": ({"margin": lambda c, r, rc, rr: (c + rc) - (r + rr)}, "to be subtracted"),
    "reference crossed": ({"margin": lambda c, r, rc, rr: (c - rr) - (r - rc)}, "to be subtracted"),  # the same sum
    "some other": ({"margin": lambda c, r, rc, rr: 0.9 * ((c - rc) - (r - rr))}, "none of the usual"),
    "mean for sum": ({"score": averaged}, "SUM over its tokens"),
    "prompt counted": ({"score": counting(lambda side: side.ids != 0)}, "prompt's tokens are counted"),
    "all counted": ({"score": counting(lambda side: torch.ones_like(side.ids))}, "padding too"),
    "padding counted": ({"score": counting(lambda s: s.is_response | (s.ids == 0))}, "padding is counted"),
    "no shift": ({"score": unshifted}, "shift by one"),
    "softmax": ({"score": of_softmax}, "log_softmax, not softmax"),
    "logits": ({"score": of_logits}, "raw logits"),
    "no log": ({"link": lambda m, beta: -torch.sigmoid(beta * m)}, "logarithm is missing"),
    "no minus": ({"link": lambda m, beta: logsigmoid(beta * m)}, "minus is missing"),
    "ipo": ({"link": lambda m, beta: (m - 1 / (2 * beta)) ** 2}, "IPO's loss"),
    "hinge": ({"link": lambda m, beta: torch.relu(1 - beta * m)}, "hinge"),
    "sum": ({"link": lambda m, beta: -logsigmoid(beta * m).sum()}, "losses are added"),
    "two": ({"score": averaged, "link": lambda m, beta: -logsigmoid(m)}, "here it is their mean; and β is missing"),
    "three": (
        {"score": averaged, "margin": lambda c, r, rc, rr: c - r, "link": lambda m, beta: -logsigmoid(m)},
        "mean; and the reference is missing: the loss is of log π and not of log π − log π_ref; and β is missing",
    ),
}


@pytest.mark.parametrize("slip", SLIPS)
def test_a_mistake_is_named(slip: str) -> None:
    how, said = SLIPS[slip]
    assert said in wrong(loss_of(**how))


def test_no_two_forms_give_the_same_numbers_unless_they_are_the_same_mistake() -> None:
    """Or one mistake would be told as another. Up to two mistakes; pairs of them that cancel or coincide are few."""
    from pairtune.course.check_loss import BETAS, _value_of, _written

    cases = [(*_written(Table(2 * i + 2), Table(2 * i + 3), *pairs(i)), beta) for i, beta in enumerate(BETAS)]
    single = [form for form in forms() if len(form.mistakes()) < 2][: 1 + len(MISTAKES)]
    values = {form: tuple(round(_value_of(form, *case), 3) for case in cases) for form in single}
    assert len(set(values.values())) == len(values)
    assert sum(form == DPO for form in values) == 1


def test_what_is_wrong_but_in_value() -> None:
    def detached(policy: Any, reference: Any, chosen: Any, rejected: Any, beta: float) -> Tensor:
        return loss_of()(policy, reference, chosen, rejected, beta).detach()

    def of_both(policy: Any, reference: Any, chosen: Any, rejected: Any, beta: float) -> Tensor:
        ratios = [logprob(policy, side) - logprob(reference, side) for side in (chosen, rejected)]
        return -logsigmoid(beta * (ratios[0] - ratios[1])).mean()

    def half(policy: Any, reference: Any, chosen: Any, rejected: Any, beta: float) -> Tensor:
        with torch.no_grad():
            frozen = logprob(reference, chosen) - logprob(reference, rejected)
            lost = logprob(policy, rejected)
        return -logsigmoid(beta * (logprob(policy, chosen) - lost - frozen)).mean()

    assert "no gradient reaches the policy" in wrong(detached)
    assert "a gradient reaches the reference" in wrong(of_both)
    assert [finding.right for finding in findings(half)][:3] == [True, True, False]
    assert "use logsigmoid" in wrong(loss_of(link=lambda m, beta: -torch.log(torch.sigmoid(beta * m))))


def test_the_table_is_a_language_model() -> None:
    """Nothing of what comes after a position is in its logits."""
    model, ids = Table(0), torch.tensor([[1, 2, 3, 4]])
    other = torch.tensor([[1, 2, 3, 6]])
    assert torch.equal(model(ids).logits[:, :3], model(other).logits[:, :3])
    assert not torch.equal(model(ids).logits[:, 3], model(other).logits[:, 3])


LINES = """
from torch.nn.functional import logsigmoid

def helper(x): return x

def my_dpo(policy, reference, chosen, rejected, beta):
    return sum(policy(side.ids).logits.mean() for side in (chosen, rejected)) {how}
"""


def test_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "mine.py"
    for how, code, said in (
        ("* 0 + 1.0", 1, "1.0000"),
        ("/ 'no'", 2, "my_dpo failed at line 7"),
        (".item()", 2, "it returned a float; return the mean loss"),
    ):
        file.write_text(LINES.format(how=how), encoding="utf-8")
        assert main(["check-loss", str(file)]) == code
        told = capsys.readouterr()
        assert said in told.out + told.err
    assert main(["check-loss", f"{file}:helper"]) == 2
    assert (
        "its arguments are (x); a DPO loss has (policy, reference, chosen, rejected, beta)" in capsys.readouterr().err
    )
    file.write_text("def other(): pass", encoding="utf-8")
    assert main(["check-loss", str(file)]) == 2
    assert "has no function of (policy, reference" in capsys.readouterr().err


def test_from_python(capsys: pytest.CaptureFixture[str]) -> None:
    assert pairtune.check_loss(loss_of())
    assert "it is the DPO loss" in capsys.readouterr().err
    with pytest.raises(pairtune.InputError, match="a tensor of shape"):
        pairtune.check_loss(_matrix)


def _matrix(policy: Any, reference: Any, chosen: Any, rejected: Any, beta: float) -> Tensor:
    return policy(chosen.ids).logits


def test_ln_2() -> None:
    """The number that the first look compares with, from nowhere else."""
    first = findings(loss_of())[0]
    assert first.found.startswith(f"{math.log(2):.4f}")
