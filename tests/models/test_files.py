"""A model's files that are broken, or that name what they have no business with, are told by name; nothing hangs."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig

from pairtune.engine.self_check import check_engine, rows_of_prompts
from pairtune.errors import InputError
from pairtune.models import adapters
from pairtune.models.files import check_files
from pairtune.models.load import load_model, load_tokenizer, resolve
from pairtune.sampling.sampler import sample
from pairtune.settings import Adapting

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"


@pytest.fixture
def folder(tiny_folder: Any, tmp_path: Path) -> Path:
    return Path(tiny_folder(tmp_path))


def refusal(ask: Callable[[], object], *words: str) -> str:
    with pytest.raises(InputError) as caught:
        ask()
    message = str(caught.value)
    assert "\n" not in message
    assert all(word in message for word in words), message
    return message


def change(path: Path, **fields: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


@pytest.mark.parametrize(
    "outside", ["pytorch_model.bin", "../shard.safetensors", "/shard.safetensors", "a\\..\\..\\b.safetensors", 3]
)
def test_an_index_names_safetensors_files_beside_it_and_nothing_else(folder: Path, cpu: Any, outside: Any) -> None:
    tensors = load_file(folder / WEIGHTS)
    torch.save(tensors, folder / "pytorch_model.bin")
    save_file(tensors, folder.parent / "shard.safetensors", metadata={"format": "pt"})
    (folder / WEIGHTS).rename(folder / "other.safetensors")
    index = {"metadata": {}, "weight_map": dict.fromkeys(tensors, outside)}
    (folder / INDEX).write_text(json.dumps(index))
    refusal(lambda: load_model(str(folder), cpu), f"its {INDEX} takes weights from", "nothing is unpickled")
    index["weight_map"] = dict.fromkeys(tensors, "other.safetensors")
    (folder / INDEX).write_text(json.dumps(index))
    assert load_model(str(folder), cpu).num_parameters() == sum(tensor.numel() for tensor in tensors.values())


def test_nor_does_a_configuration_name_another_folders_weights(folder: Path, cpu: Any) -> None:
    save_file(load_file(folder / WEIGHTS), folder.parent / "other.safetensors", metadata={"format": "pt"})
    change(folder / "config.json", transformers_weights="../other.safetensors")
    refusal(lambda: load_model(str(folder), cpu), "config.json takes weights from", "other.safetensors")


@pytest.mark.parametrize("text", ["", "{", "[]", '"llama"', "\0", "[" * 100_000])
@pytest.mark.parametrize("file", ["config.json", "generation_config.json", "tokenizer_config.json", INDEX])
def test_a_broken_file_is_named(folder: Path, cpu: Any, file: str, text: str) -> None:
    (folder / file).write_text(text)
    refusal(lambda: load_tokenizer(str(folder)), f"its {file} ")
    refusal(lambda: load_model(str(folder), cpu), f"its {file} ")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"num_hidden_layers": 10**7}, ["num_hidden_layers", "10000000"]),
        ({"text_config": {"n_routed_experts": 10**9}}, ["n_routed_experts"]),
        ({"architectures": 3}, ["architectures"]),
        ({"model_type": 3}, ["model_type"]),
        ({"hidden_act": "nonesuch"}, ["'nonesuch' is not known"]),
        ({"num_attention_heads": 3}, ["hidden size", "attention heads"]),
        ({"vocab_size": 400}, ["lm_head.weight in model.safetensors", "[300, 32]", "[400, 32]"]),
        ({"hidden_size": 64}, ["has the shape", "config.json"]),
        ({"num_hidden_layers": 3}, ["lacks 9 of its weights", "model.layers.2."]),
        ({"model_type": "gpt2"}, ["lacks 28 of its weights"]),
    ],
)
def test_a_configuration_of_another_model_is_told(folder: Path, cpu: Any, fields: Any, words: list[str]) -> None:
    change(folder / "config.json", **fields)
    refusal(lambda: (load_tokenizer(str(folder)), load_model(str(folder), cpu)), *words)


@pytest.mark.parametrize("kind", ["gemma3n", "gemma4", "doge", "deepseek_v3", "bart", "gpt2", "mamba", "zamba2"])
def test_a_configuration_as_its_authors_have_it_is_let_be(kind: str, tmp_path: Path) -> None:
    """Gemma's vocab_size_per_layer_input is 262,144, and Doge has 16,384 experts."""
    (tmp_path / "config.json").write_text(AutoConfig.for_model(kind).to_json_string(use_diff=False))
    check_files(kind, str(tmp_path))


