"""Templates, tokenizers and rows that do odd things: right all the same, or told."""

import inspect
import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, normalizers
from transformers import PreTrainedTokenizerBase

from pairtune.data.ends import end_ids
from pairtune.data.reading import Reader
from pairtune.data.schema import Demonstration, Message, Pair, Prompt
from pairtune.data.sources import read_demonstrations, read_pairs, read_prompts
from pairtune.data.tokenize import Encoded, encode_demonstrations, encode_pairs, encode_prompts
from pairtune.data.turns import RESERVED
from pairtune.data.writing import CUT, DATED, JOINED, LOSSY, LOST, NO_TEMPLATE, PARTED, SHORTENED, UNENDED
from pairtune.errors import InputError
from pairtune.stages.measure import distinct_prompts
from tests.chat.dialogues import ANSWER, ASK, CALL, SYSTEM, TOOLS, WEATHER
from tests.chat.formats import CHATML, DEEPSEEK_R1, HARMONY, LLAMA2, MISTRAL3, PHI3, QWEN3, QWEN25, R1_KEEPING, Format
from tests.chat.tokenizers_of import MAKES, tokenizer_of

QUESTION = (Message("user", "Who wrote Emma?"),)
SAID = "Jane Austen."
HEAD = "<|im_start|>user\nWho wrote Emma?<|im_end|>\n"


def chatml(template: str, make: str = "bytes") -> Any:
    """A tokenizer with ChatML's marks and another template."""
    tokenizer = tokenizer_of(make, CHATML, adds_bos=False)
    tokenizer.chat_template = template
    return tokenizer


def row_of(tokenizer: Any, prompt: Any = QUESTION, response: Any = SAID, beside: str = "") -> Encoded:
    return encode_demonstrations([Demonstration(prompt, response, 1, beside)], tokenizer, max_tokens=999)


def parts(tokenizer: Any, encoded: Encoded) -> tuple[str, str]:
    """The first row's prompt and response as text, marks and all."""
    row = encoded.rows[0]
    return tokenizer.decode(list(row.prompt)), tokenizer.decode(list(row.responses[0]))


def names(tokenizer: Any) -> set[str]:
    return set(tokenizer.convert_ids_to_tokens(list(end_ids(tokenizer))))


def truth(tokenizer: Any, messages: list[dict[str, Any]], **more: Any) -> list[int]:
    """The ids of the chat template, by transformers alone."""
    return list(tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False, **more))


def written(*rows: dict[str, Any]) -> str:
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return "rows.jsonl"


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


