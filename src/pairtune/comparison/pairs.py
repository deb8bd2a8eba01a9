"""The pairs that every arm shares, and the score that no arm is trained on.

For the built-in reviews: answers sampled from the warm-started model, labelled by the gold scorer. For the user's own
pairs: split by prompt, a third part kept apart for a judge.
"""

import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedModel

from pairtune.comparison.sizes import FEW_FOR_A_JUDGE, parts_of
from pairtune.data import reviews
from pairtune.data.check import check_pairs, check_reading
from pairtune.data.ends import end_ids
from pairtune.data.pack import Tokens
from pairtune.data.preflight import Place, say_truncation, told_numbers
from pairtune.data.schema import Pair, Rows
from pairtune.data.sources import asked_of, read_pairs
from pairtune.data.split import split_by_prompt
from pairtune.data.token_rows import store_tokens
from pairtune.data.tokenize import Encoded, encode_pairs
from pairtune.data.trained import Hashes, hashes_of
from pairtune.errors import InputError
from pairtune.models.load import Tokenizer
from pairtune.progress import say, task
from pairtune.runs import CompareRun
from pairtune.sampling.answer import Sample
from pairtune.sampling.sampler import sample, stream_seed

# Share of responses longer than sampled answers can be, above which a person should know.
WORTH_SAYING = 0.1
# Fewer optimiser steps than this hardly move a model.
FEW_STEPS = 10
# The parts of the pairs, in the order of SharedPairs.
SPLITS = ("train", "heldout", "validation", "judge")
# Prompts asked at a time while pairs are gathered.
ASKED_AT_ONCE = 256


@dataclass(frozen=True)
class SharedPairs:
    """(chosen, rejected) rows: to train on, to measure on, to choose by, and (with one's own data) for the judge."""

    train: Sequence[Tokens]
    heldout: Sequence[Tokens]
    validation: Sequence[Tokens] = ()
    judge: Sequence[Tokens] = ()
    # What is trained on, where it is known as texts.
    prompts: Hashes | None = field(default=None, compare=False)
    # Of the user's own pairs, where each was read: to train on; held out and to choose by. A file of pairs forgets it.
    places: tuple[Place, Place] | None = field(default=None, compare=False)

    def save(self, path: Path, tokenizer: Tokenizer) -> None:
        """One JSON object a pair: the split, the texts for people, the token ids that training uses."""
        with path.open("w", encoding="utf-8") as file:
            for split in SPLITS:
                for row in getattr(self, split):
                    texts = {
                        "prompt": tokenizer.decode(list(row.prompt)),
                        "chosen": tokenizer.decode(list(row.responses[0]), skip_special_tokens=True),
                        "rejected": tokenizer.decode(list(row.responses[1]), skip_special_tokens=True),
                    }
                    ids = {"prompt_ids": row.prompt, "chosen_ids": row.responses[0], "rejected_ids": row.responses[1]}
                    if row.asked:
                        ids["asked_ids"] = row.asked
                    numbers = {"weight": row.weight} if row.weight != 1 else {}
                    numbers |= {"margin": row.margin} if row.margin is not None else {}
                    file.write(json.dumps({"split": split, **texts, **ids, **numbers}, ensure_ascii=False) + "\n")

    @classmethod
    def load(cls, path: Path) -> "SharedPairs":
        """The rows that `save` wrote, on disk."""
        splits: list[str] = []

        def rows() -> Iterator[Tokens]:
            with path.open(encoding="utf-8") as file:
                for line in file:
                    row = json.loads(line)
                    splits.append(row["split"])
                    responses = tuple(row["chosen_ids"]), tuple(row["rejected_ids"])
                    asked = tuple(row.get("asked_ids", ()))
                    numbers = {"weight": row.get("weight", 1.0), "margin": row.get("margin")}
                    yield Tokens(tuple(row["prompt_ids"]), responses, asked, **numbers)

        stored = store_tokens(rows())
        train, heldout, validation, judge = (stored.take(np.array(splits) == split) for split in SPLITS)
        return cls(train, heldout, validation, judge)


def read_own_pairs(settings: CompareRun, tokenizer: Tokenizer) -> SharedPairs:
    """Somebody's own pairs in parts that share no prompt. Raises InputError as `split_own_pairs`, or `read_pairs`."""
    return split_own_pairs(read_pairs(settings.data, asked=asked_of(settings)), settings, tokenizer)


