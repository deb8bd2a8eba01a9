"""The sampler's check: what draws this model's answers, held against its own forward on every prefix.

Tried in order: the engine's own buffers (for models on packed rows), transformers' cache, no cache. A way is right if
the log-probabilities that it drew with are the model's own for the tokens drawn, and if its greedy tokens are the
model's own likeliest (of equals, any). The answer is remembered for the model's content.

Shape suffixes: R response tokens, V vocabulary.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from pairtune.data.pack import Tokens, pack
from pairtune.engine import verdicts
from pairtune.engine.cost import uncounted
from pairtune.engine.exact import exact_copy
from pairtune.engine.limits import table_rows
from pairtune.engine.own import own_response_logits
from pairtune.engine.path import Sampler, paths_of, rope_switch
from pairtune.engine.self_check import EXACT, TIMES, WrongPathError, check_engine, described, rows_of_prompts
from pairtune.errors import InputError
from pairtune.progress import say
from pairtune.sampling.answer import Sample
from pairtune.sampling.own import sample_cached, sample_recomputed
from pairtune.sampling.packed import sample_packed

Draw = Callable[[PreTrainedModel, list[Sequence[int]], Tensor, tuple[int, ...], float], list[Sample]]
WAYS: dict[Sampler, Draw] = {"packed": sample_packed, "cached": sample_cached, "recomputed": sample_recomputed}
WORDS: dict[Sampler, str] = {
    "packed": "the engine's own buffers",
    "cached": "transformers' own cache",
    "recomputed": "no cache, every token from the whole text before it",
}
# Prompts side by side, tokens of each, tokens of an answer, and a temperature that leaves the likeliest token only.
PROMPTS, PROMPT_TOKENS, ANSWER_TOKENS, GREEDY = 4, 64, 6, 1e-5
LONGER = 3  # tokens of one more prompt, beyond the longest


@dataclass(frozen=True)
class Verdict:
    """The way that is right, and why not a faster one."""

    way: Sampler
    reason: str


@uncounted()
@torch.no_grad()
def check_sampler(model: PreTrainedModel, prompts: Sequence[Sequence[int]]) -> Sampler:
    """Find the right way to draw a model's answers, and take it. Raises InputError if there is none."""
    paths = paths_of(model)
    if paths.engine is None:
        check_engine(model, rows_of_prompts(prompts), quiet=True)
    room = min(PROMPT_TOKENS, table_rows(model) - ANSWER_TOKENS, rope_switch(model) - ANSWER_TOKENS)
    asked = chosen_prompts(prompts, most=max(1, int(room) - LONGER))
    place = verdicts.place(model, f"sampler on {paths.engine} rows")
    verdict = verdicts.recall(place, Verdict)
    if verdict is None or verdict.way not in WAYS:
        verdict = _find(model, asked)
        verdicts.remember(place, asdict(verdict))
    if verdict.reason:
        say(f"sampling: {verdict.reason}; using {WORDS[verdict.way]}, which is right but slower")
    paths.sampler = verdict.way
    return verdict.way


def chosen_prompts(prompts: Sequence[Sequence[int]], *, most: int) -> list[tuple[int, ...]]:
    """Prompts of different lengths, the shortest and the longest among them, and of every length two or more."""
    order = sorted({tuple(prompt[-most:]) for prompt in prompts}, key=lambda prompt: (len(prompt), prompt))
    chosen = [order[i * (len(order) - 1) // (PROMPTS - 1)] for i in range(PROMPTS)]
    chosen.append((chosen[-1] * (1 + LONGER))[: len(chosen[-1]) + LONGER])
    known = sorted({token for prompt in order for token in prompt})
    next_of = dict(zip(known, [*known[1:], known[0]], strict=True))
    other = [tuple(next_of[token] for token in prompt) for prompt in chosen]
    return list(dict.fromkeys(prompt for pair in zip(chosen, other, strict=True) for prompt in pair))


def _find(model: PreTrainedModel, prompts: Sequence[tuple[int, ...]]) -> Verdict:
    exact, troubles = exact_copy(model), list[str]()
    training = model.training
    model.eval(), exact.eval()
    try:
        for way in WAYS:
            if way == "packed" and paths_of(model).engine != "packed":
                continue
            try:
                _hold(exact, way, prompts)
                if exact is not model:
                    _hold(model, way, prompts)
                return Verdict(way, "; ".join(troubles[:1]))
            except Exception as error:  # whatever an architecture's code says: this way is not for it
                known = isinstance(error, WrongPathError)
                troubles.append(str(error) if known else f"{WORDS[way]}: {described(error)}")
    finally:
        model.train(training)
    raise InputError(f"answers cannot be drawn from this model here: {troubles[-1]}")


def _hold(model: PreTrainedModel, way: Sampler, prompts: Sequence[tuple[int, ...]]) -> None:
    """Raises WrongPathError if what is drawn, or taken greedily, is not what the model's own forward would give."""
    generator = torch.Generator().manual_seed(0)
    uniform = torch.rand(len(prompts), ANSWER_TOKENS, generator=generator, dtype=torch.float64)

    def answers(end_ids: tuple[int, ...], temperature: float) -> list[Sample]:
        return WAYS[way](model, list(prompts), uniform, end_ids, temperature)

    free = answers((), 1.0)
    ends = tuple({answer.response[1 + i % 3] for i, answer in enumerate(free[::2])})  # so that some rows leave early
    for some, greedy in ((free, False), (answers(ends, 1.0), False), (answers((), GREEDY), True)):
        loss_R, scale = _losses(model, prompts, some, greedy=greedy)
        usual = EXACT[model.dtype] * scale
        most = TIMES * usual if model.dtype == torch.bfloat16 else usual
        if not (float(loss_R.max()) <= most and float(loss_R.mean()) <= usual):
            what = "greedy tokens are not the likeliest" if greedy else "log-probabilities are off"
            raise WrongPathError(f"{WORDS[way]}: {what}, by up to {float(loss_R.max()):.2g} nats")


def _losses(
    model: PreTrainedModel, prompts: Sequence[tuple[int, ...]], answers: Sequence[Sample], *, greedy: bool
) -> tuple[Tensor, float]:
    """How far each token's log-probability is from the model's own (or below that of its likeliest token), [R].

    And the scale of what rounding does to it: log-probabilities of large logits are rounded more.
    """
    rows = [Tokens(prompt, (answer.response,)) for prompt, answer in zip(prompts, answers, strict=True)]
    batch = pack(rows).to(model.device)
    own_RV = torch.log_softmax(own_response_logits(model, batch, alone=True).float(), -1).cpu()
    own_R = own_RV.gather(-1, batch.target_R.cpu()[:, None])[:, 0]
    drawn_R = torch.tensor([value for answer in answers for value in answer.logprobs])
    loss_R = own_RV.amax(-1) - own_R if greedy else (drawn_R - own_R).abs()
    return loss_R, max(1.0, float(own_R.abs().max()) / 10)
