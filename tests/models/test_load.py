"""A model is found, or one line says why not; what is saved is an ordinary Hugging Face folder."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from huggingface_hub.errors import RepositoryNotFoundError
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer, LlamaConfig

from pairtune.cache import cache_folder
from pairtune.engine.content import weights_hash
from pairtune.errors import InputError
from pairtune.models import load
from pairtune.models.heads import ScalarModel
from pairtune.models.load import (
    EMBEDDED,
    frozen_copy,
    load_model,
    load_tokenizer,
    reason,
    resolve,
    save_model,
)
from pairtune.models.machine import Machine

TOKENS = torch.tensor([[3, 4, 5, 6]])


def test_the_ends_that_a_model_declares_come_with_its_tokenizer(tiny_folder: Any, tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path)
    path = folder / "generation_config.json"
    written = json.loads(path.read_text())
    for declared, expected in ((5, (5,)), ([5, 7], (5, 7)), (None, ())):
        path.write_text(json.dumps(written | {"eos_token_id": declared}))
        assert load_tokenizer(str(folder)).declared_ends == expected
    path.unlink()
    assert load_tokenizer(str(folder)).declared_ends == (1,), "the model's own config speaks where no other does"


@pytest.fixture
def folder(tiny_folder: Any, tmp_path: Path) -> Any:
    return tiny_folder(tmp_path, chat=True)


def refused(ask: Any, *words: Any) -> Any:
    """That is refused in one line that says all of these words."""
    with pytest.raises(InputError) as caught:
        ask()
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message
    return message


def test_a_folder_loads_ready_to_be_run(
    folder: Any, tiny_model: Any, cpu: Any, architecture: Any, tmp_path: Path
) -> None:
    tiny_model(architecture).train().save_pretrained(tmp_path / architecture)
    model = load_model(str(tmp_path / architecture), cpu)
    assert not model.training
    assert model.config.use_cache is False
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert torch.equal(model(TOKENS).logits, tiny_model(architecture)(TOKENS).logits)


def test_the_machine_says_which_dtype(folder: Any) -> None:
    model = load_model(str(folder), Machine(torch.device("cpu"), torch.bfloat16, "asked for"))
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}


def test_a_folder_beginning_with_a_tilde_is_at_home(folder: Any, cpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder.parent))
    assert load_model("~/model", cpu).config.model_type == "llama"
    refused(lambda: load_model("~/other", cpu), '"~/other" does not exist')


def test_what_is_saved_is_a_hugging_face_folder(folder: Any, cpu: Any, tmp_path: Path) -> None:
    model, tokenizer = load_model(str(folder), cpu), load_tokenizer(str(folder))
    save_model(model, tokenizer, tmp_path / "deep" / "saved")
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "deep" / "saved")
    assert torch.equal(theirs(TOKENS).logits, model(TOKENS).logits)
    assert weights_hash(theirs) == weights_hash(model)
    assert theirs.config.use_cache is True, "whoever generates with it expects a cache"
    assert model.config.use_cache is False, "and ours is as it was"
    again = AutoTokenizer.from_pretrained(tmp_path / "deep" / "saved")
    turns = [{"role": "user", "content": "Who wrote Emma?"}]
    assert again.get_vocab() == tokenizer.get_vocab()
    assert (again.eos_token, again.pad_token, again.bos_token) == ("</s>", "<pad>", "<s>")
    expected = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    assert again.apply_chat_template(turns, tokenize=False, add_generation_prompt=True) == expected
    assert expected.endswith("<s>assistant: ")


def test_tied_weights_stay_tied(tiny_folder: Any, tmp_path: Path, cpu: Any) -> None:
    model = load_model(str(tiny_folder(tmp_path, "gpt2", tie_word_embeddings=True)), cpu)
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight


@pytest.mark.filterwarnings("ignore")  # transformers says that it makes floats of them
def test_weights_of_8_bits_are_read_as_the_numbers_they_stand_for(tiny_folder: Any, tmp_path: Path, cpu: Any) -> None:
    folder = tiny_folder(tmp_path)
    path, right, written = folder / "model.safetensors", {}, {}
    for name, weight in load_file(path).items():
        right[name] = written[name] = weight
        if "proj" in name:
            scale = weight.abs().max() / 448
            written[name], written[f"{name}_scale_inv"] = (weight / scale).to(torch.float8_e4m3fn), scale.reshape(1, 1)
            right[name] = written[name].float() * scale
    save_file(written, path, metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    given = {"quant_method": "fp8", "weight_block_size": [128, 128], "activation_scheme": "dynamic"}
    (folder / "config.json").write_text(json.dumps({**config, "quantization_config": given}))
    model = load_model(str(folder), cpu)
    assert all(torch.equal(value, right[name]) for name, value in model.state_dict().items())


class TestRefusals:
    """One line each: where, what is wrong, what to do."""

    @pytest.mark.parametrize("name", ["/no/such/folder", "./models/mine", "../x", "runs/1/policy"])
    def test_a_folder_that_is_not_there(self, name: Any, cpu: Any) -> None:
        refused(lambda: load_model(name, cpu), f'model folder "{name}" does not exist')
        refused(lambda: load_tokenizer(name), f'model folder "{name}" does not exist')

    @pytest.mark.parametrize("name", ["no-such-model", "nobody/no-such-model"])
    def test_a_hub_name_with_no_hub(self, name: Any, cpu: Any) -> None:
        refused(lambda: load_model(name, cpu), f'model "{name}" cannot be loaded: ')
        refused(lambda: load_tokenizer(name), f'model "{name}" has no tokenizer that can be loaded')

    def test_a_misspelt_name_is_told_with_its_neighbour(
        self, folder: Any, cpu: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(folder.parent)
        (folder.parent / "runs" / "tuned").mkdir(parents=True)
        for name, near in (
            ("./modl", "model"),
            (f"{folder.parent}/modle", f"{folder.parent}/model"),
            ("runs/tunde", "runs/tuned"),  # the folder of its first part is here: no hub name
        ):
            assert refused(lambda name=name: resolve(name)).endswith(f'does not exist; did you mean "{near}"?')
        refused(lambda: resolve("no/such/folder"), 'model folder "no/such/folder" does not exist')
        (folder.parent / "tiny.gguf").write_bytes(b"GGUF")
        assert refused(lambda: resolve("tyni.gguf")).endswith('"tyni.gguf" does not exist; did you mean "tiny.gguf"?')
        refused(lambda: resolve("model/config.json"), 'model "model/config.json" is a file; give the folder')

    def test_a_hub_that_does_not_answer_is_asked_once(
        self, folder: Any, cpu: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked = []

        def ask(self: Any, name: Any, timeout: Any) -> None:
            asked.append((name, timeout))
            raise OSError("no route to the hub")

        monkeypatch.chdir(folder.parent)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setattr("huggingface_hub.HfApi.model_info", ask)
        load._from_hub.cache_clear()
        said = refused(lambda: load_tokenizer("mode"), 'model "mode" is no file or folder here, and the hub cannot be')
        assert said.endswith('did you mean "model"?')
        assert asked == [("mode", 10.0)]
        monkeypatch.setattr(load.hub, "cached_model", lambda name: str(folder))  # downloaded before
        assert load_model("some/model", cpu).config.model_type == "llama"
        load._from_hub.cache_clear()

    def test_a_name_that_the_hub_does_not_have(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def ask(self: Any, name: Any, timeout: Any) -> None:
            response = SimpleNamespace(headers={}, request=None, status_code=404, text="")
            raise RepositoryNotFoundError("404", response=response)

        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setattr("huggingface_hub.HfApi.model_info", ask)
        refused(lambda: resolve("some/typo"), 'model "some/typo" is not here, and the hub has none of that name')

    def test_no_configuration(self, folder: Any, cpu: Any) -> None:
        (folder / "config.json").unlink()
        refused(lambda: load_model(str(folder), cpu), "has no config.json", "save_pretrained")

    @pytest.mark.parametrize("text", ['{"model_type": "nonesuch"}', "{}"])
    def test_a_configuration_that_says_nothing(self, folder: Any, cpu: Any, text: Any) -> None:
        (folder / "config.json").write_text(text)
        refused(lambda: load_model(str(folder), cpu), "cannot be loaded: ")

    def test_weights_that_would_be_unpickled(self, folder: Any, cpu: Any) -> None:
        torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()
        refused(lambda: load_model(str(folder), cpu), "no .safetensors weights", "pairtune unpickles nothing")

    def test_nor_is_anything_unpickled_that_a_hub_has(self, cpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        asked = {}

        def from_pretrained(*_args: Any, **kwargs: Any) -> None:
            asked.update(kwargs)
            raise OSError("no safetensors there")

        monkeypatch.setattr(load.AutoConfig, "from_pretrained", lambda *_args, **_kwargs: LlamaConfig())
        monkeypatch.setattr(load.AutoModelForCausalLM, "from_pretrained", from_pretrained)
        refused(lambda: load_model("somebody/model", cpu), "no safetensors there")
        assert asked["use_safetensors"] is True
        assert asked["trust_remote_code"] is False

    @pytest.mark.parametrize("content", [b"", b"nonsense" * 10, None], ids=["empty", "nonsense", "cut"])
    def test_damaged_weights(self, folder: Any, cpu: Any, content: Any) -> None:
        path = folder / "model.safetensors"
        path.write_bytes(path.read_bytes()[:-100] if content is None else content)
        refused(lambda: load_model(str(folder), cpu), "cannot be loaded: ")

    def test_weights_that_are_missing_are_not_made_up(self, folder: Any, cpu: Any) -> None:
        path = folder / "model.safetensors"
        weights = load_file(path)
        del weights["lm_head.weight"], weights["model.norm.weight"]
        save_file(weights, path, metadata={"format": "pt"})
        refused(lambda: load_model(str(folder), cpu), "lacks 2 of its weights", "lm_head.weight")

    def test_weights_of_another_shape(self, folder: Any, cpu: Any) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "intermediate_size": 60}))
        refused(lambda: load_model(str(folder), cpu), "cannot be loaded: ")

    @pytest.mark.parametrize("named", ["bart", "pegasus", "t5"])
    def test_an_encoder_decoder_is_no_decoder(self, named: Any, cpu: Any, tmp_path: Path) -> None:
        """transformers would make a language model of one half of it, without a word."""
        sizes = {"vocab_size": 300, "d_model": 8, "d_ff": 8, "d_kv": 4, "num_heads": 2, "num_layers": 1}
        sides = {
            f"{side}_{what}": 2 for side in ("encoder", "decoder") for what in ("layers", "attention_heads", "ffn_dim")
        }
        config = AutoConfig.for_model(named, **sizes, **sides)
        AutoModelForSeq2SeqLM.from_config(config).save_pretrained(tmp_path)
        said = refused(lambda: load_model(str(tmp_path), cpu), f'model "{tmp_path}" is an encoder-decoder ({named})')
        assert "decoder-only" in said

    def test_a_reward_model_is_no_language_model(
        self, cpu: Any, tiny_model: Any, tiny_tokenizer: Any, tmp_path: Path
    ) -> None:
        """Not even one whose head of words would be its embedding."""
        ScalarModel(tiny_model("gpt2", tie_word_embeddings=True)).save(tmp_path, tiny_tokenizer())
        refused(lambda: load_model(str(tmp_path), cpu), "for sequence classification (GPT2ForSequenceClassification)")

    def test_weights_that_cannot_be_trained(self, folder: Any, cpu: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
        """Training would move what is left in floats, the norms, and leave the rest."""
        read = AutoModelForCausalLM.from_pretrained

        def quantised(*args: Any, **kwargs: Any) -> Any:
            model, info = read(*args, **kwargs)
            model.is_quantized = True  # as transformers says it of every method that is not undone while loading
            return model, info

        monkeypatch.setattr(load.AutoModelForCausalLM, "from_pretrained", quantised)
        refused(lambda: load_model(str(folder), cpu), "quantised weights, which cannot be trained")

    @pytest.mark.parametrize("method", ["gptq", "awq", "bitsandbytes", "nonesuch"])
    @pytest.mark.filterwarnings("ignore")
    def test_weights_in_a_format_that_cannot_be_read(self, folder: Any, cpu: Any, method: Any) -> None:
        config = json.loads((folder / "config.json").read_text())
        given = {"quant_method": method, "bits": 4, "load_in_4bit": True}
        (folder / "config.json").write_text(json.dumps({**config, "quantization_config": given}))
        refused(lambda: load_model(str(folder), cpu), f'model "{folder}" ')

    def test_tensors_that_the_model_has_no_place_for_are_told(
        self, folder: Any, cpu: Any, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = folder / "model.safetensors"
        save_file({**load_file(path), "v_head.summary.weight": torch.ones(2)}, path, metadata={"format": "pt"})
        load_model(str(folder), cpu)
        said = capsys.readouterr().err
        assert "1 tensor of its files (among them v_head.summary.weight) has no place in a LlamaForCausalLM" in said

    def test_no_tokenizer(self, folder: Any) -> None:
        for file in folder.glob("*token*"):
            file.unlink()
        refused(lambda: load_tokenizer(str(folder)), "has no tokenizer that can be loaded", "tokenizer.json")

    def test_a_tokenizer_without_an_end_of_text(self, folder: Any, tiny_tokenizer: Any) -> None:
        tokenizer = tiny_tokenizer()
        tokenizer.eos_token = None
        tokenizer.save_pretrained(folder)
        refused(lambda: load_tokenizer(str(folder)), "no end-of-text token (eos_token)")

    def test_a_gguf_file_that_is_not_there(self, cpu: Any) -> None:
        refused(lambda: load_model("/no/such/model.gguf", cpu), 'model file "/no/such/model.gguf" does not exist')

    def test_a_gguf_file_without_the_package(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "m.gguf").write_bytes(b"GGUF")
        monkeypatch.setattr(load.importlib.util, "find_spec", lambda name: None)
        refused(lambda: resolve(str(tmp_path / "m.gguf")), "needs gguf and accelerate", "pairtune[demo]")

    def test_the_embedded_model_without_its_package(self, cpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(load.importlib.util, "find_spec", lambda name: None)
        for ask in (lambda: load_model(EMBEDDED, cpu), lambda: load_tokenizer(EMBEDDED)):
            refused(ask, f'the embedded model "{EMBEDDED}" is not installed', "make setup", "--no-deps")

    def test_a_long_reason_is_cut(self) -> None:
        assert reason(ValueError("first " * 100 + "\nsecond")).endswith("...")
        assert len(reason(ValueError("first " * 100))) == 160
        assert reason(ValueError()) == "ValueError"


class TestCopiesAndHashes:
    """What the weights are, wherever they lie."""

    def test_a_frozen_copy_shares_nothing(self, tiny_model: Any) -> None:
        model = tiny_model("gpt2").train()
        copied = frozen_copy(model)
        assert not copied.training
        assert model.training
        assert not any(p.requires_grad for p in copied.parameters())
        assert all(p.requires_grad for p in model.parameters())
        before = copied(TOKENS).logits
        with torch.no_grad():
            for p in model.parameters():
                p.zero_()
        assert torch.equal(copied(TOKENS).logits, before)

    def test_one_weight_changes_the_hash(self, tiny_model: Any) -> None:
        model = tiny_model()
        before = weights_hash(model)
        assert weights_hash(tiny_model()) == before
        with torch.no_grad():
            model.base_model.norm.weight[3] += 1e-7
        assert weights_hash(model) != before
        assert weights_hash(tiny_model(seed=1)) != before

    def test_the_dtype_changes_the_hash(self, tiny_model: Any) -> None:
        zeros = [tiny_model() for _ in range(2)]
        with torch.no_grad():
            for p in (p for model in zeros for p in model.parameters()):
                p.zero_()
        assert weights_hash(zeros[0]) != weights_hash(zeros[1].bfloat16())


def test_the_cache_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PAIRTUNE_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.setenv("PAIRTUNE_CACHE", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "pairtune"


class TestConversion:
    """A GGUF file becomes a safetensors folder once; reading it is transformers' work and is stood in for here."""

    @pytest.fixture
    def gguf(self, tmp_path: Path, tiny_model: Any, tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
        path = tmp_path / "tiny.gguf"
        path.write_bytes(b"GGUF content")
        self.read = []

        class Models(AutoModelForCausalLM):
            @classmethod
            def from_pretrained(cls, *args: Any, gguf_file: Any = None, **kwargs: Any) -> Any:
                if gguf_file is None:
                    return AutoModelForCausalLM.from_pretrained(*args, **kwargs)
                self.read.append(gguf_file)
                return tiny_model()

        class Tokenizers(AutoTokenizer):
            @classmethod
            def from_pretrained(cls, *args: Any, gguf_file: Any = None, **kwargs: Any) -> Any:
                if gguf_file is None:
                    return AutoTokenizer.from_pretrained(*args, **kwargs)
                tokenizer = tiny_tokenizer()
                tokenizer.pad_token, tokenizer.unk_token = tokenizer.eos_token, "<s>"
                return tokenizer

        monkeypatch.setattr(load.importlib.util, "find_spec", lambda name: object())
        monkeypatch.setattr(load, "AutoModelForCausalLM", Models)
        monkeypatch.setattr(load, "AutoTokenizer", Tokenizers)
        return path

    def test_it_is_told_in_one_line_and_draws_no_bar(
        self, gguf: Any, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> Any:
        real = load.AutoModelForCausalLM.from_pretrained

        def with_a_bar(*args: Any, **kwargs: Any) -> Any:
            for _ in load.modeling_gguf_pytorch_utils.tqdm([1, 2], desc="Converting and de-quantizing"):
                pass
            return real(*args, **kwargs)

        before = load.modeling_gguf_pytorch_utils.tqdm
        monkeypatch.setattr(load.AutoModelForCausalLM, "from_pretrained", with_a_bar)
        resolve(str(gguf))
        resolve(str(gguf))
        said = capfd.readouterr()
        assert said.err.count("model: converting tiny.gguf to safetensors, once: it is kept in the cache\n") == 1
        assert "de-quantizing" not in said.err + said.out
        assert load.modeling_gguf_pytorch_utils.tqdm is before

    def test_once_and_by_content(self, gguf: Any, tiny_model: Any, cpu: Any) -> None:
        model = load_model(str(gguf), cpu)
        assert torch.equal(model(TOKENS).logits, tiny_model()(TOKENS).logits)
        assert load_tokenizer(str(gguf)).pad_token != load_tokenizer(str(gguf)).eos_token
        assert self.read == ["tiny.gguf"]
        first = resolve(str(gguf))
        assert first.startswith(str(cache_folder()))
        gguf.write_bytes(b"GGUF other content")
        assert resolve(str(gguf)) != first
        assert len(self.read) == 2

    def test_another_process_may_be_first(self, gguf: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        real = load.save_model

        def slow(model: Any, tokenizer: Any, partial: Any) -> None:
            real(model, tokenizer, partial)
            real(model, tokenizer, partial.with_name(partial.name.split(".partial")[0]))

        monkeypatch.setattr(load, "save_model", slow)
        target = resolve(str(gguf))
        assert [path.name for path in (cache_folder() / "models").iterdir()] == [target.rsplit("/", 1)[1]]
