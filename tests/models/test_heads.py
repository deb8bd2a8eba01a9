"""The scalar head: how it starts, what it reads, and that it comes back from disk as it was."""

import pytest
import torch

from pairtune.errors import InputError
from pairtune.models.heads import FACTS_FILE, HEAD_FILE, ScalarModel, load_scalar_model
from pairtune.models.load import load_model


def test_it_starts_with_standard_deviation_one_over_root_d_plus_one(tiny_model):
    heads = torch.cat([ScalarModel(tiny_model(), seed=seed).head.weight.detach() for seed in range(100)])
    assert float(heads.std()) == pytest.approx(33**-0.5, rel=0.05)
    assert abs(float(heads.mean())) < 4 * 33**-0.5 / 3200**0.5
    assert float(ScalarModel(tiny_model()).head.bias.detach()) == 0


def test_its_start_depends_on_its_seed_alone(tiny_model):
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = ScalarModel(tiny_model(), seed=3).head.weight
    torch.manual_seed(6)
    assert torch.equal(ScalarModel(tiny_model(), seed=3).head.weight, first)
    assert not torch.equal(ScalarModel(tiny_model(), seed=4).head.weight, first)
    assert state is not None


def test_the_scalar_is_the_normalised_linear_map_in_float32(tiny_model):
    model = ScalarModel(tiny_model().bfloat16())
    model.mean, model.std = 2.0, 4.0
    hidden = torch.randn(7, 32).bfloat16()
    with torch.no_grad():
        model.head.bias.fill_(0.5)
        expected = (hidden.float() @ model.head.weight[0] + 0.5 - 2) / 4
        found = model.scalars(hidden)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("tied", [True, False])
def test_a_head_of_words_is_not_trained_but_a_tied_embedding_is(tiny_model, tied):
    model = ScalarModel(tiny_model("gpt2", tie_word_embeddings=tied))
    assert model.body.get_input_embeddings().weight.requires_grad
    assert model.body.get_output_embeddings().weight.requires_grad == tied
    assert model.head.weight.requires_grad


def test_saved_and_loaded_it_scores_to_the_bit(tiny_model, tiny_tokenizer, tmp_path, cpu):
    model = ScalarModel(tiny_model(), seed=9)
    model.mean, model.std = 0.1 + 0.2, 1 / 3
    with torch.no_grad():
        model.head.bias.fill_(0.7)
    model.save(tmp_path / "reward", tiny_tokenizer())
    again, tokenizer = load_scalar_model(str(tmp_path / "reward"), cpu)
    assert (again.mean, again.std) == (model.mean, model.std)
    assert not again.training
    assert len(tokenizer) == 300
    hidden = torch.randn(5, 32)
    assert torch.equal(again.scalars(hidden), model.scalars(hidden))
    tokens = torch.tensor([[3, 4, 5]])
    assert torch.equal(again.body(tokens).logits, model.body(tokens).logits)
    load_model(str(tmp_path / "reward"), cpu)  # its body is an ordinary model


def test_a_folder_at_home(tiny_model, tiny_tokenizer, tmp_path, cpu, monkeypatch):
    ScalarModel(tiny_model()).save(tmp_path / "reward", tiny_tokenizer())
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load_scalar_model("~/reward", cpu)[0].std == 1


def test_a_folder_without_a_head_is_refused(tiny_folder, tmp_path, cpu):
    path = tiny_folder(tmp_path)
    with pytest.raises(InputError, match="is not a reward model; give a folder made by `pairtune reward`"):
        load_scalar_model(str(path), cpu)


@pytest.mark.parametrize(
    ("file", "content"),
    [(FACTS_FILE, b"{"), (FACTS_FILE, b"{}"), (FACTS_FILE, None), (HEAD_FILE, b"xx")],
    ids=["not JSON", "no numbers", "no file", "not safetensors"],
)
def test_a_damaged_head_is_one_line(tiny_model, tiny_tokenizer, tmp_path, cpu, file, content):
    ScalarModel(tiny_model()).save(tmp_path, tiny_tokenizer())
    (tmp_path / file).unlink()
    if content is not None:
        (tmp_path / file).write_bytes(content)
    with pytest.raises(InputError, match="head") as caught:
        load_scalar_model(str(tmp_path), cpu)
    assert "\n" not in str(caught.value)


def test_the_head_of_another_size_is_one_line(tiny_model, tiny_tokenizer, tmp_path, cpu):
    ScalarModel(tiny_model()).save(tmp_path / "a", tiny_tokenizer())
    ScalarModel(tiny_model("gpt2", n_embd=64)).save(tmp_path / "b", tiny_tokenizer())
    (tmp_path / "a" / HEAD_FILE).write_bytes((tmp_path / "b" / HEAD_FILE).read_bytes())
    with pytest.raises(InputError, match="head"):
        load_scalar_model(str(tmp_path / "a"), cpu)
