"""`pairtune.log_probs`."""

from pairtune.commands.inputs import load, read
from pairtune.data.preflight import say_truncation
from pairtune.data.tokenize import encode_pairs
from pairtune.engine.reference import compute_logprobs
from pairtune.engine.self_check import check_engine
from pairtune.runs import LogProbsRun


def run(settings: LogProbsRun) -> list[dict[str, float]]:
    """log π(chosen|prompt) and log π(rejected|prompt) of each pair, in nats, and the tokens they are sums over."""
    data, tokenizer = read(settings)
    encoded = encode_pairs(data.rows, tokenizer, max_tokens=settings.max_tokens)
    say_truncation(encoded.remarks)
    model = load(settings)
    check_engine(model, encoded.rows)
    found = []
    for row, logprob_R in zip(encoded.rows, compute_logprobs(model, encoded.rows), strict=True):
        sizes = [len(response) for response in row.responses]
        chosen, rejected = (float(part.sum()) for part in logprob_R.split(sizes))
        counts = {"chosen_tokens": sizes[0], "rejected_tokens": sizes[1]}
        found.append({"chosen": chosen, "rejected": rejected, **counts})
    return found
