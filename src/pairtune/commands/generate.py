"""`pairtune generate`."""

import json

from pairtune.commands.inputs import load, say_reading
from pairtune.commands.results import result_file, write
from pairtune.data.dialogue import RefusedError
from pairtune.data.ends import end_ids
from pairtune.data.preflight import say_truncation
from pairtune.data.reading import Reader
from pairtune.data.schema import Message, Prompt, PromptText
from pairtune.data.sources import read_prompts
from pairtune.data.tokenize import encode_prompts
from pairtune.errors import InputError
from pairtune.models.load import Tokenizer, load_tokenizer
from pairtune.progress import printable, say, task
from pairtune.sampling.sampler import sample
from pairtune.settings import GenerateRun


def run(settings: GenerateRun) -> list[str]:
    """Answer one prompt or a file of prompts; print the answers or write them as JSON lines. Returns the answers."""
    _check(settings)
    out = result_file(settings.out)
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
        (reader.continuation if _goes_on(row.prompt) else reader.answer)(prompt, answer.response)
        for row, prompt, answer in zip(rows, prompts, answers, strict=True)
    ]
    if out:
        asked = [{"prompt": _as_read(row.prompt), "response": text} for row, text in zip(rows, texts, strict=True)]
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
    if settings.data and (settings.system or settings.raw):
        name = "--system" if settings.system else "--raw"
        raise InputError(f"{name} goes with --prompt; in a file, text is raw and a list of messages is a dialogue")
    if settings.system and settings.raw:
        raise InputError("--raw is text without turns, and --system is a turn; give one of them")


def _prompts(settings: GenerateRun, tokenizer: Tokenizer) -> list[Prompt]:
    """What is asked: a file's prompts, or the one given, which is a user's turn where the model has a chat template."""
    if settings.data:
        data = read_prompts(settings.data)
        say_reading(data)
        return list(data.rows)
    if settings.raw or not (tokenizer.chat_template or settings.system):
        return [Prompt(settings.prompt, 1)]
    system = [Message("system", settings.system)] if settings.system else []
    return [Prompt((*system, Message("user", settings.prompt)), 1)]


def _goes_on(prompt: PromptText) -> bool:
    """Whether the answer is the rest of something, and begins with its very first space."""
    return isinstance(prompt, str) or prompt[-1].unfinished


def _as_read(prompt: PromptText) -> object:
    """A prompt as a file of prompts holds it."""
    return prompt if isinstance(prompt, str) else [turn.fields() for turn in prompt]
