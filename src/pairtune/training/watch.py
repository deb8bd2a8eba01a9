"""Whether a training that ended has got anywhere: what is told at its end, and stands in its result.

A learning rate far too high need not end in numbers that are none: the loss explodes, then no gradient is left.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from pairtune.progress import significant

# The share of the steps, at the end, that is looked at.
END = 0.1
# The loss may end at most twice its first value, or this above; in between it may be so many times as much above.
ROSE_LEAST, SPIKE = 0.5, 10
# The norm of the weights that learn, against that before the first step.
GREW = 3.0
# Nats per token between a policy and its reference: beyond, it no longer writes what the reference ever would.
FAR = 10.0


def warnings(rows: Sequence[Mapping[str, Any]], grew: Mapping[str, float]) -> list[dict[str, str]]:
    """A {"figure", "text"} for each sign that training went wrong.

    rows: the records of its steps. grew: by the name of what learns, its weights' norm divided by that at the start.
    """
    if not rows:
        return []
    found = []
    last = rows[-max(1, round(END * len(rows))) :]
    first, end = rows[0]["loss"], _mean(last, "loss")
    worst, size = max(row["loss"] for row in rows), max(abs(first), ROSE_LEAST)
    if "kl" not in rows[0] and (end > first + size or worst > first + SPIKE * size):
        reached = end if end > first + size else worst
        text = f"the loss rose from {significant(first)} to {significant(reached)}; try a lower learning rate"
        found.append({"figure": "loss", "text": text})
    if all(row["gradient_norm"] == 0 for row in last):
        count = f"the last {len(last):,} of {len(rows):,} steps" if len(last) > 1 else "the last step"
        found.append({"figure": "gradient_norm", "text": f"no gradient was left in {count}: nothing was learned there"})
    for name, ratio in grew.items():
        if ratio > GREW:
            of = f" of the {name}" if name else ""
            text = f"the norm of the weights{of} grew {significant(ratio)}-fold; try a lower learning rate"
            found.append({"figure": "weights", "text": text})
    if "kl" in rows[0] and _mean(last, "kl") > FAR * _mean(last, "response_tokens"):
        text = f"the KL from the reference is {significant(_mean(last, 'kl'))} nats per response: nothing of it is left"
        found.append({"figure": "kl_from_reference", "text": text})
    return found


def _mean(rows: Sequence[Mapping[str, Any]], name: str) -> float:
    return sum(float(row[name]) for row in rows) / len(rows)
