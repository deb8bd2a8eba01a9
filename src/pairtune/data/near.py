"""Prompts that are nearly the same, in groups; and what a text is known by.

Candidates by MinHash (datasketch), those that share a band of their hashes; each is then held to be near only if its
words in threes truly overlap.
"""

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any
from zlib import crc32

import numpy as np
from datasketch import MinHash, MinHashLSH
from scipy.cluster.hierarchy import DisjointSet

from pairtune.data.pieces import in_pieces
from pairtune.data.schema import PromptText
from pairtune.data.shorten import OPENING

# Share of the words in threes of two texts together that both have: from here on they are nearly the same.
NEAR = 0.8
HASHES, WORDS = 64, 3
# Bands, and hashes in each: texts that share four fifths of their threes share a band in 99 of 100 cases, those that
# share nine tenths in all but one of 40,000.
BANDS, WIDTH = 12, 5
# Candidates of one band that are all held against each other; of more, each against so many that differ.
ALL = 64
# Texts whose words in threes are kept for the next comparison.
KEPT = 4096
_EMPTY = MinHash(num_perm=HASHES, seed=1, hashfunc=crc32)  # to be copied: its permutations are slow to draw


def index() -> Any:
    """An empty index of texts' hashes."""
    return MinHashLSH(num_perm=HASHES, params=(BANDS, WIDTH))


def plain(prompt: PromptText) -> str:
    """A prompt's words in small letters: what was asked, without a system's turn."""
    turns = [prompt] if isinstance(prompt, str) else [turn.content for turn in prompt if turn.role not in OPENING]
    return " ".join(re.findall(r"\w+", " ".join(turns).lower()))


def shingles(text: str) -> set[str]:
    """The words in threes of a plain text; none of a text of fewer."""
    words = text.split()
    return {" ".join(words[i : i + WORDS]) for i in range(len(words) - WORDS + 1)}


def minhash(of: set[str]) -> Any:
    """The hashes that an index takes."""
    found = _EMPTY.copy()
    found.update_batch([shingle.encode() for shingle in of])
    return found


def overlap(mine: set[str], theirs: set[str]) -> bool:
    """Whether texts of these words in threes are nearly the same."""
    return len(mine & theirs) >= NEAR * len(mine | theirs)


def near_groups(rows: Sequence[Any]) -> np.ndarray:
    """The first row of each row's group: rows whose prompts are nearly the same, also by way of a third. [N]

    Texts of fewer than three words are near to none. Where more than ALL texts share a band of hashes, as those written
    by one form may, each is held against so many of them that are not near to each other, and not against all.
    """

    def piece(begin: int, end: int) -> bytes:
        return np.array([_bands(plain(row.prompt)) for row in rows[begin:end]], dtype=np.int64).tobytes()

    band_NB = np.frombuffer(b"".join(in_pieces(piece, len(rows))), dtype=np.int64).reshape(-1, BANDS)
    told = lru_cache(KEPT)(lambda row: shingles(plain(rows[row].prompt)))
    buckets = [bucket for band_N in band_NB.T for bucket in _buckets(band_N)]
    joined, first_N = DisjointSet(set().union(*buckets)), np.arange(len(rows))
    for bucket in buckets:
        _join(joined, bucket, told)
    for group in joined.subsets():
        first_N[list(group)] = min(group)
    return first_N


def _bands(text: str) -> list[int]:
    """A number for each band of a text's hashes; zeros for a text that is near to none."""
    found = shingles(text)
    if not found:
        return [0] * BANDS
    value_BW = minhash(found).hashvalues[: BANDS * WIDTH].reshape(BANDS, WIDTH)
    return [hash(tuple(band)) for band in value_BW.tolist()]


def _buckets(band_N: np.ndarray) -> list[list[int]]:
    """The rows of each number that several have, in their order."""
    order = np.argsort(band_N, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(band_N[order])) + 1)
    return [part.tolist() for part in parts if len(part) > 1 and band_N[part[0]]]


def _join(joined: Any, bucket: list[int], told: Callable[[int], set[str]]) -> None:
    """Rows that share a band, each with those that it is truly near to."""
    few, apart = len(bucket) <= ALL, list[int]()
    for row in bucket:
        known = False
        for other in apart[-ALL:]:
            near = joined.connected(row, other) or overlap(told(row), told(other))
            if near:
                joined.merge(row, other)
                known = True
                if not few:
                    break
        if few or not known:
            apart.append(row)
