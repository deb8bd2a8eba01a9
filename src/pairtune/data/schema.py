"""What a row of data is once it has been read: a pair, a labelled response, a demonstration or a prompt."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, TypeAlias, TypeVar


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a dialogue. The usual roles are system, user, assistant and tool."""

    role: str
    content: str
    more: str = ""  #: the turn's other fields (tool_calls, reasoning_content, name, ...) as a JSON object, or ""
    unfinished: bool = False  #: whether this is a prompt's last turn, the assistant's, and the answer goes on with it

    def fields(self) -> dict[str, Any]:
        """The turn as it stood in the source, which is what a chat template is given."""
        fields = {"role": self.role, "content": self.content, **self.others()}
        return {name: value for name, value in fields.items() if value is not None}

    def others(self) -> dict[str, Any]:
        """The fields beside role and content."""
        found: dict[str, Any] = json.loads(self.more) if self.more else {}
        return found


#: Raw text that the response continues, or the turns of a dialogue before the answer.
PromptText: TypeAlias = str | tuple[Message, ...]
#: The text of a response, or the whole turn where it is more than its content.
ResponseText: TypeAlias = str | Message


def said(response: ResponseText) -> str:
    """Everything that a response says, as one text: its content, and what stands beside it."""
    return response if isinstance(response, str) else response.content + response.more


@dataclass(frozen=True, slots=True)
class Pair:
    """A prompt x, the response that was preferred and the one that was not."""

    prompt: PromptText
    chosen: ResponseText
    rejected: ResponseText
    row: int  #: 1-based line or row in the source, as its error messages would name it
    beside: str = ""  #: what the chat template is given beside the turns (tools, ...), as a JSON object, or ""
    weight: float = 1.0  #: as often the row counts in training: 2 is the row standing there twice
    margin: float | None = None  #: by how much the one was preferred, where the source says it


@dataclass(frozen=True, slots=True)
class Labelled:
    """A prompt, a response to it, and whether that response is desirable."""

    prompt: PromptText
    response: ResponseText
    label: bool
    row: int
    beside: str = ""
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Demonstration:
    """A prompt and a response worth imitating."""

    prompt: PromptText
    response: ResponseText
    row: int
    beside: str = ""
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt on its own, to be answered by a policy."""

    prompt: PromptText
    row: int
    beside: str = ""
    gone_on_from: bool = field(default=False, compare=False)  #: whether responses beside it all begin with white space


@dataclass(frozen=True, slots=True)
class Skipped:
    """A row that was left out, and why. Equal causes have equal reasons, so that they can be counted."""

    row: int
    reason: str
    file: str = field(default="", compare=False)
    number: int = field(default=0, compare=False)  #: of its line or row within the file


Row = TypeVar("Row", Pair, Labelled, Demonstration, Prompt)


class Rated(NamedTuple):
    """What columns with a score of each side say of the pairs, which are as their sides are named."""

    columns: tuple[str, str] = ("", "")  #: of the chosen side and the rejected one
    both: int = 0  #: rows with both
    lower: Sequence[int] = ()  #: rows whose chosen side has the lower one


@dataclass(frozen=True, slots=True)
class Rows(Generic[Row]):
    """Everything one source held, in its order: the rows that can be used, and those that cannot."""

    rows: Sequence[Row]
    skipped: tuple[Skipped, ...]
    unread: tuple[str, ...] = ()  #: columns that hold text and are not read
    told: str = field(default="", compare=False)  #: how they were read, in a line
    rated: Rated = field(default=Rated(), compare=False)
    prompt_format: str = ""  #: what text prompts were taken for, once that is decided: "chat" or "text"
