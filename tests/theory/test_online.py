"""The methods that sample as they go, in worlds small enough to enumerate: the update expected at π_old is the gradient
of what each claims to climb, and a fault planted in it is seen.

Every sum is over all K-tuples of answers, float64. A policy is the softmax of free logits, one prompt's [Y].
"""

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from pairtune.objectives.loss import online_loss_of
from pairtune.objectives.policy_gradient import (
    clipped_policy_loss,
    group_relative,
    kl_of_tokens,
    leave_one_out,
)
from pairtune.training.online_pairs import best_and_worst

BETA, CLIP = 0.3, 0.2


class World:
    """Logits of a policy (that learns) and of a reference, and rewards, of six answers to one prompt."""

    def __init__(self, seed: int = 0, *, at_reference: bool = False) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.logits, other, self.reward = torch.randn(3, 5, generator=generator, dtype=torch.float64)
        self.reference = (self.logits if at_reference else other).log_softmax(-1)
        self.logits.requires_grad_()

    @property
    def logprob(self) -> Tensor:
        return self.logits.log_softmax(-1)

    def gradient(self, value: Tensor) -> Tensor:
        (found,) = torch.autograd.grad(value, self.logits)
        return found

    def expected(self, loss: Callable[[Tensor], Tensor], answers: int) -> Tensor:
        """Minus the gradient of a tuple's loss, weighted by how likely π_old draws the tuple; its chance is no part."""
        old = self.logprob.detach()
        total = torch.zeros_like(self.logits)
        for drawn in itertools.product(range(len(self.reward)), repeat=answers):
            total -= old[list(drawn)].sum().exp() * self.gradient(loss(torch.tensor(drawn)))
        return total

    @property
    def objective(self) -> Tensor:
        """E_π[r] − β·KL(π‖π_ref)."""
        policy = self.logprob.exp()
        return (policy * (self.reward - BETA * (self.logprob - self.reference))).sum()


def rloo(world: World, advantage: Callable[[Tensor], Tensor] = leave_one_out) -> Callable[[Tensor], Tensor]:
    old = world.logprob.detach()

    def loss(drawn: Tensor) -> Tensor:
        reward = world.reward[drawn] - BETA * (old - world.reference)[drawn]
        found = clipped_policy_loss(world.logprob[drawn], old[drawn], advantage(reward[None])[0], clip=CLIP)
        return found.loss_R.mean()

    return loss


def grpo(world: World, *, by_deviation: bool = False) -> Callable[[Tensor], Tensor]:
    old = world.logprob.detach()

    def loss(drawn: Tensor) -> Tensor:
        advantage = group_relative(world.reward[drawn][None], by_deviation=by_deviation)[0]
        gain = clipped_policy_loss(world.logprob[drawn], old[drawn], advantage, clip=CLIP).loss_R
        return (gain + BETA * kl_of_tokens(world.logprob[drawn], world.reference[drawn])).mean()

    return loss


def close(found: Tensor, expected: Tensor) -> bool:
    return bool((found - expected).abs().max() < 1e-12)


@pytest.mark.parametrize("answers", [2, 3])
@pytest.mark.parametrize("seed", [0, 1])
def test_rloo_climbs_the_reward_less_the_kl(seed: int, answers: int) -> None:
    world = World(seed)
    expected = world.gradient(world.objective)
    assert close(world.expected(rloo(world), answers), expected)
    # Planted: the answer itself in its baseline shrinks the step; no KL in the reward is another objective.
    shrunk = world.expected(rloo(world, lambda reward: reward - reward.mean()), answers)
    assert close(shrunk, expected * (answers - 1) / answers)
    assert not close(shrunk, expected)
    world.reference = world.logprob.detach()
    assert not close(world.expected(rloo(world), answers), expected)


@pytest.mark.parametrize("answers", [2, 3])
def test_grpo_without_its_divisions_climbs_the_reward_less_the_kl_the_other_way_round(answers: int) -> None:
    """The reward's part is (K − 1)/K of its gradient; the KL's is that of KL(π_ref‖π), and not of KL(π‖π_ref)."""
    world = World()
    reward = world.gradient((world.logprob.exp() * world.reward).sum())
    forward = world.gradient((world.reference.exp() * (world.reference - world.logprob)).sum())
    reverse = world.gradient((world.logprob.exp() * (world.logprob - world.reference)).sum())
    found = world.expected(grpo(world), answers)
    assert close(found, reward * (answers - 1) / answers - BETA * forward)
    assert not close(found, reward * (answers - 1) / answers - BETA * reverse)


