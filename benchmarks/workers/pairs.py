"""The pairs and prompts that both sides of a benchmark are given, as text and as the token ids it must become."""

import json
import random
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerBase

from benchmarks.workers.common import Job, read_rows
from pairtune.data.pack import Tokens
from pairtune.data.reviews import load_reviews
from pairtune.data.schema import Pair
from pairtune.data.sources import read_pairs
from pairtune.data.tokenize import encode_pairs
from pairtune.errors import InputError
from pairtune.models.load import load_tokenizer, resolve

LONGEST = 1024
# Prompts that answers are sampled to: short, so that a left-padded batch holds little padding.
LONGEST_PROMPT = 64
# Rows that results are compared on are short; they are not timed.
LONGEST_COMPARED = 128
# Words of reviews cut to the lengths of hh-harmless, with 1.3 tokens to a word: log-normal, (median tokens, σ).
POOL = 1500
TOKENS_PER_WORD = 1.3
PROMPT_LENGTH, CHOSEN_LENGTH, REJECTED_LENGTH = (98, 0.7), (30, 0.75), (37, 0.75)


def prepare(job: Job) -> dict[str, Any]:
    """Write `pairs`, `warmup`, `compared` and `prompts` files into the job's folder; returns their paths and facts."""
    model = resolve(job["model"])
    tokenizer = load_tokenizer(model)
    pool = list(read_pairs(job["data"]).rows) if job["data"] else list(review_pairs(POOL))
    random.Random(0).shuffle(pool)
    rows, odd = _texts_and_ids(pool, tokenizer)
    timed = _spread(rows, job["pairs"])
    # Warming up on pairs that are timed later could leave something of them behind, in a cache by content; others of
    # the same lengths touch the memory that the timed steps will need.
    timed_ids = set(map(id, timed))
    warmup = _spread([row for row in rows if id(row) not in timed_ids], job["warmup"])
    compared = [row for row in rows if _length(row) <= LONGEST_COMPARED][: job["compared"]]
    prompts = [row for row in rows if len(row["prompt_ids"]) <= LONGEST_PROMPT][: job["prompts"]]
    for name, wanted, found in (("pairs", job["pairs"], timed), ("compared", job["compared"], compared),
                                ("prompts", job["prompts"], prompts)):  # fmt: skip
        if len(found) < wanted:
            raise InputError(f"the data hold {len(found)} rows that fit where {wanted} {name} were asked for")
    folder = Path(job["folder"])
    return {
        "model": _random_model(job["shape"], tokenizer, folder / "model") if job.get("shape") else model,
        "pairs": _write(folder / "pairs.jsonl", timed),
        "warmup": _write(folder / "warmup.jsonl", warmup),
        "compared": _write(folder / "compared.jsonl", compared),
        "prompts": _write(folder / "prompts.jsonl", [{"ids": row["prompt_ids"]} for row in prompts]),
        "described": _described(timed, odd, len(pool), job["data"]),
        "prompts_described": _lengths("prompts", [len(row["prompt_ids"]) for row in prompts]),
    }


def _random_model(shape: Job, tokenizer: PreTrainedTokenizerBase, folder: Path) -> str:
    """A model of this configuration with random weights, beside the tokenizer."""
    torch.manual_seed(0)
    options = {key: value for key, value in shape.items() if key != "model_type"}
    config = AutoConfig.for_model(shape["model_type"], **options, eos_token_id=tokenizer.eos_token_id)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def review_pairs(count: int) -> Iterator[Pair]:
    """Pairs of the lengths of hh-harmless, cut one after another from the built-in reviews."""
    chance = random.Random(0)
    reviews = load_reviews()
    chance.shuffle(reviews)
    words = " ".join(review.text for review in reviews).split()
    at = 0
    for number in range(count):
        texts = []
        for median, sigma in (PROMPT_LENGTH, CHOSEN_LENGTH, REJECTED_LENGTH):
            length = round(median * chance.lognormvariate(0.0, sigma) / TOKENS_PER_WORD)
            cut = words[at : at + max(1, min(length, LONGEST // 2))]
            texts.append(" ".join(cut))
            at += len(cut)
        yield Pair(texts[0], " " + texts[1], " " + texts[2], number + 1)


def read_tokens(path: str) -> list[Tokens]:
    """The token rows of a file of pairs."""
    return [
        Tokens(tuple(row["prompt_ids"]), (tuple(row["chosen_ids"]), tuple(row["rejected_ids"])))
        for row in read_rows(path)
    ]


def _texts_and_ids(pool: Sequence[Pair], tokenizer: PreTrainedTokenizerBase) -> tuple[list[dict[str, Any]], int]:
    """Rows that nothing is cut from and that come out the same tokenised apart or together; how many do not."""
    encoded = encode_pairs(pool, tokenizer, max_tokens=LONGEST)
    cut = {*encoded.shortened, *encoded.cut}
    rows, odd = [], len(encoded.dropped) + len(cut)
    for tokens, origin in zip(encoded.rows, encoded.origins, strict=True):
        if origin in cut:
            continue
        texts = [str(tokenizer.decode(list(part))) for part in (tokens.prompt, *tokens.responses)]
        if all(
            tokenizer(texts[0] + text)["input_ids"] == [*tokens.prompt, *response]
            for text, response in zip(texts[1:], tokens.responses, strict=True)
        ):
            names = ("prompt", "chosen", "rejected")
            ids = {f"{name}_ids": part for name, part in zip(names, (tokens.prompt, *tokens.responses), strict=True)}
            rows.append({**dict(zip(names, texts, strict=True)), **ids})
        else:
            odd += 1
    return rows, odd


def _spread(rows: list[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """`count` rows at even steps through the rows by length, so that a few have the lengths of all; then shuffled."""
    by_length = sorted(rows, key=_length)
    chosen = [by_length[int((i + 0.5) * len(rows) / count)] for i in range(min(count, len(rows)))]
    random.Random(0).shuffle(chosen)
    return chosen


def _length(row: dict[str, Any]) -> int:
    return len(row["prompt_ids"]) + len(row["chosen_ids"]) + len(row["rejected_ids"])


def _write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def _described(rows: list[dict[str, Any]], odd: int, pool: int, data: str | None) -> str:
    source = "/".join(Path(data).parts[-2:]) if data else "reviews cut to the lengths of hh-harmless"
    parts = [_lengths(name, [len(row[f"{name}_ids"]) for row in rows]) for name in ("prompt", "chosen", "rejected")]
    return f"{len(rows)} pairs of {source} ({'; '.join(parts)}; {odd} of {pool} tokenise in more than one way)"


def _lengths(name: str, lengths: list[int]) -> str:
    if not lengths:
        return f"no {name}"
    return f"{name} mean {statistics.mean(lengths):.0f} tokens, longest {max(lengths)}"