def split_own_pairs(source: Rows[Pair], settings: CompareRun, tokenizer: Tokenizer) -> SharedPairs:
    """Pairs that were read, checked and in parts that share no prompt; how many are where is said.

    Raises InputError if there are too few pairs, or too few prompts to keep the parts apart.
    """
    for finding in (*check_reading(source), *check_pairs(source.rows)):
        say(f"data: {finding.message}")
    train, heldout, chooser, judge = _apart(source.rows, settings)

    def encode(pairs: Sequence[Pair], part: str) -> Encoded:
        encoded = encode_pairs(pairs, tokenizer, max_tokens=settings.max_tokens, part=part)
        say_truncation(encoded.remarks)
        return encoded

    parts = [encode(train, "training part"), encode(heldout, "held-out part")]
    parts += [encode(chooser, "validation part")] if chooser else []
    judges = encode(judge, "judge's part")
    pairs = SharedPairs(
        parts[0].rows,
        parts[1].rows,
        parts[2].rows if chooser else (),
        judges.rows,
        prompts=hashes_of(pair.prompt for pair in train),
        places=(parts[0].place, [part.place(i) for part in parts[1:] for i in range(len(part.rows))].__getitem__),
    )
    _say_sizes(len(source.rows), pairs, settings)
    weights = "preference tuning and reward models count them; PPO's prompts and held-out figures count each once"
    margins = "each is taken from its pair's difference of rewards where a reward model learns, and not used elsewhere"
    for line in told_numbers(pairs.train, "pair", weights=weights, margins=margins):
        say(f"data: {line}")
    lengths = [len(row.responses[0]) for row in pairs.train]
    longer = sum(length > settings.sampling.max_new_tokens for length in lengths) / len(lengths)
    if longer > WORTH_SAYING:
        say(
            f"data: {longer:.0%} of the chosen responses are longer than {settings.sampling.max_new_tokens} tokens, "
            "where PPO's and every measured answer is cut; raise --sampling-max-new-tokens"
        )
    return pairs


def _apart(
    pairs: Sequence[Pair], settings: CompareRun
) -> tuple[Sequence[Pair], Sequence[Pair], Sequence[Pair], Sequence[Pair]]:
    """To train on, held out, to choose by, for the judge."""
    parts = parts_of(len(pairs), settings)
    prompts = Counter(hash(pair.prompt) for pair in pairs)
    needed = 4 if parts.validation else 3
    if len(prompts) < needed:
        raise InputError(
            f"{settings.data}: {len(pairs)} pairs have {len(prompts)} different prompts; no two parts of a comparison "
            f"may share one, so {needed} are needed"
        )
    rest, heldout = _without(pairs, parts.heldout, settings, "heldout", seed=settings.seed)
    chooser: Sequence[Pair] = []
    if parts.validation:
        rest, chooser = _without(rest, parts.validation, settings, "validation", seed=settings.seed + 2)
    train, judge = _without(rest, parts.judge, settings, "judge", seed=settings.seed + 1)
    return train[: parts.pairs], heldout, chooser, judge


def _without(
    pairs: Sequence[Pair], count: int, settings: CompareRun, part: str, *, seed: int
) -> tuple[Sequence[Pair], Sequence[Pair]]:
    """The rest, and a part of so many pairs; as many as the rarest prompt has if that is more and no number was given.

    Raises InputError if the prompts have too many pairs each for that.
    """
    free = part == "judge" or part in settings.not_given
    rarest = min(Counter(hash(pair.prompt) for pair in pairs).values())
    try:
        return split_by_prompt(pairs, heldout=max(count, rarest) if free else count, seed=seed)
    except InputError as error:
        raise InputError(
            f"{settings.data}: too many pairs share their prompts to keep the parts of a comparison apart, the {part} "
            f"part first ({error})"
        ) from error


