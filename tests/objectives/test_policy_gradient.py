"""PPO's parts against numbers worked by hand and against loops that follow the papers' sums."""

import math
from typing import Any

import pytest
import torch

from pairtune.objectives.policy_gradient import (
    adapted_kl_coefficient,
    advantages,
    clipped_policy_loss,
    clipped_value_loss,
    explained_variance,
    group_relative,
    kl_of_tokens,
    leave_one_out,
    token_rewards,
    whiten,
)

LENGTHS = torch.tensor([3, 1, 5])


def random(*, seed: Any = 0, count: Any = 9) -> Any:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, generator=generator, dtype=torch.float64)


class TestTokenRewards:
    """The KL at every token, the score at the answer's last."""

    def test_by_hand(self) -> None:
        logprob, reference = torch.tensor([-1.0, -2, -3, -4]), torch.tensor([-2.0, -2, -1, -4.5])
        found = token_rewards(torch.tensor([10.0, 20]), logprob, reference, torch.tensor([3, 1]), kl_coefficient=0.1)
        assert found.tolist() == pytest.approx([-0.1, 0, 10.2, 19.95])

    def test_they_sum_to_the_score_less_the_kl(self) -> None:
        score, logprob, reference = random(seed=1, count=3), random(seed=2), random(seed=3)
        found = token_rewards(score, logprob, reference, LENGTHS, kl_coefficient=0.2)
        kl = torch.stack([part.sum() for part in (logprob - reference).split([3, 1, 5])])
        total = torch.stack([part.sum() for part in found.split([3, 1, 5])])
        torch.testing.assert_close(total, score - 0.2 * kl)

    def test_without_a_coefficient_the_score_alone(self) -> None:
        found = token_rewards(random(count=3), random(), random(seed=1), LENGTHS, kl_coefficient=0.0)
        assert found.nonzero().flatten().tolist() == [2, 3, 8]


def naive_advantages(reward: Any, value: Any, lengths: Any, discount: Any, gae_lambda: Any) -> Any:
    """Eq. 16 of the paper as it stands: for every token, the sum over those after it in its own answer."""
    result = []
    start = 0
    for length in lengths.tolist():
        r, v = reward[start : start + length].tolist(), [*value[start : start + length].tolist(), 0.0]
        delta = [r[t] + discount * v[t + 1] - v[t] for t in range(length)]
        result += [sum((discount * gae_lambda) ** k * delta[t + k] for k in range(length - t)) for t in range(length)]
        start += length
    return torch.tensor(result, dtype=reward.dtype)


