"""The cached reference equals the live one to the bit, is found by content alone, and survives a damaged file.

Whatever the rows' order, number or company: what is kept is kept for each response.
"""

import copy
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from pairtune.cache import cache_folder, entries, remove
from pairtune.data.pack import Tokens, pack
from pairtune.engine import compile, content, hidden, logprob_store, reference, varlen
from pairtune.engine.content import model_key
from pairtune.engine.hidden import hidden_states
from pairtune.engine.logprob import token_logprobs
from pairtune.engine.path import Paths, use_paths
from pairtune.engine.reference import compute_logprobs, reference_logprobs
from pairtune.engine.version import engine_version
from pairtune.models.load import frozen_copy, load_model, save_model

ROWS = [Tokens((5, 6, 7), ((8, 9, 1), (10, 1))), Tokens((11,), ((12, 13, 14, 1), (15, 1))), Tokens((5, 6), ((7, 1),))]


@pytest.fixture
def model(tiny_model: Any) -> Any:
    return tiny_model()


@pytest.fixture(autouse=True)
def few_tokens_a_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(hidden.TOKENS_PER_PASS, "cpu", 16)


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> Any:
    """How many passes of the model were made, as a list that grows."""
    made = []
    real = reference.token_logprobs

    def counting(*args: Any, **kwargs: Any) -> Any:
        made.append(1)
        return real(*args, **kwargs)

    monkeypatch.setattr(reference, "token_logprobs", counting)
    return made


def get(model: Any, rows: Any = ROWS, **kwargs: Any) -> Any:
    lines = []
    values, cost = reference_logprobs(model, rows, say=lines.append, **kwargs)
    return values, cost, lines


def kept_folders() -> Any:
    return sorted((cache_folder() / "reference").iterdir())


def kept_files() -> Any:
    return sorted((cache_folder() / "reference").glob("*/*"))


