"""A model whose code came with it (`--trust-remote-code`): neither attention nor a cache that transformers knows."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

import pairtune
from pairtune.data.pack import Tokens, pack
from pairtune.engine.content import model_key
from pairtune.engine.logprob import token_logprobs
from pairtune.engine.path import paths_of
from pairtune.errors import InputError
from pairtune.models.load import load_model
from pairtune.models.machine import Machine
from pairtune.sampling.sampler import sample

CODE = """
import torch
from torch import nn
from transformers import GenerationMixin, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

CACHE = "cache" if "cache" in CausalLMOutputWithPast.__dataclass_fields__ else "past_key_values"


class OwnConfig(PreTrainedConfig):
    model_type = "own"

    def __init__(self, vocab_size=300, hidden_size=32, **others):
        self.vocab_size, self.hidden_size, self.num_hidden_layers = vocab_size, hidden_size, 1
        super().__init__(**others)


class Memory:
    def __init__(self):
        self.total, self.count = 0.0, 0

    def get_seq_length(self, *_):
        return self.count


class OwnForCausalLM(PreTrainedModel, GenerationMixin):
    config_class = OwnConfig

    def __init__(self, config):
        super().__init__(config)
        self.words = nn.Embedding(config.vocab_size, config.hidden_size)
        self.mix = nn.Linear(config.hidden_size, config.hidden_size)
        self.head = nn.Linear(config.hidden_size, config.vocab_size)
        self.post_init()

    def get_input_embeddings(self):
        return self.words

    def get_output_embeddings(self):
        return self.head

    def prepare_inputs_for_generation(self, input_ids, attention_mask=None, **others):
        memory = others.get(CACHE)
        memory = memory if isinstance(memory, Memory) else Memory()
        return {"input_ids": input_ids[:, memory.count:], "memory": memory}

    def forward(self, input_ids, memory=None, attention_mask=None, **others):
        memory = memory or Memory()
        x = self.words(input_ids)
        total = x.cumsum(1) + memory.total
        count = memory.count + torch.arange(1, x.shape[1] + 1)[None, :, None]
        memory.total, memory.count = total[:, -1:], memory.count + x.shape[1]
        logits = 3 * torch.tanh(self.head(x + torch.tanh(self.mix(total / count))))
        return CausalLMOutputWithPast(logits=logits, **{CACHE: memory})
"""
ROWS = [Tokens((3, 9, 40, 7), ((5, 6, 7), (8, 1))), Tokens((11,), ((30, 31, 32, 33, 34), (12, 1)))]
PROMPTS = [(3, 9, 40, 7), (11,), (3, 9, 5, 6, 7, 8), (100, 5)]


@pytest.fixture
def folder(tmp_path: Path, tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr("sys.path", [*__import__("sys").path])
    path = tmp_path / "model"
    tiny_tokenizer().save_pretrained(path)
    (path / "modeling_own.py").write_text(CODE, encoding="utf-8")
    names = {"AutoConfig": "modeling_own.OwnConfig", "AutoModelForCausalLM": "modeling_own.OwnForCausalLM"}
    config = {"model_type": "own", "auto_map": names, "architectures": ["OwnForCausalLM"], "eos_token_id": 1}
    (path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(_config(path), trust_remote_code=True)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.7 if parameter.dim() == 1 else 0.4)
    model.save_pretrained(path)
    return path


def _config(path: Path) -> Any:
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(path, trust_remote_code=True)


def _plainly(model: Any, *ids: int) -> torch.Tensor:
    with torch.no_grad():
        return torch.log_softmax(model(torch.tensor([ids])).logits[0], -1)


def test_its_numbers_and_its_answers_are_its_own_forwards(folder: Path, cpu: Machine) -> None:
    model = load_model(str(folder), cpu, trust_remote_code=True)
    right = []
    for row in ROWS:
        for response in row.responses:
            table = _plainly(model, *row.prompt, *response)[len(row.prompt) - 1 :]
            right += [float(table[i, token]) for i, token in enumerate(response)]
    assert token_logprobs(model, pack(ROWS)).tolist() == pytest.approx(right, abs=1e-4)
    assert paths_of(model).engine == "padded"
    answers = sample(model, PROMPTS, end_ids=(), max_new_tokens=6, seed=0, temperature=1e-4)
    for prompt, answer in zip(PROMPTS, answers, strict=True):
        ids = list(prompt)
        for token in answer.response:
            logprobs_V = _plainly(model, *ids)[-1]
            assert float(logprobs_V.max() - logprobs_V[token]) < 1e-3
            ids.append(token)
    assert paths_of(model).sampler == "cached"


def test_a_cache_of_its_own_that_forgets_is_not_used(folder: Path, cpu: Machine) -> None:
    code = (folder / "modeling_own.py").read_text(encoding="utf-8")
    (folder / "modeling_own.py").write_text(code.replace("+ memory.total", "+ 0.5 * memory.total"), encoding="utf-8")
    model = load_model(str(folder), cpu, trust_remote_code=True)
    (answer,) = sample(model, PROMPTS[:1], end_ids=(), max_new_tokens=4, seed=0)
    assert paths_of(model).sampler == "recomputed"
    table = _plainly(model, *PROMPTS[0], *answer.response)[len(PROMPTS[0]) - 1 :]
    assert answer.logprobs == pytest.approx([float(table[i, t]) for i, t in enumerate(answer.response)], abs=1e-4)


def test_what_was_found_of_other_code_is_not_this_ones(folder: Path, cpu: Machine) -> None:
    """The same weights and configuration, one number in the code changed: no verdict and no reference is shared."""
    keys = []
    for cap in ("3 *", "4 *", "3 *"):
        code = CODE.replace("3 * torch.tanh", f"{cap} torch.tanh")
        (folder / "modeling_own.py").write_text(code, encoding="utf-8")
        keys.append(model_key(load_model(str(folder), cpu, trust_remote_code=True)))
    assert keys[0] != keys[1]
    assert keys[0] == keys[2]


def test_it_is_run_only_where_that_is_asked_for(folder: Path, cpu: Machine) -> None:
    with pytest.raises(InputError, match="with --trust-remote-code if you trust who wrote it") as caught:
        load_model(str(folder), cpu)
    assert "\n" not in str(caught.value)


def test_it_is_tuned_and_read_again(folder: Path, tmp_path: Path) -> None:
    pairs = [{"prompt": f"Who wrote {i}?", "chosen": "I did it.", "rejected": "Nobody did."} for i in range(6)]
    data = tmp_path / "pairs.jsonl"
    data.write_text("".join(json.dumps(pair) + "\n" for pair in pairs), encoding="utf-8")
    out = pairtune.tune(
        model=str(folder), data=str(data), out=str(tmp_path / "out"), heldout=2.0, epochs=1, batch_size=4,
        dtype="float32", trust_remote_code=True,
    )  # fmt: skip
    texts = pairtune.generate(
        model=str(out), prompt="Who", dtype="float32", max_new_tokens=3, trust_remote_code=True
    )  # fmt: skip
    assert len(texts) == 1
