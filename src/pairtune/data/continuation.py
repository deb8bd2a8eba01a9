"""Raw text to tokens: a prompt that goes on, and a response that begins where it stops, with no space invented.

Both are tokenised apart, which is what a sampler sees, so the boundary never moves. Some tokenizers put a space before
every text; a response there is tokenised behind an anchor that is then taken away.
"""

from collections.abc import Iterator
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

# Texts whose tokens hardly ever merge with what follows.
_ANCHORS = ("\n", ".", "0", "a")


class Continued(NamedTuple):
    """A response's ids, and how they stand to its text."""

    ids: list[int]
    as_whole: bool  # the whole text, tokenised at once, has the same tokens
    lossless: bool  # prompt and response decode to the text that was given


class Continuation:
    """What a tokenizer makes of raw text."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        plain, full = self.ids("a"), list(tokenizer("a")["input_ids"])
        places = [at for at in range(len(full)) if full[at : at + len(plain)] == plain]
        self.opening = full[: places[0]] if places else []  # what it puts before every text: BOS, or nothing

    def prompt(self, text: str) -> list[int]:
        """Ids of a text that something will follow: one BOS at most, whoever wrote it, and no end that nobody wrote."""
        if not text:  # there must be one token to predict the first token from
            bos, eos = self.tokenizer.bos_token_id, self.tokenizer.eos_token_id
            return list(self.tokenizer("")["input_ids"])[:1] or [int(eos if bos is None else bos)]
        ids, opening = [*self.opening, *self.ids(text)], self.opening or [self.tokenizer.bos_token_id]
        size = len(opening)
        while ids[:size] == opening == ids[size : 2 * size]:  # the text had brought its own
            ids = ids[size:]
        return ids

    def response(self, prompt: str, text: str) -> Continued:
        """Ids of a response as it goes on after the prompt: decode(prompt + response) is decode(prompt) + the response.

        Where the tokenizer cannot write the text so, its plain tokens.
        """
        before, whole = self.ids(prompt), self.ids(prompt + text)
        written = self._decode(before)
        for ids in self._candidates(text, before, whole):
            if self._decode([*before, *ids]) == written + text:
                return Continued(ids, [*before, *ids] == whole, written == prompt)
        return Continued(self.ids(text), True, False)

    def ids(self, text: str) -> list[int]:
        """The text's tokens and nothing else."""
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _candidates(self, text: str, before: list[int], whole: list[int]) -> Iterator[list[int]]:
        """Ways of tokenising a response, the plainest first."""
        yield self.ids(text)
        for anchor in _ANCHORS:
            held, behind = self.ids(anchor), self.ids(anchor + text)
            if behind[: len(held)] == held:
                yield behind[len(held) :]
        if whole[: len(before)] == before:
            yield whole[len(before) :]

    def _decode(self, ids: list[int]) -> str:
        return str(self.tokenizer.decode(ids, clean_up_tokenization_spaces=False))
