"""Rows to token ids: the chat template, the boundary between prompt and response, end of text, truncation.

A prompt and its response are tokenised apart and joined, which is what a sampler sees, so the boundary never moves.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from pairtune.data.pack import Tokens
from pairtune.data.schema import Demonstration, Labelled, Pair, PromptText
from pairtune.data.token_rows import TokenRows, store_tokens
from pairtune.errors import InputError


@dataclass(frozen=True)
class Encoded:
    """Token rows in the order of their sources, and which rows truncation touched (their numbers in the source)."""

    rows: TokenRows
    origins: tuple[int, ...]  # the source's row number of each token row
    shortened: tuple[int, ...]  # a prompt lost its beginning
    cut: tuple[int, ...]  # a response lost its end, and so its end-of-text token
    dropped: tuple[int, ...]  # nothing left to learn from: both responses equal after truncation


def encode_prompt(prompt: PromptText, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Ids of a prompt: raw text as it is (with the one BOS its tokenizer adds), a dialogue by the chat template.

    A dialogue whose tokenizer has no chat template is written as a plain transcript of its turns.
    """
    if isinstance(prompt, str):
        return _open_ended(prompt, tokenizer) or [_first_token(tokenizer)]
    turns = [{"role": turn.role, "content": turn.content} for turn in prompt]
    if tokenizer.chat_template:
        text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])
    names = {"user": "Human", "assistant": "Assistant"}
    text = "".join(f"\n\n{names.get(turn.role, turn.role.capitalize())}: {turn.content}" for turn in prompt)
    return _open_ended(text.lstrip() + "\n\nAssistant: ", tokenizer)


def encode_response(response: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Ids of a response and the end-of-text token after it."""
    return [*tokenizer(response, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]


def encode_pairs(pairs: Iterable[Pair], tokenizer: PreTrainedTokenizerBase, *, max_tokens: int) -> Encoded:
    """(chosen, rejected) token rows. Raises InputError if no pair is left."""
    return _encode(
        ((pair.row, pair.prompt, (pair.chosen, pair.rejected)) for pair in pairs), tokenizer, max_tokens=max_tokens
    )


def encode_demonstrations(
    demonstrations: Iterable[Demonstration] | Iterable[Labelled], tokenizer: PreTrainedTokenizerBase, *, max_tokens: int
) -> Encoded:
    """One-response token rows, one for each demonstration or labelled response. Raises InputError if none is left."""
    return _encode(((d.row, d.prompt, (d.response,)) for d in demonstrations), tokenizer, max_tokens=max_tokens)


def _encode(
    sources: Iterable[tuple[int, PromptText, tuple[str, ...]]], tokenizer: PreTrainedTokenizerBase, *, max_tokens: int
) -> Encoded:
    if max_tokens < 2:
        raise ValueError("max_tokens must leave room for one token of the prompt and one of the response")
    origins: list[int] = []
    shortened: list[int] = []
    cut: list[int] = []
    dropped: list[int] = []

    def encoded() -> Iterator[Tokens]:
        for number, prompt_text, texts in sources:
            prompt = encode_prompt(prompt_text, tokenizer)
            responses = [encode_response(text, tokenizer) for text in texts]
            # The prompt gives way first, from its beginning (but for a BOS, which the model expects), down to half of
            # the room; then responses lose their end.
            room = max(max_tokens // 2, max_tokens - max(len(response) for response in responses))
            if len(prompt) > room:
                kept = 1 if prompt[0] == tokenizer.bos_token_id and room > 1 else 0
                prompt = [*prompt[:kept], *prompt[kept - room :]]
                shortened.append(number)
            if any(len(prompt) + len(response) > max_tokens for response in responses):
                responses = [response[: max_tokens - len(prompt)] for response in responses]
                cut.append(number)
            if len(responses) == 2 and responses[0] == responses[1]:
                dropped.append(number)
                continue
            origins.append(number)
            yield Tokens(tuple(prompt), tuple(tuple(response) for response in responses))

    rows = store_tokens(encoded())
    if not rows:
        reason = "every pair's two responses are the same" if dropped else "there was none before"
        raise InputError(f"no row is left after tokenising; {reason}")
    return Encoded(rows, tuple(origins), tuple(shortened), tuple(cut), tuple(dropped))


def _open_ended(text: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Ids of a text that something will follow: some tokenizers end every text."""
    ids = list(tokenizer(text)["input_ids"])
    return ids[:-1] if len(ids) > 1 and ids[-1] == tokenizer.eos_token_id else ids


def _first_token(tokenizer: PreTrainedTokenizerBase) -> int:
    """What an empty prompt becomes: there must be one token to predict the first token from."""
    return int(tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id)
