"""What a row of data is once it has been read: a pair, a labelled response, a demonstration or a prompt."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeAlias, TypeVar


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a dialogue. The usual roles are system, user and assistant."""

    role: str
    content: str


#: Raw text that the response continues, or the turns of a dialogue before the answer.
PromptText: TypeAlias = str | tuple[Message, ...]


@dataclass(frozen=True, slots=True)
class Pair:
    """A prompt x, the response that was preferred and the one that was not."""

    prompt: PromptText
    chosen: str
    rejected: str
    row: int  #: 1-based line or row in the source, as its error messages would name it


@dataclass(frozen=True, slots=True)
class Labelled:
    """A prompt, a response to it, and whether that response is desirable."""

    prompt: PromptText
    response: str
    label: bool
    row: int


@dataclass(frozen=True, slots=True)
class Demonstration:
    """A prompt and a response worth imitating."""

    prompt: PromptText
    response: str
    row: int


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt on its own, to be answered by a policy."""

    prompt: PromptText
    row: int


@dataclass(frozen=True, slots=True)
class Skipped:
    """A row that was left out, and why. Equal causes have equal reasons, so that they can be counted."""

    row: int
    reason: str


Row = TypeVar("Row", Pair, Labelled, Demonstration, Prompt)


@dataclass(frozen=True, slots=True)
class Rows(Generic[Row]):
    """Everything one source held, in its order: the rows that can be used, and those that cannot."""

    rows: Sequence[Row]
    skipped: tuple[Skipped, ...]
