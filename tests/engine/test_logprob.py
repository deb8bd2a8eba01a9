"""Packed rows give the log-probabilities and gradients of the padded oracle, for every architecture we claim."""

import random
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from pairtune.data.pack import Tokens, pack
from pairtune.engine import cpp, head, hidden, kernels, naive
from pairtune.engine.attention import NotPackableError
from pairtune.engine.head import head_logprobs, head_of
from pairtune.engine.logprob import logprobs_and_collisions, token_logprobs
from pairtune.engine.own import own_hidden_states, response_rows
from pairtune.engine.packed import packed_hidden_states
from pairtune.engine.path import Paths, paths_of, use_paths

CLOSE = 1e-5
"""Relative, of the whole: what float32 leaves when sums are taken in another order."""


def rows_of(lengths: Any, *, seed: Any = 0, vocabulary: Any = 300) -> Any:
    """Rows of random tokens: (prompt, response, response, ...) lengths."""
    chance = random.Random(seed)
    return [
        Tokens(prompt[0], prompt[1:])
        for prompt in (tuple(tuple(chance.choices(range(3, vocabulary), k=n)) for n in row) for row in lengths)
    ]


# Lengths on both sides of the kernel's tiles; one- and three-response rows; prompts longer than windows.
ROWS = rows_of([(3, 5, 2), (40, 7, 30), (1, 1, 1), (12, 3, 9), (11, 4, 8), (9, 25), (2, 4, 6, 3), (60, 1, 97)])


def oracle(model: Any, rows: Any) -> Any:
    return torch.cat([part for row in rows for part in one_row(model, row)])


def one_row(model: Any, row: Any) -> Any:
    return naive.response_logprobs(model, [row.prompt] * len(row.responses), row.responses)


def gradients(model: Any, values_R: Any) -> Any:
    """Gradients of a fixed weighting of the values, by parameter name."""
    weight_R = torch.linspace(-1, 2, len(values_R), device=values_R.device)
    model.zero_grad()
    (values_R * weight_R).sum().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_close(actual: Any, expected: Any, bound: Any = CLOSE) -> None:
    assert (actual - expected).norm() <= bound * expected.norm()


def assert_same_gradients(actual: Any, expected: Any) -> None:
    assert actual.keys() == expected.keys()
    # A key's bias moves no softmax: its gradient is rounding, so the scale is that of the largest gradient.
    scale = max(float(gradient.norm()) for gradient in expected.values())
    for name, gradient in expected.items():
        assert float((actual[name] - gradient).norm()) <= CLOSE * max(float(gradient.norm()), 1e-2 * scale), name


def test_values_and_gradients_are_the_oracles(tiny_model: Any, architecture: Any) -> None:
    model = tiny_model(architecture)
    batch = pack(ROWS)
    expected = oracle(model, ROWS)
    assert expected.detach().std() > 0.5, "predictions so flat would hide an error"
    actual = token_logprobs(model, batch)
    assert actual.dtype == torch.float32
    assert_close(actual, expected)
    assert_same_gradients(gradients(model, actual), gradients(model, expected))


@pytest.mark.parametrize("way", ["padded", "alone"])
def test_the_models_own_paths_are_the_packed_one(tiny_model: Any, architecture: Any, way: Any) -> None:
    packed, padded = tiny_model(architecture), tiny_model(architecture)
    use_paths(padded, Paths(way))
    batch = pack(ROWS)
    expected, actual = token_logprobs(packed, batch), token_logprobs(padded, batch)
    assert_close(actual, expected)
    assert_same_gradients(gradients(padded, actual), gradients(packed, expected))
    # every token's state, a prompt's too, lies where the packed path puts it
    assert_close(hidden.hidden_states(padded, batch), hidden.hidden_states(packed, batch))


@pytest.mark.parametrize("window", [1, 2, 6, 13, None])
def test_a_sliding_window_counts_in_positions_not_in_places(tiny_model: Any, window: Any) -> None:
    model = tiny_model("mistral", sliding_window=window)
    assert_close(token_logprobs(model, pack(ROWS)), oracle(model, ROWS))


def test_alternating_windows_are_each_layers_own(tiny_model: Any) -> None:
    kinds = ["sliding_attention", "full_attention"]
    model = tiny_model("qwen2", layer_types=kinds, use_sliding_window=True, sliding_window=4)
    assert model.config.layer_types == kinds
    assert_close(token_logprobs(model, pack(ROWS)), oracle(model, ROWS))


