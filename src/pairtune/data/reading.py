"""A sampled answer as a person reads it: without the marks that a chat template wraps it in."""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from pairtune.data.dialogue import PROBE, RefusedError, render
from pairtune.data.ends import end_ids


class Reader:
    """Reads the answers of one model."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer, self.ends = tokenizer, end_ids(tokenizer)
        self.opening = _opening(tokenizer) if tokenizer.chat_template else []

    def continuation(self, prompt: Sequence[int], response: Sequence[int]) -> str:
        """How raw text goes on: prompt and answer decoded together, less the prompt."""
        body = [token for token in response if token not in self.ends]
        before = self.text(prompt)
        whole = self.text([*prompt, *body])
        return whole[len(before) :] if whole.startswith(before) else self.text(body)

    def answer(self, prompt: Sequence[int], response: Sequence[int]) -> str:
        """An answer to a dialogue, after what the template writes before every answer."""
        size, body = len(self.opening), list(response)
        places = [at for at in range(len(body)) if size and body[at : at + size] == self.opening]
        return self.continuation(prompt, body[places[-1] + size :] if places else body).strip()

    def text(self, ids: Sequence[int]) -> str:
        """Tokens as text, special ones left out."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))


def _opening(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """What the template writes of an answer before its text: a channel's mark, an empty think block, or nothing."""
    try:
        asked, whole = render(tokenizer, PROBE[:1], to_be_answered=True), render(tokenizer, PROBE)
    except RefusedError:
        return []
    before, found, _ = whole.removeprefix(asked).partition(PROBE[-1].content)
    opened = before.strip() if found and whole.startswith(asked) else ""
    return list(tokenizer(opened, add_special_tokens=False)["input_ids"]) if opened else []
