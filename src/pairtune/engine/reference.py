"""The reference's log-probabilities: computed once per response token, kept on disk by content.

Values are found by what they depend on: weights and configuration, dtype and device, what computes there, the versions
of torch, transformers and the engine (a folder of the cache), the token ids of prompt and response (an entry there).
So another beta, objective, seed, split, order or subset of the same pairs finds them again; an edited model or data set
never does.
"""

from array import array
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from pairtune import parallel
from pairtune.cache import cache_folder
from pairtune.data.pack import Tokens, batches_by_length, pack, row_lengths
from pairtune.engine.content import about, model_key
from pairtune.engine.cost import Cost, measured, together
from pairtune.engine.hidden import fair_budget, from_ranks, own_numbers, shared_passes
from pairtune.engine.logprob import idle_pass, token_logprobs
from pairtune.engine.logprob_store import Kept, LogprobFile, find, open_files, response_digests, write_file
from pairtune.engine.sharded import keeping_up
from pairtune.engine.version import engine_version
from pairtune.progress import counted

# Tokens of rows after which a pass keeps what it has: what an interruption may cost, and what memory must hold.
TOKENS_PER_FILE = 1 << 20


def compute_logprobs(
    model: PreTrainedModel,
    rows: Sequence[Tokens],
    *,
    temperature: float = 1.0,
    progress: Callable[[int], None] = lambda rows: None,
) -> list[Tensor]:
    """log π of every response token, without gradients: for each row, its responses' tokens end to end, float32.

    Several ranks share the passes out, and each gets all values.
    """
    result: list[Tensor] = [torch.empty(0)] * len(rows)
    groups = shared_passes(rows, model.device)
    own = own_numbers(groups)
    passed = _passes(model, rows, [groups[number] for number in own], temperature=temperature, progress=progress)
    with torch.no_grad(), keeping_up(model, len(own), lambda: idle_pass(model, rows[0])):
        found = {number: logprobs_R for number, (_, _, logprobs_R) in zip(own, passed, strict=True)}
    for group, logprobs_R in zip(groups, from_ranks(groups, found), strict=True):
        sizes = [sum(len(response) for response in rows[i].responses) for i in group]
        for i, values in zip(group, logprobs_R.split(sizes), strict=True):
            result[i] = values.clone()
    return result


def reference_logprobs(
    model: PreTrainedModel,
    rows: Sequence[Tokens],
    *,
    say: Callable[[str], None] = lambda line: None,
    progress: Callable[[int], None] = lambda rows: None,
) -> tuple[Sequence[Tensor], Cost]:
    """`compute_logprobs` of a frozen model, memory-mapped, from the cache what has been computed before; and its cost.

    The cost is that of a pass over these rows: what was spent now on those that were not in the cache, and for the
    others their tokens' share of what the passes cost in which they were computed. It does not depend on the cache.
    """
    folder = _folder(model, say)
    files, damaged = open_files(folder)
    if damaged:
        what = "a cached file does" if damaged == 1 else f"{damaged} cached files do"
        say(f"reference: {what} not hold what was written; computing those values again")
    digests, counts = response_digests(rows)
    last = counts.cumsum()
    places = np.stack([last - counts, last], axis=1)
    found = find(files, digests)
    lengths = row_lengths(rows)
    missing = np.zeros(len(rows), dtype=bool)
    missing[np.repeat(np.arange(len(rows)), counts)[found[:, 0] < 0]] = True
    missing = _on_any_rank(missing)
    hits = len(rows) - int(missing.sum())
    cost = _recorded(files, found[places[~missing, 0], 0], lengths[~missing])
    if hits:
        some = f"{hits:,} of {counted(len(rows), 'row')}" if hits < len(rows) else counted(hits, "row")
        say(f"reference: {some} from the cache")
        progress(hits)
    for groups in _portions(np.flatnonzero(missing), lengths, fair_budget(int(lengths[missing].sum()), model.device)):
        computed, sizes = array("q"), array("q")  # of the responses of these groups: which, and their tokens
        own = own_numbers(groups)
        with measured(part=True) as spent:
            passed = _passes(model, rows, [groups[number] for number in own], progress=progress)
            values = from_ranks(groups, {number: part for number, (_, _, part) in zip(own, passed, strict=True)})
        for group in groups:
            for i in group:
                computed.extend(range(*places[i].tolist()))
                sizes.extend(map(len, rows[i].responses))
        spent = together(spent)
        cost += spent
        tokens = int(lengths[[i for group in groups for i in group]].sum())
        files.append(  # every rank: the same bytes, so one file on each machine's disk
            write_file(folder, digests[computed], sizes, torch.cat(values), spent, tokens=tokens, about=about(model))
        )
    return Kept(files, find(files, digests), places), cost


def _folder(model: PreTrainedModel, say: Callable[[str], None]) -> Path:
    """The model's folder. Values of another engine version are said to be no use, once: its own folder then exists."""
    parent, key = cache_folder() / "reference", model_key(model)
    folder = parent / f"{key}-v{engine_version()}"
    others = sorted(path.name.rpartition("-v")[2] for path in parent.glob(f"{key}-v*"))
    if others and not folder.is_dir():
        say(
            f"reference: the cached values are of engine version {', '.join(others)} and this is version "
            f"{engine_version()}; computing them again"
        )
    return folder


def _passes(
    model: PreTrainedModel,
    rows: Sequence[Tokens],
    groups: Sequence[Sequence[int]],
    *,
    temperature: float = 1.0,
    progress: Callable[[int], None],
) -> Iterator[tuple[Sequence[int], list[Tokens], Tensor]]:
    """A pass for each group of rows: their indices, the rows, and the values of their responses end to end."""
    for group in groups:
        chosen = [rows[i] for i in group]
        with torch.no_grad():
            logprobs_R = token_logprobs(model, pack(chosen).to(model.device), temperature=temperature).cpu()
        yield group, chosen, logprobs_R
        progress(len(group))


def _portions(missing: np.ndarray, lengths: np.ndarray, limit: int) -> Iterator[list[list[int]]]:
    """The missing rows in groups for one pass each, and these in portions that are kept together."""
    portion: list[list[int]] = []
    room = TOKENS_PER_FILE
    for group in batches_by_length(lengths[missing], limit):
        indices = missing[group]
        portion.append(indices.tolist())
        room -= int(lengths[indices].sum())
        if room <= 0:
            yield portion
            portion, room = [], TOKENS_PER_FILE
    if portion:
        yield portion


def _recorded(files: Sequence[LogprobFile], file_N: np.ndarray, length_N: np.ndarray) -> Cost:
    """What a pass over rows cost that lie on these files, by their number of tokens."""
    tokens = np.bincount(file_N, weights=length_N, minlength=len(files)).tolist()
    shares = (file.cost * (asked / file.tokens) for file, asked in zip(files, tokens, strict=True) if asked)
    return sum(shares, Cost())


def _on_any_rank(missing: np.ndarray) -> np.ndarray:
    """The rows whose values some rank has to compute; one machine's cache may hold what another's does not."""
    if parallel.working() == 1:
        return missing
    each = parallel.gather({"missing": torch.from_numpy(missing)})
    found: np.ndarray = np.logical_or.reduce([other["missing"].numpy() for other in each])
    return found
