"""`pairtune generate`."""

import json
from dataclasses import replace

from pairtune.commands.inputs import load, say_other_format, say_reading
from pairtune.commands.one_file import result_file, write
from pairtune.data.dialogue import RefusedError
from pairtune.data.ends import end_ids
from pairtune.data.preflight import say_truncation
from pairtune.data.prompt_format import CHAT, TEXT, decided, in_format, in_turns
from pairtune.data.reading import Reader
from pairtune.data.schema import Message, Prompt, PromptText
from pairtune.data.sources import asked_of, read_prompts
from pairtune.data.tokenize import encode_prompts
from pairtune.errors import InputError
from pairtune.models.load import Tokenizer, load_tokenizer
from pairtune.progress import printable, say, task
from pairtune.runs import GenerateRun
from pairtune.sampling.sampler import sample


def run(settings: GenerateRun) -> list[str]:
    """Answer one prompt or a file of prompts; print the answers or write them as JSON lines. Returns the answers."""
    _check(settings)
    out = result_file(settings.out, inputs=[settings.data, settings.model], overwrite=settings.overwrite)
    tokenizer = load_tokenizer(settings.model, trust_remote_code=settings.trust_remote_code)
    rows = _prompts(settings, tokenizer)
    try:
        prompts, remarks = encode_prompts(rows, tokenizer, max_tokens=settings.max_tokens)
    except InputError as error:
        if settings.data or not isinstance(error.__cause__, RefusedError):
            raise
        raise InputError(f'--prompt: the chat template refuses it: "{error.__cause__}"') from error
    say_truncation(remarks)
    model = load(settings)
    with task("answers", len(prompts)) as progress:
        answers = sample(
            model,
            prompts,
            end_ids=end_ids(tokenizer),
            max_new_tokens=settings.sampling.max_new_tokens,
            temperature=settings.sampling.temperature,
            batch_size=settings.sampling.batch_size,
            seed=settings.seed,
            progress=progress.advance,
        )
    reader = Reader(tokenizer)
    texts = [
        (reader.continuation if goes_on(row.prompt) else reader.answer)(prompt, answer.response)
        for row, prompt, answer in zip(rows, prompts, answers, strict=True)
    ]
    if out:
        asked = [{"prompt": as_read(row.prompt), "response": text} for row, text in zip(rows, texts, strict=True)]
        write(out, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in asked))
        say(f"answers: {out}")
    else:
        for row, text in zip(rows, texts, strict=True):
            last = row.prompt if isinstance(row.prompt, str) else row.prompt[-1].content
            print(printable(text if settings.prompt else f"{last}\n  -> {text}"))
    say(f"next: --seed {settings.seed + 1} draws other answers; a --temperature below 1 keeps to likelier ones")
    return texts


def _check(settings: GenerateRun) -> None:
    """Raises InputError where words do not go together."""
    if bool(settings.prompt) == bool(settings.data):
        raise InputError("give either --prompt TEXT or --data FILE")
    if settings.data and settings.system:
        raise InputError("--system goes with --prompt; in a file it is a column, or the first turn of a dialogue")
    if settings.system and settings.prompt_format == TEXT:
        raise InputError("--prompt-format text is text without turns, and --system is a turn; give one of them")


def _prompts(settings: GenerateRun, tokenizer: Tokenizer) -> list[Prompt]:
    """What is asked: a file's prompts, or the one given, by one rule (see `data.prompt_format`)."""
    if settings.data:
        data = read_prompts(settings.data, asked=asked_of(settings))
        say_reading(data)
        data = in_format(data, tokenizer, settings.prompt_format)
        say_other_format(data, settings.model)
        return list(data.rows)
    asked = Prompt(settings.prompt, 1)
    if settings.system:
        return [replace(asked, prompt=(Message("system", settings.system), Message("user", settings.prompt)))]
    found, _ = decided([asked], tokenizer, settings.prompt_format)
    if found == TEXT and tokenizer.chat_template and settings.prompt_format != TEXT:
        say("--prompt is text that the answer goes on from; --prompt-format chat for what a user says")
    return [in_turns(asked) if found == CHAT else asked]


def goes_on(prompt: PromptText) -> bool:
    """Whether the answer is the rest of something, and begins with its very first space."""
    return isinstance(prompt, str) or prompt[-1].unfinished


def as_read(prompt: PromptText) -> object:
    """A prompt as a file of prompts holds it."""
    return prompt if isinstance(prompt, str) else [turn.fields() for turn in prompt]