def test_torchs_own_products_give_the_same(tiny_model: Any, architecture: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What serves without a C++ compiler, and on a GPU that no flash kernel takes."""
    monkeypatch.setattr(cpp, "library", lambda: (None, "turned off"))
    model = tiny_model(architecture)
    actual, expected = token_logprobs(model, pack(ROWS)), oracle(model, ROWS)
    assert_close(actual, expected)
    assert_same_gradients(gradients(model, actual), gradients(model, expected))


def test_capped_attention_scores_are_the_oracles(tiny_model: Any) -> None:
    model = tiny_model("gemma2", final_logit_softcapping=None)
    actual, expected = token_logprobs(model, pack(ROWS)), oracle(model, ROWS)
    assert_close(actual, expected)
    assert_same_gradients(gradients(model, actual), gradients(model, expected))
    uncapped = tiny_model("gemma2", final_logit_softcapping=None, attn_logit_softcapping=None)
    assert not torch.allclose(token_logprobs(uncapped, pack(ROWS)), actual, atol=1e-3), "the cap must bite here"


def test_the_rejected_response_never_sees_the_chosen_one(tiny_model: Any, architecture: Any) -> None:
    model = tiny_model(architecture)
    row = ROWS[1]
    other = Tokens(row.prompt, (tuple(300 - 1 - token for token in row.responses[0]), row.responses[1]))
    own = len(row.responses[0])
    with torch.no_grad():
        before, after = (token_logprobs(model, pack([ROWS[0], r, ROWS[3]])) for r in (row, other))
    first = sum(map(len, ROWS[0].responses))
    chosen = slice(first, first + own)
    assert not torch.equal(before[chosen], after[chosen])
    assert torch.equal(
        torch.cat((before[:first], before[chosen.stop :])), torch.cat((after[:first], after[chosen.stop :]))
    )


def test_no_gradient_reaches_the_other_response(tiny_model: Any) -> None:
    model = tiny_model("llama")
    row = ROWS[1]
    batch = pack([row])
    token_logprobs(model, batch)  # its check looks at values only
    embedded = []
    hook = model.get_input_embeddings().register_forward_hook(lambda *a: embedded.append(a[2]) or a[2].retain_grad())
    values = token_logprobs(model, batch)
    hook.remove()
    values[batch.response_R == 1].sum().backward()
    moved_T = embedded[0].grad[0].abs().sum(-1) > 0
    chosen = slice(len(row.prompt), len(row.prompt) + len(row.responses[0]))
    assert not moved_T[chosen].any()
    assert moved_T[: len(row.prompt)].all()


def test_a_batch_of_one_is_a_batch_of_many(tiny_model: Any, architecture: Any) -> None:
    model = tiny_model(architecture)
    with torch.no_grad():
        alone = torch.cat([token_logprobs(model, pack([row])) for row in ROWS])
        assert_close(alone, token_logprobs(model, pack(ROWS)))


def test_bfloat16_is_no_worse_packed_than_padded(tiny_model: Any) -> None:
    """Against float32 with the same rounded weights, over several models: the engine may not lose precision."""
    packed, padded = [], []
    rows = rows_of([(12, 20, 30), (30, 12, 22), (5, 40, 35), (9, 16, 28)] * 2, seed=7)
    for seed in range(6):
        low = tiny_model("llama", seed=seed, spread=2.0).bfloat16()
        with torch.no_grad():
            found, plain = token_logprobs(low, pack(rows)), oracle(low, rows)
            truth = oracle(low.float(), rows)
        packed.append((found - truth).square().mean())
        padded.append((plain - truth).square().mean())
    assert torch.stack(packed).mean().sqrt() <= 1.2 * torch.stack(padded).mean().sqrt()


@pytest.mark.gpu
def test_the_gpu_gives_the_oracles_values_and_gradients(tiny_model: Any, architecture: Any) -> None:
    model = tiny_model(architecture).cuda()
    actual = token_logprobs(model, pack(ROWS).to(model.device))
    expected = oracle(model, ROWS)
    assert float((actual - expected).detach().norm() / expected.detach().norm()) < CLOSE
    assert_same_gradients(gradients(model, actual), gradients(model, expected))


class TestHead:
    """log softmax at the targets, a chunk at a time, against autograd's own."""

    def both(self, model: Any, hidden_RE: Any, target_R: Any, temperature: Any) -> Iterator[Any]:
        weight = model.get_output_embeddings().weight
        for find in (
            lambda: head_logprobs(model, hidden_RE, target_R, temperature=temperature),
            lambda: torch.log_softmax(hidden_RE @ weight.T / temperature, -1).gather(-1, target_R[:, None])[:, 0],
        ):
            hidden_RE.grad = weight.grad = None
            values = find()
            (values * torch.linspace(-2, 1, len(values))).sum().backward()
            yield values.detach(), hidden_RE.grad.clone(), weight.grad.clone()

    @pytest.mark.parametrize("temperature", [1.0, 0.7, 2.5])
    @pytest.mark.parametrize(("chunk", "cache"), [(1024, 16), (7, 3), (5, 8), (1, 1), (23, 23)])
    def test_values_and_gradients(
        self, tiny_model: Any, monkeypatch: pytest.MonkeyPatch, temperature: Any, chunk: Any, cache: Any
    ) -> None:
        monkeypatch.setitem(head.CHUNK_ROWS, "cpu", chunk)
        monkeypatch.setattr(kernels, "CACHE_ROWS", cache)
        generator = torch.Generator().manual_seed(0)
        hidden_RE = torch.randn(23, 32, generator=generator).requires_grad_()
        target_R = torch.randint(300, (23,), generator=generator)
        ours, theirs = self.both(tiny_model(), hidden_RE, target_R, temperature)
        for actual, expected in zip(ours, theirs, strict=True):
            assert_close(actual, expected, 1e-6)

    def test_finite_where_logits_are_far_apart(self, tiny_model: Any) -> None:
        hidden_RE = (1e4 * torch.eye(3, 32)).requires_grad_()
        values = head_logprobs(tiny_model(), hidden_RE, torch.tensor([1, 2, 3]))
        values.sum().backward()
        assert torch.isfinite(values).all()
        assert torch.isfinite(hidden_RE.grad).all()

    @pytest.mark.parametrize("frozen", ["head", "hidden"])
    def test_only_what_needs_a_gradient_gets_one(self, tiny_model: Any, frozen: Any) -> None:
        model = tiny_model()
        weight = model.get_output_embeddings().weight.requires_grad_(frozen != "head")
        hidden_RE = torch.randn(4, 32, requires_grad=frozen != "hidden")
        head_logprobs(model, hidden_RE, torch.arange(4)).sum().backward()
        assert (weight.grad is None) == (frozen == "head")
        assert (hidden_RE.grad is None) == (frozen == "hidden")

    def test_a_second_backward_is_an_error_not_a_wrong_number(self, tiny_model: Any) -> None:
        hidden_RE = torch.randn(4, 32, requires_grad=True)
        values = head_logprobs(tiny_model(), hidden_RE, torch.arange(4)).sum()
        values.backward(retain_graph=True)
        with pytest.raises(RuntimeError, match="second backward"):
            values.backward()

    def test_second_derivatives_are_refused(self, tiny_model: Any) -> None:
        model = tiny_model()
        values = token_logprobs(model, pack(ROWS[:1])).sum()
        weight = model.get_input_embeddings().weight
        (slope,) = torch.autograd.grad(values, weight, create_graph=True)
        with pytest.raises(RuntimeError, match="once_differentiable"):
            slope.sum().backward()


class TestRefusals:
    """What packed rows would make silently wrong is refused in words."""

    def test_dropout_that_is_on(self, tiny_model: Any) -> None:
        with pytest.raises(NotPackableError, match="dropout"):
            packed_hidden_states(tiny_model("gpt2").train(), pack(ROWS[:1]))

    def test_a_body_that_takes_no_keywords(self, tiny_model: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
        model = tiny_model()
        forward = type(model.base_model).forward

        def without_keywords(self: Any, input_ids: Any, position_ids: Any, use_cache: Any) -> Any:
            return forward(self, input_ids, position_ids=position_ids, use_cache=use_cache)

        monkeypatch.setattr(type(model.base_model), "forward", without_keywords)
        with pytest.raises(NotPackableError, match="keyword arguments"):
            packed_hidden_states(model, pack(ROWS[:1]))

    def test_keywords_that_never_reach_the_attention(self, tiny_model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        model = tiny_model()
        forward = type(model.base_model).forward
        monkeypatch.setattr(
            type(model.base_model), "forward", lambda self, pack=None, **others: forward(self, **others)
        )
        with pytest.raises(NotPackableError, match="does not hand keyword arguments on"):
            packed_hidden_states(model, pack(ROWS[:1]))

    def test_attention_of_its_own(self, tiny_model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """An architecture that computes attention without transformers' interface would mix rows."""
        model = tiny_model()
        for layer in model.base_model.layers:
            monkeypatch.setattr(layer.self_attn, "forward", lambda hidden_states, **_: (hidden_states, None))
        with pytest.raises(NotPackableError, match="attention interface"):
            packed_hidden_states(model, pack(ROWS[:1]))

    def test_a_mask_that_the_model_makes_itself(self, tiny_model: Any) -> None:
        model = tiny_model()
        for layer in model.base_model.layers:
            layer.register_forward_pre_hook(
                lambda _, args, kwargs: (args, {**kwargs, "attention_mask": torch.zeros(1, 1, 1, 1)}), with_kwargs=True
            )
        with pytest.raises(NotPackableError, match="mask"):
            packed_hidden_states(model, pack(ROWS[:1]))

    def test_a_head_that_is_no_linear_map(self, tiny_model: Any) -> None:
        model = tiny_model()
        model.set_output_embeddings(torch.nn.Sequential(model.get_output_embeddings()))
        with pytest.raises(NotPackableError, match="linear"):
            head_of(model)

    def test_an_error_of_the_model_itself_stays_what_it_is(
        self, tiny_model: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        model = tiny_model()

        def broken(**_: Any) -> None:
            raise TypeError("unsupported operand")

        monkeypatch.setattr(model.base_model, "forward", broken)
        with pytest.raises(TypeError, match="unsupported operand"):
            packed_hidden_states(model, pack(ROWS[:1]))

    def test_the_models_own_attention_is_put_back(self, tiny_model: Any) -> None:
        model = tiny_model()
        before = model.config._attn_implementation
        token_logprobs(model, pack(ROWS[:1]))
        assert model.config._attn_implementation == before


class TestChangedLogits:
    """Scales, caps and biases of the head, in the fused head as in the model's own."""

    @pytest.mark.parametrize("field", [*head.MULTIPLIED, *head.DIVIDED])
    def test_a_scale(self, tiny_model: Any, field: Any) -> None:
        model = tiny_model()
        setattr(model.config, field, 0.5)
        assert head_of(model).scale == (2.0 if field in head.DIVIDED else 0.5)
        setattr(model.config, field, 1)
        assert head_of(model).scale is None

    def test_a_scale_that_the_model_does_not_apply_is_noticed(self, tiny_model: Any) -> None:
        model = tiny_model()
        model.config.logit_scale = 0.5
        assert_close(token_logprobs(model, pack(ROWS)), oracle(model, ROWS))
        assert paths_of(model).engine == "padded"

    def test_collisions_are_of_what_the_model_predicts(self, tiny_model: Any, architecture: Any) -> None:
        model = tiny_model(architecture)
        row = ROWS[1]
        tokens = torch.tensor([[*row.prompt, *row.responses[0]]])
        expected_R = model(tokens).logits[0, len(row.prompt) - 1 : -1].float().softmax(-1).square().sum(-1).log()
        for way in ("packed", "padded", "alone"):
            use_paths(model, Paths(way))
            _, collision_R = logprobs_and_collisions(model, pack([Tokens(row.prompt, row.responses[:1])]))
            assert_close(collision_R, expected_R)


def test_a_plain_head_is_computed_as_ever(tiny_model: Any, architecture: Any) -> None:
    """To the bit: hidden states times the head's weights, then the softmax's kernel, and nothing in between."""
    if architecture in ("gemma2", "cohere", "granite", "phi", "gptj"):
        pytest.skip("its logits are capped, scaled or biased")
    model, batch = tiny_model(architecture), pack(ROWS)
    with torch.no_grad():
        logits_RV = packed_hidden_states(model, batch)[batch.source_R] @ model.get_output_embeddings().weight.T
        expected_R, _ = kernels.logprobs(logits_RV, batch.target_R, 1.0)
        assert torch.equal(token_logprobs(model, batch), expected_R)
    assert paths_of(model).engine == "packed"


def test_padded_rows_are_each_prompt_with_its_response() -> None:
    index_SL, real_SL = response_rows(pack(ROWS))
    tokens_T = pack(ROWS).tokens_T
    found = [tokens_T[index[real]].tolist() for index, real in zip(index_SL, real_SL, strict=True)]
    assert found == [[*row.prompt, *response] for row in ROWS for response in row.responses]


def test_padded_states_carry_gradients(tiny_model: Any) -> None:
    model = tiny_model()
    own_hidden_states(model, pack(ROWS), alone=False).sum().backward()
    assert model.base_model.layers[0].self_attn.q_proj.weight.grad.abs().sum() > 0
