"""A dialogue as text, by the model's chat template: what the template writes is the truth, and it is always asked.

Without a chat template a dialogue is a plain transcript, which the answer continues like any other text.
"""

import functools
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import date
from typing import Any

from transformers import PreTrainedTokenizerBase

from pairtune.data.schema import Message, ResponseText
from pairtune.data.template_limits import check_powers, written
from pairtune.errors import InputError

# What a template may call the thoughts before an answer.
REASONING = ("reasoning_content", "reasoning", "thinking")
# A dialogue that every template takes, in words that none writes by itself: it shows what is written around them.
PROBE = (Message("user", "Marmalade or quince?"), Message("assistant", "Quince, definitely."))
# Content of so many characters does not stand in a text by chance.
LONG = 20
HALF = re.compile("[\ud800-\udfff]")  # half of a character
# Today, to every template that asks: ids, and all that is kept or compared by them, must not change from day to day. It
# is the day that Llama 3's templates fall back on where nothing tells it.
TODAY, ANOTHER_DAY = date(2024, 7, 26), date(2023, 2, 4)
_NAMES = {"user": "Human", "assistant": "Assistant"}
GOES_ON = "it does not write the beginning of an answer that the prompt ends with"


class RefusedError(Exception):
    """The chat template raised an error; its own words."""


def render(
    tokenizer: PreTrainedTokenizerBase,
    turns: Sequence[Message],
    *,
    beside: str = "",
    to_be_answered: bool = False,
    today: date = TODAY,
) -> str:
    """The dialogue as the chat template writes it, up to where an answer begins if it is to be answered: a turn of the
    assistant's, or the rest of one that is unfinished.

    `beside` is what the template is given beside the turns, as a JSON object. Content is given as text, or in parts to
    a template that wants it so; the arguments of calls as objects, as most templates want them, or else as the text
    that some want. Raises RefusedError if the template does not take such a dialogue.
    """
    given: dict[str, Any] = json.loads(beside) if beside else {}
    messages = [turn.fields() for turn in turns]
    called = any("tool_calls" in message for message in messages)
    goes_on = to_be_answered and turns[-1].unfinished
    refusal: Exception | None = None
    for convert in (_as_object, _as_text) if called else (None,):
        try:
            template = template_of(tokenizer, given)
            roles = parted_roles(tokenizer, template)
            shown = [_in_parts(message, roles) for message in messages]
            text = _written(
                tokenizer,
                [_with_arguments(message, convert) for message in shown] if convert else shown,
                _on(today, template),
                add_generation_prompt=to_be_answered and not goes_on,
                continue_final_message=goes_on,
                **given,
            )
        except InputError:  # it takes too much
            raise
        except Exception as error:  # a template is a program, and can go wrong in every way that one can
            refusal = refusal or (RefusedError(GOES_ON) if "continue_final_message" in str(error) else error)
        else:
            if roles and _as_list(text) and not any(_as_list(turn.content + turn.more) for turn in turns):
                raise RefusedError("it wants the content of some turns in parts and of others as text")
            return text
    raise RefusedError(" ".join(str(refusal).split()) or type(refusal).__name__) from refusal


def _written(tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, Any]], template: str, **given: Any) -> str:
    """The chat template's text, within limits of time and size. Its own errors are raised as they are."""
    check_powers(template)
    size = sum(len(str(message.get("content", ""))) for message in messages) + 100 * len(messages) + len(str(given))
    text = written(
        lambda: tokenizer.apply_chat_template(messages, chat_template=template, tokenize=False, **given), size
    )
    if not text.isascii() and HALF.search(text):
        raise ValueError("it writes half of a character (a lone surrogate), which no tokenizer reads")
    return text


def template_of(tokenizer: PreTrainedTokenizerBase, given: Mapping[str, Any]) -> str:
    """The chat template for what is given beside the turns: some models have another one for tools."""
    return str(tokenizer.get_chat_template(tools=given.get("tools")))


def dated(tokenizer: PreTrainedTokenizerBase, turns: Sequence[Message], beside: str, text: str) -> bool:
    """Whether the text of a dialogue that is to be answered holds a day that the template asked for."""
    if "strftime_now" not in template_of(tokenizer, json.loads(beside) if beside else {}):
        return False
    return render(tokenizer, turns, beside=beside, to_be_answered=True, today=ANOTHER_DAY) != text


@functools.lru_cache(maxsize=16)
def parted_roles(tokenizer: PreTrainedTokenizerBase, template: str) -> tuple[str, ...]:
    """The roles whose content the template writes only if it is given in parts, as templates for pictures do: none for
    most. Seen on a dialogue that every template takes, and on one with a system turn.
    """

    def writes(turns: Sequence[Message], roles: tuple[str, ...]) -> bool:
        messages = [_in_parts(turn.fields(), roles) for turn in turns]
        try:
            text = _written(tokenizer, messages, template)
        except InputError:
            raise
        except Exception:  # as in `render`
            return False
        return all(turn.content in text for turn in turns) and not _as_list(text)

    speakers = ("user", "assistant")
    found = next((roles for roles in ((), speakers, speakers[:1]) if writes(PROBE, roles)), ())
    more = (*found, "system", "developer", "tool")
    return more if found and writes((Message("system", "Fruit is all you know."), *PROBE), more) else found


def _in_parts(message: dict[str, Any], roles: Sequence[str]) -> dict[str, Any]:
    if "content" not in message or message["role"] not in roles:
        return message
    return message | {"content": [{"type": "text", "text": message["content"]}]}


