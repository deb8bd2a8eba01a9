"""What a policy writes: answers to held-out prompts, and the same figures for every arm."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from transformers import PreTrainedModel

from pairtune.data.pack import Tokens
from pairtune.engine.reference import compute_logprobs
from pairtune.sampling.sampler import sample
from pairtune.settings import Sampling

# The n of the n-grams whose repetition within an answer is counted.
REPETITION_N = 3


@dataclass(frozen=True)
class Answer:
    """One answer to one prompt: its tokens, its log-probability under the policy that wrote it, whether it ended."""

    prompt: tuple[int, ...]
    response: tuple[int, ...]
    logprob: float
    ended: bool

    @property
    def tokens(self) -> Tokens:
        """The answer as a token row."""
        return Tokens(self.prompt, (self.response,))

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> "Answer":
        """The inverse of `to_json`."""
        return cls(tuple(fields["prompt"]), tuple(fields["response"]), fields["logprob"], fields["ended"])


def write_answers(
    policy: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    *,
    end_ids: Sequence[int],
    seed: int,
    progress: Callable[[int], None] = lambda rows: None,
) -> list[Answer]:
    """One answer to each prompt by pure sampling.

    Its log-probability (nats, summed over the response) is the engine's at the sampling temperature, so that it can be
    compared with the reference's to the last bit.
    """
    drawn = sample(
        policy,
        prompts,
        end_ids=end_ids,
        max_new_tokens=sampling.max_new_tokens,
        temperature=sampling.temperature,
        batch_size=sampling.batch_size,
        seed=seed,
        progress=progress,
    )
    rows = [Tokens(tuple(prompt), (answer.response,)) for prompt, answer in zip(prompts, drawn, strict=True)]
    logprobs = summed_logprobs(policy, rows, temperature=sampling.temperature)
    return [
        Answer(row.prompt, row.responses[0], logprob, answer.ended)
        for row, logprob, answer in zip(rows, logprobs, drawn, strict=True)
    ]


def summed_logprobs(model: PreTrainedModel, rows: Sequence[Tokens], *, temperature: float) -> list[float]:
    """log π of each one-response row at a sampling temperature, in nats."""
    values = compute_logprobs(model, rows, temperature=temperature)
    return [float(value.sum(dtype=torch.float64)) for value in values]


def log_ratios_to(reference: PreTrainedModel, answers: Sequence[Answer], *, temperature: float) -> list[float]:
    """log π(y|x) − log π_ref(y|x) of each answer, in nats, both at the temperature it was sampled with.

    Their mean estimates KL(π‖π_ref), sampled from π.
    """
    frozen = summed_logprobs(reference, [answer.tokens for answer in answers], temperature=temperature)
    return [answer.logprob - value for answer, value in zip(answers, frozen, strict=True)]


def repetition(response: Sequence[int]) -> float:
    """Share of an answer's 3-grams of tokens that repeat an earlier one of it; 0 if it has fewer than two."""
    grams = [tuple(response[i : i + REPETITION_N]) for i in range(len(response) - REPETITION_N + 1)]
    return 1 - len(set(grams)) / len(grams) if len(grams) > 1 else 0.0
