"""A reward model that somebody else trained, in `evaluate` and `ppo`: its rewards are transformers' own."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import pairtune
from pairtune.data.pack import Tokens
from pairtune.data.schema import Message, Pair
from pairtune.data.tokenize import encode_pairs
from pairtune.engine.readers import load_reader
from pairtune.engine.value_heads import score_rewards
from pairtune.models.heads import HEAD_FILE, ScalarModel
from pairtune.models.load import save_model
from pairtune.models.machine import choose_machine
from pairtune.stages import measure
from pairtune.training import online
from tests.survey.ours import recorded


@pytest.fixture
def theirs(tmp_path: Path, tiny_model: Any, tiny_tokenizer: Any) -> Path:
    """Of another architecture than the policy's, and, as many are, with a token more to pad with."""
    config = tiny_model("mistral").config
    config.num_labels, config.vocab_size, config.pad_token_id = 1, 301, 300
    torch.manual_seed(7)
    model = AutoModelForSequenceClassification.from_config(config)
    with torch.no_grad():
        model.score.weight.normal_()
    model.save_pretrained(tmp_path / "theirs")
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    tokenizer.save_pretrained(tmp_path / "theirs")
    return tmp_path / "theirs"


@pytest.fixture
def data(tmp_path: Path) -> str:
    pairs = [{"prompt": f"Who wrote {i}?", "chosen": " I wrote it.", "rejected": " Nobody."} for i in range(8)]
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(pair) + "\n" for pair in pairs), encoding="utf-8")
    return str(path)


def rewards(folder: Path, rows: list[Tokens]) -> list[float]:
    """By transformers' own class, one row at a time."""
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        return [float(model(torch.tensor([[*row.prompt, *row.responses[0]]])).logits) for row in rows]


@pytest.mark.parametrize("behind", ["", "\n", "\n\n"])
def test_a_dialogue_is_read_to_the_end_of_its_template(
    behind: str, theirs: Path, tiny_tokenizer: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """By transformers' own class on its template's whole dialogue; an answer that did not end, to its last token."""
    tokenizer = AutoTokenizer.from_pretrained(theirs)
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m.role + ': ' + m.content + eos_token + '" + behind.replace("\n", "\\n") + "' }}"
        "{% endfor %}{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
    )
    tokenizer.save_pretrained(theirs)
    policy = tiny_tokenizer()
    policy.chat_template = tokenizer.chat_template
    machine = choose_machine("float32")
    model = load_reader(str(theirs), machine, policy, setting="judge")
    said = capsys.readouterr().err
    assert ("judge: its score is read where its chat template ends" in said) == bool(behind)
    assert "is not the policy's" not in said
    question = (Message("user", "Who?"),)
    (row,) = encode_pairs([Pair(question, "I.", "Nobody, ever.", 1)], policy, max_tokens=99).rows
    wholes = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": answer}], return_dict=False
        )
        for answer in ("I.", "Nobody, ever.")
    ]
    right = rewards(theirs, [Tokens((), (tuple(whole),)) for whole in wholes])
    assert score_rewards(model, [row]) == [pytest.approx(right, abs=1e-4)]
    cut = Tokens(row.prompt, (row.responses[1][:-1],))
    assert score_rewards(model, [cut]) == [pytest.approx(rewards(theirs, [cut]), abs=1e-4)]
    policy.chat_template = "{{ messages[0].content }}"
    load_reader(str(theirs), machine, policy, setting="judge")
    assert "judge: its chat template is not the policy's" in capsys.readouterr().err


def test_ours_is_read_at_the_answers_end(tiny_model: Any, tiny_tokenizer: Any, tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer(chat=True)
    tokenizer.chat_template += "{{ '\\n' }}"
    model, folder, machine = ScalarModel(tiny_model()), tmp_path / "ours", choose_machine("float32")
    model.save(folder, tokenizer)
    assert load_reader(str(folder), machine, tokenizer, setting="judge").behind == {}
    save_model(model.body, tokenizer, folder / "old")
    save_file(model.head.state_dict(), folder / "old" / HEAD_FILE)
    assert load_reader(str(folder / "old"), machine, tokenizer, setting="judge").behind == {}


def test_evaluate_and_ppo_read_it(theirs: Path, data: str, tiny_folder: Any, tmp_path: Path) -> None:
    policy = str(tiny_folder(tmp_path))
    few = {"dtype": "float32", "sampling_max_new_tokens": 6, "max_tokens": 64}
    with recorded(measure, "score_rewards") as calls:
        figures = pairtune.evaluate(model=policy, reference=policy, data=data, reward_model=str(theirs), **few)
    ((_, rows), _, scores), *_ = calls
    right = rewards(theirs, rows)
    assert [score for (score,) in scores] == pytest.approx(right, abs=1e-4)
    assert figures["reward_model_score"]["mean"] == pytest.approx(sum(right) / len(right), abs=1e-4)
    assert max(right) - min(right) > 0.05
    with recorded(online, "score_rewards") as calls:
        pairtune.ppo(
            model=policy, reward_model=str(theirs), data=data, out=str(tmp_path / "out"), steps=1, batch_size=4, **few
        )
    for (_, rows), _, scores in calls:
        assert [score for (score,) in scores] == pytest.approx(rewards(theirs, rows), abs=1e-4)
    assert calls
