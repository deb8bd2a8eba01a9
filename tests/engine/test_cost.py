"""Tokens and floating-point operations are counted, not guessed: against numbers worked by hand."""

import time
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from pairtune.data.pack import Tokens, pack
from pairtune.engine.cost import (
    Cost,
    active_parameters,
    body_parameters,
    count_pass,
    measured,
    mixtures,
    release_memory,
    uncounted,
)
from pairtune.engine.logprob import token_logprobs
from pairtune.engine.path import Paths, use_paths
from tests.survey.configs import tiny_config

ROW = Tokens((3, 4, 5), ((6, 7), (8, 9, 10, 11)))
TOKENS = 3 + 2 + 4
# Each prompt token sees those before it and itself; each response token the prompt and its own response so far.
ATTENDED = (1 + 2 + 3) + (4 + 5) + (4 + 5 + 6 + 7)
PREDICTED = 2 + 4

# The tiny llama: hidden 32, 4 heads of 8, 2 key-value heads, 64 in the middle, 2 layers, 300 words.
MATRICES = 2 * (32 * 32 + 32 * 16 + 32 * 16 + 32 * 32 + 3 * 32 * 64)
# 2 FLOPs for each multiplication and addition; attention multiplies twice (scores, then values) in every layer.
FORWARD = 2 * TOKENS * MATRICES + 2 * 2 * ATTENDED * (4 * 8) * 2 + 2 * PREDICTED * 32 * 300


def test_the_parameters_of_matrix_products(tiny_model: Any) -> None:
    assert body_parameters(tiny_model("llama")) == MATRICES
    # gpt2's embedding of positions is looked up, not multiplied
    assert body_parameters(tiny_model("gpt2")) == 2 * (32 * 96 + 32 * 32 + 2 * 32 * 128)
    assert body_parameters(tiny_model("gpt2", tie_word_embeddings=True)) == body_parameters(tiny_model("gpt2"))


SIZES = {
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "pad_token_id": 2,
}
ATTENTION = 32 * 32 + 32 * 16 + 32 * 16 + 32 * 32
# Of each architecture: how its experts are given, and the matrices a token meets in all its layers, worked by hand.
MIXTURES = {
    "mixtral": ({"num_local_experts": 8, "num_experts_per_tok": 2}, 2 * (ATTENTION + 32 * 8 + 2 * 3 * 32 * 64)),
    "qwen3_moe": (  # the first layer is dense
        {
            "num_experts": 8,
            "num_experts_per_tok": 3,
            "moe_intermediate_size": 16,
            "head_dim": 8,
            "mlp_only_layers": [0],
        },
        2 * ATTENTION + 3 * 32 * 64 + (32 * 8 + 3 * 3 * 32 * 16),
    ),
    "qwen2_moe": (  # an expert that every token goes through, with a gate of its own
        {
            "num_experts": 8,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 16,
            "shared_expert_intermediate_size": 24,
        },
        2 * (ATTENTION + 32 * 8 + 2 * 3 * 32 * 16 + 3 * 32 * 24 + 32),
    ),
    "olmoe": ({"num_experts": 4, "num_experts_per_tok": 1}, 2 * (ATTENTION + 32 * 4 + 3 * 32 * 64)),
    "granitemoe": ({"num_local_experts": 4, "num_experts_per_tok": 2}, 2 * (ATTENTION + 32 * 4 + 2 * 3 * 32 * 64)),
}


@pytest.mark.parametrize("architecture", list(MIXTURES))
def test_of_a_mixture_of_experts_those_count_that_a_token_goes_through(architecture: Any) -> None:
    own, expected = MIXTURES[architecture]
    with torch.random.fork_rng(devices=[]):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(architecture, **SIZES, **own))
    assert active_parameters(model) == pytest.approx(expected)
    assert body_parameters(model) > 1.4 * expected, "all of them lie in memory"
    with measured() as cost:
        count_pass(model.requires_grad_(False), tokens=5, attended=0, predicted=0)
    assert cost.flops == pytest.approx(2 * 5 * expected)


def test_without_experts_all_parameters_count(tiny_model: Any) -> None:
    for architecture in ("llama", "gpt2"):
        model = tiny_model(architecture)
        assert active_parameters(model) == body_parameters(model)
        assert list(mixtures(model)) == []


