"""What is wrong with the pairs, told before a token is made or a step is spent."""

import hashlib
import re
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from pairtune.data.schema import Pair, Rated, Row, Rows, Skipped, said
from pairtune.data.wording import listed, quoted
from pairtune.progress import counted

SHOWN_ROWS = 10
#: A prompt shorter than this may well open a response by chance.
LONG_PROMPT = 12

_TEMPLATE = re.compile(
    r"<\|(?:im_start|im_end|endoftext|eot_id|begin_of_text|end_of_text|start_header_id|end_header_id"
    r"|system|user|assistant|end)\|>"
    r"|\[/?INST\]|<</?SYS>>|<(?:start|end)_of_turn>|</s>|<[be]os>|<extra_id_[01]>|\n\n(?:Human|Assistant):"
)
_LIST = re.compile(r"""\s*\[\s*(["']).*\1\s*\]\s*\Z""", re.DOTALL)


@dataclass(frozen=True)
class Finding:
    """One thing about the data: how many pairs it concerns, the first of their rows, and a plain sentence."""

    name: str
    count: int
    rows: tuple[int, ...]
    message: str


def check_pairs(pairs: Iterable[Pair]) -> list[Finding]:
    """All findings, in a fixed order, each only if there is something to tell; none for no pairs.

    The pairs are looked at once, one after another; what has to be compared across them is kept as hashes.
    """
    seen = _Seen()
    marked = {name: Marked() for name in _OF_ONE_PAIR}
    templates: Counter[str] = Counter()
    for pair in pairs:
        seen.add(pair)
        for name, holds in _OF_ONE_PAIR.items():
            if holds(pair):
                marked[name].add(pair.row)
        templates.update(_template_tokens(pair))
    if not seen.rows:
        return []
    named = ", ".join(f"{quoted(token)} in {templates[token]}" for token in sorted(templates))
    column = "a response that starts with the prompt's own text (a column that holds prompt and response together?)"
    turns = "in which user and assistant do not take turns (some chat templates refuse that)"
    found = [
        row_finding(
            "identical",
            marked["identical"],
            "has a chosen response identical to the rejected one and teaches nothing",
            "have a chosen response identical to the rejected one and teach nothing",
        ),
        _duplicate(seen),
        _contradictory(seen),
        _shared_prompt(seen),
        row_finding("prompt_repeated", marked["prompt_repeated"], f"has {column}", f"have {column}"),
        row_finding(
            "template_token",
            marked["template_token"],
            f"has a chat template's marks inside a response ({named})",
            f"have a chat template's marks inside a response ({named})",
        ),
        row_finding(
            "answered",
            marked["answered"],
            "has a prompt that ends with one of its answers",
            "have a prompt that ends with one of its answers",
        ),
        row_finding(
            "list",
            marked["list"],
            "has responses that are lists written as text; if those are several answers, give them as lists",
            "have responses that are lists written as text; if those are several answers, give them as lists",
        ),
        row_finding("turns", marked["turns"], f"is a dialogue {turns}", f"are dialogues {turns}"),
        _longer_wins(seen),
    ]
    return [finding for finding in found if finding is not None]


def check_reading(data: Rows[Row]) -> list[Finding]:
    """How the rows were read, what was left out, and which columns were."""
    shape: list[Finding] = [Finding("shape", len(data.rows), (), data.told)] if data.told else []
    return [*shape, *check_skipped(data.skipped), *check_unread(data.unread), *check_rated(data.rated)]


def check_rated(rated: Rated) -> list[Finding]:
    """A warning of pairs whose chosen side has the lower score in columns of their own."""
    if not rated.lower:
        return []
    share = f"{len(rated.lower) / rated.both:.1%} of the {rated.both:,} that have both"
    what = f"{quoted(rated.columns[0])} below {quoted(rated.columns[1])} ({share}); if higher is better, turn or remove"
    found = row_finding("rated_lower", Marked(rated.lower), f"has its {what} it", f"have their {what} them")
    return [found] if found else []


def check_unread(columns: Sequence[str]) -> list[Finding]:
    """A note on columns that look like content and are not read."""
    if not columns:
        return []
    what = f"column {listed(columns)} is" if len(columns) == 1 else f"columns {listed(columns)} are"
    message = f"{what} not read; what belongs to the prompt has to stand in it"
    return [Finding("unread", len(columns), (), message)]


def check_skipped(skipped: Sequence[Skipped]) -> list[Finding]:
    """One warning for each reason that rows were left out, the most frequent first."""
    by_reason: dict[str, Marked] = {}
    for skip in skipped:
        by_reason.setdefault(skip.reason, Marked()).add(skip.row)
    return [
        Finding("skipped", rows.count, tuple(rows.first), f"{rows.counted('row')} left out: {reason}")
        for reason, rows in sorted(by_reason.items(), key=lambda item: -item[1].count)
    ]


class Marked:
    """Rows that something is the matter with: how many, and the first of them."""

    def __init__(self, rows: Iterable[int] = ()) -> None:
        self.every = array("q")
        for row in rows:
            self.add(row)

    def add(self, row: int, *, once: bool = False) -> None:
        """Take in a row; `once`: unless it was the last one that was."""
        if not (once and self.every and self.every[-1] == row):
            self.every.append(row)

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.every)

    @property
    def first(self) -> list[int]:
        """The first of them."""
        return self.every[:SHOWN_ROWS].tolist()

    def counted(self, noun: str) -> str:
        """For instance "1 pair (row 7)" or "12 rows (rows 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and 2 more)"."""
        if self.count == 1:
            return f"1 {noun} (row {self.first[0]})"
        shown = ", ".join(map(str, self.first))
        more = f" and {self.count - SHOWN_ROWS} more" if self.count > SHOWN_ROWS else ""
        return f"{self.count} {noun}s (rows {shown}{more})"


