"""The engine's check: each fault that it promises to catch is planted or comes with an architecture, and is caught."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from pairtune.cache import cache_folder
from pairtune.data.pack import Tokens, pack
from pairtune.engine import hidden, isolation, self_check
from pairtune.engine.attention import NotPackableError
from pairtune.engine.examples import Examples
from pairtune.engine.logprob import token_logprobs
from pairtune.engine.path import Paths, paths_of, rope_switch, use_paths
from pairtune.engine.reference import compute_logprobs
from pairtune.engine.self_check import check_engine, rows_of
from pairtune.engine.value_heads import score_rewards
from pairtune.errors import InputError
from pairtune.models.heads import ScalarModel
from pairtune.models.load import frozen_copy
from pairtune.objectives.loss import loss_of
from pairtune.settings import Tuning
from pairtune.training.checkpoint import Journal
from pairtune.training.preference import train_preference
from tests.engine.test_logprob import ROWS, assert_close, assert_same_gradients, gradients
from tests.engine.test_logprob import rows_of as random_rows

PAIRS = random_rows([(9, 6, 4), (14, 5, 8), (3, 7, 7), (20, 12, 3)], seed=5)


def one_by_one(model: Any, rows: Any) -> Any:
    """Plain transformers: one sequence at a time, no padding, no mask, no code of ours."""
    parts = []
    for row in rows:
        for response in row.responses:
            tokens = torch.tensor([[*row.prompt, *response]])
            logprobs = model(tokens).logits[0].float().log_softmax(-1)
            steps = torch.arange(len(row.prompt) - 1, tokens.shape[1] - 1)
            parts.append(logprobs[steps, tokens[0, len(row.prompt) :]])
    return torch.cat(parts)


def test_a_sound_model_is_packed_within_rounding(
    architecture: Any, tiny_model: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tiny_model(architecture)
    verdict = check_engine(model, PAIRS)
    assert (verdict.path, verdict.reason) == ("packed", "")
    assert verdict.from_own < 1e-5
    assert verdict.alone_to_together < 1e-5
    assert paths_of(model).engine == "packed"
    assert "nats per token" in capsys.readouterr().err


def test_what_packed_rows_make_wrong_is_computed_by_the_models_own_forward(
    unpackable: Any, tiny_model: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """Values and gradients, and nobody has to ask for the check."""
    model = tiny_model(unpackable, spread=4.0)
    plain = frozen_copy(model)
    plain.requires_grad_(True)
    expected = one_by_one(plain, PAIRS)
    assert expected.detach().std() > 0.3, "predictions so flat would hide an error"
    actual = token_logprobs(model, pack(PAIRS))
    assert paths_of(model).engine in ("padded", "alone")
    assert_close(actual, expected)
    assert_same_gradients(gradients(model, actual), gradients(plain, expected))
    assert "which is right but slower" in capsys.readouterr().err


def test_bfloat16_hides_nothing(tiny_model: Any) -> None:
    """Errors at the segments' boundaries drown in bfloat16's own: they are looked for in float32."""
    model = tiny_model("lfm2", spread=2.0).bfloat16()
    assert check_engine(model, PAIRS).path == "padded"
    assert model.dtype == torch.bfloat16
    assert check_engine(tiny_model("llama", spread=2.0).bfloat16(), PAIRS).path == "packed"


@pytest.mark.parametrize(("named", "reason"), [
    ("lfm2", "not kept apart|attention layers"),
    ("qwen2_moe", "a mask .a window, chunks. that its attention is not told of"),
    ("llama4_text", "a mask"),
])  # fmt: skip
def test_the_reason_is_the_right_one(tiny_model: Any, named: Any, reason: Any) -> None:
    short = random_rows([(3, 1, 2), (2, 2, 1)])  # no row is as long as a window
    verdict = check_engine(tiny_model(named), short)
    assert verdict.path == "padded"
    assert __import__("re").search(reason, verdict.reason), verdict.reason


def test_windows_that_attention_is_told_of_are_packed(tiny_model: Any) -> None:
    kinds = ["sliding_attention", "full_attention"]
    model = tiny_model("qwen2", layer_types=kinds, use_sliding_window=True, sliding_window=4)
    assert check_engine(model, PAIRS).path == "packed"


def test_experts_may_differ_by_their_order_and_no_more(tiny_model: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    rows = random_rows([(9, 6, 4), (14, 5, 8)] * 3, seed=2)
    assert check_engine(tiny_model("mixtral"), rows).path == "packed"
    monkeypatch.setattr(isolation, "has_experts", lambda model: True)

    def nosy(_: Any, args: Any, output: Any) -> Any:  # planted: the mean over all tokens, a little of it
        return output + 1e-2 * output.mean(1, keepdim=True)

    model = tiny_model("mixtral", seed=1)  # not the model that was just found right
    model.base_model.layers[0].post_attention_layernorm.register_forward_hook(nosy)
    with pytest.raises(InputError, match="it is not causal"):
        check_engine(model, rows)


def test_places_that_are_handed_out_are_computed_row_by_row(tiny_model: Any) -> Any:
    """Experts of a capacity: what a pass's first 24 tokens of a kind leave, the others go without."""

    def capped(_: Any, args: Any, output: Any) -> Any:
        chosen = (args[0][..., :1] > 0).flatten().cumsum(0) <= 24
        return output * chosen.reshape(*output.shape[:-1], 1)

    model, plain = tiny_model(spread=4.0), tiny_model(spread=4.0)
    for each in (model, plain):
        each.base_model.layers[0].mlp.register_forward_hook(capped)
    verdict = check_engine(model, PAIRS)
    assert verdict.path == "alone"
    assert "not kept apart" in verdict.reason
    assert_close(token_logprobs(model, pack(PAIRS)), one_by_one(plain, PAIRS))