class TestWhereAnswersEnd:
    """What the template writes behind an answer is found, whatever it makes of the answer."""

    def test_a_template_that_always_begins_a_further_answer(self) -> None:
        always = CHATML.template.replace("{% if add_generation_prompt %}", "").replace("{% endif %}", "")
        tokenizer = chatml(always)
        assert names(tokenizer) == {"<|endoftext|>", "<|im_end|>"}
        encoded = row_of(tokenizer)
        assert parts(tokenizer, encoded) == (f"{HEAD}<|im_start|>assistant\n", f"{SAID}<|im_end|>")
        assert list(encoded.rows[0].prompt) == truth(tokenizer, [ASK], add_generation_prompt=True)
        assert encoded.remarks == {}

    def test_a_template_that_never_begins_an_answer(self) -> None:
        tokenizer = chatml(CHATML.template[: CHATML.template.index("{% if add_generation_prompt")])
        encoded = row_of(tokenizer)
        assert parts(tokenizer, encoded) == (HEAD, f"<|im_start|>assistant\n{SAID}<|im_end|>")
        row = encoded.rows[0]
        assert Reader(tokenizer).answer(row.prompt, row.responses[0]) == SAID

    def test_a_template_that_changes_letters(self) -> None:
        tokenizer = chatml(CHATML.template.replace("m.content", "(m.content | upper)"))
        assert names(tokenizer) == {"<|endoftext|>", "<|im_end|>"}
        encoded = row_of(tokenizer)
        assert parts(tokenizer, encoded)[1] == "JANE AUSTEN.<|im_end|>"
        assert UNENDED not in encoded.remarks

    def test_a_template_without_an_end_is_told_and_gets_the_end_of_text(self) -> None:
        tokenizer = chatml("{% for m in messages %}{{ m.role + ': ' + m.content + '\n' }}{% endfor %}")
        encoded = row_of(tokenizer)
        assert parts(tokenizer, encoded) == ("user: Who wrote Emma?\n", f"assistant: {SAID}\n<|endoftext|>")
        assert encoded.remarks == {UNENDED: (1,)}

    def test_the_end_of_a_call_that_no_file_declares(self) -> None:
        tokenizer = tokenizer_of("bytes", HARMONY)
        tokenizer.declared_ends = ()
        assert names(tokenizer) == {"<|return|>", "<|call|>"}
        source = written({"messages": [WEATHER, CALL], "tools": TOOLS})
        encoded = encode_demonstrations(read_demonstrations(source).rows, tokenizer, max_tokens=999)
        assert parts(tokenizer, encoded)[1].endswith('{"city": "Paris"}<|call|>')
        assert encoded.remarks == {}

    def test_another_template_for_tools(self) -> None:
        tokenizer = chatml("")
        with_tools = CHATML.template.replace("<|im_end|>", "<|im_start|>")  # another end, so that it shows
        tokenizer.chat_template = {"default": CHATML.template, "tool_use": "{{ tools | tojson }}" + with_tools}
        assert names(tokenizer) == {"<|endoftext|>", "<|im_end|>", "<|im_start|>"}
        assert parts(tokenizer, row_of(tokenizer))[1] == f"{SAID}<|im_end|>"
        encoded = row_of(tokenizer, beside=json.dumps({"tools": TOOLS}))
        assert parts(tokenizer, encoded)[0].startswith('[{"type": "function"')
        assert parts(tokenizer, encoded)[1] == f"{SAID}<|im_start|>"

    def test_templates_of_which_none_is_the_default(self) -> None:
        tokenizer = chatml("")
        tokenizer.chat_template = {"rag": CHATML.template}
        with pytest.raises(InputError, match=r"^row 1: the chat template refuses .*default"):
            row_of(tokenizer)