def all_equal(first: Any, second: Any) -> Any:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_one_tensor_a_row_in_the_order_given_whatever_the_batches(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with torch.no_grad():
        expected = [token_logprobs(model, pack([row])) for row in ROWS]
    seen = []
    for budget in (1, 9, 1000):
        monkeypatch.setitem(hidden.TOKENS_PER_PASS, "cpu", budget)
        values = compute_logprobs(model, ROWS, progress=seen.append)
        assert [len(x) for x in values] == [5, 6, 2]
        assert not any(x.requires_grad for x in values)
        torch.testing.assert_close(values, expected, rtol=1e-5, atol=1e-6)
    assert sum(seen) == 3 * len(ROWS)


def test_temperature_is_that_of_the_sampled_distribution(model: Any) -> None:
    (hot,) = compute_logprobs(model, ROWS[:1], temperature=2.0)
    batch = pack(ROWS[:1])
    with torch.no_grad():
        logits = model.get_output_embeddings()(hidden_states(model, batch)[batch.source_R])
    expected = torch.log_softmax(logits / 2, -1).gather(-1, batch.target_R[:, None])[:, 0]
    torch.testing.assert_close(hot, expected)


def test_the_second_time_it_is_read_bit_for_bit_with_what_it_cost(model: Any, passes: Any) -> None:
    first, spent, said = get(model)
    live = len(passes)
    assert live > 0
    assert said == []
    seen = []
    second, recorded, said = get(model, progress=seen.append)
    assert len(passes) == live, "a hit runs no model"
    assert all_equal(first, second)
    assert recorded == spent
    assert spent.tokens == sum(map(len, ROWS))
    assert spent.flops > 0
    assert said == ["reference: 3 rows from the cache"]
    assert sum(seen) == len(ROWS)


def test_what_is_kept_is_what_a_pass_without_the_cache_gives(model: Any) -> None:
    kept, _, _ = get(model)
    assert all_equal(kept, compute_logprobs(model, ROWS))
    assert all_equal(kept[1:], list(kept)[1:]), "a slice is the same rows"


def test_a_policy_that_is_the_reference_has_the_same_key(model: Any) -> None:
    assert model_key(frozen_copy(model)) == model_key(model)


def test_where_a_model_lies_does_not_matter(model: Any, tiny_tokenizer: Any, tmp_path: Path, cpu: Any) -> None:
    for name in ("a", "b"):
        save_model(model, tiny_tokenizer(), tmp_path / name)
    assert len({model_key(load_model(str(tmp_path / name), cpu)) for name in ("a", "b")}) == 1


FOUR = Tokens((11,), ((12, 13, 14, 1), (15, 1), (3, 4, 1), (16,)))


@pytest.mark.parametrize(
    "rows",
    [
        ROWS[::-1],  # another order: another seed's split
        ROWS[1:],  # a subset
        [ROWS[0], ROWS[0]],
        [Tokens(row.prompt, (response,)) for row in ROWS for response in row.responses],  # unpaired
        [Tokens(row.prompt, row.responses[::-1]) for row in ROWS],  # labels turned round
    ],
    ids=["reversed", "subset", "twice", "unpaired", "turned"],
)
def test_the_same_responses_in_other_rows_run_no_model(model: Any, passes: Any, rows: Any) -> None:
    kept = {
        (row.prompt, response): part
        for row, values in zip(ROWS, get(model)[0], strict=True)
        for response, part in zip(row.responses, values.split([len(r) for r in row.responses]), strict=True)
    }
    before = len(passes)
    values, cost, said = get(model, rows)
    assert len(passes) == before
    assert said == [f"reference: {len(rows)} rows from the cache"]
    assert all_equal(values, [torch.cat([kept[row.prompt, r] for r in row.responses]) for row in rows])
    assert cost.tokens == sum(map(len, rows)), "what these rows' own pass would have cost"


def test_a_superset_computes_what_is_new_and_tells_of_both_parts(model: Any, passes: Any) -> None:
    first, spent, _ = get(model)
    new = [Tokens((5, 6), ((7, 2),)), FOUR]
    mixed = [new[0], ROWS[2], new[1], ROWS[0]]
    before = len(passes)
    seen = []
    values, cost, said = get(model, mixed, progress=seen.append)
    assert said == ["reference: 2 of 4 rows from the cache"]
    assert len(passes) > before
    assert sum(seen) == 4
    assert all_equal([values[1], values[3]], [first[2], first[0]])
    live = compute_logprobs(model, mixed)
    torch.testing.assert_close(list(values), live, rtol=1e-5, atol=1e-6)
    share = sum(map(len, (ROWS[2], ROWS[0]))) / sum(map(len, ROWS))
    assert cost.tokens == round(spent.tokens * share) + sum(map(len, new))
    assert cost.seconds > spent.seconds * share
    assert get(model, mixed)[2] == ["reference: 4 rows from the cache"]


def test_a_long_pass_keeps_what_it_has_as_it_goes(model: Any, passes: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(reference, "TOKENS_PER_FILE", 1)
    real = reference.token_logprobs

    def third_time_stopped(*args: Any, **kwargs: Any) -> Any:
        if len(passes) == 2:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    monkeypatch.setattr(reference, "token_logprobs", third_time_stopped)
    with monkeypatch.context() as alone:
        alone.setitem(hidden.TOKENS_PER_PASS, "cpu", 1)
        with pytest.raises(KeyboardInterrupt):
            reference_logprobs(model, ROWS)
    monkeypatch.setattr(reference, "token_logprobs", real)
    values, cost, said = get(model)
    assert said == ["reference: 2 of 3 rows from the cache"]
    assert len(passes) == 3
    assert cost.tokens == sum(map(len, ROWS)), "nothing is paid or told twice"
    assert len(kept_files()) == 3
    assert get(model)[1] == cost
    torch.testing.assert_close(list(values), compute_logprobs(model, ROWS), rtol=1e-5, atol=1e-6)


def other_weight(model: Any) -> Any:
    with torch.no_grad():
        model.get_input_embeddings().weight[0, 0] += 1e-6
    return model


def other_dtype(model: Any) -> Any:
    return model.bfloat16()


def other_configuration(model: Any) -> Any:
    model.config.rms_norm_eps *= 2
    return model


@pytest.mark.parametrize("change", [other_weight, other_dtype, other_configuration])
def test_another_model_misses(model: Any, passes: Any, change: Any) -> None:
    get(model)
    before = len(passes)
    get(change(copy.deepcopy(model)))
    assert len(passes) > before
    assert len(kept_folders()) == 2


@pytest.mark.parametrize(
    "row",
    [
        Tokens((5, 6), ((7, 2),)),
        Tokens((5,), ((6, 7, 1),)),  # the same tokens, another boundary
        Tokens((5, 6, 7), ((1,),)),
    ],
)
def test_another_row_misses(model: Any, passes: Any, row: Any) -> None:
    get(model)
    before = len(passes)
    get(model, [row])
    assert len(passes) > before


def test_a_new_engine_misses_and_says_so_once(model: Any, passes: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    get(model)
    before = len(passes)
    now = engine_version()
    line = f"reference: the cached values are of engine version {now} and this is version 0ff; computing them again"
    monkeypatch.setattr(reference, "engine_version", lambda: "0ff")
    assert get(model)[2] == [line]
    assert len(passes) > before
    assert get(model)[2] == ["reference: 3 rows from the cache"]


def as_if_it_were(module: Any, name: Any, value: Any) -> Any:
    def change(monkeypatch: pytest.MonkeyPatch, model: Any) -> None:
        monkeypatch.setattr(module, name, value)

    return change


@pytest.mark.parametrize(
    "change",
    [
        as_if_it_were(torch, "__version__", "9.9"),
        as_if_it_were(content.transformers, "__version__", "9.9"),
        as_if_it_were(content, "built", lambda: False),  # torch's products serve instead of ours
        as_if_it_were(content, "fingerprint", lambda: "another compiler, other flags, another processor"),
        as_if_it_were(content, "is_large", lambda model: True),  # blocks compiled
        lambda monkeypatch, model: use_paths(model, Paths(engine="padded")),
    ],
    ids=["torch", "transformers", "no kernels", "other kernels", "compiled", "padded"],
)
def test_whatever_else_computes_the_numbers_is_in_the_key(
    model: Any, monkeypatch: pytest.MonkeyPatch, change: Any
) -> None:
    before = model_key(model)
    monkeypatch.setattr(content, "obstacle", lambda: "")
    assert model_key(model) == before
    change(monkeypatch, model)
    assert model_key(model) != before


def test_a_sentence_is_not_in_the_key(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    before = model_key(model)
    for module in (compile, varlen):
        monkeypatch.setattr(module, "describe", lambda model: "told in other words")
    assert model_key(model) == before


def test_processes_that_write_at_once_do_not_meet(model: Any) -> None:
    """Both compute what neither found: each writes a file of its own, and either serves the next."""
    first, _, _ = get(model)
    (file,) = kept_files()
    away = file.rename(cache_folder() / "away")
    get(model)
    away.rename(file)
    assert len(kept_files()) == 2
    values, cost, said = get(model)
    assert said == ["reference: 3 rows from the cache"]
    assert all_equal(values, first)
    assert cost.tokens == sum(map(len, ROWS))


def test_the_values_outlive_a_cache_that_is_cleared(model: Any) -> None:
    values, _, _ = get(model)
    for entry in entries():
        remove(entry)
    assert kept_folders() == []
    assert all_equal(values, compute_logprobs(model, ROWS))


def flip_a_bit(content: Any) -> Any:
    return content[:-1] + bytes([content[-1] ^ 1])


@pytest.mark.parametrize(
    "damage",
    [lambda content: content[:20], lambda content: b"", lambda content: content.replace(b"cost", b"coat"), flip_a_bit],
    ids=["cut", "empty", "no cost", "one bit"],
)
def test_a_damaged_file_is_computed_again_and_why_is_said(model: Any, passes: Any, damage: Any) -> None:
    first = list(get(model)[0])  # out of the file that is about to be damaged
    (path,) = kept_files()
    path.write_bytes(damage(path.read_bytes()))
    before = len(passes)
    again, _, said = get(model)
    assert len(passes) > before
    assert said == ["reference: a cached file does not hold what was written; computing those values again"]
    assert all_equal(first, again)
    assert get(model)[2] == ["reference: 3 rows from the cache"], "the damaged file was replaced"


@pytest.mark.parametrize("error", [FileNotFoundError(2, "No such file"), OSError(28, "No space left on device")])
def test_where_the_cache_takes_nothing_the_values_are_this_processes(
    error: OSError, model: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = logprob_store.save_file

    def broken(tensors: Any, path: Path, **kwargs: Any) -> None:
        if path.is_relative_to(cache_folder()):
            raise error
        real(tensors, path, **kwargs)

    monkeypatch.setattr(logprob_store, "save_file", broken)
    first = get(model)[0]
    assert "reference: cannot be kept for another run" in capsys.readouterr().err
    assert kept_files() == []
    monkeypatch.setattr(logprob_store, "save_file", real)
    assert all_equal(first, get(model)[0])


def test_a_write_that_breaks_off_leaves_no_file(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    real = logprob_store.save_file

    def broken(tensors: Any, path: Any, **kwargs: Any) -> None:
        real(tensors, path, **kwargs)
        os.truncate(path, 10)
        raise OSError("no space left on device")

    monkeypatch.setattr(logprob_store, "save_file", broken)
    with pytest.raises(OSError, match="no space"):
        get(model)
    assert kept_files() == []
    monkeypatch.setattr(logprob_store, "save_file", real)
    assert get(model)[2] == []
