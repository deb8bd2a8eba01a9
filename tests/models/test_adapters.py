"""Adapters: peft's own numbers on plain rows, their base to the bit where they are off, ordinary folders on disk."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AutoPeftModelForCausalLM, AutoPeftModelForSequenceClassification, LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import PreTrainedModel

from pairtune.data.pack import Tokens, pack
from pairtune.engine.examples import prepare
from pairtune.engine.kernels import round_into
from pairtune.engine.logprob import token_logprobs
from pairtune.engine.reference import compute_logprobs
from pairtune.engine.self_check import check_engine
from pairtune.errors import InputError
from pairtune.hashes import model_hash
from pairtune.models import adapters
from pairtune.models.heads import ScalarModel, load_scalar_model
from pairtune.models.load import frozen_copy, load_model, load_tokenizer, save_model
from pairtune.models.machine import Machine
from pairtune.settings import Adapting
from tests import by_hand

# peft asks transformers by an old name.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

ROWS = [
    Tokens((5, 6, 7), ((8, 9, 1), (10, 1))),
    Tokens((11, 12, 13, 14, 15, 16, 17, 18, 19), ((20, 1), (21, 22, 23, 1))),
]
RANK_4 = Adapting(lora=True, lora_rank=4, lora_alpha=8)


def adapted(model: PreTrainedModel, how: Adapting = RANK_4, *, base: str = "") -> PreTrainedModel:
    """The model with adapters that do something."""
    adapters.adapt(model, how, base=base, seed=0)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.3)
    return model


def plain(model: Any) -> Tensor:
    """Every response token's log-probability by the model's own forward, one sequence at a time."""
    parts = [by_hand.token_logprobs(model, row.prompt, answer) for row in ROWS for answer in row.responses]
    return torch.cat(parts).float()


def ours(model: PreTrainedModel) -> Tensor:
    return token_logprobs(model, pack(ROWS))


def test_packed_rows_give_what_the_adapted_models_own_forward_gives(architecture: str, tiny_model: Any) -> None:
    model = tiny_model(architecture)
    before = ours(model).detach()
    adapted(model)
    assert (ours(model) - before).abs().max() > 1e-3
    torch.testing.assert_close(ours(model).detach(), plain(model), atol=2e-4, rtol=1e-4)


def test_only_adapters_learn_and_their_gradients_are_those_of_the_models_own_forward(
    architecture: str, tiny_model: Any
) -> None:
    model = adapted(tiny_model(architecture))
    ours(model).sum().backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    assert found
    assert all(".lora_" in name for name in found)
    model.zero_grad(set_to_none=True)
    for row in ROWS:
        for answer in row.responses:
            logits = model(input_ids=torch.tensor([[*row.prompt, *answer]]), use_cache=False).logits[0]
            logprobs = logits.float().log_softmax(-1)
            sum(logprobs[len(row.prompt) - 1 + t, token] for t, token in enumerate(answer)).backward()
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(found[name], parameter.grad, atol=1e-4, rtol=1e-3, msg=name)


def test_fresh_adapters_change_no_bit_and_off_they_are_their_base(architecture: str, tiny_model: Any) -> None:
    model = tiny_model(architecture)
    before = ours(model).detach()
    adapters.adapt(model, RANK_4, base="", seed=0)
    assert torch.equal(ours(model), before)
    adapted_again = adapted(tiny_model(architecture))
    with adapters.as_base(adapted_again):
        assert torch.equal(ours(adapted_again), before)
    assert not torch.equal(ours(adapted_again), before)
    assert torch.equal(ours(frozen_copy(adapted_again)), before)


# Layers that these models read without calling them, or never call, are refused; these are called.
CALLED = {
    "mamba": ("in_proj", "x_proj"),
    "falcon_mamba": ("in_proj", "x_proj"),
    "jamba": ("q_proj", "in_proj"),
    "bart": ("fc1", "self_attn.q_proj"),
}


def test_models_with_a_forward_of_their_own_have_adapters_too(unpackable: str, tiny_model: Any) -> None:
    if unpackable in CALLED:
        with pytest.raises(InputError, match=r"^lora: .*--lora-targets$"):
            check_engine(adapted(tiny_model(unpackable)), ROWS, quiet=True)
    how = replace(RANK_4, lora_targets=CALLED.get(unpackable, ()))
    model = adapted(tiny_model(unpackable), how)
    check_engine(model, ROWS, quiet=True)
    torch.testing.assert_close(ours(model).detach(), plain(model), atol=5e-4, rtol=1e-4)


def test_the_reference_of_adapters_is_their_base_also_in_the_cache(tiny_model: Any) -> None:
    said: list[str] = []
    base = compute_logprobs(tiny_model(), ROWS)
    prepare(tiny_model(), ROWS, ["reference"], seed=0)
    examples, _ = prepare(adapted(tiny_model()), ROWS, ["reference"], seed=0, say=said.append)
    assert examples.reference is not None
    assert all(torch.equal(one, two) for one, two in zip(examples.reference, base, strict=True))
    assert said == ["reference: 2 rows from the cache"]


@pytest.fixture
def folder(tmp_path: Path, tiny_folder: Any, cpu: Machine) -> Path:
    """A folder of adapters whose base lies beside it."""
    base = tiny_folder(tmp_path)
    save_model(adapted(load_model(str(base), cpu), base=str(base)), load_tokenizer(str(base)), tmp_path / "adapters")
    return tmp_path / "adapters"


def test_peft_reads_what_is_written(folder: Path, cpu: Machine) -> None:
    theirs = AutoPeftModelForCausalLM.from_pretrained(str(folder)).eval()
    read = load_model(str(folder), cpu)
    torch.testing.assert_close(ours(read).detach(), plain(theirs), atol=2e-4, rtol=1e-4)
    assert not any(parameter.requires_grad for parameter in read.parameters())


def test_what_peft_writes_is_read(tmp_path: Path, tiny_folder: Any, cpu: Machine) -> None:
    base = tiny_folder(tmp_path)
    config = LoraConfig(
        r=2, lora_alpha=3, use_rslora=True, target_modules=["q_proj", "down_proj"], init_lora_weights=False
    )
    theirs = get_peft_model(load_model(str(base), cpu), config)
    theirs.peft_config["default"].base_model_name_or_path = str(base)
    theirs.save_pretrained(tmp_path / "theirs")
    read = load_model(str(tmp_path / "theirs"), cpu)
    torch.testing.assert_close(ours(read).detach(), plain(theirs), atol=2e-4, rtol=1e-4)
    assert load_tokenizer(str(tmp_path / "theirs")).get_vocab() == load_tokenizer(str(base)).get_vocab()


def test_added_into_the_weights_they_are_a_plain_model(architecture: str, tiny_model: Any) -> None:
    model = adapted(tiny_model(architecture))
    before = plain(model)
    names = {name for name, _ in tiny_model(architecture).named_parameters()}
    whole = adapters.fold(model, round_into)
    torch.testing.assert_close(plain(whole), before, atol=2e-4, rtol=1e-4)
    assert {name for name, _ in whole.named_parameters()} == names
    assert all(parameter.requires_grad for parameter in whole.parameters())


def test_a_bfloat16_base_has_float32_adapters_and_small_sums_are_not_lost(tiny_model: Any) -> None:
    model = tiny_model().bfloat16()
    weight = model.model.layers[0].self_attn.q_proj.weight.detach().float()
    adapters.adapt(model, RANK_4, base="", seed=0)
    layer = model.model.layers[0].self_attn.q_proj
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    with torch.no_grad():
        layer.lora_A["default"].weight.fill_(1)
        layer.lora_B["default"].weight.fill_(1e-5)  # far below half a step of bfloat16's grid
    whole = adapters.fold(model, round_into)
    moved = whole.model.layers[0].self_attn.q_proj.weight.float() - weight
    assert float(moved.detach().mean()) == pytest.approx(8e-5, rel=0.5)


def test_what_is_held_twice_is_held_once(tiny_model: Any) -> None:
    policy, reward = adapted(tiny_model()), adapted(tiny_model())
    adapters.share(reward, policy)
    copies = [policy, frozen_copy(policy), adapters.twin(policy), reward]
    weights = [adapters.base_state(model) for model in copies]
    for other in weights[1:]:
        assert {name: value.data_ptr() for name, value in other.items()} == {
            name: value.data_ptr() for name, value in weights[0].items()
        }
    learned = [[p for p in model.parameters() if p.requires_grad] for model in (policy, copies[2])]
    assert len(learned[0]) == len(learned[1]) > 0
    assert {p.data_ptr() for p in learned[0]}.isdisjoint({p.data_ptr() for p in learned[1]})


def test_a_reward_model_is_read_here_and_by_peft(tmp_path: Path, tiny_folder: Any, cpu: Machine) -> None:
    base = tiny_folder(tmp_path)
    model = ScalarModel(adapted(load_model(str(base), cpu), base=str(base)), seed=3)
    nn.init.constant_(model.head.bias, 0.25)
    model.save(tmp_path / "reward", load_tokenizer(str(base)))
    prompt, answer = ROWS[0].prompt, ROWS[0].responses[0]
    expected = by_hand.scalar_at_the_end(model, prompt, answer)
    read, _ = load_scalar_model(str(tmp_path / "reward"), cpu)
    assert by_hand.scalar_at_the_end(read, prompt, answer) == pytest.approx(expected, abs=1e-5)
    theirs = AutoPeftModelForSequenceClassification.from_pretrained(str(tmp_path / "reward"), num_labels=1).eval()
    theirs.config.pad_token_id = theirs.get_base_model().config.pad_token_id = 2
    with torch.no_grad():
        score = float(theirs(input_ids=torch.tensor([[*prompt, *answer]])).logits)
    assert score + 0.25 == pytest.approx(expected, abs=1e-4)


# ---- what cannot be ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"lora_targets": ("q_prok",)}, 'lora_targets: the model has no linear layer "q_prok"; did you mean "q_proj"?'),
        ({"lora_targets": ("q_proj", "lm_head")}, 'lora_targets: the model has no linear layer "lm_head"'),
        ({"lora_dropout": 0.05}, "lora_dropout is 0.05; it must be 0: with dropout two passes over one text differ"),
    ],
)
def test_what_cannot_be_asked_for(how: dict[str, Any], said: str, tiny_model: Any) -> None:
    with pytest.raises(InputError) as raised:
        adapters.adapt(tiny_model(), Adapting(lora=True, **how), base="", seed=0)
    assert str(raised.value).startswith(said)


def test_a_layer_that_is_read_and_not_called_is_told(tiny_model: Any) -> None:
    model = tiny_model()
    layer = model.model.layers[1].mlp
    layer.forward = lambda x: nn.functional.linear(
        layer.act_fn(layer.gate_proj(x)) * layer.up_proj(x), layer.down_proj.weight
    )
    adapters.adapt(model, RANK_4, base="", seed=0)
    with pytest.raises(InputError, match=r"adapters of 1 layer \(first: model.layers.1.mlp.down_proj\)"):
        check_engine(model, ROWS, quiet=True)


def _config(folder: Path, **fields: Any) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def _of_another_kind(folder: Path) -> None:
    fields = {"peft_type": "IA3", "base_model_name_or_path": str(folder.parent / "model"), "target_modules": ["q_proj"]}
    (folder / "adapter_config.json").write_text(json.dumps(fields))


def _without_weights(folder: Path) -> None:
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda folder: _config(folder, base_model_name_or_path=None), "do not name their base"),
        (lambda folder: _config(folder, base_model_name_or_path=str(folder)), "stand on other adapters"),
        (lambda folder: _config(folder, r=8), "cannot be put on their base"),
        (lambda folder: _config(folder, target_modules=["q_proj"]), "do not fit their base"),
        (_of_another_kind, "of the kind"),
        (lambda folder: (folder / "adapter_config.json").write_text("{"), "cannot be read"),
        (lambda folder: _config(folder, use_new_trick=True), '"use_new_trick" is not known to this version of peft'),
        (_without_weights, "pairtune unpickles nothing"),
        (lambda folder: (folder / "adapter_model.safetensors").write_bytes(b"x"), "cannot be put on their base"),
    ],
)
def test_folders_that_cannot_be_used(damage: Callable[[Path], object], said: str, folder: Path, cpu: Machine) -> None:
    damage(folder)
    with pytest.raises(InputError, match=said) as raised:
        load_model(str(folder), cpu)
    assert len(str(raised.value).splitlines()) == 1
    assert model_hash(str(folder))  # whatever lies there, it is only looked at
