"""Texts that are nearly the same: prompts among each other, and with those of another file.

Candidates by MinHash (datasketch); each is then told only if its words in threes truly overlap.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any
from zlib import crc32

from datasketch import MinHash, MinHashLSH

from pairtune.data.check import Finding, Marked, row_finding
from pairtune.data.schema import Labelled, Pair, Prompt, PromptText
from pairtune.data.shorten import OPENING
from pairtune.progress import counted

# Share of the words in threes of two texts together that both have: from here on they are nearly the same.
NEAR = 0.8
HASHES, WORDS = 64, 3
# Hashes estimate: candidates are looked for from a little lower on.
CANDIDATES = 0.7
# Distinct prompts that are held against each other; of more, the first of these.
MOST = 50_000
_EMPTY = MinHash(num_perm=HASHES, seed=1, hashfunc=crc32)  # to be copied: its permutations are slow to draw
Rows = Sequence[Pair] | Sequence[Labelled]


def near_prompts(rows: Rows) -> Finding | None:
    """Rows whose prompt is nearly, and not wholly, that of an earlier row."""
    seen: dict[str, None] = {}
    index, near = _index(), Marked()
    for row in rows:
        text = plain(row.prompt)
        if text in seen or len(seen) == MOST:
            continue
        seen[text] = None
        if (shingles := _shingles(text)) and _matches(index, text, shingles):
            near.add(row.row)
    more = f" (of the first {MOST:,} prompts)" if len(seen) == MOST else ""
    what = f"a prompt that is nearly that of an earlier row{more}"
    return row_finding("near_prompt", near, f"has {what}", f"have {what}")


def shared_with(rows: Rows, others: Iterable[Prompt], name: str) -> Finding | None:
    """Rows whose prompt, or a user's turn of it, is one of another file's, in other letters and spaces or nearly."""
    index, exact = _index(), set[str]()
    for other in others:
        text = plain(other.prompt)
        exact.add(text)
        if shingles := _shingles(text):
            index.insert(text, _minhash(shingles), check_duplication=False)
    shared, same = Marked(), 0
    for row in rows:
        found = None
        for text in _asked(row.prompt):
            shingles = _shingles(text)
            found = "same" if text in exact else found or (_near(index, shingles) if shingles else None)
        if found:
            shared.add(row.row)
            same += found == "same"
    what = f"a prompt that {name} has too ({counted(same, 'of them word for word', 'of them word for word')})"
    return row_finding("shared_with", shared, f"has {what}", f"have {what}")


def plain(prompt: PromptText) -> str:
    """A prompt's words in small letters: what was asked, without a system's turn."""
    turns = [prompt] if isinstance(prompt, str) else [turn.content for turn in prompt if turn.role not in OPENING]
    return " ".join(re.findall(r"\w+", " ".join(turns).lower()))


def _asked(prompt: PromptText) -> Iterator[str]:
    yield plain(prompt)
    if not isinstance(prompt, str) and len(prompt) > 1:
        yield from (plain(turn.content) for turn in prompt if turn.role == "user")


def _shingles(text: str) -> set[str]:
    """Its words in threes; none of a text of fewer."""
    words = text.split()
    return {" ".join(words[i : i + WORDS]) for i in range(len(words) - WORDS + 1)}


def _index() -> Any:
    return MinHashLSH(threshold=CANDIDATES, num_perm=HASHES)


def _minhash(shingles: set[str]) -> Any:
    found = _EMPTY.copy()
    found.update_batch([shingle.encode() for shingle in shingles])
    return found


def _matches(index: Any, text: str, shingles: set[str]) -> bool:
    """Whether the index holds a text that is nearly this one, which it then holds too."""
    own = _minhash(shingles)
    found = any(_overlap(shingles, other) for other in index.query(own))
    index.insert(text, own, check_duplication=False)
    return found


def _near(index: Any, shingles: set[str]) -> str | None:
    return "near" if any(_overlap(shingles, other) for other in index.query(_minhash(shingles))) else None


def _overlap(shingles: set[str], other: str) -> bool:
    theirs = _shingles(other)
    return len(shingles & theirs) >= NEAR * len(shingles | theirs)