def _say_sizes(total: int, pairs: SharedPairs, settings: CompareRun) -> None:
    """How many pairs are where, and what comes of their being few."""
    apart = [(pairs.train, "to train on"), (pairs.heldout, "held out"), (pairs.validation, "to choose by")]
    told = [f"{len(rows):,} {use}" for rows, use in (*apart, (pairs.judge, "for the judge")) if rows]
    left = total - sum(len(rows) for rows in (pairs.train, pairs.heldout, pairs.validation, pairs.judge))
    flags = [f"--{name}" for name in ("pairs", "heldout") if name in settings.not_given]
    say(
        f"data: {total:,} pairs: {', '.join(told)}"
        + (f", {left:,} not used" if left else "")
        + (f"; give {' and '.join(flags)} for others" if flags else "")
    )
    if not settings.judge and len(pairs.judge) < FEW_FOR_A_JUDGE:
        say(
            f"data: a judge that learns from {len(pairs.judge)} pairs may do no better than guessing, and then its "
            "scores decide nothing; how often it is right is told with the result"
        )
    steps = math.ceil(len(pairs.train) / settings.preference.batch_size) * settings.preference.epochs
    if steps < FEW_STEPS and "preference.epochs" in settings.not_given:
        say(f"data: that is {steps} steps of preference tuning in all, which change little; --epochs for more")


def sample_review_pairs(
    reference: PreTrainedModel,
    tokenizer: Tokenizer,
    gold: reviews.GoldScorer,
    prompts: Sequence[tuple[int, ...]],
    settings: CompareRun,
    *,
    validation: int = 0,
) -> tuple[SharedPairs, dict[str, Any]]:
    """Two answers of the reference to each prompt, labelled by Bradley–Terry; a prompt is on one side only.

    Answers that the length limit cut are pairs like any other, without an end-of-text token; two equal answers are not.
    """
    heldout_at, validation_at = settings.pairs, settings.pairs + settings.heldout
    found, facts = _two_answers(reference, tokenizer, prompts, settings, wanted=validation_at + validation)
    texts = [gold_text(tokenizer, prompt, side.response) for prompt, *sides in found for side in sides]
    gold_N2 = gold(texts).reshape(-1, 2)
    first_wins = reviews.label(gold_N2[:, 0], gold_N2[:, 1], seed=settings.seed)
    rows = [
        Tokens(prompt, (a.response, b.response) if wins else (b.response, a.response))
        for (prompt, a, b), wins in zip(found, first_wins, strict=True)
    ]
    facts |= {
        "response_tokens": float(np.mean([len(r) for row in rows for r in row.responses])),
        "labels_with_the_higher_gold": float(np.mean(first_wins == (gold_N2[:, 0] > gold_N2[:, 1]))),
        "gold_std": float(gold_N2.std()),
    }
    parts = SharedPairs(rows[:heldout_at], rows[heldout_at:validation_at], rows[validation_at:])
    return parts, facts


def _two_answers(
    reference: PreTrainedModel,
    tokenizer: Tokenizer,
    prompts: Sequence[tuple[int, ...]],
    settings: CompareRun,
    *,
    wanted: int,
) -> tuple[list[tuple[tuple[int, ...], Sample, Sample]], dict[str, Any]]:
    """The first `wanted` prompts to which two answers differ, with both; and how much was asked for them."""
    found: list[tuple[tuple[int, ...], Sample, Sample]] = []
    asked = ended = 0
    ends = end_ids(tokenizer)
    with task("answers", wanted) as progress:
        while len(found) < wanted:
            some = prompts[asked : asked + min(ASKED_AT_ONCE, wanted - len(found))]
            if not some:
                raise InputError(f"the reviews have prompts for {len(found)} pairs only; ask for fewer --pairs")
            drawn = sample(
                reference,
                [prompt for prompt in some for _ in range(2)],
                end_ids=ends,
                max_new_tokens=settings.sampling.max_new_tokens,
                temperature=settings.sampling.temperature,
                batch_size=settings.sampling.batch_size,
                seed=stream_seed(settings.seed, "pairs", asked),
            )
            asked += len(some)
            ended += sum(answer.ended for answer in drawn)
            triples = zip(some, drawn[::2], drawn[1::2], strict=True)
            fresh = [(prompt, a, b) for prompt, a, b in triples if a.response != b.response]
            progress.advance(len(fresh))
            found += fresh
    return found, {"prompts_asked": asked, "ended": ended / (2 * asked)}


def gold_text(tokenizer: Tokenizer, prompt: Sequence[int], response: Sequence[int]) -> str:
    """What the gold scorer reads: prompt and answer as one text."""
    return str(tokenizer.decode([*prompt, *response], skip_special_tokens=True))
