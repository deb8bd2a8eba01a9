"""`pairtune sft`."""

from pathlib import Path

from pairtune.commands.inputs import given, load, say_reading
from pairtune.commands.results import begin, check_out, finish, result_folder, say_next
from pairtune.data.sources import read_demonstrations
from pairtune.data.tokenize import encode_demonstrations
from pairtune.engine.cost import measured
from pairtune.engine.self_check import check_engine
from pairtune.models.load import load_tokenizer, save_model
from pairtune.settings import SftRun
from pairtune.training.checkpoint import Journal
from pairtune.training.preflight import say_truncation
from pairtune.training.sft import train_sft


def run(settings: SftRun) -> Path:
    """Fine-tune on demonstrations. Returns the folder of the result."""
    check_out(settings.out)
    data = read_demonstrations(given(settings.data, "data"))
    tokenizer = load_tokenizer(settings.model, trust_remote_code=settings.trust_remote_code)
    say_reading(data)
    encoded = encode_demonstrations(data.rows, tokenizer, max_tokens=settings.max_tokens)
    say_truncation(encoded.remarks)
    with result_folder(settings, "sft") as out:
        model = load(settings)
        check_engine(model, encoded.rows)
        begin(out, settings, "sft")
        with measured() as cost:
            journal = Journal("sft", out, cost=cost)
            train_sft(model, encoded.rows, settings.sft, seed=settings.seed, journal=journal)
        save_model(model, tokenizer, out)
        finish(out, {"demonstrations": len(encoded.rows)}, cost)
        say_next("tune", "--model", str(out), "--data", "PAIRS")
        return out
