"""The scalar head: how it starts, what it reads, and how it is saved: as transformers has it, to be read by others."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from pairtune.data.pack import Tokens
from pairtune.engine.value_heads import score_rewards
from pairtune.errors import InputError
from pairtune.models.heads import FACTS_FILE, HEAD_FILE, ScalarModel, load_scalar_model
from pairtune.models.machine import Machine

CPU = Machine(torch.device("cpu"), torch.float32, "the tests ask for it")
PAD_ID = 2


def test_it_starts_with_standard_deviation_one_over_root_d_plus_one(tiny_model: Any) -> None:
    heads = torch.cat([ScalarModel(tiny_model(), seed=seed).head.weight.detach() for seed in range(100)])
    assert float(heads.std()) == pytest.approx(33**-0.5, rel=0.05)
    assert abs(float(heads.mean())) < 4 * 33**-0.5 / 3200**0.5
    assert float(ScalarModel(tiny_model()).head.bias.detach()) == 0


def test_its_start_depends_on_its_seed_alone(tiny_model: Any) -> None:
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = ScalarModel(tiny_model(), seed=3).head.weight
    torch.manual_seed(6)
    assert torch.equal(ScalarModel(tiny_model(), seed=3).head.weight, first)
    assert not torch.equal(ScalarModel(tiny_model(), seed=4).head.weight, first)
    assert state is not None


def test_the_scalar_is_the_normalised_linear_map_in_float32(tiny_model: Any) -> None:
    model = ScalarModel(tiny_model().bfloat16())
    hidden = torch.randn(7, 32).bfloat16()
    with torch.no_grad():
        model.head.bias.fill_(0.5)
        expected = (hidden.float() @ model.head.weight[0] + 0.5 - 2) / 4
        model.normalise(mean=2.0, std=4.0)
        found = model.scalars(hidden)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("tied", [True, False])
def test_a_head_of_words_is_not_trained_but_a_tied_embedding_is(tiny_model: Any, tied: Any) -> None:
    model = ScalarModel(tiny_model("gpt2", tie_word_embeddings=tied))
    assert model.body.get_input_embeddings().weight.requires_grad
    assert model.body.get_output_embeddings().weight.requires_grad == tied
    assert model.head.weight.requires_grad


def _trained(body: Any, *, seed: int = 9) -> ScalarModel:
    """A head with a bias, normalised: as training leaves it."""
    model = ScalarModel(body, seed=seed)
    with torch.no_grad():
        model.head.bias.fill_(0.7)
    model.normalise(mean=0.1 + 0.2, std=1 / 3)
    return model


def test_saved_and_loaded_it_scores_to_the_bit(tiny_model: Any, tiny_tokenizer: Any, tmp_path: Path) -> None:
    model = _trained(tiny_model())
    model.save(tmp_path / "reward", tiny_tokenizer())
    again, tokenizer = load_scalar_model(str(tmp_path / "reward"), CPU)
    assert not again.training
    assert len(tokenizer) == 300
    hidden = torch.randn(5, 32)
    assert torch.equal(again.scalars(hidden), model.scalars(hidden))
    tokens = torch.tensor([[3, 4, 5]])
    assert torch.equal(*(m.body.base_model(tokens).last_hidden_state for m in (again, model)))


def test_a_bfloat16_model_keeps_its_head_in_float32(tiny_model: Any, tiny_tokenizer: Any, tmp_path: Path) -> None:
    model = _trained(tiny_model().bfloat16())
    model.save(tmp_path / "reward", tiny_tokenizer())
    again, _ = load_scalar_model(str(tmp_path / "reward"), Machine(torch.device("cpu"), torch.bfloat16, "asked for"))
    assert again.body.dtype == torch.bfloat16
    assert torch.equal(again.head.weight, model.head.weight)


ROWS = [[0, 17, 30, 1], [0, 44, 45, 46, 47, 48, 1], [0, 9]]


@pytest.mark.parametrize(
    ("name", "padding_side"),
    [(name, "right") for name in ("llama", "gpt2", "gemma", "gpt_neox", "mistral", "qwen3")] + [("llama", "left")],
)
def test_transformers_reads_our_reward_models(
    name: Any,
    padding_side: Any,
    tiny_model: Any,
    tiny_tokenizer: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Its own class, a padded batch, and no code of ours: the rewards are ours but for the offset in the config."""
    model = _trained(tiny_model(name))
    model.save(tmp_path, tiny_tokenizer())
    assert "own format" not in capsys.readouterr().err
    assert not any(module.training for module in model.body.modules())  # saving switches no dropout on
    theirs = AutoModelForSequenceClassification.from_pretrained(tmp_path, dtype=torch.float32)
    assert theirs.config.num_labels == 1
    assert type(theirs).__name__.endswith("ForSequenceClassification")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path, padding_side=padding_side)
    batch = tokenizer.pad({"input_ids": ROWS}, return_tensors="pt")
    assert theirs.config.pad_token_id == tokenizer.pad_token_id == PAD_ID
    with torch.no_grad():
        rewards = theirs(**batch).logits[:, 0] + theirs.config.reward_offset
        states = [model.body.base_model(torch.tensor([row])).last_hidden_state[0, -1] for row in ROWS]
        alone = torch.stack([state @ model.head.weight[0] + model.head.bias[0] for state in states])
    torch.testing.assert_close(rewards, alone, rtol=1e-4, atol=1e-4)
    assert float(alone.std()) > 0.1
    found = score_rewards(load_scalar_model(str(tmp_path), CPU)[0], [Tokens((r[0],), (tuple(r[1:]),)) for r in ROWS])
    torch.testing.assert_close(torch.tensor(found)[:, 0], alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("bias", [None, 1.5])
@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_somebody_elses_reward_model_is_read(
    name: Any, bias: Any, tiny_model: Any, tiny_tokenizer: Any, tmp_path: Path
) -> None:
    config = copy.deepcopy(tiny_model(name).config)
    config.num_labels = 1
    torch.manual_seed(4)
    theirs = AutoModelForSequenceClassification.from_config(config).eval()
    with torch.no_grad():
        theirs.score.weight.normal_()
        if bias is not None:
            theirs.score.bias = torch.nn.Parameter(torch.tensor([bias]))
    theirs.save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    with torch.no_grad():
        right = [[float(theirs(torch.tensor([row])).logits)] for row in ROWS]
    model, _ = load_scalar_model(str(tmp_path), CPU)
    found = score_rewards(model, [Tokens((row[0],), (tuple(row[1:]),)) for row in ROWS])
    torch.testing.assert_close(torch.tensor(found), torch.tensor(right), rtol=1e-4, atol=1e-4)


def test_a_folder_of_before_is_still_read(tiny_model: Any, tiny_tokenizer: Any, tmp_path: Path) -> None:
    """Its head lay beside an ordinary model, the normalisation beside the head."""
    body, hidden = tiny_model(), torch.randn(5, 32)
    weight, bias = torch.randn(1, 32), torch.tensor([0.7])
    body.save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    save_file({"weight": weight, "bias": bias}, tmp_path / HEAD_FILE)
    (tmp_path / FACTS_FILE).write_text('{"mean": 0.3, "std": 0.25}\n')
    model, _ = load_scalar_model(str(tmp_path), CPU)
    torch.testing.assert_close(model.scalars(hidden), (hidden @ weight[0] + bias - 0.3) / 0.25)


def test_where_transformers_has_no_class_the_old_format_is_kept_and_said(
    tiny_tokenizer: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = AutoConfig.for_model(
        "granite", vocab_size=300, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2,
    )  # fmt: skip
    model = _trained(AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval())
    model.save(tmp_path, tiny_tokenizer())
    said = capsys.readouterr().err
    assert "pairtune's own format" in said
    assert "granite" in said
    again, _ = load_scalar_model(str(tmp_path), CPU)
    hidden = torch.randn(5, 32)
    assert torch.equal(again.scalars(hidden), model.scalars(hidden))


@pytest.mark.parametrize(
    ("tokens", "padding"),
    [
        ({"pad_token": "<pad>", "bos_token": "<s>"}, "<pad>"),
        ({"pad_token": "</s>", "bos_token": "<s>"}, "<s>"),  # padding with the end of text would hide every end
        ({"pad_token": "</s>", "bos_token": "</s>"}, None),  # then a batch is refused by transformers, not misread
        ({"pad_token": None, "bos_token": None}, None),
    ],
)
def test_a_padding_token_is_never_one_that_ends_a_response(
    tokens: Any, padding: Any, tiny_model: Any, tiny_tokenizer: Any, tmp_path: Path
) -> None:
    tokenizer = tiny_tokenizer()
    for name, token in tokens.items():
        setattr(tokenizer, name, token)
    _trained(tiny_model()).save(tmp_path, tokenizer)
    assert AutoTokenizer.from_pretrained(tmp_path).pad_token == padding
    found = AutoConfig.from_pretrained(tmp_path).pad_token_id
    assert found == (None if padding is None else tokenizer.convert_tokens_to_ids(padding))
    assert tokenizer.pad_token == tokens["pad_token"]  # the policy's own stays as it is


def test_a_folder_at_home(
    tiny_model: Any, tiny_tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ScalarModel(tiny_model()).save(tmp_path / "reward", tiny_tokenizer())
    monkeypatch.setenv("HOME", str(tmp_path))
    assert float(load_scalar_model("~/reward", CPU)[0].head.bias.detach()) == 0


def test_a_folder_without_a_head_is_refused(tiny_folder: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a reward model; give a folder made by `pairtune reward`"):
        load_scalar_model(str(tiny_folder(tmp_path)), CPU)


def test_a_classifier_of_several_labels_is_refused(tiny_model: Any, tiny_tokenizer: Any, tmp_path: Path) -> None:
    config = copy.deepcopy(tiny_model().config)
    config.num_labels = 3
    AutoModelForSequenceClassification.from_config(config).save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(InputError, match="has 3 labels; a reward model has one"):
        load_scalar_model(str(tmp_path), CPU)


def test_a_classifier_that_reads_its_first_token_is_refused(tiny_tokenizer: Any, tmp_path: Path) -> None:
    config = AutoConfig.for_model(
        "bert", vocab_size=300, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
        num_labels=1,
    )  # fmt: skip
    AutoModelForSequenceClassification.from_config(config).save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(InputError, match="has no linear head called score") as caught:
        load_scalar_model(str(tmp_path), CPU)
    assert "\n" not in str(caught.value)


def test_a_classifier_whose_weights_are_missing_is_refused(
    tiny_model: Any, tiny_tokenizer: Any, tmp_path: Path
) -> None:
    ScalarModel(tiny_model()).save(tmp_path, tiny_tokenizer())
    weights = load_file(tmp_path / "model.safetensors")
    del weights["score.weight"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"lacks 1 of its weights, among them score\.weight"):
        load_scalar_model(str(tmp_path), CPU)


def _old_folder(folder: Any, body: Any, tokenizer: Any) -> None:
    """A reward model as it was saved before."""
    body.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    save_file({"weight": torch.ones(1, body.config.hidden_size), "bias": torch.zeros(1)}, folder / HEAD_FILE)
    (folder / FACTS_FILE).write_text('{"mean": 0.0, "std": 1.0}')


@pytest.mark.parametrize(
    ("file", "content"),
    [(FACTS_FILE, b"{"), (FACTS_FILE, b"{}"), (HEAD_FILE, b"xx")],
    ids=["not JSON", "no numbers", "not safetensors"],
)
def test_a_damaged_head_is_one_line(
    tiny_model: Any, tiny_tokenizer: Any, tmp_path: Path, file: Any, content: Any
) -> None:
    _old_folder(tmp_path, tiny_model(), tiny_tokenizer())
    (tmp_path / file).write_bytes(content)
    with pytest.raises(InputError, match="head") as caught:
        load_scalar_model(str(tmp_path), CPU)
    assert "\n" not in str(caught.value)


def test_the_head_of_another_size_is_one_line(tiny_model: Any, tiny_tokenizer: Any, tmp_path: Path) -> None:
    _old_folder(tmp_path, tiny_model(), tiny_tokenizer())
    save_file({"weight": torch.ones(1, 64), "bias": torch.zeros(1)}, tmp_path / HEAD_FILE)
    with pytest.raises(InputError, match="head"):
        load_scalar_model(str(tmp_path), CPU)
