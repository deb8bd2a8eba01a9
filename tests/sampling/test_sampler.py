"""Answers come from the model's own distribution, with the log-probabilities that PPO will divide by."""

import math
from typing import Any

import pytest
import torch
from scipy.stats import chisquare

from pairtune.data.pack import Tokens, pack
from pairtune.engine.cost import measured
from pairtune.engine.kernels import draw
from pairtune.engine.logprob import token_logprobs
from pairtune.engine.path import Paths, paths_of, use_paths
from pairtune.errors import InputError
from pairtune.models.load import frozen_copy
from pairtune.sampling.decoding import KeyValues
from pairtune.sampling.sampler import sample

EOS = 1
ENDS = tuple(range(1, 300, 7))
"""So common that rows end at different steps."""
PROMPTS = [
    (3,),
    (4, 5, 6, 7, 8, 9, 10, 11, 12, 13),
    (4, 5),
    (20, 21, 22, 23, 24),
    (9,) * 17,
    (5, 6, 7),
    (30, 31),
    (4, 5),
]


def answers(
    model: Any, prompts: Any = PROMPTS, *, end_ids: Any = (EOS,), max_new_tokens: Any = 12, seed: Any = 0, **kwargs: Any
) -> Any:
    return sample(model, prompts, end_ids=end_ids, max_new_tokens=max_new_tokens, seed=seed, **kwargs)


def assert_same(found: Any, expected: Any) -> None:
    assert [x.response for x in found] == [x.response for x in expected]
    assert [x.ended for x in found] == [x.ended for x in expected]
    for one, other in zip(found, expected, strict=True):
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)


class TestDraw:
    """One token by inverting the cumulative distribution."""

    def test_frequencies_are_the_softmax(self) -> None:
        generator = torch.Generator().manual_seed(3)
        logits = 1.5 * torch.randn(1, 12, generator=generator)
        for temperature in (1.0, 0.5):
            uniform = torch.rand(20_000, generator=generator, dtype=torch.float64)
            token_B, logprob_B = draw(logits.expand(20_000, -1), uniform, temperature)
            expected = torch.softmax(logits[0].double() / temperature, -1)
            assert chisquare(torch.bincount(token_B, minlength=12), 20_000 * expected.numpy()).pvalue > 1e-3
            torch.testing.assert_close(logprob_B.double(), expected.log()[token_B], rtol=1e-5, atol=1e-6)

    @pytest.mark.parametrize("size", [2, 255, 256, 257, 1000])
    def test_each_token_owns_the_interval_of_its_probability(self, size: Any) -> None:
        """Whatever the blocks of the vocabulary: a number just inside a token's interval gives that token."""
        logits = torch.randn(size, generator=torch.Generator().manual_seed(size))
        upto = torch.softmax(logits.double(), -1).cumsum(-1)
        below = torch.cat((torch.zeros(1, dtype=torch.float64), upto[:-1]))
        for share in (0.01, 0.5, 0.99):
            token_B, logprob_B = draw(logits.expand(size, -1), below + share * (upto - below))
            assert token_B.tolist() == list(range(size))
            torch.testing.assert_close(logprob_B, torch.log_softmax(logits, -1), rtol=1e-5, atol=1e-5)

    @pytest.mark.parametrize("size", [5, 256, 300, 512])
    @pytest.mark.parametrize("u", [0.0, 1e-300, 0.5, 1 - 1e-9, math.nextafter(1, 0), 1.0])  # 1.0: rounded up
    def test_what_cannot_happen_never_does(self, size: Any, u: Any) -> None:
        """Tokens of probability 0, at the end of the vocabulary or the start, at any uniform number."""
        logits = torch.full((3, size), -torch.inf)
        logits[0, 2], logits[1, [1, 3]], logits[2, size - 2] = 0.0, 0.0, 7.0
        token_B, logprob_B = draw(logits, torch.full((3,), u, dtype=torch.float64))
        assert token_B.tolist() == [2, 1 if u < 0.5 else 3, size - 2]
        assert logprob_B.tolist() == pytest.approx([0, -math.log(2), 0])

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
    def test_logits_are_left_as_they_were(self, dtype: Any) -> None:
        logits = torch.randn(20, 300, dtype=dtype)
        before = logits.clone()
        draw(logits, torch.rand(20, dtype=torch.float64), 0.7)
        assert torch.equal(logits, before)

    def test_logits_far_apart_stay_finite(self) -> None:
        _, logprob_B = draw(torch.tensor([[1e4, 0.0], [-1e4, -1e4]]), torch.tensor([0.5, 0.5], dtype=torch.float64))
        assert logprob_B.tolist() == pytest.approx([0, -math.log(2)])