class TestWhereAnswersBegin:
    """Never in the words of a user, whatever a template leaves out of a finished dialogue."""

    @pytest.mark.parametrize("make", MAKES)
    def test_a_system_turn_that_only_a_question_has(self, make: str) -> None:
        """Mistral's: before the last turn if that is the user's, so that a finished dialogue has none."""
        tokenizer = tokenizer_of(make, MISTRAL3)
        turns = (Message("system", "Be brief."), *QUESTION)
        encoded = row_of(tokenizer, turns)
        prompt, response = parts(tokenizer, encoded)
        assert prompt.replace(" ", "") == "<s>[INST]WhowroteEmma?[/INST]"
        assert response.strip() == f"{SAID}</s>"
        assert encoded.remarks == {PARTED: (1,), LOST.of("system turns"): (1,)}
        row = encoded.rows[0]
        assert [*row.prompt, *row.responses[0]] == truth(tokenizer, [SYSTEM, ASK, ANSWER])
        assert list(row.question) == truth(tokenizer, [SYSTEM, ASK])

    @pytest.mark.parametrize("make", MAKES)
    @pytest.mark.parametrize("condition", ["", "not "])
    @pytest.mark.parametrize("question", ["Who wrote Emma?", "Emma!\n", "?"])
    def test_a_default_system_turn_that_only_one_of_the_two_has(self, question: str, condition: str, make: str) -> None:
        default = "{{ '<|im_start|>system\nBe helpful.<|im_end|>\n' }}"
        tokenizer = chatml(f"{{% if {condition}add_generation_prompt %}}{default}{{% endif %}}{CHATML.template}", make)
        encoded = row_of(tokenizer, (Message("user", question),))
        turns = [{"role": "user", "content": question}, ANSWER]
        row, whole = encoded.rows[0], truth(tokenizer, turns)
        assert [*row.prompt, *row.responses[0]] == whole[: len(row)]
        assert parts(tokenizer, encoded)[1].lstrip() == f"{SAID}<|im_end|>"
        assert list(row.question) == truth(tokenizer, turns[:1], add_generation_prompt=True)
        assert encoded.remarks == {PARTED: (1,)}

    def test_each_row_has_its_own_question_where_their_prompts_are_equal(self) -> None:
        """Two system turns, and none, which only the questions show."""
        tokenizer = tokenizer_of("bytes", MISTRAL3)
        dialogues = [[SYSTEM, ASK], [SYSTEM | {"content": "Be long."}, ASK], [ASK]]
        prompts = [tuple(Message(**turn) for turn in turns) for turns in dialogues]
        encoded = encode_pairs([Pair(each, SAID, "No.", 1) for each in prompts], tokenizer, max_tokens=999)
        assert len({row.prompt for row in encoded.rows}) == 1
        expected = [tuple(truth(tokenizer, turns)) for turns in dialogues]
        assert [row.question for row in encoded.rows] == expected
        assert distinct_prompts(encoded.rows) == expected

    def test_both_responses_of_a_pair_begin_in_one_place(self) -> None:
        tokenizer = tokenizer_of("bytes", MISTRAL3)
        turns = (Message("system", "Be brief."), *QUESTION)
        (row,) = encode_pairs([Pair(turns, SAID, "Jane, I think.", 1)], tokenizer, max_tokens=999).rows
        assert [tokenizer.decode(list(each)).strip() for each in row.responses] == [f"{SAID}</s>", "Jane, I think.</s>"]

    @pytest.mark.parametrize("make", MAKES)
    @pytest.mark.parametrize("answer", ["\nJane", "\n\nJane", "0", "Z", "Zero", " 0"])
    def test_an_answer_that_merges_with_what_begins_it(self, answer: str, make: str) -> None:
        tokenizer = chatml(CHATML.template, make)
        encoded = row_of(tokenizer, response=answer)
        whole = truth(tokenizer, [ASK, {"role": "assistant", "content": answer}])
        row = encoded.rows[0]
        assert [*row.prompt, *row.responses[0]] == whole[: len(row)]
        assert parts(tokenizer, encoded)[1].endswith(f"{answer.lstrip()}<|im_end|>")

    @pytest.mark.parametrize("make", MAKES)
    def test_what_closes_a_thought_is_the_answers(self, make: str) -> None:
        """Whether or not the line break that begins the thought is one token with the next one."""
        encoded = row_of(tokenizer := tokenizer_of(make, R1_KEEPING))
        prompt, response = parts(tokenizer, encoded)
        assert prompt.rstrip().endswith("<think>")
        assert response.replace(" ", "").lstrip() == "</think>\n\nJaneAusten.<|end_of_sentence|>"

    def test_a_longer_question_is_shortened_like_its_row(self) -> None:
        """DeepSeek's begins a thought that a finished answer has lost: the question is longer than the row's prompt."""
        tokenizer, turns = tokenizer_of("bytes", DEEPSEEK_R1), (Message("user", "one two three four"),)
        encoded = row_of(tokenizer, turns)
        row = encoded.rows[0]
        asked = row.question
        assert len(asked) > len(row.prompt)
        for most in range(len(row), len(row) + 4):
            fitted = encode_demonstrations([Demonstration(turns, SAID, 1)], tokenizer, max_tokens=most)
            whole = fitted.rows[0].question == asked
            assert whole != (SHORTENED in fitted.remarks)
        assert whole


