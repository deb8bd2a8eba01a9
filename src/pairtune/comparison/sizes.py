"""What a comparison on the user's own data derives from the data where no setting was given, each choice in one line.

How many pairs go where, whether the model is warm-started, and how long answers may get. A preset's numbers of pairs
are those of the built-in task, which can make as many as it likes: here they are the most that are taken.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from pairtune.data.schema import Pair
from pairtune.data.store import take
from pairtune.data.tokenize import encode_pairs
from pairtune.errors import InputError
from pairtune.grid import candidates, chooses
from pairtune.models.load import Tokenizer
from pairtune.progress import say
from pairtune.runs import CompareRun

# Pairs trained on for each that is held out (and that is the judge's, and that is chosen by).
TRAINED = 3
# Pairs that each part needs at least: one pair has no interval, and teaches a judge nothing.
LEAST = 2
# A judge that learns from fewer pairs than this is told of.
FEW_FOR_A_JUDGE = 100
# Answers may be as long as this share of the chosen responses, within bounds: every token more is time.
COVERED, SHORTEST, LONGEST = 0.95, 8, 256
# Responses looked at for their lengths, as they are in the data: not as --max-tokens leaves them.
LOOKED_AT, UNCUT = 2000, 2**31


@dataclass(frozen=True)
class Parts:
    """How many pairs to train on, to hold out, to choose by and for the judge."""

    pairs: int
    heldout: int
    validation: int
    judge: int


def parts_of(total: int, settings: CompareRun) -> Parts:
    """The sizes of the parts of `total` pairs; those given stand, the others share what is left, three to one to one.

    Raises InputError where what was given does not fit.
    """
    wanted = {"pairs": settings.pairs, "heldout": settings.heldout}
    wanted |= {"validation": settings.validation} if chooses(candidates(settings)) else {}
    given = {name: count for name, count in wanted.items() if name not in settings.not_given}
    _check_room(total, settings, given, parts=len(wanted) + 1)
    left = total - sum(given.values())
    shares = {name: TRAINED if name == "pairs" else 1 for name in (*wanted, "judge") if name not in given}
    # What is small is settled first and never below the least; training gets what the others leave.
    found = dict(given)
    for name, share in sorted(shares.items(), key=lambda each: each[1]):
        whole = left * share // sum(shares.values())
        found[name] = max(LEAST, min(whole, wanted.get(name, whole)))
    if "pairs" in shares:
        rest = total - sum(count for name, count in found.items() if name != "pairs")
        found["pairs"] = min(rest, wanted["pairs"])
    # The judge has what is left, up to as much as is trained on.
    found["judge"] = min(found["pairs"], total - sum(count for name, count in found.items() if name != "judge"))
    return Parts(found["pairs"], found["heldout"], found.get("validation", 0), max(found["judge"], LEAST))


def _check_room(total: int, settings: CompareRun, given: Mapping[str, int], *, parts: int) -> None:
    """Raises InputError unless each part that was given has its number of pairs, and each other one the least."""
    data, flags = settings.data, " or ".join(f"--{name}" for name in given if name != "pairs")
    apart = {"heldout": "held out", "validation": "to choose by"}
    others = [f"{count} {apart[name]}" for name, count in given.items() if name != "pairs"]
    if others and total - sum(count for name, count in given.items() if name != "pairs") < 2:
        raise InputError(
            f"{data} has {total} usable pairs; with {' and '.join(others)}, nothing is left to train on - lower {flags}"
        )
    need = sum(given.values()) + LEAST * (parts - len(given))
    if need <= total:
        return
    if not given:
        raise InputError(f"{data} has {total} usable pairs; a comparison needs {need} at least, {LEAST} for each part")
    asked = [f"{given['pairs']} to train on"] * ("pairs" in given) + others
    raise InputError(
        f"{data} has {total} usable pairs; {' and '.join(asked)} and at least {LEAST} for each other part, the judge's "
        f"among them, make {need} - lower {' or '.join(f'--{name}' for name in given)}"
    )


def settle(settings: CompareRun, pairs: Sequence[Pair], tokenizer: Tokenizer) -> CompareRun:
    """The settings with what the data decide, each said in a line. Raises InputError if the pairs are too few."""
    parts = parts_of(len(pairs), settings)
    settled = replace(settings, pairs=parts.pairs, heldout=parts.heldout)
    settled = replace(settled, validation=parts.validation or settings.validation)
    return _answers(_warm_start(settled, tokenizer), pairs, tokenizer)


def _warm_start(settings: CompareRun, tokenizer: Tokenizer) -> CompareRun:
    """A chat template is the mark of a model that was taught to answer: it is the reference as it is."""
    if "sft.epochs" not in settings.not_given:
        return settings
    if tokenizer.chat_template:
        say(
            "warm start: none, as the model has a chat template and so was taught to answer already; "
            "--sft-epochs 1 for one on the chosen responses"
        )
        return replace(settings, sft=replace(settings.sft, epochs=0))
    say("warm start: on chosen responses, as the model has no chat template; --sft-epochs 0 leaves it as it is")
    return settings


def _answers(settings: CompareRun, pairs: Sequence[Pair], tokenizer: Tokenizer) -> CompareRun:
    """Answers may be as long as nearly all of the chosen responses are."""
    if "sampling.max_new_tokens" not in settings.not_given:
        return settings
    looked_at = take(pairs, np.arange(0, len(pairs), math.ceil(len(pairs) / LOOKED_AT)))
    rows = encode_pairs(looked_at, tokenizer, max_tokens=UNCUT).rows
    lengths = [len(row.responses[0]) for row in rows]
    covering = int(np.quantile(lengths, COVERED, method="inverted_cdf"))
    tokens = min(max(covering, SHORTEST), LONGEST, settings.max_tokens // 2)
    reach = (
        f"as {COVERED:.0%} of the chosen responses are"
        if tokens >= covering
        else f"of the chosen responses' {covering}"
    )
    say(f"answers: at most {tokens} tokens long, {reach}; --sampling-max-new-tokens for another length")
    return replace(settings, sampling=replace(settings.sampling, max_new_tokens=tokens))