def test_the_kl_term_of_grpo_has_the_kl_for_its_mean() -> None:
    world = World()
    policy = world.logprob.exp()
    found = (policy * kl_of_tokens(world.logprob, world.reference)).sum()
    assert close(found, (policy * (world.logprob - world.reference)).sum())


def test_dividing_by_the_deviation_makes_prompts_of_near_rewards_count_more() -> None:
    """What 2503.20783 says of it: rewards a hundred times as near move the policy as far as others do."""
    near, far = World(), World()
    near.reward = near.reward / 100
    near.reference, far.reference = near.logprob.detach(), far.logprob.detach()
    divided = [world.expected(grpo(world, by_deviation=True), 3) for world in (near, far)]
    plain = [world.expected(grpo(world), 3) for world in (near, far)]
    assert (divided[0] / divided[1] - 1).abs().max() < 1e-2
    torch.testing.assert_close(plain[0] * 100, plain[1])


def pairs_loss(world: World, name: str = "dpo", *, worst_first: bool = False) -> Callable[[Tensor], Tensor]:
    loss = online_loss_of(name, {"beta": BETA})

    def of(drawn: Tensor) -> Tensor:
        (sides,) = best_and_worst(world.reward[drawn][None])
        if sides is None:
            return (0 * world.logits).sum()
        best, worst = (drawn[side] for side in (sides[::-1] if worst_first else sides))
        ratio = world.logprob - world.reference
        return loss({"chosen_logratio_B": ratio[best][None], "rejected_logratio_B": ratio[worst][None]})[0]

    return of


def test_online_dpo_climbs_the_chance_to_beat_the_reference_where_it_begins() -> None:
    """At π = π_ref with two answers: β·∇ E_{y∼π}[P(y wins) − P(y loses)], against another answer of π_old."""
    world = World(at_reference=True)
    old = world.logprob.detach().exp()
    sign = torch.sign(world.reward[:, None] - world.reward[None])
    ahead = (sign * old[None]).sum(1)
    expected = BETA * world.gradient((world.logprob.exp() * ahead).sum())
    assert close(world.expected(pairs_loss(world), 2), expected)
    assert close(world.expected(pairs_loss(world, worst_first=True), 2), -expected)


@pytest.mark.parametrize("answers", [2, 4])
@pytest.mark.parametrize("name", ["dpo", "ipo"])
def test_online_objectives_descend_their_loss_under_the_law_of_their_pairs(name: str, answers: int) -> None:
    """Away from the reference: the law of (best, worst) by counting, as weights of the loss of every pair."""
    world = World(2)
    old = world.logprob.detach().exp()
    order = world.reward.argsort()  # no two are equal
    at_most = old[order].cumsum(0)

    def within(low: int, high: int) -> Tensor:  # all answers are between these two, both included
        return (at_most[high] - (at_most[low] - old[order[low]])) ** answers

    ratio, total = world.logprob - world.reference, torch.zeros((), dtype=torch.float64)
    for low, high in itertools.combinations(range(len(order)), 2):
        chance = within(low, high) - within(low + 1, high) - within(low, high - 1)
        chance = chance + (within(low + 1, high - 1) if low + 1 <= high - 1 else 0)
        margin = ratio[order[high]] - ratio[order[low]]
        one = -torch.nn.functional.logsigmoid(BETA * margin) if name == "dpo" else (margin - 1 / (2 * BETA)) ** 2
        total = total + chance.detach() * one
    assert close(world.expected(pairs_loss(world, name), answers) / 10, -world.gradient(total) / 10)


def test_of_equal_rewards_there_is_no_pair_and_no_advantage() -> None:
    equal = torch.full((2, 3), 0.1)
    equal[1, 2] = 0.2
    assert best_and_worst(equal) == [None, (2, 0)]
    for found in (leave_one_out(equal), *(group_relative(equal, by_deviation=each) for each in (True, False))):
        assert found[0].tolist() == [0, 0, 0]
        assert found[1].abs().min() > 0
