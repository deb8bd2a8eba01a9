"""What commands say of what they measured: how sure it is, and how many it would take."""

import pytest

from pairtune.commands.figures import beside_chance, say_change, say_online, say_share
from pairtune.estimate import Estimate
from pairtune.evaluation.statistics import of_moments, share


@pytest.mark.parametrize(
    ("right", "n", "said"),
    [
        (4, 6, "; cannot be told from chance (50%) with 6 pairs: 60% would be with about 110"),
        (114, 200, "; cannot be told from chance (50%) with 200 pairs: 57.0% would be with about 210"),
        (150, 300, "; cannot be told from chance (50%) with 300 pairs"),
        (200, 300, ""),
        (100, 300, "; worse than chance (50%)"),
    ],
)
def test_of_what_cannot_be_told_it_is_said_how_many_would_do(right: int, n: int, said: str) -> None:
    assert beside_chance(share([1.0] * right + [0.0] * (n - right)), "pair") == said


def test_the_sentence_agrees_with_its_interval(capsys: pytest.CaptureFixture[str]) -> None:
    say_share("held-out accuracy", share([1.0] * 114 + [0.0] * 86), "pair")
    assert "held-out accuracy: 57.0% (95% interval 49.8 to 64.0%, n = 200); cannot be told" in capsys.readouterr().err


def test_a_change_has_its_way_and_no_signed_zero(capsys: pytest.CaptureFixture[str]) -> None:
    before = Estimate(mean=0.4, n=40, ci95=(0.3, 0.5))
    say_change(before, Estimate(mean=-0.2, n=40, ci95=(-0.3, -0.1)))
    assert capsys.readouterr().err == "  before: 40.0%; lower by 20.0 points (10.0 to 30.0 points)\n"
    say_change(before, Estimate(mean=0.1, n=40, ci95=(0.0, 0.2)))
    assert "whether training changed it cannot be told with 40 pairs" in capsys.readouterr().err


def test_ppo_tells_where_it_began_and_ended(capsys: pytest.CaptureFixture[str]) -> None:
    first = {"reward": 0.02, "reward_sd": 1.0, "kl": 3e-8, "kl_sd": 1e-7}
    last = {"reward": 1.31, "reward_sd": 0.8, "kl": 4.1, "kl_sd": 2.0}
    say_online([first, {}, last], answers=64, alone=True)
    bounds = of_moments(1.31, 0.8, 64).ci95
    assert bounds
    said = capsys.readouterr().err
    assert f"1.31 (95% interval {bounds[0]:.2f} to {bounds[1]:.2f}, n = 64) in the last\n" in said
    assert "0.02 (95% interval −0.23 to 0.27, n = 64) in the first step, by the reference itself; " in said
    assert "KL from the reference, nats per response: 4.10 (95% interval 3.60 to 4.60, n = 64) in the last step" in said
    say_online([first, last], answers=64, alone=False)
    assert "1.31 (no interval, n = 64)" in capsys.readouterr().err, "a prompt has several answers in a step"
    say_online([last], answers=64, alone=True)
    assert capsys.readouterr().err == "", "one step has nothing beside it"
