"""A dialogue as text, by the model's chat template: what the template writes is the truth, and it is always asked.

Without a chat template a dialogue is a plain transcript, which the answer continues like any other text.
"""

import json
from collections.abc import Iterator, Sequence

from transformers import PreTrainedTokenizerBase

from pairtune.data.schema import Message, ResponseText

# What a template may call the thoughts before an answer.
REASONING = ("reasoning_content", "reasoning", "thinking")
# A dialogue that every template takes, in words that none writes by itself: it shows what is written around them.
PROBE = (Message("user", "Marmalade or quince?"), Message("assistant", "Quince, definitely."))
# Content of so many characters does not stand in a text by chance.
LONG = 20
_NAMES = {"user": "Human", "assistant": "Assistant"}


class RefusedError(Exception):
    """The chat template raised an error; its own words."""


def render(
    tokenizer: PreTrainedTokenizerBase, turns: Sequence[Message], *, tools: str = "", to_be_answered: bool = False
) -> str:
    """The dialogue as the chat template writes it, up to where an answer begins if it is to be answered.

    Raises RefusedError if the template does not take such a dialogue.
    """
    try:
        text = tokenizer.apply_chat_template(
            [turn.fields() for turn in turns],
            tools=json.loads(tools) if tools else None,
            tokenize=False,
            add_generation_prompt=to_be_answered,
        )
    except Exception as error:  # a template is a program, and can go wrong in every way that one can
        raise RefusedError(" ".join(str(error).split()) or type(error).__name__) from error
    return str(text)


def transcript(turns: Sequence[Message]) -> str:
    """The turns without a template. The space before the answer is the answer's: no tokenizer has it apart."""
    text = "".join(f"\n\n{_NAMES.get(turn.role, turn.role.capitalize())}: {turn.content}" for turn in turns)
    return text.lstrip() + "\n\nAssistant:"


def transcribed(answer: ResponseText) -> str:
    """An answer as it goes on after :func:`transcript`."""
    text = answer if isinstance(answer, str) else answer.content
    return text if text[:1].isspace() else f" {text}"


def as_turn(answer: ResponseText) -> Message:
    """A response as the assistant's turn."""
    return answer if isinstance(answer, Message) else Message("assistant", answer)


def lost(
    tokenizer: PreTrainedTokenizerBase, turns: Sequence[Message], tools: str, text: str, *, to_be_answered: bool = False
) -> Iterator[str]:
    """What of the dialogue is not in its `text`: found by writing it without that. Its last turn may be the answer."""

    def same(other: Sequence[Message], with_tools: str = tools) -> bool:
        try:
            return render(tokenizer, other, tools=with_tools, to_be_answered=to_be_answered) == text
        except RefusedError:
            return False

    if tools and same(turns, ""):
        yield "tools"
    answer = -1 if to_be_answered else len(turns) - 1
    for place, turn in enumerate(turns):
        names = turn.others() if turn.more else {}
        if names.get("tool_calls") and same(_with(turns, place, _without(turn, "tool_calls"))):
            yield "tool calls"
        if place == answer and any(map(names.get, REASONING)) and same(_with(turns, place, _without(turn, *REASONING))):
            yield "the answer's reasoning"
        content = turn.content.strip()
        if not content or (content in text and (turn.role in _NAMES or len(content) > LONG)):
            continue
        if same(_with(turns, place, Message(turn.role, f"{content}?", turn.more))):
            yield f"{turn.role} turns"
        elif place == answer:
            yield "a part of the answer (its reasoning, or white space)"


def _with(turns: Sequence[Message], place: int, turn: Message) -> list[Message]:
    return [*turns[:place], turn, *turns[place + 1 :]]


def _without(turn: Message, *names: str) -> Message:
    kept = {name: value for name, value in turn.others().items() if name not in names}
    return Message(turn.role, turn.content, json.dumps(kept, ensure_ascii=False) if kept else "")
