"""Measuring one arm: along its training in snapshots, and at its end in full.

A snapshot holds the policy's held-out log-ratios and its answers; what judges them (reference, reward model, gold
scorer) comes to them after training, so that measuring adds no model to an arm's memory.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

from pairtune.data.ends import end_ids
from pairtune.data.pack import Tokens
from pairtune.data.tokenize import Asked
from pairtune.engine.scalars import score_rewards
from pairtune.evaluation.heldout import log_ratios
from pairtune.evaluation.policy import Answer, log_ratios_to, repetition, write_answers
from pairtune.models.heads import ScalarModel
from pairtune.models.load import Tokenizer
from pairtune.sampling.sampler import stream_seed
from pairtune.settings import CompareRun

Score = Callable[[Sequence[Answer]], list[float]]
# What a snapshot keeps of its answers.
ALONG_THE_WAY = ("gold", "reward", "log_ratio", "response_tokens", "repetition")


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
        asked: Asked,
        reference: Sequence[Tensor],
        settings: CompareRun,
        tokenizer: Tokenizer,
    ) -> None:
        count = settings.evaluation.curve_prompts
        self.prompts = distinct_prompts(heldout[:count], asked)[: settings.evaluation.prompts]
        self.path = folder / "snapshots.jsonl"
        self.model, self.heldout, self.reference = model, heldout[:count], reference[:count]
        self.settings, self.end_ids = settings, end_ids(tokenizer)

    def take(self, step: int, seconds: float) -> None:
        """Measure the policy as it is after `step`; a snapshot of a later step is left from an interrupted run."""
        earlier = [row for row in self.load(self.path.parent) if row["step"] < step]
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
        self.path.write_text("".join(json.dumps(each) + "\n" for each in [*earlier, row]), encoding="utf-8")

    @staticmethod
    def load(folder: Path) -> list[dict[str, Any]]:
        """The snapshots kept in a stage's folder, in the order of their steps."""
        path = folder / "snapshots.jsonl"
        if not path.is_file():
            return []
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def distinct_prompts(rows: Sequence[Tokens], asked: Asked) -> list[tuple[int, ...]]:
    """Each prompt once, in the order of the rows: several answers to one prompt would count it several times."""
    return list(dict.fromkeys(asked.get(row.prompt, row.prompt) for row in rows))


def measure_arm(
    policy: PreTrainedModel,
    reference: PreTrainedModel,
    heldout: Sequence[Tokens],
    asked: Asked,
    reference_logprobs: Sequence[Tensor],
    reward_model: ScalarModel | None,
    score: Score,
    settings: CompareRun,
    tokenizer: Tokenizer,
    *,
    snapshots: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """Log-ratios of all held-out pairs; answers to the first held-out prompts and every figure of each answer.

    reward_model: None where no arm trains on one.
    """
    prompts = distinct_prompts(heldout, asked)[: settings.evaluation.prompts]
    answers = write_answers(
        policy, prompts, settings.sampling, end_ids=end_ids(tokenizer), seed=stream_seed(settings.seed, "measure")
    )
    judge = partial(
        _judge,
        reference=reference,
        reward_model=reward_model,
        score=score,
        temperature=settings.sampling.temperature,
    )
    curve = []
    for snapshot in snapshots:
        figures = judge([Answer.from_json(fields) for fields in snapshot["answers"]])
        known = {name: snapshot[name] for name in ("step", "seconds", "log_ratios", "answers")}
        curve.append(known | {name: figures[name] for name in ALONG_THE_WAY if name in figures})
    return {
        "log_ratios": log_ratios(policy, heldout, reference_logprobs),
        "answers": [answer.to_json() for answer in answers],
        **judge(answers),
        "curve": curve,
    }


def _judge(
    answers: Sequence[Answer],
    *,
    reference: PreTrainedModel,
    reward_model: ScalarModel | None,
    score: Score,
    temperature: float,
) -> dict[str, list[float]]:
    """Figures of each answer, in their order; the reward model's where the run has one."""
    rows = [answer.tokens for answer in answers]
    rewards = {"reward": [each[0] for each in score_rewards(reward_model, rows)]} if reward_model else {}
    return {
        "gold": score(answers),
        **rewards,
        "log_ratio": log_ratios_to(reference, answers, temperature=temperature),
        "response_tokens": [float(len(answer.response)) for answer in answers],
        "repetition": [repetition(answer.response) for answer in answers],
    }
