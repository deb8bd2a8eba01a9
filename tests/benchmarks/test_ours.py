"""Each benchmark's work on our side, on a tiny random model, through the path that is timed."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.workers import equality, ours, pairs, scale
from pairtune.data.pack import Tokens
from pairtune.data.schema import Pair
from pairtune.engine.cost import measured
from pairtune.engine.logprob import token_logprobs

SETTINGS = {"batch_size": 2, "epochs": 2, "learning_rate": 1e-3}


@pytest.fixture(autouse=True)
def _small_products(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ours, "GEMM_SIZES", {"cpu": (64,)})


@pytest.fixture
def files(tiny_folder: Any, tmp_path: Path) -> Any:
    """A tiny model and what `prepare` makes of a few pairs for it."""
    data = tmp_path / "pairs.jsonl"
    rows = [
        {"prompt": f"The film {n}", "chosen": f" was {n} good." * (1 + n % 2), "rejected": " was dull."}
        for n in range(9)
    ]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    job = {"model": str(tiny_folder(tmp_path)), "data": str(data), "folder": str(tmp_path)}
    return pairs.prepare({**job, "pairs": 4, "warmup": 2, "compared": 6, "prompts": 3})


@pytest.fixture
def job(files: Any) -> Any:
    return {**files, "dtype": "float32", "settings": SETTINGS, "max_new_tokens": 3}


def test_prepared_texts_and_ids_are_the_same_thing(files: Any, tiny_tokenizer: Any) -> None:
    rows = pairs.read_rows(files["pairs"])
    assert len(rows) == 4
    tokenizer = tiny_tokenizer()
    for row in rows:
        for side in ("chosen", "rejected"):
            ids = tokenizer(row["prompt"] + row[side])["input_ids"]
            assert ids == row["prompt_ids"] + row[f"{side}_ids"]
            assert ids[-1] == tokenizer.eos_token_id
    assert "4 pairs of " in files["described"]
    assert len(pairs.read_rows(files["prompts"])) == 3
    assert not {row["prompt"] for row in rows} & {row["prompt"] for row in pairs.read_rows(files["warmup"])}


def test_a_few_rows_have_the_lengths_of_all() -> None:
    rows = [{"prompt_ids": [0] * n, "chosen_ids": [], "rejected_ids": []} for n in range(100)]
    assert sorted(len(row["prompt_ids"]) for row in pairs._spread(rows, 4)) == [12, 37, 62, 87]


def test_pairs_whose_tokens_depend_on_the_cut_are_left_out(tiny_tokenizer: Any) -> None:
    tokenizer = tiny_tokenizer()
    pairs_of_letters = sorted(t for t in tokenizer.get_vocab() if t.isascii() and t.isalpha() and len(t) == 2)
    joined = next(t for t in pairs_of_letters if t in tokenizer.tokenize(f"The {t}"))
    pool = [Pair("The", " film", " dull", 1), Pair(f"The {joined[0]}", f"{joined[1]}", " dull", 2)]
    rows, odd = pairs._texts_and_ids(pool, tokenizer)
    assert [row["prompt"] for row in rows] == ["The"]
    assert odd == 1


@pytest.mark.parametrize(("task", "examples"), [("dpo", 8), ("plain", 8), ("reward", 8), ("generate", 9)])
def test_timed_tasks_count_what_they_did(job: Any, task: Any, examples: Any) -> None:
    result = getattr(ours, task)(job)
    assert result["examples"] == examples
    assert 0 < result["seconds"] < 60


def test_adapters_are_what_learns_where_they_are_asked_for(job: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    models = []
    real = ours.load_model
    monkeypatch.setattr(ours, "load_model", lambda *given: models.append(real(*given)) or models[-1])
    assert ours.dpo({**job, "lora": {"rank": 2, "alpha": 4}})["examples"] == 8
    learning = [name for name, value in models[0].named_parameters() if value.requires_grad]
    assert learning
    assert all(".lora_" in name for name in learning)


def test_ppo_counts_episodes(job: Any) -> None:
    settings = {
        "steps": 2,
        "batch_size": 2,
        "minibatches": 1,
        "epochs": 1,
        "learning_rate": 1e-4,
        "value_learning_rate": 1e-4,
    }
    assert ours.ppo({**job, "settings": settings})["examples"] == 4


def test_warm_up_moves_no_weight(job: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A training ends where it would have without a warm-up, whatever that was made on."""
    ends = []
    real = ours.load_model
    monkeypatch.setattr(ours, "load_model", lambda *given: ends.append(real(*given)) or ends[-1])
    for warmup in ("warmup", "compared"):
        ours.dpo({**job, "warmup": job[warmup]})
    first, second = (torch.cat([p.detach().flatten() for p in model.parameters()]) for model in ends)
    torch.testing.assert_close(first, second, rtol=0, atol=0)


def test_unavoidable_flops_are_what_the_engine_counts(tiny_model: Any) -> None:
    model = tiny_model()
    rows = [Tokens((3, 4, 5), ((6, 1), (7, 8, 1))), Tokens((9,), ((4, 1), (5, 1)))]
    with measured() as cost:
        for trained in (False, True, True):
            model.requires_grad_(trained)
            token_logprobs(model, ours.pack(rows))
    assert ours.unavoidable_flops(model, rows, epochs=2) == pytest.approx(cost.flops)


def test_gemm_rate_is_a_rate() -> None:
    assert 1e6 < ours.gemm_rate(torch.device("cpu")) < 1e15


def test_equal_results_are_found_equal(job: Any) -> None:
    found = equality.compare({**job, "settings": {**SETTINGS, "epochs": 1}})
    assert found["steps"] == 3
    assert found["loss_relative"] < 1e-4
    assert math.isfinite(found["loss_ours"])
    assert found["logprob_plain"] > 0  # bfloat16 is not float32


def test_a_wrong_loss_is_found(job: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    real = equality.compute_logprobs
    monkeypatch.setattr(equality, "compute_logprobs", lambda *a, **k: [values + 0.01 for values in real(*a, **k)])
    assert equality.compare({**job, "settings": {**SETTINGS, "epochs": 1}})["logprob_ours"] > 0.005


def test_scale_counts_the_pairs_above_the_fixed_run_and_no_second_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scale, "FIXED_PAIRS", 40)
    result = scale.measure({"pairs": 80, "second_objective": True})
    assert result["examples"] == 40
    assert result["first_reference"] > 0
    assert result["second_reference"] == 0
