"""The derivation from Bradley–Terry to DPO in steps: each an equation, a claim, and how far it is from true."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pairtune.theory import residuals
from pairtune.theory.world import World, random_world

TOLERANCE = 1e-10


@dataclass(frozen=True, kw_only=True)
class Step:
    """One equation of the derivation, tried in random worlds.

    `residual` is the largest over the worlds of the difference between two routes to the same quantity, as
    `pairtune.theory.residuals` defines it. `function` is the dotted path of the code that the equation is about, `test`
    the pytest node that holds it.
    """

    step: int
    equation: str
    claim: str
    residual: float
    tolerance: float
    function: str
    test: str

    @property
    def holds(self) -> bool:
        """Whether the residual is within the tolerance; a NaN is not."""
        return self.residual <= self.tolerance


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What a step says, before it is tried."""

    equation: str
    claim: str
    residual: Callable[[World, np.random.Generator], float]
    function: str
    test: str


CLAIMS = (
    Claim(
        equation="J(π) = E_π[r] − β·KL(π‖π_ref) = E_π[r − β·log(π/π_ref)]",
        claim="To maximise reward and pay β for each nat of divergence is to maximise the mean of one shaped reward.",
        residual=residuals.objective,
        function="pairtune.theory.optimum.shaped_reward",
        test="tests/theory/test_optimum.py::test_shaped_reward_by_hand",
    ),
    Claim(
        equation="π*(y|x) = π_ref(y|x)·exp(r(x,y)/β) / Z(x),   Z(x) = Σ_y π_ref(y|x)·exp(r(x,y)/β)",
        claim="Tilt the reference by exp(r/β): every response then has the same shaped reward, β·log Z(x).",
        residual=residuals.optimal_policy,
        function="pairtune.theory.optimum.optimal_policy",
        test="tests/theory/test_optimum.py::test_optimal_policy_by_hand",
    ),
    Claim(
        equation="J(π*) − J(π) = β·KL(π‖π*) ≥ 0",
        claim="Any policy falls short of π* by β·KL(π‖π*), which is zero at π* alone, so π* is the one optimum.",
        residual=residuals.gap,
        function="pairtune.theory.optimum.gap",
        test="tests/theory/test_optimum.py::test_no_policy_beats_the_optimum",
    ),
    Claim(
        equation="argmax_π J(π) = π*",
        claim="An optimiser that has never seen the formula climbs from the reference and ends at π*.",
        residual=residuals.numerical_optimum,
        function="pairtune.theory.population.on_rlhf",
        test="tests/theory/test_population.py::test_rlhf_derivatives",
    ),
    Claim(
        equation="r(x,y) = β·log(π*(y|x)/π_ref(y|x)) + β·log Z(x)",
        claim="Read backwards, the optimal policy gives the reward, up to one number per prompt: β·log Z(x).",
        residual=residuals.reward_from_optimum,
        function="pairtune.theory.optimum.reward_from_optimum",
        test="tests/theory/test_optimum.py::test_reward_is_read_back",
    ),
    Claim(
        equation="P(w ≻ l | x) = exp(r_w) / (exp(r_w) + exp(r_l)) = σ(r_w − r_l)",
        claim="Bradley–Terry: a response wins in proportion to exp(r), so only the difference of rewards counts.",
        residual=residuals.bradley_terry,
        function="pairtune.theory.preferences.bradley_terry",
        test="tests/theory/test_preferences.py::test_bradley_terry_by_hand",
    ),
    Claim(
        equation="P(y₁ ≻ … ≻ y_K | x) = ∏_k exp(r_k) / Σ_{j≥k} exp(r_j)",
        claim="Plackett–Luce ranks several responses at once, and any two responses in it follow Bradley–Terry.",
        residual=residuals.plackett_luce,
        function="pairtune.theory.preferences.plackett_luce",
        test="tests/theory/test_preferences.py::test_plackett_luce_by_hand",
    ),
    Claim(
        equation="r′(x,y) = r(x,y) + f(x)  ⇒  the same P(w ≻ l | x) and the same π*",
        claim="Adding one number to all rewards of a prompt changes neither the labels nor the optimal policy.",
        residual=residuals.equivalent_rewards,
        function="pairtune.theory.optimum.optimal_policy",
        test="tests/theory/test_optimum.py::test_equivalent_rewards_share_one_optimum",
    ),
    Claim(
        equation="r(x,y) − β·log Z(x) = β·log(π*(y|x)/π_ref(y|x))",
        claim="Of all rewards that differ only by a number per prompt, exactly one is β times a policy's log-ratio.",
        residual=residuals.canonical_reward,
        function="pairtune.theory.optimum.canonical_reward",
        test="tests/theory/test_optimum.py::test_canonical_reward_has_partition_one",
    ),
    Claim(
        equation="P(w ≻ l | x) = σ(β·log(π*(w|x)/π_ref(w|x)) − β·log(π*(l|x)/π_ref(l|x)))",
        claim="In a difference of two rewards Z(x) cancels, so the log-ratios of π* predict every preference.",
        residual=residuals.partition_cancels,
        function="pairtune.theory.population.margins",
        test="tests/theory/test_population.py::test_margins_forget_row_constants",
    ),
    Claim(
        equation="L(π) = −E[log σ(β·margin)],   margin = log(π(w|x)/π_ref(w|x)) − log(π(l|x)/π_ref(l|x))",
        claim="The DPO loss is the mean negative log-likelihood of the labels, with the policy in the reward's place.",
        residual=residuals.likelihood,
        function="pairtune.theory.population.dpo",
        test="tests/theory/test_population.py::test_margin_losses_by_hand",
    ),
    Claim(
        equation="L(π) − L(π*) = E[KL(Bernoulli(p*)‖Bernoulli(p_π))] ≥ 0",
        claim="With Bradley–Terry labels the excess loss is a mean divergence of true from predicted preferences.",
        residual=residuals.excess_loss,
        function="pairtune.theory.population.expected_loss",
        test="tests/theory/test_population.py::test_expected_loss_by_hand",
    ),
    Claim(
        equation="∇L = −β·E[σ(r̂_l − r̂_w)·(∇log π(w|x) − ∇log π(l|x))],   r̂ = β·log(π/π_ref)",
        claim="A pair pushes log π(w) up and log π(l) down, weighted by the chance that r̂ gives to the wrong order.",
        residual=residuals.gradient,
        function="pairtune.theory.population.on_margins",
        test="tests/theory/test_population.py::test_margin_derivatives",
    ),
    Claim(
        equation="at π = π_ref:  L = ln 2  and  ∂L/∂margin = −β/2",
        claim="Training starts at a loss of ln 2 and a slope of −β/2, so a larger β makes the first gradients larger.",
        residual=residuals.first_step,
        function="pairtune.theory.population.dpo",
        test="tests/theory/test_population.py::test_dpo_starts_at_ln_2",
    ),
    Claim(
        equation="argmin_π L(π) = π*",
        claim="If the pairs link all responses and their labels follow Bradley–Terry, DPO's minimiser is π*.",
        residual=residuals.dpo_minimiser,
        function="pairtune.theory.population.minimise",
        test="tests/theory/test_population.py::test_dpo_minimiser_is_closed_form",
    ),
    Claim(
        equation="argmin_r̂ −E[log σ(r̂_w − r̂_l)] = r + f(x)",
        claim="A reward model fitted to such pairs finds the reward up to a number per prompt, harmless by equation 8.",
        residual=residuals.reward_model,
        function="pairtune.theory.population.minimise",
        test="tests/theory/test_population.py::test_reward_model_finds_differences",
    ),
    Claim(
        equation="∇ E_old[min(ρ·A, clip(ρ, 1−ε, 1+ε)·A)] = ∇J  at ρ = π/π_old = 1;   A = 0 at π*",
        claim="With exact sums PPO's first gradient is that of J; at π* every advantage is zero, so it rests there.",
        residual=residuals.ppo_gradient,
        function="pairtune.theory.optimum.ppo_surrogate",
        test="tests/theory/test_optimum.py::test_ppo_surrogate_clips_by_hand",
    ),
    Claim(
        equation="argmax_π J(π; r̂ fitted) = argmin_π L(π) = π*",
        claim="Where equation 15 holds, a reward model and then RL on it, DPO, and the closed form give one policy.",
        residual=residuals.three_ways,
        function="pairtune.theory.population.on_rlhf",
        test="tests/theory/test_population.py::test_rlhf_maximiser_is_closed_form",
    ),
    Claim(
        equation="on n pairs:  argmin_π L_n(π) = π_ref·exp(r̂_n/β) / Z_n",
        claim="With loss L_n and reward r̂_n from n pairs both ways agree, if both are tables and a minimum exists.",
        residual=residuals.finite_data,
        function="pairtune.theory.preferences.sample_pairs",
        test="tests/theory/test_preferences.py::test_sampled_pairs_follow_their_law",
    ),
    Claim(
        equation="dKL(π*‖π_ref)/dβ = −Var(r)/β³ ≤ 0,   dE_π*[r]/dβ = −Var(r)/β² ≤ 0  (Var under π*)",
        claim="A larger β keeps the optimum closer to the reference and earns less reward, never the other way round.",
        residual=residuals.beta_slopes,
        function="pairtune.theory.optimum.beta_slopes",
        test="tests/theory/test_optimum.py::test_larger_beta_stays_closer",
    ),
    Claim(
        equation="two responses, P(w ≻ l) = p:   DPO's margin is log(p/(1−p))/β,   IPO's is (p − ½)/β",
        claim="As labels become certain (p → 1), DPO's best margin grows without limit and IPO's stops at 1/(2β).",
        residual=residuals.certain_labels,
        function="pairtune.theory.population.ipo",
        test="tests/theory/test_population.py::test_certain_labels_separate_dpo_from_ipo",
    ),
    Claim(
        equation="argmin_π E[(margin − 1/(2β))²] = π_ref·exp(p(y ≻ μ|x)/β) / Z(x)",
        claim="IPO tilts the reference by how often y beats a draw from μ, which is at most 1 however sure the labels.",
        residual=residuals.ipo_minimiser,
        function="pairtune.theory.optimum.ipo_policy",
        test="tests/theory/test_population.py::test_ipo_minimiser_is_a_tilt_by_wins",
    ),
    Claim(
        equation="y₀ in no pair:   L(π) does not depend on π(y₀|x) once the odds of the others are fixed",
        claim="A response that no pair shows costs nothing at any probability: DPO's loss cannot keep it down.",
        residual=residuals.uncovered,
        function="pairtune.theory.population.expected_loss",
        test="tests/theory/test_cases.py::test_dpo_can_raise_an_unseen_response",
    ),
)


def derive(*, worlds: int = 20, seed: int = 0, tried: Callable[[], object] = lambda: None) -> list[Step]:
    """Try every equation of the derivation in random worlds and return the steps in order, numbered from 1.

    `worlds` is how many random worlds to try (at least 1); the same `seed` gives the same worlds and residuals, and a
    step's residual does not depend on the other steps. tried(): called after each world of each step. Raises
    ValueError if `worlds` is below 1 or `seed` negative.
    """
    if worlds < 1 or seed < 0:
        raise ValueError("worlds must be at least 1 and seed at least 0")

    drawn = [random_world(np.random.default_rng([seed, index])) for index in range(worlds)]

    def residual(claim: Claim, number: int, index: int) -> float:
        found = claim.residual(drawn[index], np.random.default_rng([seed, index, number]))
        tried()
        return float(found)

    return [
        Step(
            step=number,
            equation=claim.equation,
            claim=claim.claim,
            residual=float(np.max([residual(claim, number, index) for index in range(worlds)])),
            tolerance=TOLERANCE,
            function=claim.function,
            test=claim.test,
        )
        for number, claim in enumerate(CLAIMS, start=1)
    ]