class TestAdvantages:
    """Generalised advantage estimation within each answer."""

    @pytest.mark.parametrize(("discount", "gae_lambda"), [(1.0, 0.95), (0.9, 0.5), (1.0, 0.0), (1.0, 1.0)])
    def test_the_sum_of_the_paper(self, discount: Any, gae_lambda: Any) -> None:
        reward, value = random(seed=1), random(seed=2)
        advantage, returns = advantages(reward, value, LENGTHS, discount=discount, gae_lambda=gae_lambda)
        expected = naive_advantages(reward, value, LENGTHS, discount, gae_lambda)
        torch.testing.assert_close(advantage, expected, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(returns, expected + value, rtol=1e-12, atol=1e-12)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
    def test_all_answers_at_once_give_the_bits_of_one_token_after_another(self, dtype: Any) -> None:
        lengths = torch.tensor([3, 1, 40, 7, 1, 64, 2])
        reward, value = (random(seed=seed, count=int(lengths.sum())).to(dtype) for seed in (1, 2))
        found, _ = advantages(reward, value, lengths, discount=0.97, gae_lambda=0.95)
        expected = []
        for r, v in zip(reward.split(lengths.tolist()), value.split(lengths.tolist()), strict=True):
            following, next_value, backwards = torch.zeros((), dtype=dtype), torch.zeros((), dtype=dtype), []
            for t in reversed(range(len(r))):
                following = r[t] + 0.97 * next_value - v[t] + 0.97 * 0.95 * following
                next_value = v[t]
                backwards.append(following)
            expected += backwards[::-1]
        assert torch.equal(found, torch.stack(expected))

    def test_an_answer_that_is_not_finite_spoils_itself_only(self) -> None:
        reward, value = random(seed=1), random(seed=2)
        value[3] = torch.nan
        found, _ = advantages(reward, value, LENGTHS, discount=1.0, gae_lambda=0.95)
        assert found.isnan().tolist() == [i == 3 for i in range(9)]

    def test_no_answers_have_no_advantages(self) -> None:
        none = torch.zeros(0)
        assert len(advantages(none, none, torch.zeros(0, dtype=torch.long), discount=1.0, gae_lambda=1.0)[0]) == 0

    def test_lambda_one_is_the_rewards_to_come_less_the_value(self) -> None:
        reward, value = random(seed=1), random(seed=2)
        advantage, returns = advantages(reward, value, LENGTHS, discount=1.0, gae_lambda=1.0)
        to_come = torch.cat([part.flip(0).cumsum(0).flip(0) for part in reward.split([3, 1, 5])])
        torch.testing.assert_close(returns, to_come)
        torch.testing.assert_close(advantage, to_come - value)

    def test_lambda_zero_is_the_one_step_error(self) -> None:
        reward, value = torch.tensor([1.0, 2.0]), torch.tensor([10.0, 20.0])
        advantage, _ = advantages(reward, value, torch.tensor([2]), discount=0.5, gae_lambda=0.0)
        assert advantage.tolist() == [1 + 0.5 * 20 - 10, 2 - 20]

    def test_answers_do_not_touch_each_other(self) -> None:
        reward, value = random(seed=1), random(seed=2)
        both, _ = advantages(reward, value, LENGTHS, discount=1.0, gae_lambda=0.95)
        reward[4:] += 100
        value[4:] -= 100
        moved, _ = advantages(reward, value, LENGTHS, discount=1.0, gae_lambda=0.95)
        assert torch.equal(both[:4], moved[:4])


class TestWhiten:
    """Scaled to standard deviation 1 over the tokens there are."""

    def test_mean_and_deviation(self) -> None:
        found = whiten(5 + 3 * random(count=1000))
        assert abs(float(found.mean())) < 1e-12
        assert float(found.std(unbiased=False)) == pytest.approx(1, abs=1e-7)

    def test_by_hand(self) -> None:
        assert whiten(torch.tensor([1.0, 3.0])).tolist() == pytest.approx([-1, 1])

    @pytest.mark.parametrize("values", [[2.0], [3.0, 3.0, 3.0]])
    def test_values_all_the_same_stay_finite(self, values: Any) -> None:
        """One token has no sample deviation: the population's is taken, and is 0."""
        assert whiten(torch.tensor(values)).tolist() == [0] * len(values)


class TestPolicyLoss:
    """-min(rho A, clip(rho) A)."""

    def test_at_the_old_policy_the_loss_is_minus_the_advantage_and_nothing_is_clipped(self) -> None:
        logprob, advantage = random(seed=1), random(seed=2)
        loss, clipped = clipped_policy_loss(logprob, logprob.clone(), advantage, clip=0.2)
        assert torch.equal(loss, -advantage)
        assert not clipped.any()

    @pytest.mark.parametrize(
        ("ratio", "advantage", "loss", "clipped"),
        [
            (1.5, 2.0, -2.4, True),  # a good token already made likelier: no more of it
            (1.5, -2.0, 3.0, False),  # a bad token made likelier: all of it
            (0.5, 2.0, -1.0, False),  # a good token made rarer: all of it
            (0.5, -2.0, 1.6, True),  # a bad token already made rarer: no more of it
            (1.1, 2.0, -2.2, False),  # within the clip
            (0.9, -2.0, 1.8, False),
        ],
    )
    def test_by_hand(self, ratio: Any, advantage: Any, loss: Any, clipped: Any) -> None:
        old = torch.tensor([-3.0], dtype=torch.float64)
        new = (old + math.log(ratio)).requires_grad_()
        found = clipped_policy_loss(new, old, torch.tensor([advantage], dtype=torch.float64), clip=0.2)
        assert found.loss_R.tolist() == pytest.approx([loss])
        assert found.clipped_R.tolist() == [clipped]
        assert not found.clipped_R.requires_grad
        found.loss_R.sum().backward()
        assert new.grad.tolist() == pytest.approx([0.0 if clipped else -ratio * advantage])

    def test_gradcheck(self) -> None:
        new, old, advantage = 0.1 * random(seed=1), 0.1 * random(seed=2), random(seed=3)
        assert torch.autograd.gradcheck(
            lambda x: clipped_policy_loss(x, old, advantage, clip=0.2).loss_R, new.requires_grad_()
        )


class TestValueLoss:
    """Half the worse of two squared errors."""

    @pytest.mark.parametrize(
        ("value", "old", "target", "loss", "clipped"),
        [
            (1.0, 1.0, 3.0, 2.0, False),  # ½·2²
            (2.0, 1.0, 3.0, 0.5 * 1.8**2, True),  # the old value may move by 0.2 only: 1.2 is still 1.8 away
            (0.0, 1.0, 3.0, 4.5, False),  # moved the wrong way: the plain error is the worse one
            (1.1, 1.0, 3.0, 0.5 * 1.9**2, False),  # within the clip both are the same
        ],
    )
    def test_by_hand(self, value: Any, old: Any, target: Any, loss: Any, clipped: Any) -> None:
        at = torch.tensor([value], dtype=torch.float64, requires_grad=True)
        found = clipped_value_loss(at, torch.tensor([old]).double(), torch.tensor([target]).double(), clip=0.2)
        assert found.loss_R.tolist() == pytest.approx([loss])
        assert found.clipped_R.tolist() == [clipped]
        found.loss_R.sum().backward()
        assert at.grad.tolist() == pytest.approx([0.0 if clipped else value - target])

    def test_gradcheck(self) -> None:
        value, old, target = random(seed=1), random(seed=2), random(seed=3)
        assert torch.autograd.gradcheck(
            lambda x: clipped_value_loss(x, old, target, clip=0.2).loss_R, value.requires_grad_()
        )


@pytest.mark.parametrize(
    ("kl", "expected"),
    [
        (6.0, 0.1),  # on target
        (6.6, 0.1 * (1 + 0.1 * 256 / 10_000)),  # a tenth over it
        (600.0, 0.1 * (1 + 0.2 * 256 / 10_000)),  # far over it: clipped
        (0.0, 0.1 * (1 - 0.2 * 256 / 10_000)),  # far under it: clipped
        (-5.0, 0.1 * (1 - 0.2 * 256 / 10_000)),
    ],
)
def test_the_adaptive_coefficient_by_hand(kl: Any, expected: Any) -> None:
    assert adapted_kl_coefficient(0.1, kl, target=6.0, answers=256) == pytest.approx(expected, rel=1e-12)


def test_explained_variance_by_hand() -> None:
    returns = torch.tensor([1.0, 2.0, 3.0, 6.0])  # variance 3.5
    assert explained_variance(returns, returns) == 1
    assert explained_variance(torch.full((4,), 9.0), returns) == pytest.approx(0)
    assert explained_variance(torch.tensor([1.0, 2.0, 3.0, 4.0]), returns) == pytest.approx(1 - 0.75 / 3.5)
    assert explained_variance(-returns, returns) == pytest.approx(1 - 4)
    assert explained_variance(returns, torch.ones(4)) == 0


class TestAgainstTheOtherAnswers:
    """RLOO's and GRPO's advantages of four answers to one prompt and four to another."""

    REWARDS = torch.tensor([[1.0, 2.0, 3.0, 6.0], [0.5, 0.5, 0.5, 0.5]])

    def test_leave_one_out_by_hand(self) -> None:
        found = leave_one_out(self.REWARDS)
        assert found[0].tolist() == pytest.approx([1 - 11 / 3, 2 - 10 / 3, 3 - 3, 6 - 2])
        assert found[1].tolist() == [0, 0, 0, 0]

    def test_group_relative_by_hand(self) -> None:
        assert group_relative(self.REWARDS, by_deviation=False)[0].tolist() == pytest.approx([-2, -1, 0, 3])
        deviation = math.sqrt((4 + 1 + 0 + 9) / 3)
        found = group_relative(self.REWARDS, by_deviation=True)
        assert found[0].tolist() == pytest.approx([-2 / deviation, -1 / deviation, 0, 3 / deviation], abs=1e-5)
        assert found[1].tolist() == [0, 0, 0, 0]

    def test_the_kl_of_tokens_by_hand(self) -> None:
        found = kl_of_tokens(torch.tensor([-1.0, -1.0, -2.0]), torch.tensor([-1.0, -2.0, -1.0]))
        assert found.tolist() == pytest.approx([0, math.exp(-1) + 1 - 1, math.e - 1 - 1])
