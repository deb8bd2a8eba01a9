"""Measuring a policy: along its training in snapshots, and at its end in full.

A snapshot holds the policy's held-out log-ratios and its answers; what judges them (reference, reward model, gold
scorer) comes to them after training, so that measuring adds no model to an arm's memory.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

from pairtune import disk
from pairtune.data.ends import end_ids
from pairtune.data.pack import Tokens
from pairtune.engine.own_score import OwnScore
from pairtune.engine.value_heads import score_rewards
from pairtune.evaluation.heldout import log_ratios
from pairtune.evaluation.policy import Answer, log_ratios_to, repetition, write_answers
from pairtune.models.heads import ScalarModel
from pairtune.models.load import Tokenizer
from pairtune.runs import CompareRun
from pairtune.sampling.sampler import stream_seed
from pairtune.settings import Sampling
from pairtune.stages.stage import Facts
from pairtune.training.checkpoint import SNAPSHOTS

Score = Callable[[Sequence[Answer]], list[float]]


class Snapshots:
    """Takes snapshots of a policy under training, on the first held-out prompts, and keeps them in the stage's folder.

    Where it starts and where it ends is measured in full, on all prompts: a snapshot there would be a second answer to
    the same question.
    """

    def __init__(
        self,
        folder: Path,
        model: PreTrainedModel,
        heldout: Sequence[Tokens],
        reference: Sequence[Tensor],
        settings: CompareRun,
        tokenizer: Tokenizer,
    ) -> None:
        count, self.points = settings.evaluation.curve_prompts, settings.evaluation.curve_points
        self.prompts = distinct_prompts(heldout[:count])[: settings.evaluation.prompts]
        self.path = folder / SNAPSHOTS
        self.model, self.heldout, self.reference = model, heldout[:count], reference[:count]
        self.settings, self.end_ids = settings, end_ids(tokenizer)

    def take(self, step: int, seconds: float) -> None:
        """Measure the policy as it is after `step`."""
        answers = write_answers(
            self.model,
            self.prompts,
            self.settings.sampling,
            end_ids=self.end_ids,
            seed=stream_seed(self.settings.seed, "curve"),
        )
        row = {
            "step": step,
            "seconds": round(seconds, 3),
            "log_ratios": log_ratios(self.model, self.heldout, self.reference),
            "answers": [answer.to_json() for answer in answers],
        }
        disk.append(self.path, row)

    @staticmethod
    def load(folder: Path, *, before: int) -> list[dict[str, Any]]:
        """The snapshots kept in a stage's folder of the steps before one, in their order."""
        path = folder / SNAPSHOTS
        if not path.is_file():
            return []
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        return [row for row in rows if row["step"] < before]


def distinct_prompts(rows: Sequence[Tokens]) -> list[tuple[int, ...]]:
    """Each prompt once, in the order of the rows: several answers to one prompt would count it several times."""
    return list(dict.fromkeys(row.question for row in rows))


def measure(
    policy: PreTrainedModel,
    reference: PreTrainedModel,
    heldout: Sequence[Tokens],
    frozen: Sequence[Tensor],
    prompts: Sequence[Sequence[int]],
    *,
    sampling: Sampling,
    end_ids: Sequence[int],
    seed: int,
    reward_model: ScalarModel | OwnScore | None = None,
    score: Score | None = None,
    snapshots: Sequence[Mapping[str, Any]] = (),
    progress: Callable[[int], None] = lambda rows: None,
) -> Facts:
    """Log-ratios of all held-out pairs, an answer to each prompt, and every figure of each answer, in their order.

    frozen: the reference's log-probabilities of the held-out pairs. What there is no reward model or score for is left
    out.
    """
    answers = write_answers(policy, prompts, sampling, end_ids=end_ids, seed=seed, progress=progress)

    def figures_of(answers: Sequence[Answer]) -> dict[str, list[float]]:
        ratios = log_ratios_to(reference, answers, temperature=sampling.temperature)
        return judged(answers, reward_model, score) | {"log_ratio": ratios}

    curve = []
    for snapshot in snapshots:
        figures = figures_of([Answer.from_json(fields) for fields in snapshot["answers"]])
        known = {name: snapshot[name] for name in ("step", "seconds", "log_ratios", "answers")}
        curve.append(known | figures)
    return {
        "log_ratios": log_ratios(policy, heldout, frozen),
        "answers": [answer.to_json() for answer in answers],
        **figures_of(answers),
        "curve": curve,
    }


def judged(
    answers: Sequence[Answer], reward_model: ScalarModel | OwnScore | None, score: Score | None
) -> dict[str, list[float]]:
    """Every figure of each answer that takes no policy. What there is no reward model or score for is left out."""
    rewards = score_rewards(reward_model, [answer.tokens for answer in answers]) if reward_model else []
    return {
        **({"gold": score(answers)} if score else {}),
        **({"reward": [each[0] for each in rewards]} if reward_model else {}),
        "response_tokens": [float(len(answer.response)) for answer in answers],
        "repetition": [repetition(answer.response) for answer in answers],
    }
