"""`pairtune sample`: with `reward` before and `tune` behind it, iterative preference tuning by hand."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pairtune.commands.generate import as_read, goes_on
from pairtune.commands.inputs import given, load, load_reward_model, say_other_format, say_reading
from pairtune.commands.one_file import result_file, write
from pairtune.commands.results import say_next
from pairtune.data.ends import end_ids
from pairtune.data.pack import Tokens
from pairtune.data.preflight import say_truncation
from pairtune.data.prompt_format import in_format
from pairtune.data.reading import Reader
from pairtune.data.schema import PromptText
from pairtune.data.sources import asked_of, read_prompts
from pairtune.data.tokenize import encode_prompts
from pairtune.engine.value_heads import score_rewards
from pairtune.errors import InputError
from pairtune.models.load import load_tokenizer
from pairtune.progress import counted, say, task
from pairtune.runs import SampleRun
from pairtune.sampling.answer import Sample
from pairtune.sampling.sampler import sample

# An answer's text and its score.
Scored = tuple[str, float]


def run(settings: SampleRun) -> Path:
    """Answer each prompt several times, score the answers and write them for `tune`. Returns the file.

    An answer that the longest length cut is left out: as text it would be one that ends there.
    """
    source = given(settings.reward_model, "reward_model")
    inputs = [settings.data, settings.model, source]
    out = result_file(given(settings.out, "out"), inputs=inputs, overwrite=settings.overwrite)
    assert out is not None
    tokenizer = load_tokenizer(settings.model, trust_remote_code=settings.trust_remote_code)
    data = read_prompts(given(settings.data, "data"), asked=asked_of(settings))
    say_reading(data)
    data = in_format(data, tokenizer, settings.prompt_format)
    say_other_format(data, settings.model, source)
    rows = list({repr(row.prompt): row for row in data.rows}.values())
    if len(rows) < len(data.rows):
        say(f"data: {counted(len(data.rows) - len(rows), 'prompt')} stood there before; each is asked once")
    prompts, remarks = encode_prompts(rows, tokenizer, max_tokens=settings.max_tokens)
    say_truncation(remarks)
    reward_model = load_reward_model(settings, source, tokenizer)
    model = load(settings)
    each = settings.answers_per_prompt
    with task("answers", len(prompts) * each) as progress:
        drawn = sample(
            model,
            [prompt for prompt in prompts for _ in range(each)],
            end_ids=end_ids(tokenizer),
            max_new_tokens=settings.sampling.max_new_tokens,
            temperature=settings.sampling.temperature,
            batch_size=settings.sampling.batch_size,
            seed=settings.seed,
            progress=progress.advance,
        )
    groups = [_ended(drawn[i * each : (i + 1) * each]) for i in range(len(prompts))]
    cut = sum(not answer.ended for answer in drawn)
    if cut:
        longest = settings.sampling.max_new_tokens
        say(f"answers: {cut:,} of {len(drawn):,} had no end in {longest} tokens (--max-new-tokens) and are left out")
    asked = [(row, Tokens(tuple(p), group)) for row, p, group in zip(rows, prompts, groups, strict=True) if group]
    scores = score_rewards(reward_model, [tokens for _, tokens in asked]) if asked else []
    reader = Reader(tokenizer)
    lines = []
    for (row, tokens), several in zip(asked, scores, strict=True):
        read = reader.continuation if goes_on(row.prompt) else reader.answer
        texts = [read(tokens.prompt, response) for response in tokens.responses]
        scored = sorted(zip(texts, several, strict=True), key=lambda each: -each[1])
        if scored[0][1] > scored[-1][1] and scored[0][0] != scored[-1][0]:
            made = _pair if settings.write == "pairs" else _list
            lines.append({"prompt": as_read(row.prompt)} | made(row.prompt, scored))
    if left := len(rows) - len(lines):
        say(f"answers: {left:,} of {counted(len(rows), 'prompt')} have no two that the scores tell apart; left out")
    if not lines:
        raise InputError("no prompt has two answers that the scores tell apart; nothing is written")
    write(out, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    say(f"{counted(len(lines), 'pair' if settings.write == 'pairs' else 'prompt')}: {out}")
    say_next("tune", "--model", settings.model, "--data", str(out))
    return out


def _ended(answers: Sequence[Sample]) -> tuple[tuple[int, ...], ...]:
    """Those that ended, each once, in the order drawn."""
    return tuple(dict.fromkeys(answer.response for answer in answers if answer.ended))


def _pair(prompt: PromptText, scored: Sequence[Scored]) -> dict[str, Any]:
    """The best and the worst of a prompt's answers, of which the best is the first."""
    return {"chosen": _turns(prompt, scored[0][0]), "rejected": _turns(prompt, scored[-1][0])}


def _list(prompt: PromptText, scored: Sequence[Scored]) -> dict[str, Any]:
    """All of them with their scores."""
    return {"completions": [{"response": _turns(prompt, text), "score": score} for text, score in scored]}


def _turns(prompt: PromptText, text: str) -> object:
    """An answer as it stands beside its prompt: text, or an assistant's turn behind turns."""
    return text if isinstance(prompt, str) else [{"role": "assistant", "content": text}]
