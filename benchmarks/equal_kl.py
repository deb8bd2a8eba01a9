"""Scores at one distance from the reference, over seeds: `python -m benchmarks.equal_kl RUN [RUN ...]`.

Each run is a folder of `pairtune compare` with the same methods and other seeds. An arm's measurements along its way
(docs/metrics.md) are joined by lines over √KL, in which scores rise nearly straight. Intervals draw seeds and, within
each, prompts (the same for every arm); those of the steps from one method to the next hold all at once (the largest
of their studentised deviations). Of three seeds a bootstrap knows little: each seed's own difference stands beside it.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
DRAWS = 2000


def curve(run: Path, arm: str) -> tuple[Array, Array]:
    """Score and log-ratio of each prompt at each measurement: two [M, P], scores in sd of the reference's."""
    read = {
        name: json.loads((run / "stages" / f"measure_{name}" / "result.json").read_text(encoding="utf-8"))
        for name in ("reference", arm)
    }
    reference, end = read["reference"], read[arm]
    prompts = len(end["curve"][0]["gold"])
    scores = [reference["gold"][:prompts], *(point["gold"] for point in end["curve"]), end["gold"][:prompts]]
    ratios = [[0.0] * prompts, *(point["log_ratio"] for point in end["curve"]), end["log_ratio"][:prompts]]
    mean, deviation = np.mean(reference["gold"]), np.std(reference["gold"], ddof=1)
    return (np.array(scores) - mean) / deviation, np.array(ratios)


def at(kl: float, scores_MP: Array, ratios_MP: Array, prompts: Array) -> float:
    """The mean score of some prompts where the arm first comes to a KL; not a number if it never does."""
    score_M, root_M = scores_MP[:, prompts].mean(1), np.sqrt(np.maximum(ratios_MP[:, prompts].mean(1), 0))
    for m in range(1, len(root_M)):
        if root_M[m - 1] <= kl**0.5 <= root_M[m]:
            share = (kl**0.5 - root_M[m - 1]) / (root_M[m] - root_M[m - 1])
            return float(score_M[m - 1] + share * (score_M[m] - score_M[m - 1]))
    return float("nan")


def main() -> None:
    """Print a table for each distance, and the steps from each method to another."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--kl", nargs="+", type=float, default=[2.0, 5.0])
    parser.add_argument("--arms", nargs="+", default=["dpo", "online-dpo", "rloo", "grpo", "ppo"])
    steps = ["online-dpo-dpo", "rloo-online-dpo", "grpo-online-dpo", "ppo-rloo"]
    parser.add_argument("--steps", nargs="+", default=steps, metavar="ARM-ARM")
    given = parser.parse_args()
    arms, names = given.arms, [_parted(step, given.arms) for step in given.steps]
    curves = [[curve(run, arm) for arm in arms] for run in given.runs]
    random = np.random.default_rng(0)
    for kl in given.kl:
        everyone = [np.arange(of[0][0].shape[1]) for of in curves]
        each = np.array(
            [[at(kl, scores, ratios, who) for scores, ratios in of] for of, who in zip(curves, everyone, strict=True)]
        )
        drawn = []
        for _ in range(DRAWS):
            seeds = random.integers(0, len(curves), len(curves))
            some = [random.choice(everyone[seed], len(everyone[seed])) for seed in seeds]
            found = [
                [at(kl, scores, ratios, who) for scores, ratios in curves[seed]]
                for seed, who in zip(seeds, some, strict=True)
            ]
            drawn.append(np.nanmean(found, axis=0))
        show(kl, arms, names, each, np.array(drawn))


def _parted(step: str, arms: list[str]) -> tuple[str, str]:
    return next((a, b) for a in arms for b in arms if f"{a}-{b}" == step)


def show(kl: float, arms: list[str], steps: list[tuple[str, str]], each_SA: Array, drawn_DA: Array) -> None:
    """The table of one distance."""
    print(f"at a KL of {kl:g} nats")
    for place, arm in enumerate(arms):
        low, high = np.nanquantile(drawn_DA[:, place], [0.025, 0.975])
        seeds = ", ".join(f"{value:.2f}" for value in each_SA[:, place])
        print(f"  {arm:12} {each_SA[:, place].mean():.2f} ({low:.2f} to {high:.2f})   by seed {seeds}")
    pairs = [(arms.index(first), arms.index(second)) for first, second in steps]
    point = np.array([each_SA[:, a].mean() - each_SA[:, b].mean() for a, b in pairs])
    drawn = np.stack([drawn_DA[:, a] - drawn_DA[:, b] for a, b in pairs], axis=1)
    error = np.nanstd(drawn, axis=0)
    wide = np.nanquantile(np.nanmax(np.abs(drawn - point) / error, axis=1), 0.95) * error
    for (first, second), (a, b), middle, half in zip(steps, pairs, point, wide, strict=True):
        seeds = ", ".join(f"{value:+.2f}" for value in each_SA[:, a] - each_SA[:, b])
        print(f"  {first} - {second}: {middle:+.2f} ({middle - half:+.2f} to {middle + half:+.2f})   by seed {seeds}")


if __name__ == "__main__":
    main()
