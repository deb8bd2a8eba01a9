"""Best of n: answers of the reference, of which a reward model takes the best to each prompt. Nothing is trained."""

from collections.abc import Sequence

from transformers import PreTrainedModel

from pairtune.data.pack import Tokens
from pairtune.engine.cost import uncounted
from pairtune.engine.own_score import OwnScore
from pairtune.engine.value_heads import score_rewards
from pairtune.evaluation.best_of import kl_estimate
from pairtune.evaluation.policy import Answer, summed_logprobs
from pairtune.models.heads import ScalarModel
from pairtune.sampling.sampler import sample
from pairtune.settings import Sampling
from pairtune.stages.stage import Facts


def best_of(
    reference: PreTrainedModel,
    reward_model: ScalarModel | OwnScore,
    prompts: Sequence[Sequence[int]],
    *,
    answers: int,
    sampling: Sampling,
    end_ids: Sequence[int],
    seed: int,
) -> Facts:
    """The best answer to each prompt; of equal rewards the first. A prompt is read once, its answers scored in one row.

    "kl": each answer's estimate of the KL from the reference, in nats. Its cost is that of drawing and scoring.
    """
    drawn = sample(
        reference,
        [prompt for prompt in prompts for _ in range(answers)],
        end_ids=end_ids,
        max_new_tokens=sampling.max_new_tokens,
        temperature=sampling.temperature,
        batch_size=sampling.batch_size,
        seed=seed,
    )
    groups = [drawn[i * answers : (i + 1) * answers] for i in range(len(prompts))]
    rows = [Tokens(tuple(p), tuple(each.response for each in g)) for p, g in zip(prompts, groups, strict=True)]
    scores = score_rewards(reward_model, rows)
    best = [group[several.index(max(several))] for several, group in zip(scores, groups, strict=True)]
    alone = [Tokens(row.prompt, (each.response,)) for row, each in zip(rows, best, strict=True)]
    with uncounted():
        logprobs = summed_logprobs(reference, alone, temperature=sampling.temperature)
    found = [
        Answer(row.prompt, each.response, logprob, each.ended)
        for row, each, logprob in zip(rows, best, logprobs, strict=True)
    ]
    return {
        "answers": [answer.to_json() for answer in found],
        "kl": [kl_estimate(logprob, answers) for logprob in logprobs],
    }
