"""Every preference objective by name: its function, its own parameters, its equation and where it comes from.

To add one: write a function whose argument names say what it needs (see objective.py), and an entry here.
"""

from pairtune.objectives import anchored, divergence, lengths, pairwise, reference_free, transport, unpaired
from pairtune.objectives.objective import Objective, Parameter


def _beta(
    default: float = 0.1, meaning: str = "weight of KL(π‖π_ref); larger stays closer to the reference"
) -> Parameter:
    return Parameter(default=default, meaning=meaning, above=0)


_SCALE = "scale of the reward; larger makes the loss steeper, and no weight of a KL"
_FLIPPED = "ε: probability that a label is wrong"

FAMILIES: dict[str, tuple[Objective, ...]] = {
    "On the margin of a pair": (
        Objective(
            loss=pairwise.dpo,
            equation="−log σ(β·(Δ_w − Δ_l))",
            source="Rafailov et al. 2023, arXiv 2305.18290, eq. 7",
            parameters={"beta": _beta()},
        ),
        Objective(
            loss=pairwise.cdpo,
            equation="−(1 − ε)·log σ(β·(Δ_w − Δ_l)) − ε·log σ(−β·(Δ_w − Δ_l))",
            source="Mitchell 2023, A note on DPO with noisy preferences and relationship to IPO, conservative DPO",
            parameters={
                "beta": _beta(),
                "label_smoothing": Parameter(default=0.1, meaning=_FLIPPED, least=0, below=0.5),
            },
        ),
        Objective(
            loss=pairwise.robust_dpo,
            equation="(−(1 − ε)·log σ(β·(Δ_w − Δ_l)) + ε·log σ(−β·(Δ_w − Δ_l))) / (1 − 2ε)",
            source="Chowdhury et al. 2024, arXiv 2403.00409, rDPO loss",
            parameters={
                "beta": _beta(),
                "label_smoothing": Parameter(default=0.1, meaning=_FLIPPED, least=0, below=0.5),
            },
        ),
        Objective(
            loss=pairwise.ipo,
            equation="(Δ_w − Δ_l − 1/(2β))²",
            source="Azar et al. 2023, arXiv 2310.12036, eq. 17",
            parameters={"beta": _beta(meaning="τ of the paper; the margin is regressed onto 1/(2β) nats")},
        ),
        Objective(
            loss=pairwise.hinge,
            equation="max(0, 1 − β·(Δ_w − Δ_l))",
            source="Liu et al. 2023, arXiv 2309.06657, hinge-norm loss",
            parameters={"beta": _beta(meaning="a pair stops teaching at a margin of 1/β nats")},
        ),
        Objective(
            loss=pairwise.exo,
            equation="KL(q‖p), q = (σ(z), σ(−z)), z = β·(Δ_w − Δ_l), p = (1 − ε, ε)",
            source="Ji et al. 2024, arXiv 2402.00856, eq. 16 with two responses",
            parameters={
                "beta": _beta(),
                "label_smoothing": Parameter(default=1e-3, meaning=_FLIPPED, above=0, below=0.5),
            },
        ),
        Objective(
            loss=pairwise.discopop,
            equation="−(1 − σ(z/τ))·log σ(z) + σ(z/τ)·exp(−z), z = β·(Δ_w − Δ_l)",
            source="Lu et al. 2024, arXiv 2406.08414, eq. 5",
            parameters={
                "beta": _beta(),
                "tau": Parameter(default=0.05, meaning="τ: how sharply the two losses are switched", above=0, below=1),
            },
        ),
        Objective(
            loss=pairwise.beta_dpo,
            equation="−log σ(β'·(Δ_w − Δ_l)), β' = β·(1 + α·(mean margin of the batch − M₀))",
            source="Wu et al. 2024, arXiv 2407.08639, batch-level calibration of β",
            parameters={
                "beta": _beta(),
                "alpha": Parameter(
                    default=0.6, meaning="change of β, as a share, per nat of margin above average", least=0
                ),
            },
        ),
    ),
    "Anchored: each response by itself": (
        Objective(
            loss=anchored.sppo,
            equation="(Δ_w − 1/(2β))² + (Δ_l + 1/(2β))²",
            source="Wu et al. 2024, arXiv 2405.00675, eq. 4.7 with certain labels",
            parameters={"beta": _beta(meaning="1/η of the paper; log-ratios are regressed onto ±1/(2β) nats")},
        ),
        Objective(
            loss=anchored.nca,
            equation="−log σ(β·Δ_w) − ½·log σ(−β·Δ_w) − ½·log σ(−β·Δ_l)",
            source="Chen et al. 2024, arXiv 2402.05369, NCA loss with two responses",
            parameters={"beta": _beta()},
        ),
        Objective(
            loss=anchored.apo_zero,
            equation="1 − σ(β·Δ_w) + σ(β·Δ_l)",
            source="D'Oosterlinck et al. 2024, arXiv 2408.06266, eq. 7",
            parameters={"beta": _beta()},
        ),
        Objective(
            loss=anchored.apo_down,
            equation="σ(β·Δ_w) + 1 − σ(β·(Δ_w − Δ_l))",
            source="D'Oosterlinck et al. 2024, arXiv 2408.06266, eq. 8",
            parameters={"beta": _beta()},
        ),
        Objective(
            loss=anchored.dpop,
            equation="−log σ(β·(Δ_w − Δ_l − λ·max(0, −Δ_w)))",
            source="Pal et al. 2024, arXiv 2402.13228, DPOP loss",
            parameters={
                "beta": _beta(0.3),
                "penalty": Parameter(
                    default=50.0, meaning="λ: nats of margin lost per nat that the chosen response lost", least=0
                ),
            },
        ),
        Objective(
            loss=anchored.cal_dpo,
            equation="−log σ(Δ_w − Δ_l) + (Δ_w − 1/(2β))² + (Δ_l + 1/(2β))²",
            source="Xiao et al. 2024, arXiv 2412.14516, Cal-DPO objective",
            parameters={"beta": _beta(meaning="log-ratios are pulled to ±1/(2β) nats")},
        ),
        Objective(
            loss=anchored.rpo,
            equation="−log π(w|x)/|w| − α·log σ(β·(Δ_w − Δ_l))",
            source="Pang et al. 2024, arXiv 2404.19733, DPO+NLL loss",
            parameters={
                "beta": _beta(),
                "alpha": Parameter(default=1.0, meaning="weight of DPO beside the imitation", least=0),
            },
        ),
    ),
    "Other divergences than reverse KL": (
        Objective(
            loss=divergence.fdpo_forward_kl,
            equation="−log σ(β·(exp(−Δ_l) − exp(−Δ_w)))",
            source="Wang et al. 2023, arXiv 2309.16240, theorem 1 with forward KL",
            parameters={"beta": _beta(meaning="weight of KL(π_ref‖π)")},
        ),
        Objective(
            loss=divergence.fdpo_js,
            equation="−log σ(β·(log σ(Δ_w) − log σ(Δ_l)))",
            source="Wang et al. 2023, arXiv 2309.16240, theorem 1 with Jensen–Shannon",
            parameters={"beta": _beta(meaning="weight of the Jensen–Shannon divergence")},
        ),
        Objective(
            loss=divergence.fdpo_alpha,
            equation="−log σ(β·(exp(−α·Δ_l) − exp(−α·Δ_w))/α)",
            source="Wang et al. 2023, arXiv 2309.16240, theorem 1 with α-divergence",
            parameters={
                "beta": _beta(meaning="weight of the α-divergence"),
                "alpha": Parameter(default=0.5, meaning="near 0: reverse KL; 1: forward KL", above=0, most=1),
            },
        ),
    ),
    "Lengths and tokens": (
        Objective(
            loss=lengths.dpo_norm,
            equation="−log σ(β·(Δ_w/|w| − Δ_l/|l|))",
            source="Lambert et al. 2024, arXiv 2411.15124, length-normalised DPO",
            parameters={
                "beta": _beta(5.0, "weight of the mean log-ratio per token; larger stays closer to the reference")
            },
        ),
        Objective(
            loss=lengths.r_dpo,
            equation="−log σ(β·(Δ_w − Δ_l) + α·(|w| − |l|))",
            source="Park et al. 2024, arXiv 2403.19159, length-regularised loss",
            parameters={
                "beta": _beta(),
                "alpha": Parameter(default=0.01, meaning="reward that a token more costs", least=0),
            },
        ),
        Objective(
            loss=lengths.ld_dpo,
            equation="−log σ(β·(Δ'_w − Δ'_l)), Δ' = Σ of the first min(|w|, |l|) tokens + α·Σ of the rest",
            source="Liu et al. 2024, arXiv 2409.06411, LD-DPO loss",
            parameters={
                "beta": _beta(),
                "alpha": Parameter(
                    default=0.5, meaning="what tokens past the shorter length count; 1: DPO", least=0, most=1
                ),
            },
        ),
        Objective(
            loss=lengths.wpo,
            equation="−min(1, w(w)·w(l))·log σ(β·(Δ_w − Δ_l)), w(y) = exp(mean_t(log π(y_t|·) − log Σ_v π(v|·)²))",
            source="Zhou et al. 2024, arXiv 2406.11827, eq. 2",
            parameters={"beta": _beta()},
        ),
    ),
    "Optimal transport over a batch": (
        Objective(
            loss=transport.aot_paired,
            equation="cdpo on sorted(log π(w) − log π(l)) and sorted(log π_ref(w) − log π_ref(l))",
            source="Melnyk et al. 2024, arXiv 2406.05882, paired AOT",
            parameters={
                "beta": _beta(),
                "label_smoothing": Parameter(default=0.0, meaning=_FLIPPED, least=0, below=0.5),
            },
        ),
        Objective(
            loss=transport.aot_unpaired,
            equation="cdpo on sorted(Δ_w) and sorted(Δ_l)",
            source="Melnyk et al. 2024, arXiv 2406.05882, unpaired AOT",
            parameters={
                "beta": _beta(),
                "label_smoothing": Parameter(default=0.0, meaning=_FLIPPED, least=0, below=0.5),
            },
        ),
    ),
    "Single responses with a label": (
        Objective(
            loss=unpaired.kto,
            equation="λ_D·(1 − σ(β·(Δ − z₀))) if desirable, λ_U·(1 − σ(β·(z₀ − Δ))) if not",
            source="Ethayarajh et al. 2024, arXiv 2402.01306, KTO loss",
            parameters={
                "beta": _beta(),
                "desirable_weight": Parameter(default=1.0, meaning="λ_D: weight of desirable responses", above=0),
                "undesirable_weight": Parameter(default=1.0, meaning="λ_U: weight of undesirable responses", above=0),
            },
        ),
        Objective(
            loss=unpaired.bco,
            equation="−log σ(β·(Δ − δ)) if desirable, −log σ(−β·(Δ − δ)) if not",
            source="Jung et al. 2024, arXiv 2404.04656, BCO loss with reward shift",
            parameters={"beta": _beta()},
        ),
    ),
    "Without a reference": (
        Objective(
            loss=reference_free.simpo,
            equation="−log σ(β·log π(w|x)/|w| − β·log π(l|x)/|l| − γ)",
            source="Meng et al. 2024, arXiv 2405.14734, eq. 6",
            parameters={
                "beta": _beta(2.0, _SCALE),
                "gamma": Parameter(default=1.0, meaning="reward margin to reach", least=0),
            },
        ),
        Objective(
            loss=reference_free.cpo,
            equation="−log σ(β·(log π(w|x) − log π(l|x))) − λ·log π(w|x)/L, L the mean |w| of the step",
            source="Xu et al. 2024, arXiv 2401.08417, eq. 3 with behaviour cloning per token",
            parameters={
                "beta": _beta(meaning="weight of KL(π‖uniform); larger spreads the policy over more responses"),
                "sft_weight": Parameter(default=1.0, meaning="λ: weight of imitating the chosen response", least=0),
            },
        ),
        Objective(
            loss=reference_free.orpo,
            equation="−ℓ_w − λ·log σ(log odds_w − log odds_l), ℓ = log π(y|x)/|y|, log odds = ℓ − log(1 − exp ℓ)",
            source="Hong et al. 2024, arXiv 2403.07691, eqs. 6 and 7",
            parameters={"odds_weight": Parameter(default=0.1, meaning="λ: weight of the odds ratio", least=0)},
        ),
        Objective(
            loss=reference_free.slic,
            equation="max(0, δ − log π(w|x) + log π(l|x)) − λ·log π(w|x)",
            source="Zhao et al. 2023, arXiv 2305.10425, SLiC-HF loss",
            parameters={
                "delta": Parameter(default=1.0, meaning="gap of log-probabilities to reach, in nats", above=0),
                "sft_weight": Parameter(default=0.1, meaning="λ: weight of imitating the chosen response", least=0),
            },
        ),
        Objective(
            loss=reference_free.sft,
            equation="−log π(w|x)/L, L the mean |w| of the step",
            source="maximum likelihood; Preferred-FT of Rafailov et al. 2023, arXiv 2305.18290, section 6",
        ),
        Objective(
            loss=reference_free.unlikelihood,
            equation="(−log π(w|x) − α·Σ_t log(1 − π(l_t|x, l_<t)))/L, L the mean |w| of the step",
            source="Welleck et al. 2019, arXiv 1908.04319, unlikelihood loss",
            parameters={"alpha": Parameter(default=0.1, meaning="weight of the rejected response's tokens", least=0)},
        ),
    ),
}

OBJECTIVES: dict[str, Objective] = {entry.name: entry for family in FAMILIES.values() for entry in family}