@torch.no_grad()
def test_a_padded_row_that_reaches_another_is_noticed(tiny_model: Any) -> Any:
    """Planted: the rows beside the first one move as soon as that one is another than it was."""

    rows = random_rows([(9, 6, 4), (14, 5, 8)])
    model = tiny_model()
    isolation.check_own_forward(model, rows, alone=False)
    seen = []

    def counts(_: Any, args: Any, output: Any) -> Any:
        seen.append(output[0].sum())
        other = 0.0 if len(seen) == 1 else float((seen[-1] - seen[0]).abs() > 0)
        return torch.cat((output[:1], output[1:] + other))

    model.base_model.layers[0].register_forward_hook(counts)
    with pytest.raises(NotPackableError, match="padded rows are not kept apart"):
        isolation.check_own_forward(model, rows, alone=False)


def test_a_single_bit_of_another_response_is_noticed(tiny_model: Any) -> Any:
    """Planted: far below any tolerance, each token adds a millionth of a millionth of the one before it in the pack."""

    def whisper(_: Any, args: Any, output: Any) -> Any:
        late = torch.zeros_like(output)
        late[:, 1:] = output[:, :-1].sign()
        return torch.nextafter(output, output + late * (args[0].shape[0] == 1 and args[0].shape[1] > 40))

    model = tiny_model()
    model.base_model.norm.register_forward_hook(whisper)
    verdict = check_engine(model, PAIRS)
    assert verdict.path != "packed"
    assert "not kept apart" in verdict.reason


def test_other_models_of_the_architecture_take_the_path_along(tiny_model: Any, blind_to_branches: Any) -> None:
    blind_to_branches()
    model = tiny_model()
    reference = frozen_copy(model)
    verdict = check_engine(model, PAIRS, others=[reference])
    assert verdict.path == "padded"
    assert verdict.from_own < 1e-5
    assert paths_of(reference) is paths_of(model)


def test_the_padded_path_trains_like_the_packed_one(
    tiny_model: Any, blind_to_branches: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    rows, losses = PAIRS, []
    for padded in (False, True):
        model, journal = tiny_model(), Journal("dpo")
        if padded:
            blind_to_branches()
            monkeypatch.setenv("PAIRTUNE_CACHE", str(tmp_path))  # the model was found right before
            assert check_engine(model, rows).path == "padded"
        examples = Examples(rows, reference=compute_logprobs(model, rows))
        train_preference(model, examples, loss_of("dpo"), Tuning(batch_size=4, epochs=2), seed=0, journal=journal)
        losses.append([row["loss"] for row in journal.rows])
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)


