"""`pairtune sft`."""

from pathlib import Path

from pairtune import parallel
from pairtune.commands.inputs import Kept, given, load_to_train, say_numbers, say_reading
from pairtune.commands.results import is_done, of_adapters, say_done, say_next, stage_of
from pairtune.data.preflight import say_truncation
from pairtune.data.prompt_format import in_format
from pairtune.data.sources import asked_of, read_demonstrations
from pairtune.data.tokenize import encode_demonstrations
from pairtune.data.trained import hashes_of
from pairtune.engine.self_check import check_engine
from pairtune.models.load import load_tokenizer
from pairtune.runs import SftRun
from pairtune.stages.sft import sft
from pairtune.stages.stage import Facts


def run(settings: SftRun) -> Path:
    """Fine-tune on demonstrations. Returns the folder of the result."""
    if is_done(settings, "sft"):
        return Path(settings.out)
    with parallel.first_before_others():
        data = read_demonstrations(given(settings.data, "data"), asked=asked_of(settings))
        tokenizer = load_tokenizer(settings.model, trust_remote_code=settings.trust_remote_code)
        say_reading(data)
        data = in_format(data, tokenizer, settings.prompt_format)
        encoded = encode_demonstrations(data.rows, tokenizer, max_tokens=settings.max_tokens)
        say_truncation(encoded.remarks)
        say_numbers(encoded.rows, "demonstration", weights="training counts them")
    with stage_of(settings, "sft") as stage:
        with parallel.first_before_others():
            model = load_to_train(settings)
            check_engine(model, encoded.rows)
        kept = Kept(hashes_of(row.prompt for row in data.rows), data.skipped, data.prompt_format)

        def work(folder: Path) -> Facts:
            rows, how = encoded.rows, settings.sft
            facts = sft(
                folder,
                model=model,
                tokenizer=tokenizer,
                rows=rows,
                settings=how,
                seed=settings.seed,
                every=settings.checkpoint_every,
                shard=settings.shard,
            )
            told = kept.write(folder, model=settings.model) if how.epochs else {}
            return facts | told | of_adapters(settings, model, tokenizer, folder)

        say_done(stage.run(work))
        say_next("tune", "--model", str(stage.folder), "--data", "PAIRS")
        return stage.folder
