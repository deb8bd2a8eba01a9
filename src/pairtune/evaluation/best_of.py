"""How far the best of n answers is from the policy that wrote them: the known bound, and an estimate from each answer.

Let the answers be in an order that their scores give, F(y) the probability of an answer no higher than y and p that of
y itself. The best of n is y with probability F(y)^n − (F(y) − p)^n.
"""

import math


def kl_bound(n: int) -> float:
    """log n − (n − 1)/n: KL(best of n ‖ policy) in nats is this at most, and just this where no answer comes twice.

    Beirami et al. 2024, arXiv 2401.01879.
    """
    return math.log(n) - (n - 1) / n


def kl_estimate(logprob: float, n: int) -> float:
    """The same from one best answer with log π(y|x) = `logprob`, in nats; its mean over best answers estimates the KL.

    It takes y for the highest answer there is, and all others for so many that none comes twice: with ε = π(y|x),

        (1 − ε)^n (log n + (n − 1) log(1 − ε) − (n − 1)/n) + (1 − (1 − ε)^n) log((1 − (1 − ε)^n)/ε).

    Beirami et al. 2024: never above the bound, and the bound itself for small ε.
    """
    if logprob >= 0:
        return 0.0
    spared = n * _log1mexp(logprob)  # log (1 − ε)^n
    hit = -math.expm1(spared)
    if hit == 0.0:  # ε below what a float tells from 0
        return kl_bound(n)
    ratio = min(math.log(hit) - logprob, math.log(n))  # (1 − (1 − ε)^n)/ε is n at most
    return math.exp(spared) * (kl_bound(n) + (n - 1) * _log1mexp(logprob)) + hit * ratio


def _log1mexp(x: float) -> float:
    """log(1 − e^x) for x < 0, without loss."""
    return math.log1p(-math.exp(x)) if x < -math.log(2) else math.log(-math.expm1(x))
