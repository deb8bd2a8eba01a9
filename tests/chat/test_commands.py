"""What `generate` asks the sampler, and what it shows: held against transformers' template, without a model."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer, GenerationConfig, LlamaConfig

import pairtune
from pairtune.sampling.answer import Sample
from tests.chat.dialogues import ANSWER, ASK, SYSTEM, WHY
from tests.chat.formats import CHATML, LLAMA2, LLAMA3, QWEN3, ZEPHYR, Format
from tests.chat.tokenizers_of import tokenizer_of

Generate = Callable[..., list[list[int]]]
WAYS = [(CHATML, "bytes"), (LLAMA2, "first"), (LLAMA3, "bytes"), (QWEN3, "never"), (ZEPHYR, "always")]
formats = pytest.mark.parametrize(("form", "make"), WAYS, ids=[form.name for form, _ in WAYS])


@pytest.fixture
def saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """saved(format, make): a folder "model" with everything but weights; its tokenizer as transformers reads it."""
    monkeypatch.chdir(tmp_path)

    def save(form: Format, make: str, *, template: bool = True) -> Any:
        tokenizer = tokenizer_of(make, form)
        tokenizer.chat_template = form.template if template else None
        tokenizer.save_pretrained("model")
        Path("model/model.safetensors").touch()
        LlamaConfig(vocab_size=len(tokenizer)).save_pretrained("model")
        declared = tokenizer.convert_tokens_to_ids(list(form.declared)) or tokenizer.eos_token_id
        GenerationConfig(eos_token_id=declared).save_pretrained("model")
        return AutoTokenizer.from_pretrained("model")

    return save


@pytest.fixture
def generate(monkeypatch: pytest.MonkeyPatch) -> Generate:
    """generate(answer, setting=...): the prompts that reach the sampler, which answers with that text's tokens."""

    def asked(answer: str = "", **settings: Any) -> list[list[int]]:
        seen: list[list[int]] = []

        def sample(model: Any, prompts: Any, *, end_ids: Any, **others: Any) -> list[Sample]:
            seen.extend(map(list, prompts))
            tokenizer = AutoTokenizer.from_pretrained("model")
            ids = (*tokenizer(answer, add_special_tokens=False)["input_ids"], end_ids[-1])
            return [Sample(ids, (0.0,) * len(ids), True) for _ in prompts]

        monkeypatch.setattr("pairtune.commands.generate.sample", sample)
        monkeypatch.setattr("pairtune.commands.generate.load", lambda settings: None)
        pairtune.generate(model="model", **settings)
        return seen

    return asked


def truth(tokenizer: Any, messages: list[dict[str, Any]], **more: Any) -> list[int]:
    """The ids of the chat template, by transformers alone."""
    more = more or {"add_generation_prompt": True}
    return list(tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False, **more))


@formats
def test_a_prompt_is_a_users_turn(form: Format, make: str, saved: Any, generate: Generate) -> None:
    tokenizer = saved(form, make)
    assert generate(prompt=ASK["content"]) == [truth(tokenizer, [ASK])]
    assert generate(prompt=ASK["content"], system=SYSTEM["content"]) == [truth(tokenizer, [SYSTEM, ASK])]
    assert generate(prompt=" Who? ") == [truth(tokenizer, [{"role": "user", "content": " Who? "}])]


@formats
def test_raw_text_is_the_tokenizers_own(form: Format, make: str, saved: Any, generate: Generate) -> None:
    tokenizer = saved(form, make)
    text = "The answer is:\n"
    assert generate(prompt=text, prompt_format="text") == [tokenizer(text)["input_ids"]]
    brought = f"{form.bos}{text}"
    assert generate(prompt=brought, prompt_format="text") == [tokenizer(brought, add_special_tokens=False)["input_ids"]]


@formats
def test_a_model_without_a_template_goes_on(form: Format, make: str, saved: Any, generate: Generate) -> None:
    tokenizer = saved(form, make, template=False)
    assert generate(prompt="Who wrote Emma?") == [tokenizer("Who wrote Emma?")["input_ids"]]
    transcript = "System: Be brief.\n\nHuman: Who wrote Emma?\n\nAssistant:"
    assert generate(prompt="Who wrote Emma?", system="Be brief.") == [tokenizer(transcript)["input_ids"]]


@formats
def test_what_it_writes_goes_on_where_it_stopped(form: Format, make: str, saved: Any, generate: Generate) -> None:
    """The file of answers to begun turns is a file of demonstrations of the whole turns, first space and all."""
    tokenizer = saved(form, make)
    begun = {"role": "assistant", "content": "That was"}
    prompts = [{"prompt": [ASK, begun]}, {"prompt": [ASK, ANSWER, WHY]}, {"prompt": "Emma is by"}]
    goes_on = {"data": "prompts.jsonl", "out": "answers.jsonl", "prompt_format": "text"}
    Path("prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in prompts), encoding="utf-8")
    assert generate(" Jane Austen.", **goes_on) == [
        truth(tokenizer, [ASK, begun], continue_final_message=True),
        truth(tokenizer, [ASK, ANSWER, WHY]),
        tokenizer("Emma is by")["input_ids"],
    ]
    answers = [json.loads(line) for line in Path("answers.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["response"] for row in answers] == [" Jane Austen.", "Jane Austen.", " Jane Austen."]
    assert [row["prompt"] for row in answers] == [row["prompt"] for row in prompts]


@formats
def test_a_text_that_bears_the_templates_marks_goes_on(form: Format, make: str, saved: Any, generate: Generate) -> None:
    tokenizer = saved(form, make)
    text = tokenizer.apply_chat_template([ASK], tokenize=False, add_generation_prompt=True)
    (found,), expected = generate(prompt=text), truth(tokenizer, [ASK])
    assert found[-len(expected) :] == expected
    assert found[: -len(expected)] in ([], [tokenizer.bos_token_id]), "a BOS of the tokenizer's, as before every text"
