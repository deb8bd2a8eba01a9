"""`pairtune evaluate`."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from rich.console import Console

from pairtune.commands.figures import NOT_HELD_OUT, TRAINED, beside_chance, table
from pairtune.commands.inputs import given, load, load_reward_model, read, say_numbers
from pairtune.commands.one_file import result_file, write
from pairtune.commands.results import of_pairs, say_next
from pairtune.data.ends import end_ids
from pairtune.data.preflight import say_truncation
from pairtune.data.schema import Pair
from pairtune.data.tokenize import encode_pairs
from pairtune.data.trained import hashes_of, trained_on
from pairtune.engine.reference import reference_logprobs
from pairtune.engine.self_check import check_engine
from pairtune.errors import InputError
from pairtune.estimate import Estimate
from pairtune.evaluation.diagnostics import distinct_bigrams
from pairtune.evaluation.statistics import estimate
from pairtune.models.heads import ScalarModel
from pairtune.models.load import load_model, load_tokenizer
from pairtune.models.machine import choose_machine
from pairtune.progress import counted, say, task
from pairtune.report import words
from pairtune.runs import EvaluateRun
from pairtune.stages.measure import distinct_prompts, measure

HELD_OUT = "heldout_accuracy"


def run(settings: EvaluateRun) -> dict[str, Any]:
    """Held-out accuracy, sampled KL, length and repetition of a policy against its reference. Returns the figures."""
    inputs = [settings.data, settings.model, settings.reference, settings.reward_model]
    out = result_file(settings.out, inputs=inputs, overwrite=settings.overwrite)
    data, tokenizer = read(settings)
    pairs = data.rows
    seen = _trained_on(settings.model, pairs)
    encoded = encode_pairs(pairs, tokenizer, max_tokens=settings.max_tokens)
    say_truncation(encoded.remarks)
    rows = encoded.rows
    say_numbers(rows, "pair", weights="each pair counts once here", margins="not used here")
    reward_model = load_reward_model(settings, settings.reward_model, tokenizer) if settings.reward_model else None
    name, trust = given(settings.reference, "reference"), settings.trust_remote_code
    if load_tokenizer(name, trust_remote_code=trust).get_vocab() != tokenizer.get_vocab():
        raise InputError("reference: its tokenizer is not the policy's; give the model that the policy was tuned from")
    policy = load(settings)
    reference = load_model(name, choose_machine(settings.dtype), trust_remote_code=trust)
    for model in (policy, reference, *([reward_model.body] if isinstance(reward_model, ScalarModel) else [])):
        check_engine(model, rows, quiet=model is not policy)
    frozen, _ = reference_logprobs(reference, rows, say=say)
    prompts = distinct_prompts(rows)[: settings.evaluation.prompts]
    with task("answers", len(prompts)) as progress:
        facts = measure(
            policy,
            reference,
            rows,
            frozen,
            prompts,
            sampling=settings.sampling,
            end_ids=end_ids(tokenizer),
            seed=settings.seed,
            reward_model=reward_model,
            progress=progress.advance,
        )
    figures = {
        **of_pairs(facts["log_ratios"], rows),
        "kl_from_reference": estimate(facts["log_ratio"]),
        "response_tokens": estimate(facts["response_tokens"]),
        "repetition": estimate(facts["repetition"]),
        "distinct_bigrams": distinct_bigrams([answer["response"] for answer in facts["answers"]]),
    }
    if reward_model:
        figures["reward_model_score"] = estimate(facts["reward"])
    if seen:
        figures = {NOT_HELD_OUT if name == HELD_OUT and seen.mean else name: each for name, each in figures.items()}
        figures[TRAINED] = seen
    result = {name: figure.to_json() for name, figure in figures.items()}
    Console().print(table(f"{settings.model} beside {settings.reference}, {counted(len(rows), 'pair')}", figures))
    if NOT_HELD_OUT in figures and seen:
        right = figures[NOT_HELD_OUT]
        said = f"accuracy: {words.percent(right.mean)}{beside_chance(right, 'pair')}"
        say(f"{said}; not held out: {_share(seen)} were trained on")
    else:
        right = figures[HELD_OUT]
        say(f"held-out accuracy: {words.percent(right.mean)}{beside_chance(right, 'pair')}")
    if out:
        write(out, json.dumps(result, indent=2) + "\n")
        say(f"figures: {out}")
    say_next("compare", "--model", settings.reference, "--data", "TRAINING_PAIRS", why="which method does it best?")
    return result


def _trained_on(model: str, pairs: Sequence[Pair]) -> Estimate | None:
    """The share of the prompts that the model was trained on, which is said; None where its folder does not tell."""
    known = trained_on(model)
    if known is None:
        return None
    measured = hashes_of(pair.prompt for pair in pairs)
    seen = Estimate(mean=float(np.isin(measured, known).mean()), n=len(measured), ci95=None)
    if seen.mean:
        say(f"data: {_share(seen)} were trained on, by this model or one that it was made from: not held out")
    return seen


def _share(seen: Estimate) -> str:
    """7 of the 12 prompts."""
    return f"{round(seen.mean * seen.n):,} of the {counted(seen.n, 'prompt')}"