def test_whole_answers_have_the_models_probabilities(tiny_model: Any) -> None:
    """All two-token answers of a five-word model, by chi-square against the exact joint distribution."""
    model = tiny_model(vocab_size=5, spread=25.0, bos_token_id=0, eos_token_id=1, pad_token_id=2)
    prompt = (3, 4)
    possible = [(1,)] + [(a, b) for a in range(5) if a != 1 for b in range(5)]
    with torch.no_grad():
        batch = pack([Tokens(prompt, (answer,)) for answer in possible])
        logprobs = token_logprobs(model, batch).split(batch.lengths().tolist())
        expected = torch.stack([each.sum() for each in logprobs]).double().exp()
    assert float(expected.sum()) == pytest.approx(1, abs=1e-5)
    drawn = answers(model, [prompt] * 4000, max_new_tokens=2, batch_size=4000)
    counts = [0] * len(possible)
    for answer in drawn:
        counts[possible.index(answer.response)] += 1
    assert chisquare(counts, 4000 * (expected / expected.sum()).numpy()).pvalue > 1e-3


@pytest.mark.parametrize("temperature", [1.0, 0.6, 1.7])
def test_the_kept_logprobs_are_the_engines(tiny_model: Any, architecture: Any, temperature: Any) -> None:
    """So PPO's first ratio is 1."""
    model = tiny_model(architecture)
    drawn = answers(model, end_ids=ENDS, temperature=temperature)
    assert len({len(answer.response) for answer in drawn}) > 2, "rows should leave at different steps"
    rows = [Tokens(prompt, (answer.response,)) for prompt, answer in zip(PROMPTS, drawn, strict=True)]
    kept = torch.tensor([value for answer in drawn for value in answer.logprobs])
    with torch.no_grad():
        engine = token_logprobs(model, pack(rows), temperature=temperature)
    assert (kept - engine).norm() <= 1e-5 * engine.norm()


