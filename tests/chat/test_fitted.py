"""A tiny model fitted to each format by transformers alone: greedy answers are the rows' responses, and end as they do.

What the model learns is the chat template's whole dialogues; nothing of ours is in its loss. So an answer sampled after
our prompt shows whether the prompt, the ends and what is read of the answer are the model's own.
"""

from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from pairtune.data.ends import end_ids
from pairtune.data.reading import Reader
from pairtune.data.schema import Demonstration, Message, Prompt
from pairtune.data.tokenize import encode_demonstrations, encode_prompts
from pairtune.data.writing import PARTED
from pairtune.sampling.sampler import sample
from tests.chat.formats import FORMATS
from tests.chat.tokenizers_of import MAKES, tokenizer_of

DIALOGUES = {
    "Who wrote Emma?": "Jane Austen.",
    "Why?": " I think so.",
    "How is the weather in Paris?": "sunny and warm",
    "Marmalade?": "Quince, definitely.\n\nOr marmalade.",
}
GREEDY = 1e-3


def fitted(begun: list[list[int]], wholes: list[list[int]], size: int, *, seed: int) -> LlamaForCausalLM:
    """A model that has learned whole dialogues by heart, every token of them, until it is sure of all after `begun`."""
    torch.manual_seed(seed)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=size, max_position_embeddings=256, **sizes))
    longest = max(map(len, wholes))
    ids = torch.tensor([row + [0] * (longest - len(row)) for row in wholes])
    labels = torch.tensor([row + [-100] * (longest - len(row)) for row in wholes])
    answers = torch.tensor(
        [[len(start) <= i < len(row) for i in range(longest)] for start, row in zip(begun, wholes, strict=True)]
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(400):
        output = model(input_ids=ids, labels=labels)
        sure = output.logits[:, :-1].softmax(-1).gather(-1, ids[:, 1:, None])[..., 0][answers[:, 1:]]
        if sure.min() > 0.8:
            break
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
    model.config.use_cache = False
    return model.eval()


@pytest.mark.parametrize("number", range(len(FORMATS)), ids=[form.name for form in FORMATS])
def test_greedy_answers_are_the_rows_responses(number: int) -> None:
    form, make = FORMATS[number], MAKES[number % len(MAKES)]
    tokenizer = tokenizer_of(make, form)
    rows = [Demonstration((Message("user", q),), a, i) for i, (q, a) in enumerate(DIALOGUES.items())]
    messages = [[{"role": "user", "content": q}, {"role": "assistant", "content": a}] for q, a in DIALOGUES.items()]
    wholes = [list(tokenizer.apply_chat_template(m, tokenize=True, return_dict=False)) for m in messages]
    encoded = encode_demonstrations(rows, tokenizer, max_tokens=999)
    expected = [list(row.responses[0]) for row in encoded.rows]
    prompts, _ = encode_prompts([Prompt(row.prompt, row.row) for row in rows], tokenizer, max_tokens=999)
    if PARTED in encoded.remarks:  # the model never saw what begins an answer: it is asked where the responses begin
        prompts = [list(row.prompt) for row in encoded.rows]
    model = fitted(prompts, wholes, len(tokenizer), seed=number)
    longest = max(map(len, expected)) + 10
    answers = sample(model, prompts, end_ids=end_ids(tokenizer), max_new_tokens=longest, seed=0, temperature=GREEDY)
    assert [list(answer.response) for answer in answers] == expected
    assert all(answer.ended for answer in answers)
    reader: Any = Reader(tokenizer)
    shown = [reader.answer(prompt, answer.response) for prompt, answer in zip(prompts, answers, strict=True)]
    assert [text.removeprefix("</think>").strip() for text in shown] == [text.strip() for text in DIALOGUES.values()]