class TestDays:
    """A template that asks for the day is told one that never changes, and the row is told of."""

    TEMPLATE = (
        "{% set day = strftime_now('%d %b %Y') if strftime_now is defined else 'none' %}"
        "{{ '<|im_start|>system\n' + day + strftime_now('|%Y-%m-%d|%B %-d, %Y|%A %H:%M|100%%') + '<|im_end|>\n' }}"
    ) + CHATML.template
    DAY = "26 Jul 2024|2024-07-26|July 26, 2024|Friday 00:00|100%"

    def test_ids_are_of_one_day(self) -> None:
        tokenizer = chatml(self.TEMPLATE)
        encoded = row_of(tokenizer)
        assert parts(tokenizer, encoded)[0].startswith(f"<|im_start|>system\n{self.DAY}<|im_end|>\n<|im_start|>user")
        assert encoded.remarks == {DATED: (1,)}
        prompts, remarks = encode_prompts([Prompt(QUESTION, 1)], tokenizer, max_tokens=999)
        assert prompts == [list(encoded.rows[0].prompt)]
        assert remarks == {DATED: (1,)}
        literal = chatml(CHATML.template)
        system = {"role": "system", "content": self.DAY}
        row = encoded.rows[0]
        assert [*row.prompt, *row.responses[0]] == truth(literal, [system, ASK, ANSWER])[: len(row)]

    def test_a_template_that_does_not_ask_says_nothing(self) -> None:
        tokenizer = chatml("{% if tools %}{{ strftime_now('%Y') }}{% endif %}" + CHATML.template)
        assert row_of(tokenizer).remarks == {}


class TestCalls:
    """The arguments of a call as the template wants them: an object mostly, text for some."""

    AS_TEXT = CALL | {
        "tool_calls": [{"type": "function", "function": {"name": "weather", "arguments": '{"city":"Paris"}'}}]
    }
    ODD = CALL | {"tool_calls": [{"type": "function", "function": {"name": "weather", "arguments": "Paris"}}]}

    def row(self, tokenizer: Any, call: dict[str, Any]) -> list[int]:
        source = written({"messages": [WEATHER, call], "tools": TOOLS})
        (row,) = encode_demonstrations(read_demonstrations(source).rows, tokenizer, max_tokens=999).rows
        return [*row.prompt, *row.responses[0]]

    def test_text_is_not_quoted_twice(self) -> None:
        tokenizer = tokenizer_of("bytes", QWEN25)
        expected = truth(tokenizer, [WEATHER, CALL], tools=TOOLS)
        assert self.row(tokenizer, CALL) == expected[:-1]  # less the line break behind the end
        assert self.row(tokenizer, self.AS_TEXT) == expected[:-1]
        assert self.row(tokenizer, self.ODD) == truth(tokenizer, [WEATHER, self.ODD], tools=TOOLS)[:-1]

    def test_templates_that_join_texts_are_given_text(self) -> None:
        """DeepSeek's: `'...' + call.function.arguments`."""
        tokenizer = tokenizer_of("bytes", QWEN25)
        template = tokenizer.chat_template.replace("(call.function.arguments | tojson)", "call.function.arguments")
        assert template != tokenizer.chat_template
        tokenizer.chat_template = template
        expected = truth(tokenizer, [WEATHER, self.AS_TEXT], tools=TOOLS)
        assert self.row(tokenizer, self.AS_TEXT) == expected[:-1]
        spaced = json.loads(json.dumps(self.AS_TEXT).replace('\\"city\\":', '\\"city\\": '))
        assert self.row(tokenizer, CALL) == truth(tokenizer, [WEATHER, spaced], tools=TOOLS)[:-1]

    def test_no_call_and_no_text_is_no_answer(self) -> None:
        source = written({"messages": [ASK, {"role": "assistant", "content": "", "tool_calls": []}]})
        with pytest.raises(InputError, match='the last answer in "messages" is empty'):
            read_demonstrations(source)