def test_an_answer_alone_is_the_answer_in_a_batch(
    tiny_model: Any, architecture: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Left padding, the batch's size, and rows that leave it change nothing that is drawn."""
    model = tiny_model(architecture)
    together = answers(model, end_ids=ENDS)
    assert len({len(answer.response) for answer in together}) > 2, "rows should leave at different steps"
    for size in (1, 3):
        assert_same(answers(model, end_ids=ENDS, batch_size=size), together)
    for share in (0.0, 1.1):  # rows leave at once; never
        monkeypatch.setattr(KeyValues, "leave_at", share)
        assert_same(answers(model, end_ids=ENDS), together)


@pytest.mark.parametrize("way", ["cached", "recomputed"])
def test_the_models_own_forward_draws_the_same(tiny_model: Any, architecture: Any, way: Any) -> None:
    model, own = tiny_model(architecture), tiny_model(architecture)
    use_paths(own, Paths("padded", way))
    assert_same(answers(own, end_ids=ENDS), answers(model, end_ids=ENDS))
    assert paths_of(model).sampler == "packed"


@pytest.mark.parametrize("way", ["cached", "recomputed"])
def test_a_model_on_its_own_path_decodes_by_its_own_attention(tiny_model: Any, way: Any) -> None:
    model, own = tiny_model(), tiny_model()
    use_paths(own, Paths("padded", way))
    used = []
    for layer in own.base_model.layers:
        layer.self_attn.register_forward_pre_hook(lambda module, *_: used.append(module.config._attn_implementation))
    assert_same(answers(own), answers(model))
    assert set(used) == {"sdpa"}


def plainly_greedy(model: Any, prompt: Any, tokens: Any) -> Any:
    """The likeliest token, over and over, by the model's own forward on all that came before; a margin with each."""
    ids, margins = list(prompt), []
    for _ in range(tokens):
        logits = model(torch.tensor([ids])).logits[0, -1].float()
        best = logits.topk(2).values
        margins.append(float(best[0] - best[1]))
        ids.append(int(logits.argmax()))
    return tuple(ids[len(prompt) :]), margins


@torch.no_grad()
def assert_greedy(model: Any) -> None:
    """Side by side, at a temperature that leaves the likeliest token, up to where two are as good as equal."""
    plain = frozen_copy(model)
    drawn = answers(model, end_ids=(), max_new_tokens=8, temperature=1e-4)
    for prompt, answer in zip(PROMPTS, drawn, strict=True):
        expected, margins = plainly_greedy(plain, prompt, 8)
        sure = next((i for i, margin in enumerate(margins) if margin < 1e-2), 8)
        assert answer.response[:sure] == expected[:sure]


def test_greedy_decoding_is_the_models_own(tiny_model: Any, architecture: Any) -> None:
    assert_greedy(tiny_model(architecture))


def test_greedy_decoding_of_models_that_mix_tokens_elsewhere_is_their_own(tiny_model: Any, unpackable: Any) -> None:
    """Convolutions, state spaces, positions that no argument moves: nobody has to ask for the check."""
    model = tiny_model(unpackable)
    assert_greedy(model)
    assert paths_of(model).sampler in ("cached", "recomputed")


def test_a_models_own_rules_of_generation_do_not_reach_the_sampler(tiny_model: Any) -> None:
    model = tiny_model()
    use_paths(model, Paths("padded", "cached"))
    expected = answers(model, end_ids=ENDS)
    config = model.generation_config
    config.repetition_penalty, config.eos_token_id, config.max_length = 5.0, list(range(100, 200)), 3
    assert_same(answers(model, end_ids=ENDS), expected)
    assert model.generation_config is config


def test_a_sampler_that_is_wrong_is_not_used(
    tiny_model: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Any:
    """Planted: a step's new token takes the place of the one before it."""
    step = KeyValues.step

    def late(self: Any, token_B: Any) -> Any:
        self.length_B -= 1
        result = step(self, token_B)
        self.length_B += 1
        return result

    monkeypatch.setattr(KeyValues, "step", late)
    model = tiny_model()
    assert_greedy(model)
    assert paths_of(model).sampler == "cached"
    assert "using transformers' own cache, which is right but slower" in capsys.readouterr().err


def test_prompts_beyond_a_table_of_positions_are_refused_before_a_step(tiny_model: Any) -> None:
    model = tiny_model("gpt2", n_positions=20)
    with pytest.raises(InputError, match="a row is 29 tokens long and the model has 20 positions"):
        answers(model, max_new_tokens=12)


def test_ids_without_an_embedding_are_refused(tiny_model: Any) -> None:
    with pytest.raises(InputError, match="token id 300 and the model has embeddings for 300 tokens"):
        answers(tiny_model(), [(3, 300)])


def test_frequencies_that_change_with_length_are_sampled_as_the_model_would(tiny_model: Any) -> None:
    """LongRoPE: prompts of 17 tokens and 12 more cross the length at which the frequencies change."""
    model = tiny_model("phi3")
    assert_greedy(model)
    plain = frozen_copy(model)
    (answer,) = answers(model, [PROMPTS[4]], end_ids=(), max_new_tokens=12, temperature=1e-4)
    with torch.no_grad():
        assert answer.response == plainly_greedy(plain, PROMPTS[4], 12)[0]


@pytest.mark.parametrize("way", ["packed", "cached", "recomputed"])
def test_numbers_that_are_not_finite_are_an_error(tiny_model: Any, way: Any) -> None:
    model = tiny_model()
    answers(model)
    use_paths(model, Paths("packed", way))
    keys = model.base_model.layers[0].self_attn.k_proj
    keys.register_forward_hook(lambda *hooked: hooked[2].index_fill(-1, torch.tensor([1]), math.nan))
    with pytest.raises(InputError, match="not finite"):
        answers(model)


def test_attention_that_torch_lacks_is_left_to_the_model(tiny_model: Any) -> None:
    """gemma2's capped scores: decoding through torch's own attention would drop the cap."""
    model = tiny_model("gemma2", final_logit_softcapping=None)
    assert model.config._attn_implementation == "eager"
    drawn = answers(model)
    rows = [Tokens(prompt, (answer.response,)) for prompt, answer in zip(PROMPTS, drawn, strict=True)]
    with torch.no_grad():
        engine = token_logprobs(model, pack(rows))
    kept = torch.tensor([value for answer in drawn for value in answer.logprobs])
    assert (kept - engine).norm() <= 1e-5 * engine.norm()


def test_a_model_is_left_in_the_mode_it_was_in(tiny_model: Any) -> None:
    model = tiny_model().train()
    answers(model)
    assert model.training


def test_row_i_depends_on_the_seed_and_i_alone(tiny_model: Any) -> None:
    model = tiny_model()
    whole = answers(model)
    assert_same(answers(model, PROMPTS[:3]), whole[:3])
    assert whole[2].response != whole[7].response, "the same prompt in two rows is drawn twice"
    assert_same(answers(model), whole)
    assert [x.response for x in answers(model, seed=1)] != [x.response for x in whole]


def test_the_end_of_text_ends_an_answer_and_belongs_to_it(tiny_model: Any) -> None:
    model = tiny_model()
    for answer in answers(model, [(5, 6)] * 40, end_ids=ENDS):
        assert len(answer.response) == len(answer.logprobs) <= 12
        assert answer.ended == (answer.response[-1] in ENDS)
        assert not set(answer.response[:-1]) & set(ENDS)
        assert answer.ended or len(answer.response) == 12


def test_nothing_ends_without_an_end_id(tiny_model: Any) -> None:
    assert all(len(a.response) == 5 and not a.ended for a in answers(tiny_model(), end_ids=(), max_new_tokens=5))


def test_one_new_token(tiny_model: Any) -> None:
    assert [len(answer.response) for answer in answers(tiny_model(), max_new_tokens=1)] == [1] * len(PROMPTS)


@pytest.mark.parametrize("pad", [EOS, 2, None])
def test_which_token_pads_does_not_matter(tiny_model: Any, pad: Any) -> None:
    model = tiny_model()
    expected = answers(model, end_ids=ENDS)
    model.config.pad_token_id = pad
    assert_same(answers(model, end_ids=ENDS), expected)


def test_a_pad_token_in_a_prompt_is_a_token(tiny_model: Any) -> None:
    model = tiny_model()
    with_pads = [(2, 2, 5), (2, 2, 2, 2, 2, 9, 9)]
    drawn = answers(model, with_pads)
    rows = [Tokens(prompt, (answer.response,)) for prompt, answer in zip(with_pads, drawn, strict=True)]
    with torch.no_grad():
        engine = token_logprobs(model, pack(rows))
    assert [v for a in drawn for v in a.logprobs] == pytest.approx(engine.tolist(), abs=1e-4)


def test_dropout_is_off_and_the_mode_is_put_back(tiny_model: Any) -> None:
    model = tiny_model("gpt2")
    expected = answers(model)
    model.train()
    assert_same(answers(model), expected)
    assert model.training
    assert model.config._attn_implementation == "sdpa"


def test_nothing_to_draw(tiny_model: Any) -> None:
    assert answers(tiny_model(), []) == []


@pytest.mark.parametrize("wrong", [{"temperature": 0.0}, {"temperature": -1.0}, {"max_new_tokens": 0}])
def test_what_cannot_be_drawn_is_refused(tiny_model: Any, wrong: Any) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        answers(tiny_model(), **wrong)


def test_progress_tells_every_row_once(tiny_model: Any) -> None:
    seen = []
    answers(tiny_model(), batch_size=3, progress=seen.append)
    assert seen == [3, 3, 2]


MATRICES = 2 * (32 * 32 + 32 * 16 + 32 * 16 + 32 * 32 + 3 * 32 * 64)
"""What the tiny llama multiplies each token by."""


def test_each_pass_is_counted(tiny_model: Any) -> None:
    """Two prompts of 2 and 4 tokens, 3 answer tokens each, by hand."""
    with measured() as cost:
        answers(tiny_model(), [(5, 6), (7, 8, 9, 10)], end_ids=(), max_new_tokens=3)
    tokens = (2 + 4) + 2 * 2
    attended = (1 + 2) + (1 + 2 + 3 + 4) + (3 + 5) + (4 + 6)
    assert cost.tokens == tokens
    assert cost.flops == 2 * tokens * MATRICES + 4 * attended * 32 * 2 + 2 * (2 * 3) * 32 * 300


def test_a_row_that_left_is_not_counted(tiny_model: Any) -> None:
    decoder = KeyValues(tiny_model(), 9)
    with torch.no_grad():
        decoder.begin([(3, 4), (5,), (6, 7, 8)])
        decoder.step(torch.tensor([3, 3, 3]))
        decoder.keep(torch.tensor([0, 2]))
        with measured() as cost:
            decoder.step(torch.tensor([3, 3]))
    assert cost.flops == 2 * 2 * MATRICES + 4 * (4 + 5) * 32 * 2


@pytest.mark.gpu
def test_the_gpu_keeps_the_engines_logprobs(tiny_model: Any, architecture: Any) -> None:
    model = tiny_model(architecture).cuda()
    drawn = answers(model, end_ids=ENDS)
    rows = [Tokens(prompt, (answer.response,)) for prompt, answer in zip(PROMPTS, drawn, strict=True)]
    with torch.no_grad():
        engine = token_logprobs(model, pack(rows).to(model.device)).cpu()
    kept = torch.tensor([value for answer in drawn for value in answer.logprobs])
    assert (kept - engine).norm() <= 1e-5 * engine.norm()
