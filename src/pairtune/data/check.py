"""What is wrong with the pairs, told before a token is made or a step is spent."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pairtune.data.formats import quoted
from pairtune.data.schema import Message, Pair, PromptText, Skipped

SHOWN_ROWS = 10
#: A prompt shorter than this may well open a response by chance.
LONG_PROMPT = 12

_TEMPLATE = re.compile(
    r"<\|(?:im_start|im_end|endoftext|eot_id|begin_of_text|end_of_text|start_header_id|end_header_id"
    r"|system|user|assistant|end)\|>"
    r"|\[/?INST\]|<</?SYS>>|<(?:start|end)_of_turn>|</s>|<[be]os>|\n\n(?:Human|Assistant):"
)


@dataclass(frozen=True)
class Finding:
    """One thing about the data: how many pairs it concerns, the first of their rows, and a plain sentence."""

    name: str
    count: int
    rows: tuple[int, ...]
    message: str
    severity: Literal["note", "warning"]


def check_pairs(pairs: Sequence[Pair]) -> list[Finding]:
    """All findings, in a fixed order, each only if there is something to tell; none for no pairs."""
    if not pairs:
        return []
    found = [
        _identical(pairs),
        _duplicate(pairs),
        _contradictory(pairs),
        _shared_prompt(pairs),
        _prompt_repeated(pairs),
        _template_token(pairs),
        _turns(pairs),
        _longer_wins(pairs),
    ]
    return [finding for finding in found if finding is not None]


def check_skipped(skipped: Sequence[Skipped]) -> list[Finding]:
    """One warning for each reason that rows were left out, the most frequent first."""
    by_reason: dict[str, list[int]] = {}
    for skip in skipped:
        by_reason.setdefault(skip.reason, []).append(skip.row)
    return [
        Finding(
            "skipped",
            len(rows),
            tuple(rows[:SHOWN_ROWS]),
            f"{_counted(rows, 'row')} left out: {reason}",
            "warning",
        )
        for reason, rows in sorted(by_reason.items(), key=lambda item: -len(item[1]))
    ]


def longer_wins(pairs: Sequence[Pair]) -> float:
    """Share of pairs whose chosen response has more characters than the rejected one; ties count half.

    Raises ValueError for no pairs.
    """
    if not pairs:
        raise ValueError("no pairs, no share")
    return sum(_ahead(pair) for pair in pairs) / len(pairs)


def _ahead(pair: Pair) -> float:
    longer = len(pair.chosen) - len(pair.rejected)
    return 0.5 if longer == 0 else float(longer > 0)


def _identical(pairs: Sequence[Pair]) -> Finding | None:
    rows = [pair.row for pair in pairs if pair.chosen == pair.rejected]
    return _finding(
        "identical",
        rows,
        "has a chosen response identical to the rejected one and teaches nothing",
        "have a chosen response identical to the rejected one and teach nothing",
    )


def _duplicate(pairs: Sequence[Pair]) -> Finding | None:
    seen: set[tuple[PromptText, str, str]] = set()
    rows = []
    for pair in pairs:
        key = (pair.prompt, pair.chosen, pair.rejected)
        if key in seen:
            rows.append(pair.row)
        seen.add(key)
    return _finding("duplicate", rows, "repeats an earlier pair word for word", "repeat an earlier pair word for word")


def _contradictory(pairs: Sequence[Pair]) -> Finding | None:
    orders = {(pair.prompt, pair.chosen, pair.rejected) for pair in pairs}
    rows = [
        pair.row
        for pair in pairs
        if pair.chosen != pair.rejected and (pair.prompt, pair.rejected, pair.chosen) in orders
    ]
    text = "prefer one response to another where a different pair prefers the second to the first"
    return _finding("contradictory", rows, text, text)  # never a single row


def _shared_prompt(pairs: Sequence[Pair]) -> Finding | None:
    counts = Counter(pair.prompt for pair in pairs)
    rows = [pair.row for pair in pairs if counts[pair.prompt] > 1]
    text = (
        f"share their prompt with another pair ({len(counts)} distinct prompts in {len(pairs)} pairs, "
        f"at most {max(counts.values())} pairs for one): hold out whole prompts"
    )
    return _finding("shared_prompt", rows, text, text, severity="note")  # never a single row


def _prompt_repeated(pairs: Sequence[Pair]) -> Finding | None:
    rows = []
    for pair in pairs:
        prompt = (pair.prompt if isinstance(pair.prompt, str) else pair.prompt[-1].content).strip()
        starts = any(side.lstrip().startswith(prompt) for side in (pair.chosen, pair.rejected))
        if starts and len(prompt) >= LONG_PROMPT:
            rows.append(pair.row)
    why = "(a column that holds prompt and response together?)"
    return _finding(
        "prompt_repeated",
        rows,
        f"has a response that starts with the prompt's own text {why}",
        f"have a response that starts with the prompt's own text {why}",
    )


def _template_token(pairs: Sequence[Pair]) -> Finding | None:
    rows = []
    tokens: Counter[str] = Counter()
    for pair in pairs:
        found = {*_TEMPLATE.findall(pair.chosen), *_TEMPLATE.findall(pair.rejected)}
        if found:
            rows.append(pair.row)
            tokens.update(found)
    named = ", ".join(f"{quoted(token)} in {tokens[token]}" for token in sorted(tokens))
    return _finding(
        "template_token",
        rows,
        f"has a chat template's marks inside a response ({named})",
        f"have a chat template's marks inside a response ({named})",
    )


def _turns(pairs: Sequence[Pair]) -> Finding | None:
    """Many chat templates raise an error here, and others were never trained on it."""
    rows = [pair.row for pair in pairs if not isinstance(pair.prompt, str) and not _alternate(pair.prompt)]
    why = "(some chat templates refuse that)"
    return _finding(
        "turns",
        rows,
        f"is a dialogue in which user and assistant do not take turns {why}",
        f"are dialogues in which user and assistant do not take turns {why}",
    )


def _alternate(prompt: tuple[Message, ...]) -> bool:
    speakers = [turn.role for turn in prompt if turn.role in ("user", "assistant")]
    return speakers == ["user", "assistant"] * (len(speakers) // 2) + ["user"]


def _longer_wins(pairs: Sequence[Pair]) -> Finding:
    share = longer_wins(pairs)
    ties = sum(_ahead(pair) == 0.5 for pair in pairs)
    rule = "longer" if share >= 0.5 else "shorter"
    best = max(share, 1 - share)
    message = (
        f'"the {rule} response wins" is right for {best:.1%} of the {len(pairs)} pairs '
        f"(in characters; {ties} ties count half): a baseline that any method should beat"
    )
    return Finding("longer_wins", len(pairs), (), message, "note")


def _finding(
    name: str, rows: Sequence[int], one: str, many: str, *, severity: Literal["note", "warning"] = "warning"
) -> Finding | None:
    """The rows counted and named before what is the matter with them; None where there are none."""
    if not rows:
        return None
    message = f"{_counted(rows, 'pair')} {one if len(rows) == 1 else many}"
    return Finding(name, len(rows), tuple(rows[:SHOWN_ROWS]), message, severity)


def _counted(rows: Sequence[int], noun: str) -> str:
    """For instance "1 pair (row 7)" or "12 rows (rows 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and 2 more)"."""
    if len(rows) == 1:
        return f"1 {noun} (row {rows[0]})"
    shown = ", ".join(map(str, rows[:SHOWN_ROWS]))
    more = f" and {len(rows) - SHOWN_ROWS} more" if len(rows) > SHOWN_ROWS else ""
    return f"{len(rows)} {noun}s (rows {shown}{more})"