class TestContentInParts:
    """Text is text, in a string or in parts."""

    @pytest.mark.parametrize(
        "content",
        [
            [{"type": "text", "text": "Who wrote Emma?"}],
            [{"type": "text", "text": "Who wrote"}, {"type": "text", "text": " Emma?", "image": None}],
        ],
    )
    def test_texts_are_put_together(self, content: Any) -> None:
        asked = {"role": "user", "content": content}
        answer = {"role": "assistant", "content": [{"type": "text", "text": SAID}]}
        pair = {"chosen": [asked, answer], "rejected": [ASK, ANSWER | {"content": "No idea."}]}
        assert read_pairs(written(pair)).rows == [Pair(QUESTION, SAID, "No idea.", 1)]
        assert read_demonstrations(written({"messages": [asked, answer]})).rows == [Demonstration(QUESTION, SAID, 1)]
        assert read_prompts(written({"prompt": [asked]})).rows == [Prompt(QUESTION, 1)]

    @pytest.mark.parametrize(
        ("part", "words"),
        [
            ({"type": "image_url", "image_url": {"url": "x"}}, 'is of type "image_url"; only text can be read'),
            ({"type": "text"}, "is null"),
            ({"type": "text", "text": 3}, "is a number where text belongs; make it a string"),
            ({"text": "x"}, 'is no part; one is {"type": "text", "text": ...}'),
            ("x", 'is no part; one is {"type": "text", "text": ...}'),
        ],
    )
    def test_what_is_no_text_is_one_line(self, part: Any, words: str) -> None:
        content = [{"type": "text", "text": "What is this?"}, part]
        source = written({"prompt": [{"role": "user", "content": content}]})
        with pytest.raises(InputError) as error:
            read_prompts(source)
        assert str(error.value).startswith(f'rows.jsonl line 1: "prompt" turn 1 content part 2 {words}')

    LOOP = "{% for p in m.content %}{% if p.type == 'text' %}{{ p.text }}{% endif %}{% endfor %}"
    JOIN = "{{ m.content | map(attribute='text') | join }}"
    INDEX = "{{ m.content[0]['text'] + '' }}"

    @pytest.mark.parametrize("roles", ["system user assistant tool", "user assistant", "user"])
    @pytest.mark.parametrize("wanted", [LOOP, JOIN, INDEX])
    def test_a_template_that_wants_parts_gets_them(self, wanted: str, roles: str) -> None:
        """Those of models that see pictures: text that is no list they drop, or refuse."""
        write = f"{{% if m.role in '{roles}' %}}{wanted}{{% else %}}{{{{ m.content }}}}{{% endif %}}"
        tokenizer = chatml(CHATML.template.replace(" + m.content + '<|im_end|>'", f"}}}}{write}{{{{ '<|im_end|>'"))
        turns = [SYSTEM, ASK, ANSWER, ASK]

        def in_parts(turn: dict[str, Any]) -> dict[str, Any]:
            part = [{"type": "text", "text": turn["content"]}]
            return turn | {"content": part} if turn["role"] in roles else turn

        given = {"prompt": turns, "chosen": [ANSWER], "rejected": [ANSWER | {"content": "\n No."}]}
        encoded = encode_pairs(read_pairs(written(given)).rows, tokenizer, max_tokens=999)
        assert encoded.remarks == {}
        (row,) = encoded.rows
        assert list(row.prompt) == truth(tokenizer, list(map(in_parts, turns)), add_generation_prompt=True)
        for response, answer in zip(row.responses, (given["chosen"], given["rejected"]), strict=True):
            whole = truth(tokenizer, [in_parts(turn) for turn in (*turns, *answer)])
            assert [*row.prompt, *response] == whole[: len(row.prompt) + len(response)]
        begun = {"prompt": [ASK, ANSWER | {"content": "Jane"}]}
        ((prompt,), _) = encode_prompts(read_prompts(written(begun)).rows, tokenizer, max_tokens=999)
        assert tokenizer.decode(prompt).endswith("<|im_start|>assistant\nJane")
        assert names(tokenizer) == {"<|endoftext|>", "<|im_end|>"}

    def test_parts_are_never_written_as_they_stand(self) -> None:
        """By a template that wants the user's in parts, and what a call brought as text."""
        write = f"{{% if m.role == 'tool' %}}{{{{ m.content }}}}{{% else %}}{self.LOOP}{{% endif %}}"
        tokenizer = chatml(CHATML.template.replace(" + m.content + '<|im_end|>'", f"}}}}{write}{{{{ '<|im_end|>'"))
        source = written({"messages": [WEATHER, CALL, {"role": "tool", "content": "sunny"}, ANSWER]})
        with pytest.raises(InputError, match="it wants the content of some turns in parts and of others as text"):
            encode_demonstrations(read_demonstrations(source).rows, tokenizer, max_tokens=999)

    def test_no_parts_are_no_text(self) -> None:
        with pytest.raises(InputError, match='"prompt" is empty'):
            read_prompts(written({"prompt": [{"role": "user", "content": []}]}))


