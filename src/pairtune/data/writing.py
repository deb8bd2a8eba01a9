"""One prompt and its responses to token ids, as the model writes and reads them; see :mod:`pairtune.data.tokenize`."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from pairtune.data.continuation import Continuation
from pairtune.data.dialogue import (
    TODAY,
    RefusedError,
    alike,
    answered,
    as_turn,
    dated,
    lost,
    render,
    transcribed,
    transcript,
    unwritten,
)
from pairtune.data.ends import end_ids, special_ids, turn_ends
from pairtune.data.schema import Message, PromptText, ResponseText
from pairtune.data.shorten import last_tokens, shortened


class Remark(NamedTuple):
    """What is to be said of a row, and of several, after their number."""

    one: str
    many: str

    def of(self, what: str) -> "Remark":
        """The same, of something that is named."""
        return Remark(self.one.format(what), self.many.format(what))


# A prompt of so many characters for each token there is room for is shortened before a row is made of it.
MANY = 32
SHORTENED = Remark(
    "prompt lost its beginning to --max-tokens; raise it to keep it whole",
    "prompts lost their beginning to --max-tokens; raise it to keep them whole",
)
CUT = Remark(
    "row has a response that lost its end to --max-tokens; raise it to keep it whole",
    "rows have a response that lost its end to --max-tokens; raise it to keep them whole",
)
DROPPED = Remark(
    "pair was left out: its responses are the same once tokenised",
    "pairs were left out: their responses are the same once tokenised",
)
PARTED = Remark(
    "row is written by the chat template in another way than the template begins an answer; "
    "its response begins where the two part, or at the answer if that is within the question",
    "rows are written by the chat template in another way than it begins an answer; "
    "their responses begin where the two part, or at the answer if that is within the question",
)
JOINED = Remark(
    "row has other tokens where prompt and response are one text; they are tokenised apart",
    "rows have other tokens where prompt and response are one text; they are tokenised apart",
)
LOSSY = Remark(
    "row holds text that the tokenizer does not give back as it was",
    "rows hold text that the tokenizer does not give back as it was",
)
UNENDED = Remark(
    "row has no end after the answer in the chat template; the end-of-text token was added",
    "rows have no end after the answer in the chat template; the end-of-text token was added",
)
DATED = Remark(
    f"row holds the day, for which the chat template asks: it is told {TODAY:%-d %B %Y}, always",
    f"rows hold the day, for which the chat template asks: it is told {TODAY:%-d %B %Y}, always",
)
NO_TEMPLATE = Remark(
    "row loses {}: the model has no chat template to write them",
    "rows lose {}: the model has no chat template to write them",
)
LOST = Remark(
    "row loses {} to the chat template, which leaves that out",
    "rows lose {} to the chat template, which leaves that out",
)


@dataclass(frozen=True)
class Written:
    """The ids of a prompt and of the responses to it, each with its end, and what is to be said of them.

    `asked` is the prompt as answers are sampled after it: another one only where the two part (see PARTED).
    """

    asked: list[int]
    prompt: list[int]
    responses: list[list[int]]
    remarks: frozenset[Remark]


class Writer:
    """What a tokenizer and its chat template make of prompts and responses."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        self.text = Continuation(tokenizer)
        self.ends, self.beyond = end_ids(tokenizer), [list(end.beyond) for end in turn_ends(tokenizer) if end.beyond]
        self.special = special_ids(tokenizer)
        # Special tokens that a text is cut at before anything else is done to it.
        added = tokenizer.added_tokens_decoder if tokenizer.is_fast else {}
        self.cutting = {i: token.content for i, token in added.items() if not token.normalized}
        self.opening: tuple[str, list[int]] = "", []
        marks = {end: str(tokenizer.decode([end])) for end in self.ends if end in self.special}
        self.marks = {end: mark for end, mark in marks.items() if mark.strip()}

    def prompt(self, prompt: PromptText, beside: str = "") -> list[int]:
        """Ids of a prompt that is to be answered. Raises RefusedError if the chat template does not take it."""
        if isinstance(prompt, str):
            return self.text.prompt(prompt)
        if not self.tokenizer.chat_template:
            return self.text.prompt(transcript(prompt))
        return self.text.ids(render(self.tokenizer, prompt, beside=beside, to_be_answered=True))

    def fitted_prompt(self, prompt: PromptText, beside: str, room: int) -> Written:
        """A prompt that is to be answered, made shorter if it has more than `room` ids."""
        ids, remarks = self.prompt(prompt, beside), self._said_of(prompt, beside)
        if len(ids) > room:
            remarks.add(SHORTENED)
            shorter = self._shorter(prompt, beside, room)
            ids = ids if shorter is None else self.prompt(shorter, beside)
            ids = last_tokens(ids, room, self.tokenizer.bos_token_id)
        return Written(ids, ids, [], frozenset(remarks))

    def row(self, prompt: PromptText, responses: Sequence[ResponseText], beside: str = "") -> Written:
        """A prompt with responses to it. Raises RefusedError if the chat template does not take them."""
        if isinstance(prompt, str):
            return self._text_row(prompt, [as_turn(response).content for response in responses])
        if self.tokenizer.chat_template:
            return self._dialogue_row(prompt, responses, beside)
        row = self._text_row(transcript(prompt), [transcribed(prompt, response) for response in responses])
        return replace(row, remarks=row.remarks | self._said_of((*prompt, *map(as_turn, responses)), beside))

    def fitted(self, prompt: PromptText, responses: Sequence[ResponseText], beside: str, most: int) -> Written:
        """The same in at most `most` ids for the prompt and its longest response.

        The prompt gives way first, down to half of the room; then responses lose their end.
        """
        remarks = set()
        if (
            _size(prompt) > MANY * most and len(self.prompt(prompt, beside)) > most
        ):  # no row is made of what is much longer
            remarks.add(SHORTENED)
            shorter = self._shorter(prompt, beside, most)
            prompt = prompt if shorter is None else shorter
        row = self.row(prompt, responses, beside)
        room = max(most // 2, most - max(map(len, row.responses)))
        if max(len(row.asked), len(row.prompt)) > room:
            remarks.add(SHORTENED)
            shorter = self._shorter(prompt, beside, room)
            row = row if shorter is None else self.row(shorter, responses, beside)
        asked, ids = (last_tokens(ids, room, self.tokenizer.bos_token_id) for ids in (row.asked, row.prompt))
        parts = row.responses
        if any(len(ids) + len(response) > most for response in parts):
            remarks.add(CUT)
            parts = [response[: most - len(ids)] for response in parts]
        return Written(asked, ids, parts, row.remarks | remarks)

    def _text_row(self, prompt: str, responses: Sequence[str]) -> Written:
        texts, ends = zip(*map(self._without_end, responses), strict=True)
        ids = self.text.prompt(prompt)
        found = list(self.text.responses(prompt, texts))
        remarks = {JOINED} if not all(each.as_whole for each in found) else set()
        remarks |= {LOSSY} if not all(each.lossless for each in found) else set()
        written = [[*each.ids, end] for each, end in zip(found, ends, strict=True)]
        return Written(ids, ids, written, frozenset(remarks))

    def _dialogue_row(self, prompt: tuple[Message, ...], responses: Sequence[ResponseText], beside: str) -> Written:
        text, wholes = render(self.tokenizer, prompt, beside=beside, to_be_answered=True), []
        remarks = {DATED} if dated(self.tokenizer, prompt, beside, text) else set()
        asked = self.text.ids(text)
        place, begun = self._last_cut(text, asked)
        texts = []
        for response in responses:
            turns = answered(prompt, response)
            whole = render(self.tokenizer, turns, beside=beside)
            texts.append(whole)
            remarks |= {LOST.of(what) for what in lost(self.tokenizer, turns, beside, whole)}
            rest = self.text.ids(whole[place:]) if whole.startswith(text) else []
            same = rest[:1] == asked[begun : begun + 1]  # a longer mark might begin there
            wholes.append([*asked[:begun], *rest] if rest and same else self.text.ids(whole))
        shared = alike([asked, *wholes])
        if shared < len(asked):
            remarks.add(PARTED)
            if alike([text, *texts]) < self._question_ends(prompt, responses[0], beside, texts[0]):
                shared = max(shared, self._begins(prompt, beside, wholes))
        if not 0 < shared < min(map(len, wholes)):
            raise RefusedError("it writes no answer after its prompt")
        written = [self._closed(whole[shared:]) for whole in wholes]
        if any(response[-1] not in self.ends for response in written):
            remarks.add(UNENDED)
            end = int(self.tokenizer.eos_token_id)
            written = [each if each[-1] in self.ends else [*each, end] for each in written]
        return Written(asked, wholes[0][:shared], written, frozenset(remarks))

    def _last_cut(self, text: str, ids: Sequence[int]) -> tuple[int, int]:
        """The places, in a text and in its ids, of its last mark, before which nothing changes what goes on behind it.

        A dialogue that begins with the text has these ids up to there, so only the rest of it is tokenised. (0, 0) if
        there is no such mark.
        """
        begun = next((i for i in range(len(ids) - 1, -1, -1) if ids[i] in self.cutting), -1)
        place = text.rfind(self.cutting[ids[begun]]) if begun >= 0 else -1
        if place < 0:
            return 0, 0
        if text[place:] != self.opening[0]:
            self.opening = text[place:], self.text.ids(text[place:])
        return (place, begun) if self.opening[1] == ids[begun:] else (0, 0)

    def _question_ends(self, prompt: tuple[Message, ...], response: ResponseText, beside: str, whole: str) -> int:
        """Where the words of the prompt's last turn end in the whole dialogue's text; 0 if that cannot be seen."""
        last = prompt[-1]
        longer = f"{last.content}{'!' if last.content.rstrip().endswith('?') else '?'}"
        try:
            turns = answered((*prompt[:-1], replace(last, content=longer)), response)
            other = render(self.tokenizer, turns, beside=beside)
        except RefusedError:
            return 0
        return len(whole) - alike([whole[::-1], other[::-1]])

    def _begins(self, prompt: tuple[Message, ...], beside: str, wholes: Sequence[list[int]]) -> int:
        """Where whole dialogues begin to depend on what their answers say; 0 if that cannot be seen."""
        try:
            others = [
                self.text.ids(render(self.tokenizer, answered(prompt, answer), beside=beside)) for answer in ("0", "Z")
            ]
        except RefusedError:
            return 0
        return alike([*wholes, *others]) if others[0] != others[1] else 0

    def _closed(self, response: list[int]) -> list[int]:
        """The response up to its end, which is a part of it; all of it if it has none.

        That is its first end that only white space and further ends follow, and then other special tokens, if any, or
        the words that the template has behind every dialogue.
        """
        beyond = next((ids for ids in self.beyond if response[-len(ids) :] == ids), [])
        response = response[: len(response) - len(beyond)]
        cut = len(response)
        for place in range(len(response) - 1, -1, -1):
            token = response[place]
            if token in self.ends:
                cut = place + 1
            elif not (cut == len(response) and token in self.special) and str(self.tokenizer.decode([token])).strip():
                break  # a word, or a mark that belongs to the answer
        return response[:cut]

    def _without_end(self, text: str) -> tuple[str, int]:
        """A response's text without the ends that it brought along, and the one end it gets: its own or the default."""
        end = int(self.tokenizer.eos_token_id)
        while True:
            bare = text.rstrip()
            found = next((i for i, mark in self.marks.items() if bare.endswith(mark)), None)
            if found is None:
                return text, end
            text, end = bare.removesuffix(self.marks[found]), found

    def _said_of(self, prompt: PromptText, beside: str) -> set[Remark]:
        """What is to be said of a prompt that is to be answered, or of a dialogue without a chat template."""
        if isinstance(prompt, str):
            return set()
        if not self.tokenizer.chat_template:
            return {NO_TEMPLATE.of(what) for what in unwritten(prompt, beside)}
        text = render(self.tokenizer, prompt, beside=beside, to_be_answered=True)
        found = {LOST.of(what) for what in lost(self.tokenizer, prompt, beside, text, to_be_answered=True)}
        return found | {DATED} if dated(self.tokenizer, prompt, beside, text) else found

    def _shorter(self, prompt: PromptText, beside: str, room: int) -> PromptText | None:
        mark = str(self.tokenizer.bos_token or "")  # what a text has brought itself is not lost with its beginning
        brought = mark if mark and isinstance(prompt, str) and prompt.startswith(mark) else ""

        def fits(part: PromptText) -> bool:
            try:
                return len(self.prompt(f"{brought}{part}" if isinstance(part, str) else part, beside)) <= room
            except RefusedError:
                return False

        part = shortened(prompt, fits)
        return f"{brought}{part}" if isinstance(part, str) else part


def _size(prompt: PromptText) -> int:
    return len(prompt) if isinstance(prompt, str) else sum(len(turn.content) for turn in prompt)