def test_weights_that_the_configuration_has_no_place_for_are_told(
    folder: Path, cpu: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    change(folder / "config.json", num_hidden_layers=1)
    load_model(str(folder), cpu)
    said = capsys.readouterr().err
    assert "9 tensors of its files (among them model.layers.1.input_layernorm.weight) have no place" in said


@pytest.mark.parametrize("ends", ["a", -5, {"a": 1}, [1, None], True])
def test_ends_that_are_no_token_ids_are_refused(folder: Path, ends: Any) -> None:
    change(folder / "generation_config.json", eos_token_id=ends)
    refusal(lambda: load_tokenizer(str(folder)), "eos_token_id in its generation_config.json")


def test_answers_that_could_never_end_are_refused(tiny_model: Any) -> None:
    refusal(lambda: sample(tiny_model(), [[3, 4]], end_ids=[300, 400], max_new_tokens=2, seed=0), "token 300")
    assert len(sample(tiny_model(), [[3, 4]], end_ids=[1, 400], max_new_tokens=2, seed=0)) == 1


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_a_number_that_is_none_is_told_with_its_tensor_and_file(folder: Path, cpu: Any, number: float) -> None:
    tensors = load_file(folder / WEIGHTS)
    tensors["model.embed_tokens.weight"][250, 3] = number  # of a token that no row has
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    model = load_model(str(folder), cpu)
    words = "model.embed_tokens.weight", f"{folder / WEIGHTS}", "not finite"
    refusal(lambda: check_engine(model, rows_of_prompts([[3, 4, 5]])), *words)
    refusal(lambda: sample(model, [[3, 4]], end_ids=[1], max_new_tokens=2, seed=0), *words)


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff" * 8 + b"{}", b"nonsense" * 100, None])
def test_weights_that_cannot_be_read(folder: Path, cpu: Any, content: bytes | None) -> None:
    whole = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(whole[: len(whole) // 2] if content is None else content)
    refusal(lambda: load_model(str(folder), cpu), "cannot be loaded: ")


@pytest.mark.parametrize(
    "content", [b"", b"GGUF", b"GGUF\3\0\0\0" + b"\xff" * 16, b"nonsense" * 50, b"GGUF\3\0\0\0" + bytes(16)]
)
def test_a_gguf_file_that_is_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.gguf").write_bytes(content)
    refusal(lambda: resolve(str(tmp_path / "a.gguf")), "a.gguf", "is no GGUF model that can be read")


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"base_model_name_or_path": "nobody/none"}, "cannot be loaded"),
        ({"base_model_name_or_path": "https://nobody.example/x"}, "does not exist"),
        ({"base_model_name_or_path": "SELF"}, "stand on other adapters"),
        ({"lora_alpha": "x"}, "cannot be put on their base"),
        ({"target_modules": 3}, "cannot be put on their base"),
        ({"r": -1}, "cannot be put on their base"),
        ({}, "holds numbers that are not finite"),
    ],
)
def test_adapters_that_are_broken(
    folder: Path, tiny_model: Any, tiny_tokenizer: Any, cpu: Any, fields: Any, word: str
) -> None:
    model, place = tiny_model(), folder.parent / "adapters"
    adapters.adapt(model, Adapting(lora=True, lora_rank=2), base=str(folder), seed=0)
    adapters.save(model, place)
    tiny_tokenizer().save_pretrained(place)
    assert load_tokenizer(str(place)).eos_token == "</s>"
    change(
        place / "adapter_config.json",
        **{name: str(place) if value == "SELF" else value for name, value in fields.items()},
    )
    if not fields:
        tensors = load_file(place / "adapter_model.safetensors")
        next(iter(tensors.values()))[0, 0] = float("nan")
        save_file(tensors, place / "adapter_model.safetensors", metadata={"format": "pt"})
    refusal(lambda: (load_tokenizer(str(place)), load_model(str(place), cpu)), word)


def test_a_tokenizer_that_makes_texts_grow_without_end(folder: Path) -> None:
    path = folder / "tokenizer.json"
    step = {"type": "Replace", "pattern": {"String": "e"}, "content": "e" * 100}
    change(path, normalizer={"type": "Sequence", "normalizers": [step] * 5})
    refusal(lambda: load_tokenizer(str(folder)), "up to 1e+10 times as long")
    change(path, normalizer={"type": "Sequence", "normalizers": [{**step, "content": "\u2581"}] * 5})
    assert load_tokenizer(str(folder)).eos_token == "</s>"
