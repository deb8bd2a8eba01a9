"""`pairtune generate`."""

import json

from pairtune.commands.inputs import load, read_prompt_ids
from pairtune.commands.results import result_file, write
from pairtune.data.tokenize import encode_prompt
from pairtune.errors import InputError
from pairtune.models.load import load_tokenizer
from pairtune.progress import printable, say, task
from pairtune.sampling.sampler import sample
from pairtune.settings import GenerateRun


def run(settings: GenerateRun) -> list[str]:
    """Answer one prompt or a file of prompts; print the answers or write them as JSON lines. Returns the answers."""
    if bool(settings.prompt) == bool(settings.data):
        raise InputError("give either --prompt TEXT or --data FILE")
    out = result_file(settings.out)
    tokenizer = load_tokenizer(settings.model, trust_remote_code=settings.trust_remote_code)
    if settings.prompt:
        prompts = [encode_prompt(settings.prompt, tokenizer)]
    else:
        prompts = read_prompt_ids(settings.data, settings.max_tokens, tokenizer)
    model = load(settings)
    with task("answers", len(prompts)) as progress:
        answers = sample(
            model,
            prompts,
            end_ids=[tokenizer.eos_token_id],
            max_new_tokens=settings.sampling.max_new_tokens,
            temperature=settings.sampling.temperature,
            batch_size=settings.sampling.batch_size,
            seed=settings.seed,
            progress=progress.advance,
        )
    texts = [str(tokenizer.decode(list(answer.response), skip_special_tokens=True)) for answer in answers]
    asked = [str(tokenizer.decode(prompt)) for prompt in prompts]
    if out:
        rows = [{"prompt": prompt, "response": text} for prompt, text in zip(asked, texts, strict=True)]
        write(out, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
        say(f"answers: {out}")
    else:
        for prompt, text in zip(asked, texts, strict=True):
            print(printable(text if settings.prompt else f"{prompt}\n  -> {text}"))
    say(f"next: --seed {settings.seed + 1} draws other answers; a --temperature below 1 keeps to likelier ones")
    return texts