class TestWhatARowTellsTheTemplate:
    """`chat_template_kwargs` and `enable_thinking`, as TRL has them."""

    @pytest.mark.parametrize(
        "columns",
        [
            {"enable_thinking": False},
            {"chat_template_kwargs": {"enable_thinking": False, "other": None}},
            {"chat_template_kwargs": '{"enable_thinking": false}'},
            {"chat_template_kwargs": {"enable_thinking": False}, "enable_thinking": False},
        ],
    )
    def test_it_is_handed_on(self, columns: dict[str, Any]) -> None:
        tokenizer = tokenizer_of("bytes", QWEN3)
        source = written({"messages": [ASK, ANSWER]} | columns)
        reading = read_demonstrations(source)
        assert reading.unread == ()
        encoded = encode_demonstrations(reading.rows, tokenizer, max_tokens=999)
        expected = truth(tokenizer, [ASK], add_generation_prompt=True, enable_thinking=False)
        assert list(encoded.rows[0].prompt) == expected
        assert tokenizer.decode(expected).endswith("</think>\n\n")
        assert parts(tokenizer, encoded)[1] == f"{SAID}<|im_end|>"
        assert encoded.remarks == {}
        assert encode_prompts(read_prompts(source).rows, tokenizer, max_tokens=999) == ([expected], {})

    def test_a_text_prompt_beside_it_is_a_turn(self) -> None:
        source = written({"prompt": "Who wrote Emma?", "response": SAID, "enable_thinking": None})
        assert read_demonstrations(source).rows == [Demonstration(QUESTION, SAID, 1)]

    def test_what_the_template_does_not_read_is_told(self) -> None:
        encoded = row_of(chatml(CHATML.template), beside='{"enable_thinking": false}')
        assert encoded.remarks == {LOST.of("something of chat_template_kwargs"): (1,)}
        without = chatml(CHATML.template)
        without.chat_template = None
        answer = Message("assistant", SAID, '{"reasoning_content": "Hm."}')
        encoded = row_of(without, response=answer, beside='{"enable_thinking": false}')
        assert encoded.remarks == {NO_TEMPLATE.of("chat_template_kwargs"): (1,), NO_TEMPLATE.of("reasoning"): (1,)}

    @pytest.mark.parametrize(
        ("columns", "words"),
        [
            ({"enable_thinking": "yes"}, '"enable_thinking" is text; it must be true or false'),
            ({"chat_template_kwargs": [1]}, '"chat_template_kwargs" is a list; it must be an object'),
            ({"chat_template_kwargs": "x"}, '"chat_template_kwargs" is text that is not JSON; give an object'),
            (
                {"chat_template_kwargs": {"chat_template": "x"}},
                '"chat_template_kwargs" holds "chat_template", which is not a row\'s to say',
            ),
            (
                {"chat_template_kwargs": {"enable_thinking": True}, "enable_thinking": False},
                '"enable_thinking" is not what "chat_template_kwargs" says; keep one of them',
            ),
        ],
    )
    def test_faults_are_one_line(self, columns: dict[str, Any], words: str) -> None:
        with pytest.raises(InputError) as error:
            read_demonstrations(written({"messages": [ASK, ANSWER]} | columns))
        assert str(error.value) == f"rows.jsonl line 1: {words}"

    def test_no_argument_of_transformers_is_a_rows_to_give(self) -> None:
        arguments = set(inspect.signature(PreTrainedTokenizerBase.apply_chat_template).parameters)
        assert arguments - {"self", "documents", "kwargs"} <= RESERVED