class TestRefusals:
    """What even one row at a time gets wrong is one line."""

    def test_dropout_that_is_on(self, tiny_model: Any) -> None:
        with pytest.raises(InputError, match="two passes of the model over the same rows differ; switch its dropout"):
            check_engine(tiny_model("gpt2").train(), PAIRS)

    def test_a_model_that_is_not_causal(self, tiny_model: Any) -> None:
        with pytest.raises(InputError, match="cannot be computed with here: it is not causal"):
            check_engine(tiny_model("bert"), PAIRS)

    @pytest.mark.parametrize("what", ["get_output_embeddings", "get_input_embeddings"])
    def test_weights_that_are_not_finite(self, tiny_model: Any, what: Any) -> None:
        model = tiny_model()
        with torch.no_grad():
            getattr(model, what)().weight[5] = math.nan
        with pytest.raises(InputError, match="not finite"):
            check_engine(model, PAIRS)

    def test_a_forward_pass_that_fails(self, tiny_model: Any) -> None:
        model = tiny_model()
        model.base_model.layers[1].register_forward_pre_hook(lambda *_: (_ for _ in ()).throw(ZeroDivisionError("oh")))
        with pytest.raises(InputError, match="own forward pass fails on plain rows: ZeroDivisionError: oh"):
            check_engine(model, PAIRS)

    def test_an_engine_that_is_wrong_everywhere(self, tiny_model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        right = self_check.pack
        monkeypatch.setattr(self_check, "pack", lambda rows: replace(b := right(rows), target_R=b.target_R.flip(0)))
        with pytest.raises(InputError, match="one row at a time differ by up to"):
            check_engine(tiny_model(), PAIRS)

    def test_rows_longer_than_a_table_of_positions(self, tiny_model: Any) -> None:
        with pytest.raises(InputError, match="a row is 32 tokens long and the model has 30 positions"):
            check_engine(tiny_model("gpt2", n_positions=30), PAIRS)

    def test_rows_longer_than_what_a_rotary_model_was_made_for_are_told(
        self, tiny_model: Any, capsys: pytest.CaptureFixture[str]
    ) -> None:
        check_engine(tiny_model(max_position_embeddings=16), PAIRS)
        assert "rows of up to 32 tokens, where the model was made for 16" in capsys.readouterr().err

    def test_ids_that_have_no_embedding(self, tiny_model: Any) -> None:
        rows = [Tokens((3, 4), ((5, 300), (6, 7)))]
        with pytest.raises(InputError, match="token id 300 and the model has embeddings for 300 tokens"):
            check_engine(tiny_model(), rows)
        model = tiny_model()
        check_engine(model, PAIRS)
        with pytest.raises(InputError, match="token id 300"):
            token_logprobs(model, pack(rows))


class TestLengths:
    """Rotary frequencies that depend on the longest row of a pass: a row's numbers are those of the row by itself."""

    @pytest.mark.parametrize("named", ["phi3", "llama"])
    def test_a_row_beside_a_longer_one(self, tiny_model: Any, named: Any) -> None:
        dynamic = {
            "max_position_embeddings": 24,
            "rope_parameters": {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10000.0},
        }
        model = tiny_model(named, **(dynamic if named == "llama" else {}))
        assert rope_switch(model) == 24
        with torch.no_grad():
            expected = torch.cat(
                [one_by_one(tiny_model(named, **(dynamic if named == "llama" else {})), [row]) for row in PAIRS]
            )  # a fresh model for each: no history
            short = [row for row in PAIRS if len(row.prompt) + max(map(len, row.responses)) <= 24]
            assert 0 < len(short) < len(PAIRS)
            for rows in (PAIRS, PAIRS[::-1], PAIRS):
                actual = token_logprobs(model, pack(rows))
                sizes = [sum(map(len, row.responses)) for row in rows]
                parts = list(actual.split(sizes))
                assert_close(torch.cat(parts if rows[0] is PAIRS[0] else parts[::-1]), expected)
            assert_close(token_logprobs(model, pack(short)), one_by_one(model, short))


class TestMemory:
    """What was found is found again by content; what was tampered with counts as nothing."""

    def counted(self, monkeypatch: pytest.MonkeyPatch) -> Any:
        passes = []
        find = self_check._find
        monkeypatch.setattr(self_check, "_find", lambda *a: passes.append(1) or find(*a))
        return passes

    def test_it_costs_nothing_twice(
        self, tiny_model: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        passes = self.counted(monkeypatch)
        first = check_engine(tiny_model("lfm2"), PAIRS)
        said = capsys.readouterr().err
        assert check_engine(tiny_model("lfm2"), PAIRS) == first
        assert capsys.readouterr().err == said
        assert len(passes) == 1
        check_engine(tiny_model("lfm2", seed=1), PAIRS)
        assert len(passes) == 2, "other weights are another model"
        longer = [Tokens(row.prompt * 9, row.responses) for row in PAIRS]
        check_engine(tiny_model("lfm2"), longer)
        assert len(passes) == 3, "longer rows have not been looked at"

    @pytest.mark.parametrize("damage", ["path", "seal", "text", "gone", "kind"])
    def test_a_file_that_was_changed_counts_as_none(
        self, tiny_model: Any, monkeypatch: pytest.MonkeyPatch, damage: Any
    ) -> None:
        passes = self.counted(monkeypatch)
        check_engine(tiny_model("lfm2"), PAIRS)
        (file,) = (cache_folder() / "checks" / "verdicts").iterdir()
        kept = json.loads(file.read_text())
        if damage == "path":
            kept["found"]["path"] = "packed"
        if damage == "seal":
            kept["seal"] = "0" * 64
        if damage == "kind":
            kept = [kept]
        file.write_text("{" if damage == "text" else json.dumps(kept))
        if damage == "gone":
            file.unlink()
        assert check_engine(tiny_model("lfm2"), PAIRS).path == "padded"
        assert len(passes) == 2

    def test_another_version_checks_again(self, tiny_model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        passes = self.counted(monkeypatch)
        check_engine(tiny_model(), PAIRS)
        monkeypatch.setattr("pairtune.engine.verdicts.version", lambda name: "0.0")
        check_engine(tiny_model(), PAIRS)
        assert len(passes) == 2


def test_the_rows_of_a_pack_are_found_again() -> None:
    assert rows_of(pack(ROWS)) == ROWS


def test_numbers_that_are_not_finite_are_an_error(tiny_model: Any) -> None:
    """A key, a logit, or a state that is NaN: none of them may become a finite number."""
    for spoiled in ("k_proj", "q_proj", "v_proj"):
        model = tiny_model()
        token_logprobs(model, pack(ROWS))
        part = getattr(model.base_model.layers[1].self_attn, spoiled)
        part.register_forward_hook(lambda *hooked: hooked[2].index_fill(1, torch.tensor([30]), math.nan))
        for way in ("packed", "padded"):
            use_paths(model, Paths(way))
            with pytest.raises(InputError, match="not finite"):
                token_logprobs(model, pack(ROWS))
            with pytest.raises(InputError, match="not finite"):
                hidden.hidden_states(model, pack(ROWS))
    model = tiny_model()
    token_logprobs(model, pack(ROWS))
    with torch.no_grad():
        model.get_output_embeddings().weight[7, 3] = math.inf
    with pytest.raises(InputError, match="not finite"):
        token_logprobs(model, pack(ROWS))


@pytest.mark.parametrize("named", ["opt", "lfm2", "gemma2", "cohere", "falcon_mamba", "rwkv", "mpt"])
def test_rewards_are_read_from_the_last_state_of_each_row_by_itself(tiny_model: Any, named: Any) -> None:
    """The head has the size of what the body gives, which OPT-350m calls by another name."""
    model = tiny_model(named)
    scalar = ScalarModel(model, seed=3)
    rewards = score_rewards(scalar, PAIRS)
    for row, found in zip(PAIRS, rewards, strict=True):
        for response, reward in zip(row.responses, found, strict=True):
            with torch.no_grad():
                states = model.base_model(torch.tensor([[*row.prompt, *response]])).last_hidden_state
                expected = float(states[0, -1].float() @ scalar.head.weight[0])
            assert reward == pytest.approx(expected, rel=1e-4, abs=1e-4)
