"""Whether a prompt that is plain text is what a user says, or a text that the answer goes on from.

A model with a chat template takes it for a user's turn, and a prompt written ``Human: ... Assistant:`` for the turns it
holds; but a file whose texts are written to be gone on from is a completion task, and its texts stay as they are. Such
a text bears the template's own marks, or ends with the word before an answer ("Answer:"), or has responses that all
begin with white space. Half of a file's first LOOKED_AT texts decide for all of it: a file means one thing. A model
without a chat template goes on from text. Whoever asks for chat or text gets that.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from typing import Any, cast

from transformers import PreTrainedTokenizerBase

from pairtune.data.dialogue import PROBE, RefusedError, render
from pairtune.data.ends import special_ids
from pairtune.data.formats import asked_in
from pairtune.data.schema import Message, Pair, Prompt, Row, Rows, said
from pairtune.data.store import Texts
from pairtune.progress import say

AUTO, CHAT, TEXT = "auto", "chat", "text"
# Texts of a file that are looked at.
LOOKED_AT = 1000
_CUE = re.compile(
    r"(?:\A|\s)(?:answer|a|response|reply|assistant|ai|bot|output|completion|continuation|summary|tl;dr|solution"
    r"|translation|review)\s*:\s*\Z",
    re.IGNORECASE,
)
_SIGNS = {
    "marks": "bear the chat template's marks",
    "cue": 'end with a word such as "Answer:"',
    "space": "have responses that begin with a space",
}


def in_format(data: Rows[Row], tokenizer: PreTrainedTokenizerBase, asked: str) -> Rows[Row]:
    """The rows with their text prompts as they are meant, which is said where there is a choice."""
    texts = [row for row in islice(data.rows, LOOKED_AT) if isinstance(row.prompt, str)]
    if not texts:
        return data
    found, signs = decided(texts, tokenizer, asked)
    if tokenizer.chat_template or asked != AUTO:
        say(f"data: {_told(found, signs, len(texts))}{_hint(found, asked)}")
    rows = cast("Texts[Row]", data.rows).changed(in_turns) if found == CHAT else data.rows
    return replace(data, rows=rows, prompt_format=found)


def decided(texts: Sequence[Row], tokenizer: PreTrainedTokenizerBase, asked: str) -> tuple[str, Counter[str]]:
    """CHAT or TEXT for rows whose prompts are text, and the signs of a text that is gone on from."""
    if not tokenizer.chat_template:
        return (CHAT if asked == CHAT else TEXT), Counter()
    marks = template_marks(tokenizer)
    signs = Counter(filter(None, (_sign(row, marks) for row in texts)))
    if asked != AUTO:
        return asked, signs
    return (TEXT if 2 * signs.total() >= len(texts) else CHAT), signs


def in_turns(row: Row) -> Row:
    """The row with a text prompt as turns: those of a transcript that ends before the assistant's, or the user's."""
    if not isinstance(row.prompt, str):
        return row
    given: Any = row
    turns, texts = asked_in(row.prompt), dict[str, str]()
    if turns:
        names = [name for name in ("chosen", "rejected", "response") if isinstance(getattr(row, name, None), str)]
        texts = {name: getattr(row, name).strip() for name in names}
    found: Row = replace(given, prompt=turns or (Message("user", row.prompt),), **texts)
    return found


def template_marks(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """What the chat template writes around turns: its special tokens but for the beginning and the end of text, and all
    that stands between a question and its answer."""
    try:
        asked, whole = render(tokenizer, PROBE[:1], to_be_answered=True), render(tokenizer, PROBE)
    except RefusedError:
        return []
    plain = {tokenizer.bos_token_id, tokenizer.eos_token_id}
    special = [str(tokenizer.decode([token])) for token in sorted(special_ids(tokenizer) - plain)]
    between = asked.rpartition(PROBE[0].content)[2].strip()
    return [*(mark for mark in special if mark.strip() and mark in whole), *([between] if between else [])]


def _sign(row: Row, marks: Sequence[str]) -> str:
    """What says that a text is to be gone on from; "" if nothing does."""
    prompt = cast(str, row.prompt)
    if any(mark in prompt for mark in marks):
        return "marks"
    if asked_in(prompt) is not None:
        return ""
    if _CUE.search(prompt):
        return "cue"
    return "space" if _is_gone_on_from(row) else ""


def _is_gone_on_from(row: Row) -> bool:
    """Whether the responses all begin with white space."""
    if isinstance(row, Prompt):
        return row.gone_on_from
    responses = (row.chosen, row.rejected) if isinstance(row, Pair) else (row.response,)
    return all(said(response)[:1].isspace() for response in responses)


def _told(found: str, signs: Counter[str], texts: int) -> str:
    told = ", ".join(f"{count} of {texts} {_SIGNS[sign]}" for sign, count in signs.items())
    if found == TEXT:
        return f"text prompts stay text that the answer goes on from{f' ({told})' if told else ''}"
    return f"text prompts are what the user says, in the model's chat template{f', though {told}' if told else ''}"


def _hint(found: str, asked: str) -> str:
    other = "text for texts that answers go on from" if found == CHAT else "chat for what a user says"
    return f"; --prompt-format {other}" if asked == AUTO else ""
