"""Raw text to tokens: a prompt that goes on, and a response that begins where it stops, with no space invented.

Both are tokenised apart, which is what a sampler sees, so the boundary never moves. Some tokenizers put a space before
every text; a response there is tokenised behind an anchor that is then taken away.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

# Texts whose tokens hardly ever merge with what follows; "" is a response by itself.
_ANCHORS = ("", "\n", ".", "0", "a")
# Merges do not reach further than so many characters on either side of a boundary, and from there to white space.
_REACH = 64


class Continued(NamedTuple):
    """A response's ids, and how they stand to its text."""

    ids: list[int]
    as_whole: bool  # the whole text, tokenised at once, has the same tokens there
    lossless: bool  # prompt and response decode to the text that was given


class Continuation:
    """What a tokenizer makes of raw text."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        self.latest: tuple[str, list[int]] = "", []
        plain, full = self.ids("a"), list(tokenizer("a")["input_ids"])
        places = [at for at in range(len(full)) if full[at : at + len(plain)] == plain]
        self.opening = full[: places[0]] if places else []  # what it puts before every text: BOS, or nothing
        self.held = {anchor: self.ids(anchor) if anchor else [] for anchor in _ANCHORS}
        works = [anchor for anchor in _ANCHORS if self._works(anchor)]
        # A tokenizer that cannot write even this (it joins words by spaces, say) is taken as it is.
        self.anchors = (works[0], *(anchor for anchor in _ANCHORS if anchor != works[0])) if works else ()

    def prompt(self, text: str) -> list[int]:
        """Ids of a text that something will follow: one BOS at most, and no end but one that the text has."""
        if not text:  # there must be one token to predict the first token from
            bos, eos = self.tokenizer.bos_token_id, self.tokenizer.eos_token_id
            return list(self.tokenizer("")["input_ids"])[:1] or [int(eos if bos is None else bos)]
        ids, opening = [*self.opening, *self._ids_of_prompt(text)], self.opening or [self.tokenizer.bos_token_id]
        size = len(opening)
        while ids[:size] == opening == ids[size : 2 * size]:  # the text had brought its own
            ids = ids[size:]
        return ids

    def responses(self, prompt: str, texts: Sequence[str]) -> Iterator[Continued]:
        """Responses as they go on after the prompt: decode(prompt + response) is decode(prompt) + the response.

        Where the tokenizer cannot write the text so (it changes letters, say), its tokens in the usual way.
        """
        before = self._ids_of_prompt(prompt)
        written = self._decode(before)
        left = prompt[_word_before(prompt, len(prompt) - _REACH) :]
        near = self.ids(left)
        for text in texts:
            ways = self._ways(prompt, text, before)
            first = next(ways)
            ids: list[int] | None = first
            while ids is not None and not self._goes_on(written, before, ids, text):
                ids = next(ways, None)
            lossless = ids is not None and written == prompt
            ids = first if ids is None else ids
            yield Continued(ids, self._as_whole(left, near, text, ids), lossless)

    def ids(self, text: str) -> list[int]:
        """The text's tokens and nothing else."""
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _ways(self, prompt: str, text: str, before: list[int]) -> Iterator[list[int]]:
        """Ways of tokenising a response, the usual one first; one at least."""
        if not prompt:
            yield self.ids(text)
        for anchor in self.anchors:
            behind = self._behind(anchor, text)
            if behind is not None:
                yield behind
        if self.anchors:
            whole = self.ids(prompt + text)
            if whole[: len(before)] == before:
                yield whole[len(before) :]
        yield self.ids(text)

    def _behind(self, anchor: str, text: str) -> list[int] | None:
        """The text's tokens behind an anchor; None if it merges with the text."""
        held, ids = self.held[anchor], self.ids(anchor + text)
        return ids[len(held) :] if ids[: len(held)] == held else None

    def _works(self, anchor: str) -> bool:
        behind = self._behind(anchor, "a")
        return behind is not None and self._goes_on("(", self.ids("("), behind, "a")

    def _goes_on(self, written: str, before: list[int], ids: list[int], text: str) -> bool:
        return self._decode([*before, *ids]) == written + text

    def _as_whole(self, left: str, near: list[int], text: str, ids: list[int]) -> bool:
        """Whether the text around the boundary has the same tokens when it is tokenised at once."""
        right = text[: _word_after(text, _REACH)]
        whole = self.ids(left + right)
        rest = whole[len(near) :]
        return whole[: len(near)] == near and (ids[: len(rest)] == rest if right != text else ids == rest)

    def _ids_of_prompt(self, text: str) -> list[int]:
        """The same as `ids`, which is asked for twice of a prompt."""
        if self.latest[0] != text:
            self.latest = text, self.ids(text)
        return self.latest[1]

    def _decode(self, ids: list[int]) -> str:
        return str(self.tokenizer.decode(ids, clean_up_tokenization_spaces=False))


def _word_before(text: str, place: int) -> int:
    """Where white space begins before a word, at `place` or earlier; 0 if nowhere."""
    while place > 0 and not (text[place].isspace() and not text[place - 1].isspace()):
        place -= 1
    return max(place, 0)


def _word_after(text: str, place: int) -> int:
    """Where white space begins after a word, at `place` or later; the text's length if nowhere."""
    while 0 < place < len(text) and not (text[place].isspace() and not text[place - 1].isspace()):
        place += 1
    return place
