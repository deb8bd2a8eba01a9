"""What the texts themselves show: lengths, refusals that were preferred, other scripts, characters nobody sees."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from functools import cache

import numpy as np

from pairtune.data.check import Finding, Marked, row_finding
from pairtune.data.schema import Labelled, Pair, PromptText, said
from pairtune.progress import counted

#: How an answer that declines begins, in English: a heuristic.
REFUSAL = re.compile(
    r"\W*(?:(?:i'?m|i am|we'?re)\s+(?:(?:very|so|really|truly)\s+)?(?:sorry|afraid)"
    r"|sorry|i apologi[sz]e|my apologies"
    r"|(?:unfortunately,?\s+)?i(?:\s+(?:can'?t|cannot|can not|won'?t|will not)|(?:'m|\s+am)\s+(?:not able|unable) to)"
    r"|as an ai\b|as a language model)",
    re.IGNORECASE,
)
# Characters that are seen by nobody: C0 and C1 but for tab and line ends, those that turn text round, those of no
# width but the joiners that scripts need, and what a broken encoding leaves.
_UNSEEN = re.compile(
    r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200b\u2028\u2029\u202a-\u202e\u2060-\u2069\ufeff\ufffd\ufff0-\ufffb]"
)
# Letters of a text that its script is told by.
LETTERS = 200
BARS = "▁▂▃▄▅▆▇█"
BINS = 16


def check_texts(rows: Iterable[Pair] | Iterable[Labelled]) -> list[Finding]:
    """All findings on the texts of pairs, or of labelled responses; none for no rows."""
    unseen, refusing, alike = Marked(), Marked(), [0.0, 0]
    characters: Counter[str] = Counter()
    scripts: dict[str, Marked] = {}
    lengths: list[int] = []
    total = 0
    for row in rows:
        total += 1
        chosen, *others = _responses(row)
        for response in (chosen, *others):
            lengths.append(len(response))
            scripts.setdefault(script_of(response), Marked()).add(row.row, once=True)
        if hidden := unseen_in(row):
            unseen.add(row.row)
            characters.update(set(hidden))
        if others and REFUSAL.match(chosen) and not REFUSAL.match(others[0]):
            refusing.add(row.row)
        if others:
            words = set(_words(_text(row.prompt)))
            shares = [_share_in(words, response) for response in (chosen, *others)]
            alike[0] += 0.5 if shares[0] == shares[1] else float(shares[0] > shares[1])
            alike[1] += 1
    if not total:
        return []
    named = ", ".join(
        f"{_name(character)} in {counted(count, 'row')}" for character, count in characters.most_common(5)
    )
    found = [
        row_finding(
            "control",
            unseen,
            f"holds characters that nobody sees ({named})",
            f"hold characters that nobody sees ({named})",
        ),
        row_finding(
            "refusal",
            refusing,
            "prefers an answer that declines to one that does not (by its first words, in English)",
            "prefer an answer that declines to one that does not (by its first words, in English)",
        ),
        _other_scripts(scripts),
        _like_the_prompt(*alike) if alike[1] else None,
        Finding("lengths", len(lengths), (), _told_lengths(np.array(lengths))),
    ]
    return [each for each in found if each is not None]


def unseen_in(row: Pair | Labelled) -> list[str]:
    """The characters of a row that nobody sees."""
    return _UNSEEN.findall("".join((_text(row.prompt), *_responses(row))))


def script_of(text: str) -> str:
    """The script that most of a text's first letters are of, by their names in Unicode: LATIN, CYRILLIC, CJK, ..."""
    if text.isascii():
        return "LATIN" if any(map(str.isalpha, text)) else ""
    letters = (character for character in text if character.isalpha())
    counts = Counter(_script(character) for character, _ in zip(letters, range(LETTERS), strict=False))
    return counts.most_common(1)[0][0] if counts else ""


@cache
def _script(character: str) -> str:
    return unicodedata.name(character, "?").split()[0].split("-")[0]


def _other_scripts(scripts: dict[str, Marked]) -> Finding | None:
    written = {name: rows for name, rows in scripts.items() if name}
    if len(written) < 2:
        return None
    main = max(written, key=lambda name: written[name].count)
    others, rows = [name for name in written if name != main], Marked()
    for row in sorted({row for name in others for row in written[name].every}):
        rows.add(row)
    said_of = ", ".join(f"{name.capitalize()} {written[name].count}" for name in sorted(others))
    what = f"a response in another script than the others' {main.capitalize()} ({said_of})"
    return row_finding("script", rows, f"has {what}", f"have {what}")


def _like_the_prompt(wins: float, total: float) -> Finding:
    share = wins / total
    rule, best = ("more", share) if share >= 0.5 else ("less", 1 - share)
    message = f'"the response with {rule} of the prompt\'s words in it wins" is right for {best:.1%} of the pairs'
    return Finding("like_prompt", int(total), (), message)


def _told_lengths(length_N: np.ndarray) -> str:
    low, middle, high = (int(value) for value in np.percentile(length_N, [5, 50, 95]))
    edges = np.geomspace(max(1, length_N.min()), max(2, length_N.max() + 1), BINS + 1)
    counts, _ = np.histogram(np.maximum(length_N, 1), bins=edges)
    bars = "".join(
        BARS[min(len(BARS) - 1, int(len(BARS) * count / counts.max()))] if count else " " for count in counts
    )
    span = f"{int(length_N.min()):,} to {int(length_N.max()):,}"
    return f"responses have {span} characters, nine in ten {low:,} to {high:,}, half at most {middle:,}  |{bars}|"


def _share_in(words: set[str], response: str) -> float:
    own = _words(response)
    return sum(word in words for word in own) / len(own) if own else 0.0


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def _responses(row: Pair | Labelled) -> list[str]:
    return [said(row.chosen), said(row.rejected)] if isinstance(row, Pair) else [said(row.response)]


def _text(prompt: PromptText) -> str:
    return prompt if isinstance(prompt, str) else "\n".join(turn.content for turn in prompt)


def _name(character: str) -> str:
    return f"U+{ord(character):04X}"