def _as_list(text: str) -> bool:
    """Whether a text holds parts as they stand, written by a template that wants none."""
    return "{'type': 'text'" in text or '{"type": "text"' in text


@functools.cache
def _on(day: date, template: str) -> str:
    """The template on that day: a macro of the name takes the place of the function that transformers gives it."""
    if "strftime_now" not in template:
        return template
    letters = "aAbBcdDeFhHIjklmMnpPrRSTuUVwWxXyYZ"
    codes = [*(f"%-{letter}" for letter in "dmHIMSjyeklUWV"), *(f"%{letter}" for letter in letters), "%%"]
    replaced = "".join(f" | replace({code!r}, {day.strftime(code)!r})" for code in codes)
    return f"{{% macro strftime_now(format) %}}{{{{ format{replaced} }}}}{{% endmacro %}}\n{template}"


def _with_arguments(value: Any, convert: Callable[[Any], Any]) -> Any:
    """A message, or a part of one, with the arguments of its calls converted."""
    if isinstance(value, list):
        return [_with_arguments(item, convert) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        name: convert(item) if name == "arguments" else _with_arguments(item, convert) for name, item in value.items()
    }


def _as_object(arguments: Any) -> Any:
    try:
        found = json.loads(arguments) if isinstance(arguments, str) else arguments
    except (ValueError, RecursionError):
        return arguments
    return found if isinstance(found, dict) else arguments


def _as_text(arguments: Any) -> Any:
    return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)


def transcript(turns: Sequence[Message]) -> str:
    """The turns without a template. The space before the answer is the answer's: no tokenizer has it apart."""
    text = "".join(f"\n\n{_NAMES.get(turn.role, turn.role.capitalize())}: {turn.content}" for turn in turns)
    return text.lstrip() + ("" if turns[-1].unfinished else "\n\nAssistant:")


def transcribed(prompt: Sequence[Message], answer: ResponseText) -> str:
    """An answer as it goes on after :func:`transcript`."""
    text = answer if isinstance(answer, str) else answer.content
    return text if prompt[-1].unfinished or text[:1].isspace() else f" {text}"


def unwritten(turns: Sequence[Message], beside: str) -> Iterator[str]:
    """What a transcript has no place for."""
    given = json.loads(beside) if beside else {}
    if given.pop("tools", None):
        yield "tools"
    if given:
        yield "chat_template_kwargs"
    fields = {name for turn in turns if turn.more for name, value in turn.others().items() if value}
    if "tool_calls" in fields:
        yield "tool calls"
    if fields & {*REASONING}:
        yield "reasoning"


def as_turn(answer: ResponseText) -> Message:
    """A response as the assistant's turn."""
    return answer if isinstance(answer, Message) else Message("assistant", answer)


def answered(prompt: Sequence[Message], answer: ResponseText) -> tuple[Message, ...]:
    """The whole dialogue: the answer is a turn of its own, or goes on with one that the prompt has begun."""
    turn, begun = as_turn(answer), prompt[-1]
    if not begun.unfinished:
        return (*prompt, turn)
    fields = {name: value for name, value in (begun.others() | turn.others()).items() if name != "content"}
    more = json.dumps(fields, ensure_ascii=False) if fields else ""
    return (*prompt[:-1], Message(begun.role, begun.content + turn.content, more))


def alike(rows: Sequence[str] | Sequence[list[int]]) -> int:
    """How long the beginning is that all rows have in common."""
    first, last = min(rows), max(rows)
    return next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))


def lost(
    tokenizer: PreTrainedTokenizerBase,
    turns: Sequence[Message],
    beside: str,
    text: str,
    *,
    to_be_answered: bool = False,
) -> Iterator[str]:
    """What of the dialogue is not in its `text`: found by writing it without that. Its last turn may be the answer."""

    def same(other: Sequence[Message], beside: str = beside) -> bool:
        try:
            return render(tokenizer, other, beside=beside, to_be_answered=to_be_answered) == text
        except RefusedError:
            return False

    given: dict[str, Any] = json.loads(beside) if beside else {}
    tools = given.pop("tools", None)
    if tools and same(turns, json.dumps(given)):
        yield "tools"
    if given and any(name not in template_of(tokenizer, {"tools": tools}) for name in given):
        yield "something of chat_template_kwargs"
    answer, at, unwritten_roles = -1 if to_be_answered else len(turns) - 1, 0, set[str]()
    for place, turn in enumerate(turns):
        names = turn.others() if turn.more else {}
        if names.get("tool_calls") and same(_with(turns, place, _without(turn, "tool_calls"))):
            yield "tool calls"
        if place == answer and any(map(names.get, REASONING)) and same(_with(turns, place, _without(turn, *REASONING))):
            yield "the answer's reasoning"
        content = turn.content.strip()
        after = text.find(content, at)  # turns mostly stand in their order: the text is gone through once
        at = after + len(content) if after >= 0 else at
        if not content or ((after >= 0 or content in text) and (turn.role in _NAMES or len(content) > LONG)):
            continue
        if turn.role in unwritten_roles:
            continue
        if same(_with(turns, place, replace(turn, content=f"{content}?"))):
            unwritten_roles.add(turn.role)
            yield f"{turn.role} turns"
        elif place == answer:
            yield "a part of the answer (its reasoning, or white space)"


def _with(turns: Sequence[Message], place: int, turn: Message) -> list[Message]:
    return [*turns[:place], turn, *turns[place + 1 :]]


def _without(turn: Message, *names: str) -> Message:
    kept = {name: value for name, value in turn.others().items() if name not in names}
    return replace(turn, more=json.dumps(kept, ensure_ascii=False) if kept else "")
