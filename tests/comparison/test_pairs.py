"""The pairs that every arm shares: own ones in three parts, or sampled and labelled by a known reward."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pairtune.comparison.pairs import SharedPairs, read_own_pairs, sample_review_pairs
from pairtune.errors import InputError
from pairtune.runs import CompareRun
from pairtune.stages.measure import distinct_prompts
from tests.chat.formats import DEEPSEEK_R1
from tests.chat.tokenizers_of import tokenizer_of

Tiny = Callable[..., CompareRun]


def test_own_pairs_fall_into_three_parts_that_share_no_prompt(tiny_run: Tiny, tiny_tokenizer: Any) -> None:
    parts = read_own_pairs(tiny_run(), tiny_tokenizer())
    assert len(parts.train) == 12
    assert 9 <= len(parts.heldout) <= 10
    prompts = [{row.prompt for row in rows} for rows in (parts.train, parts.heldout, parts.judge)]
    assert all(prompts)
    assert len(set.union(*prompts)) == sum(len(part) for part in prompts)
    assert read_own_pairs(tiny_run(), tiny_tokenizer()) == parts
    assert read_own_pairs(tiny_run(seed=1), tiny_tokenizer()) != parts


def test_truncation_is_said(tiny_run: Tiny, tiny_tokenizer: Any, capsys: pytest.CaptureFixture[str]) -> None:
    read_own_pairs(tiny_run(max_tokens=12), tiny_tokenizer())
    said = capsys.readouterr().err
    assert "prompts lost their beginning to --max-tokens" in said
    assert "have a response that lost its end" in said


def test_too_few_pairs(tiny_run: Tiny, tiny_tokenizer: Any) -> None:
    with pytest.raises(InputError, match="nothing is left to train on - lower --heldout"):
        read_own_pairs(tiny_run(heldout=39), tiny_tokenizer())


def test_pairs_survive_their_file(tiny_run: Tiny, tiny_tokenizer: Any, tmp_path: Path) -> None:
    parts = read_own_pairs(tiny_run(), tiny_tokenizer())
    parts.save(tmp_path / "pairs.jsonl", tiny_tokenizer())
    assert SharedPairs.load(tmp_path / "pairs.jsonl") == parts


def test_answers_are_sampled_after_what_the_template_begins_them_with(
    tiny_run: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where it writes a finished answer in another way; and the file of pairs keeps that."""
    tokenizer = tokenizer_of("bytes", DEEPSEEK_R1)
    path = tmp_path / "chats.jsonl"
    turns = [[{"role": "user", "content": f"Film {i}?"}] for i in range(12)]
    rows = [{"prompt": turn, "chosen": f"Good, {i}", "rejected": f"Bad, {i}"} for i, turn in enumerate(turns)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    parts = read_own_pairs(tiny_run(data=str(path), heldout=3, pairs=4), tokenizer)
    assert "in another way than it begins an answer" in capsys.readouterr().err
    parts.save(tmp_path / "pairs.jsonl", tokenizer)
    assert SharedPairs.load(tmp_path / "pairs.jsonl") == parts
    prompts = distinct_prompts(parts.heldout)
    assert [tokenizer.decode(list(prompt))[-20:] for prompt in prompts] == ["<|Assistant|><think>\n"[-20:]] * 3
    assert prompts == [row.question for row in parts.heldout]
    begun = {
        tuple(tokenizer.apply_chat_template(turn, add_generation_prompt=True, return_dict=False)) for turn in turns
    }
    assert set(prompts) | {row.question for row in parts.train} <= begun


def test_sampled_pairs_are_labelled_by_bradley_terry_on_gold(
    tiny_run: Tiny, tiny_tokenizer: Any, tiny_model: Any
) -> None:
    tokenizer, settings = tiny_tokenizer(), tiny_run(pairs=80, heldout=20, sampling_max_new_tokens=4)
    prompts = [(3 + i % 200, 5 + i // 200) for i in range(300)]

    def decided(texts: list[str]) -> Any:
        """A gold reward so sharp that its labels leave nothing to chance."""
        return np.array([1e4 * (hash_of(text) % 997) for text in texts])

    def hash_of(text: str) -> int:
        return sum(ord(char) * (i + 1) for i, char in enumerate(text))

    found, facts = sample_review_pairs(tiny_model(), tokenizer, decided, prompts, settings)  # type: ignore[arg-type]
    assert (len(found.train), len(found.heldout), found.judge) == (80, 20, ())
    assert len({row.prompt for row in found.train + found.heldout}) == 100
    assert all(row.responses[0] != row.responses[1] for row in found.train + found.heldout)
    for row in found.train:
        gold = [
            decided([tokenizer.decode([*row.prompt, *side], skip_special_tokens=True)])[0] for side in row.responses
        ]
        assert gold[0] >= gold[1]
    assert facts["labels_with_the_higher_gold"] > 0.95

    undecided, facts = sample_review_pairs(
        tiny_model(),
        tokenizer,
        lambda texts: np.zeros(len(texts)),
        prompts,
        settings,  # type: ignore[arg-type]
    )
    assert undecided.train != found.train
    with pytest.raises(InputError, match="ask for fewer --pairs"):
        sample_review_pairs(tiny_model(), tokenizer, decided, prompts[:50], settings)  # type: ignore[arg-type]
