"""The cached reference equals the live one to the bit, is found by content alone, and survives a damaged file."""

import copy
import os

import pytest
import torch

from pairtune.data.pack import Tokens, pack
from pairtune.engine import reference
from pairtune.engine.hidden import hidden_states
from pairtune.engine.logprob import token_logprobs
from pairtune.engine.reference import cache_key, compute_logprobs, reference_logprobs
from pairtune.models.load import cache_folder, frozen_copy, load_model, save_model

ROWS = [Tokens((5, 6, 7), ((8, 9, 1), (10, 1))), Tokens((11,), ((12, 13, 14, 1), (15, 1))), Tokens((5, 6), ((7, 1),))]


@pytest.fixture
def model(tiny_model):
    return tiny_model()


@pytest.fixture
def passes(monkeypatch):
    """How many passes of the model were made, as a list that grows."""
    made = []
    real = reference.token_logprobs

    def counting(*args, **kwargs):
        made.append(1)
        return real(*args, **kwargs)

    monkeypatch.setattr(reference, "token_logprobs", counting)
    return made


def get(model, rows=ROWS, **kwargs):
    lines = []
    values, cost = reference_logprobs(model, rows, tokens_per_pass=16, say=lines.append, **kwargs)
    return values, cost, lines


def kept_files():
    return sorted((cache_folder() / "reference").iterdir())


def test_one_tensor_a_row_in_the_order_given_whatever_the_batches(model):
    with torch.no_grad():
        expected = [token_logprobs(model, pack([row])) for row in ROWS]
    seen = []
    for budget in (1, 9, 1000):
        values = compute_logprobs(model, ROWS, tokens_per_pass=budget, progress=seen.append)
        assert [len(x) for x in values] == [5, 6, 2]
        assert not any(x.requires_grad for x in values)
        torch.testing.assert_close(values, expected, rtol=1e-5, atol=1e-6)
    assert sum(seen) == 3 * len(ROWS)


def test_temperature_is_that_of_the_sampled_distribution(model):
    (hot,) = compute_logprobs(model, ROWS[:1], tokens_per_pass=99, temperature=2.0)
    batch = pack(ROWS[:1])
    with torch.no_grad():
        logits = model.get_output_embeddings()(hidden_states(model, batch)[batch.source_R])
    expected = torch.log_softmax(logits / 2, -1).gather(-1, batch.target_R[:, None])[:, 0]
    torch.testing.assert_close(hot, expected)


def test_the_second_time_it_is_read_bit_for_bit_with_what_it_cost(model, passes):
    first, spent, said = get(model)
    live = len(passes)
    assert live > 0
    assert said == []
    seen = []
    second, recorded, said = get(model, progress=seen.append)
    assert len(passes) == live, "a hit runs no model"
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert recorded == spent
    assert spent.tokens == sum(map(len, ROWS))
    assert spent.flops > 0
    assert said == ["reference: 3 rows from the cache"]
    assert sum(seen) == len(ROWS)


def test_a_policy_that_is_the_reference_has_the_same_key(model):
    assert cache_key(frozen_copy(model), ROWS) == cache_key(model, ROWS)


def test_where_a_model_lies_does_not_matter(model, tiny_tokenizer, tmp_path, cpu):
    for name in ("a", "b"):
        save_model(model, tiny_tokenizer(), tmp_path / name)
    keys = {cache_key(load_model(str(tmp_path / name), cpu), ROWS) for name in ("a", "b")}
    assert len(keys) == 1


def other_weight(model):
    with torch.no_grad():
        model.get_input_embeddings().weight[0, 0] += 1e-6
    return model, ROWS


def other_dtype(model):
    return model.bfloat16(), ROWS


def other_configuration(model):
    model.config.rms_norm_eps *= 2
    return model, ROWS


def other_token(model):
    return model, [*ROWS[:2], Tokens((5, 6), ((7, 2),))]


def other_boundary(model):
    return model, [*ROWS[:2], Tokens((5,), ((6, 7, 1),))]


def other_order(model):
    return model, ROWS[::-1]


@pytest.mark.parametrize(
    "change", [other_weight, other_dtype, other_configuration, other_token, other_boundary, other_order]
)
def test_anything_that_the_numbers_depend_on_misses(model, passes, change):
    get(model)
    before = len(passes)
    changed, rows = change(copy.deepcopy(model))
    get(changed, rows)
    assert len(passes) > before
    assert len(kept_files()) == 2


def test_a_new_engine_misses(model, monkeypatch):
    before = cache_key(model, ROWS)
    monkeypatch.setattr(reference, "ENGINE_VERSION", reference.ENGINE_VERSION + 1)
    assert cache_key(model, ROWS) != before


def flip_a_bit(content):
    return content[:-1] + bytes([content[-1] ^ 1])


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (lambda content: content[:20], "the file is damaged: "),
        (lambda content: b"", "the file is damaged: "),
        (lambda content: content.replace(b'"cost"', b'"coat"'), "the file is damaged: 'cost'"),
        (flip_a_bit, "the file does not hold what was written"),
    ],
    ids=["cut", "empty", "no cost", "one bit"],
)
def test_a_damaged_file_is_computed_again_and_why_is_said(model, passes, damage, why):
    first, _, _ = get(model)
    (path,) = kept_files()
    path.write_bytes(damage(path.read_bytes()))
    before = len(passes)
    again, _, said = get(model)
    assert len(passes) > before
    (line,) = said
    assert line.startswith(f"reference: the cached values cannot be used ({why}")
    assert line.endswith("; computing them again")
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert get(model)[2] == ["reference: 3 rows from the cache"], "the damaged file was replaced"


def test_a_write_that_breaks_off_leaves_no_file_to_be_found(model, monkeypatch):
    real = reference.save_file

    def broken(tensors, path, **kwargs):
        real(tensors, path, **kwargs)
        os.truncate(path, 10)
        raise OSError("no space left on device")

    monkeypatch.setattr(reference, "save_file", broken)
    with pytest.raises(OSError, match="no space"):
        get(model)
    assert not list((cache_folder() / "reference").glob("*.safetensors"))
    monkeypatch.setattr(reference, "save_file", real)
    assert get(model)[2] == [], "what was left behind is neither read nor complained about"