def test_a_forward_pass(tiny_model: Any) -> None:
    with measured() as cost, torch.no_grad():
        token_logprobs(tiny_model(), pack([ROW]))
    assert cost.tokens == TOKENS
    assert cost.flops == FORWARD


def test_attention_of_layers_whose_heads_have_different_sizes() -> None:
    """Gemma 4: what the heads of a layer give side by side is what its first projection does."""
    model = AutoModelForCausalLM.from_config(tiny_config("gemma4_text")).requires_grad_(False)
    widths = [layer.self_attn.q_proj.out_features for layer in model.base_model.layers]
    assert len(set(widths)) > 1
    with measured() as cost:
        count_pass(model, tokens=0, attended=ATTENDED, predicted=0)
    assert cost.flops == 4 * ATTENDED * sum(widths)


def test_a_pass_with_gradients_costs_three_times_the_operations_and_the_same_tokens(tiny_model: Any) -> None:
    with measured() as cost:
        token_logprobs(tiny_model(), pack([ROW]))
    assert cost.tokens == TOKENS
    assert cost.flops == 3 * FORWARD


def test_a_frozen_model_has_no_backward_to_count(tiny_model: Any) -> None:
    with measured() as cost:
        token_logprobs(tiny_model().requires_grad_(False), pack([ROW]))
    assert cost.flops == FORWARD


def test_padded_rows_count_their_prompt_as_often_as_it_is_computed(tiny_model: Any) -> None:
    model = tiny_model()
    use_paths(model, Paths("padded"))
    with measured() as cost, torch.no_grad():
        token_logprobs(model, pack([ROW]))
    tokens, attended = (3 + 2) + (3 + 4), sum(range(1, 6)) + sum(range(1, 8))
    assert cost.tokens == tokens
    assert cost.flops == 2 * tokens * MATRICES + 4 * attended * 32 * 2 + 2 * PREDICTED * 32 * 300


def test_a_given_head_size_counts_not_hidden_over_heads(tiny_model: Any) -> None:
    model = tiny_model("qwen3")  # 4 heads of 16 on a hidden size of 32
    with measured() as cost, torch.no_grad():
        count_pass(model, tokens=0, attended=5, predicted=0)
    assert cost.flops == 4 * 5 * (4 * 16) * 2


def test_what_is_uncounted_costs_neither_operations_nor_time(tiny_model: Any) -> None:
    model = tiny_model()
    with measured() as cost, uncounted():
        token_logprobs(model, pack([ROW]))
        time.sleep(0.2)
    assert (cost.tokens, cost.flops) == (0, 0)
    assert 0 <= cost.seconds < 0.15


def test_counting_goes_on_after_an_error(tiny_model: Any) -> None:
    model = tiny_model()
    with measured() as cost:
        with pytest.raises(KeyError), uncounted():
            raise KeyError
        with torch.no_grad():
            token_logprobs(model, pack([ROW]))
    assert cost.tokens == TOKENS


def test_nothing_is_counted_outside(tiny_model: Any) -> None:
    with measured() as cost:
        pass
    token_logprobs(tiny_model(), pack([ROW]))
    assert cost.tokens == 0
    with uncounted():  # with nothing to leave out of
        pass


def test_a_stage_within_a_stage_is_part_of_both(tiny_model: Any) -> None:
    model = tiny_model()
    with torch.no_grad(), measured() as outer:
        token_logprobs(model, pack([ROW]))
        with measured() as inner:
            token_logprobs(model, pack([ROW]))
        with uncounted(), measured() as aside:
            token_logprobs(model, pack([ROW]))
    assert (outer.tokens, inner.tokens, aside.tokens) == (2 * TOKENS, TOKENS, TOKENS)
    assert outer.flops == 2 * FORWARD


def test_time_and_memory_are_watched() -> None:
    with measured() as cost:
        held = torch.ones(50_000_000)  # 200 MB
        time.sleep(0.2)
    assert held[0] == 1
    assert cost.seconds >= 0.2
    assert cost.peak_memory_bytes > 200_000_000


def test_costs_add_up_and_the_peak_is_the_highest() -> None:
    total = Cost(1.5, 10, 2e9, 300) + Cost(0.5, 5, 1e9, 700)
    assert total == Cost(2.0, 15, 3e9, 700)
    assert Cost(**total.to_json()) == total


def test_memory_can_be_given_back_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctypes.CDLL", lambda name: (_ for _ in ()).throw(OSError(name)))
    release_memory()