class TestFilesOfPrompts:
    """What is to be answered may be a dialogue that ends before the answer."""

    @pytest.mark.parametrize("last", [ASK, {"role": "tool", "content": "sunny"}])
    def test_messages_that_end_before_an_answer(self, last: dict[str, Any]) -> None:
        source = written({"messages": [SYSTEM, ASK, ANSWER, last]}, {"messages": [SYSTEM, ASK, ANSWER]})
        first, second = read_prompts(source).rows
        assert [turn.fields() for turn in first.prompt] == [SYSTEM, ASK, ANSWER, last]
        assert [turn.fields() for turn in second.prompt] == [SYSTEM, ASK]
        with pytest.raises(InputError, match="does not end with an assistant turn"):
            read_demonstrations(written({"messages": [ASK, ANSWER, ASK]}))

    def test_with_a_system_column(self) -> None:
        (row,) = read_prompts(written({"messages": [ASK], "system": "Be brief."})).rows
        assert [turn.fields() for turn in row.prompt] == [SYSTEM, ASK]


class TestTokenizers:
    """Marks that eat white space, normalizers that change text, files with limits in them."""

    def test_marks_that_eat_the_white_space_beside_them(self) -> None:
        """Phi-3's do, on their right."""
        tokenizer = tokenizer_of("bytes", PHI3)
        eating = [AddedToken(mark, rstrip=True, special=True) for mark in PHI3.marks]
        tokenizer.add_special_tokens({"additional_special_tokens": eating})
        encoded = row_of(tokenizer, response="\n Jane Austen.")
        whole = truth(tokenizer, [ASK, ANSWER])
        row = encoded.rows[0]
        assert [*row.prompt, *row.responses[0]] == whole[: len(row)]
        assert list(row.prompt) == truth(tokenizer, [ASK], add_generation_prompt=True)
        assert parts(tokenizer, encoded)[1] == f"{SAID}<|end|>"

    @pytest.mark.parametrize("make", MAKES)
    def test_a_normalizer_that_changes_letters_invents_no_space(self, make: str) -> None:
        tokenizer = tokenizer_of(make, LLAMA2)
        bare = tokenizer.backend_tokenizer
        bare.normalizer = normalizers.Sequence(
            [normalizers.Lowercase(), *([bare.normalizer] if bare.normalizer else [])]
        )
        encoded = row_of(tokenizer, "(", "Yes")
        plain = row_of(tokenizer, "(", "yes")
        assert encoded.rows == plain.rows
        assert LOSSY in encoded.remarks
        assert LOSSY not in plain.remarks
        assert JOINED not in plain.remarks

    @pytest.mark.parametrize("make", MAKES)
    def test_text_without_a_prompt_is_text_from_its_beginning(self, make: str) -> None:
        tokenizer = tokenizer_of(make, LLAMA2)
        row = row_of(tokenizer, "", "Jane Austen.").rows[0]
        assert [*row.prompt, *row.responses[0][:-1]] == tokenizer("Jane Austen.")["input_ids"]

    def test_limits_that_a_tokenizer_was_saved_with(self) -> None:
        tokenizer = chatml(CHATML.template)
        free = row_of(tokenizer)
        tokenizer.backend_tokenizer.enable_truncation(4)
        tokenizer.backend_tokenizer.enable_padding(length=64)
        tokenizer.model_max_length = 4
        assert row_of(tokenizer).rows == free.rows


