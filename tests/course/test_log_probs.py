"""Log-probabilities of pairs, against the model's own forward pass in transformers."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import pairtune


def test_they_are_sums_over_the_responses_tokens(tmp_path: Path, tiny_folder: Callable[..., Path]) -> None:
    folder = tiny_folder(tmp_path / "model")
    rows = [
        {"prompt": "How is it?", "chosen": " It is fine and well.", "rejected": " No."},
        {"prompt": "And now that?", "chosen": " Yes.", "rejected": " It might be so or so."},
    ]
    data = tmp_path / "pairs.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    found = pairtune.log_probs(model=folder, data=data, dtype="float32")
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    for row, values in zip(rows, found, strict=True):
        for side in ("chosen", "rejected"):
            prompt = tokenizer(row["prompt"])["input_ids"]
            ids = [*tokenizer(row["prompt"] + row[side])["input_ids"], tokenizer.eos_token_id]
            with torch.no_grad():
                logprobs = model(torch.tensor([ids])).logits[0].log_softmax(-1)
            expected = sum(float(logprobs[t - 1, ids[t]]) for t in range(len(prompt), len(ids)))
            assert values[side] == pytest.approx(expected, abs=1e-3)
            assert values[f"{side}_tokens"] == len(ids) - len(prompt)