class _Seen:
    """Of every pair seen: its row, and 64-bit hashes of its prompt, of the pair, and of the pair turned round."""

    def __init__(self) -> None:
        self.rows, self.prompts, self.pairs, self.turned = array("q"), array("Q"), array("Q"), array("Q")
        self.longer = self.ties = 0

    def add(self, pair: Pair) -> None:
        prompt = hashed((pair.prompt, pair.beside) if pair.beside else pair.prompt)
        chosen, rejected = hashed(pair.chosen), hashed(pair.rejected)
        self.rows.append(pair.row)
        self.prompts.append(prompt)
        self.pairs.append(hashed((prompt, chosen, rejected)))
        self.turned.append(hashed((prompt, rejected, chosen)))
        lengths = len(said(pair.chosen)), len(said(pair.rejected))
        self.longer += lengths[0] > lengths[1]
        self.ties += lengths[0] == lengths[1]

    def marked(self, which: np.ndarray) -> Marked:
        """The rows where `which` holds."""
        return Marked(np.asarray(self.rows)[which].tolist())


def hashed(content: object) -> int:
    """The same number for the same text, dialogue or numbers."""
    return int.from_bytes(hashlib.blake2b(repr(content).encode(), digest_size=8).digest(), "little")


def _duplicate(seen: _Seen) -> Finding | None:
    repeated = np.ones(len(seen.rows), dtype=bool)
    repeated[np.unique(np.asarray(seen.pairs), return_index=True)[1]] = False
    text = "an earlier pair word for word"
    return row_finding("duplicate", seen.marked(repeated), f"repeats {text}", f"repeat {text}")


def _contradictory(seen: _Seen) -> Finding | None:
    pairs, turned = np.asarray(seen.pairs), np.asarray(seen.turned)
    text = "prefer one response to another where a different pair prefers the second to the first"
    rows = seen.marked(np.isin(turned, pairs) & (pairs != turned))
    return row_finding("contradictory", rows, text, text)  # never a single row


def _shared_prompt(seen: _Seen) -> Finding | None:
    _, prompt, counts = np.unique(np.asarray(seen.prompts), return_inverse=True, return_counts=True)
    text = (
        f"share their prompt with another pair ({counted(len(counts), 'distinct prompt')} in {len(prompt):,} pairs, "
        f"at most {counted(int(counts.max()), 'pair')} for one): hold out whole prompts"
    )
    rows = seen.marked(counts[prompt] > 1)
    return row_finding("shared_prompt", rows, text, text)  # never a single row


def _prompt_repeated(pair: Pair) -> bool:
    prompt = (pair.prompt if isinstance(pair.prompt, str) else pair.prompt[-1].content).strip()
    starts = any(said(side).lstrip().startswith(prompt) for side in (pair.chosen, pair.rejected))
    return starts and len(prompt) >= LONG_PROMPT


def _answered(pair: Pair) -> bool:
    """Whether a prompt that is text ends with one of its answers."""
    if not isinstance(pair.prompt, str):
        return False
    ends, prompt = (said(pair.chosen).strip(), said(pair.rejected).strip()), pair.prompt.rstrip()
    return any(len(end) >= LONG_PROMPT and prompt.endswith(end) for end in ends)


def _is_a_list(pair: Pair) -> bool:
    """Whether both responses are a list of texts, written as JSON or as Python prints it."""
    return all(_LIST.match(said(response)) for response in (pair.chosen, pair.rejected))


def _template_tokens(pair: Pair) -> set[str]:
    return {*_TEMPLATE.findall(said(pair.chosen)), *_TEMPLATE.findall(said(pair.rejected))}


def _turns(pair: Pair) -> bool:
    """Many chat templates raise an error here, and others were never trained on it."""
    if isinstance(pair.prompt, str):
        return False
    if any(turn.role == "tool" for turn in pair.prompt):  # what a call brought comes between two turns of the assistant
        return False
    speakers = [turn.role for turn in pair.prompt if turn.role in ("user", "assistant") and not turn.unfinished]
    return speakers != ["user", "assistant"] * (len(speakers) // 2) + ["user"]


_OF_ONE_PAIR: dict[str, Callable[[Pair], bool]] = {
    "identical": lambda pair: pair.chosen == pair.rejected,
    "prompt_repeated": _prompt_repeated,
    "template_token": lambda pair: bool(_template_tokens(pair)),
    "turns": _turns,
    "answered": _answered,
    "list": _is_a_list,
}


def _longer_wins(seen: _Seen) -> Finding:
    count = len(seen.rows)
    share = (seen.longer + 0.5 * seen.ties) / count
    rule = "longer" if share >= 0.5 else "shorter"
    best = max(share, 1 - share)
    ties = f"{counted(seen.ties, 'tie')} {'counts' if seen.ties == 1 else 'count'} half"
    message = (
        f'"the {rule} response wins" is right for {best:.1%} of the {counted(count, "pair")} '
        f"(in characters; {ties}): a baseline that any method should beat"
    )
    return Finding("longer_wins", count, (), message)


def row_finding(name: str, rows: Marked, one: str, many: str) -> Finding | None:
    """The rows counted and named before what is the matter with them; None where there are none."""
    if not rows.count:
        return None
    message = f"{rows.counted('pair')} {one if rows.count == 1 else many}"
    return Finding(name, rows.count, tuple(rows.first), message)