class TestBeginnings:
    """One beginning of text, whoever writes it; where there are two, the row is named."""

    def test_a_template_that_writes_two(self) -> None:
        tokenizer = tokenizer_of("bytes", LLAMA2)
        tokenizer.chat_template = "{{ bos_token }}" + LLAMA2.template
        source = written({"prompt": [ASK], "chosen": SAID, "rejected": "No."})
        said = (
            'rows.jsonl line 1: the prompt begins with two beginning-of-text tokens ("<s>"); '
            "take one out of the row, or out of the chat template"
        )
        for encode, read in (
            (encode_pairs, read_pairs),
            (encode_demonstrations, read_demonstrations),
            (encode_prompts, read_prompts),
        ):
            with pytest.raises(InputError) as error:
                encode(read(source).rows, tokenizer, max_tokens=999)  # type: ignore[operator]
            assert str(error.value) == said

    @pytest.mark.parametrize("adds_bos", [True, False])
    def test_one_that_a_text_brought_is_not_lost_with_its_beginning(self, adds_bos: bool) -> None:
        tokenizer = tokenizer_of("bytes", LLAMA2, adds_bos=adds_bos)
        text = " ".join(f"word{i}" for i in range(30))
        (ids,), remarks = encode_prompts([Prompt(f"<s>{text}", 1)], tokenizer, max_tokens=20)
        assert ids[0] == tokenizer.bos_token_id
        assert ids.count(tokenizer.bos_token_id) == 1
        assert text.endswith(tokenizer.decode(ids[1:]))
        assert remarks == {SHORTENED: (1,)}


class TestWhatIsLeft:
    """Where truncation leaves nothing to learn from, the part of the data and the way out are named."""

    def test_all_pairs_of_a_part_are_equal_as_far_as_they_are_left(self) -> None:
        pairs = [Pair("Q", "word " * 20 + end, "word " * 20, 1) for end in ("a", "b")]
        tokenizer = tokenizer_of("bytes", LLAMA2)
        with pytest.raises(InputError) as error:
            encode_pairs(pairs, tokenizer, max_tokens=10, part="held-out part")
        assert str(error.value) == (
            "held-out part: no row is left after tokenising; both responses of every pair are the same as far as "
            "--max-tokens 10 leaves them; raise it"
        )
        assert CUT in encode_pairs([*pairs, Pair("Q", "a", "b", 2)], tokenizer, max_tokens=10).remarks

    def test_pairs_that_were_equal_before(self) -> None:
        with pytest.raises(InputError, match=r"^no row is left .*; every pair's two responses are the same$"):
            encode_pairs([Pair("Q", "a", "a", 1)], tokenizer_of("bytes", LLAMA2), max_tokens=99)


@pytest.mark.parametrize("form", [CHATML, QWEN3, HARMONY], ids=lambda form: form.name)
def test_marks_inside_of_what_people_say_are_what_transformers_makes_of_them(form: Format) -> None:
    tokenizer = tokenizer_of("bytes", form)
    mark = form.marks[0]
    messages = [ASK | {"content": f"What is {mark}user\n?"}, ANSWER | {"content": f"A mark: {mark}, I think."}]
    encoded = row_of(tokenizer, (Message("user", messages[0]["content"]),), messages[1]["content"])
    row = encoded.rows[0]
    assert [*row.prompt, *row.responses[0]] == truth(tokenizer, messages)[: len(row)]
    assert tokenizer.decode(list(row.responses[0])).endswith(f"A mark: {mark}, I think.{form.turn_end}")


@pytest.mark.parametrize("form", [CHATML, LLAMA2, PHI3, HARMONY], ids=lambda form: form.name)
@pytest.mark.parametrize("suffix", ["", "\n", " "])
def test_an_answer_in_a_dialogue_that_brought_its_end_has_one(form: Format, suffix: str) -> None:
    tokenizer = tokenizer_of("bytes", form)
    brought = row_of(tokenizer, response=f"{SAID}{form.turn_end}{suffix}").rows[0].responses[0]
    assert brought.count(tokenizer.convert_tokens_to_ids(form.turn_end)) == 1
    assert tokenizer.decode(list(brought)).rstrip().endswith(form.turn_end)
