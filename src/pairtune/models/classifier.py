"""Reward models as transformers has them: a model for sequence classification with one label, whose head is `score`.

Ours are written so, and other people's are read. transformers' `score` has no bias where most architectures are
concerned, so a bias goes into the configuration, as `reward_offset`: it shifts all rewards alike. Shape suffixes: B
rows, L length, E hidden size.
"""

import copy
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PreTrainedModel,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING

from pairtune.errors import InputError
from pairtune.models.body import final_states
from pairtune.models.load import Tokenizer, load_pretrained, read_config, reason, resolve, save_model
from pairtune.models.machine import Machine

# What is added to `score`'s number: pairtune's own field of a reward model's configuration.
OFFSET = "reward_offset"


class NoClassifierError(Exception):
    """transformers has no sequence-classification class that reads this body as we do."""


def save_classifier(body: PreTrainedModel, head: nn.Linear, tokenizer: Tokenizer, folder: Path) -> None:
    """Write the body and the scalar head as an ordinary folder for `AutoModelForSequenceClassification`.

    Raises NoClassifierError where transformers has no such class, or one that would give other numbers.
    """
    kind = _class_for(body)
    config = copy.deepcopy(body.config)
    config.num_labels = 1
    config.tie_word_embeddings = body.config.tie_word_embeddings
    setattr(config, OFFSET, float(head.bias.detach()))
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.pad_token = padding_token(tokenizer, body)
    for each in (config, config.get_text_config()):
        each.pad_token_id = tokenizer.pad_token_id
    with torch.device("meta"):
        model = kind(config)
    if not isinstance(getattr(model, "score", None), nn.Linear):
        raise NoClassifierError(f"{kind.__name__} has no linear head called score")
    _same_body(model, body)
    setattr(model, model.base_model_prefix, body.base_model)
    model.score = _linear(head.weight, None, body)
    _check(model, body, model.score)
    model.score = _linear(head.weight, None, head)  # float32, whatever the body's dtype: a head is small
    save_model(model, tokenizer, folder)


def padding_token(tokenizer: Tokenizer, body: PreTrainedModel) -> str | None:
    """A token that batches can be filled up with, because no response ends in it.

    transformers reads a reward at the last token that is not padding. None where every candidate is an end.
    """
    ends = getattr(getattr(body, "generation_config", None), "eos_token_id", None)
    ended = {tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])}
    for token in (tokenizer.pad_token, tokenizer.bos_token, tokenizer.unk_token):
        if token is not None and tokenizer.convert_tokens_to_ids(token) not in ended:
            return str(token)
    return None


def load_classifier(
    name: str, machine: Machine, *, trust_remote_code: bool = False
) -> tuple[PreTrainedModel, Tensor, Tensor]:
    """A reward model's body, as a causal language model, and its head: weight [1, E] and bias [1], float32.

    The body's language-model head is a stand-in where the folder has none: its output is never read. Raises
    InputError if `name` is no sequence-classification model with one label whose head is `score`.
    """
    source = resolve(name)
    config = read_config(name, trust_remote_code=trust_remote_code)
    if not any("SequenceClassification" in kind for kind in config.architectures or ()):
        raise InputError(
            f'"{name}" is not a reward model; give a folder made by `pairtune reward`, or a model for sequence '
            "classification with one label"
        )
    if config.num_labels != 1:
        raise InputError(f'"{name}" has {config.num_labels} labels; a reward model has one')
    model = load_pretrained(AutoModelForSequenceClassification, name, machine, trust_remote_code=trust_remote_code)
    score = getattr(model, "score", None)
    if not isinstance(score, nn.Linear):
        raise InputError(f'reward model "{name}" has no linear head called score, so its rewards cannot be read here')
    weight, bias = _read_score(source, score)
    try:
        body = _causal(model, trust_remote_code=trust_remote_code)
        _check(model, body, score)
    except NoClassifierError as error:
        raise InputError(f'reward model "{name}" cannot be read here: {error}') from error
    return body, weight, bias + float(getattr(config, OFFSET, 0.0))


def _class_for(body: PreTrainedModel) -> type[PreTrainedModel]:
    try:
        kind: Any = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING[type(body.config)]
    except KeyError:
        raise NoClassifierError(f"transformers has no sequence classification for {body.config.model_type}") from None
    return kind[0] if isinstance(kind, tuple) else kind  # type: ignore[no-any-return]


def _same_body(first: PreTrainedModel, second: PreTrainedModel) -> None:
    bodies = (first.base_model, second.base_model)
    if first.base_model is first or second.base_model is second or type(bodies[0]) is not type(bodies[1]):
        raise NoClassifierError(f"{type(first).__name__} and {type(second).__name__} have not the same body")


def _linear(weight_1E: Tensor, bias: Tensor | None, like: nn.Module) -> nn.Linear:
    """A head of these numbers, in the dtype and on the device of `like`."""
    first = next(like.parameters())
    linear = nn.Linear(weight_1E.shape[1], 1, bias=bias is not None, dtype=first.dtype, device=first.device)
    with torch.no_grad():
        linear.weight.copy_(weight_1E)
        if bias is not None:
            linear.bias.copy_(bias)
    return linear


@torch.no_grad()
def _check(model: PreTrainedModel, body: PreTrainedModel, score: nn.Linear) -> None:
    """Raises NoClassifierError if transformers' reward is another than the head's number at the last token."""
    training, ids_BL = body.training, torch.tensor([[3, 5, 4, 7, 6]], device=body.device)
    model.eval()
    try:
        theirs = model(input_ids=ids_BL).logits.float()
        ours = score(final_states(body, ids_BL)[:, -1]).float()
    except Exception as error:  # whatever a class's code says: it is not for this
        raise NoClassifierError(f"{type(model).__name__} does not run on plain text ({reason(error)})") from error
    finally:
        body.base_model.train(training)  # the one body of both
    if theirs.shape != ours.shape or not torch.allclose(theirs, ours, rtol=0.02, atol=0.02):
        raise NoClassifierError(f"{type(model).__name__} reads its score elsewhere than at the last token's state")


def _causal(model: PreTrainedModel, *, trust_remote_code: bool) -> PreTrainedModel:
    """The classifier's body inside of the causal language model of its architecture."""
    try:
        with torch.device("meta"):
            shell: PreTrainedModel = AutoModelForCausalLM.from_config(model.config, trust_remote_code=trust_remote_code)
    except (ValueError, KeyError) as error:
        raise NoClassifierError(f"it is no causal language model ({reason(error)})") from error
    _same_body(shell, model)
    body: Any = model.base_model
    setattr(shell, shell.base_model_prefix, body)
    shell.config = body.config  # one object: what the engine sets there, the layers read
    head: Any = shell.get_output_embeddings()
    embedding: Tensor = model.get_input_embeddings().get_parameter("weight")
    if head is not None and head.weight.shape == embedding.shape:
        head.weight = embedding
    for module in shell.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if parameter.is_meta:
                zeros = torch.zeros(parameter.shape, dtype=embedding.dtype, device=embedding.device)
                setattr(module, name, nn.Parameter(zeros, requires_grad=False))
        for name, buffer in list(module.named_buffers(recurse=False)):
            if buffer.is_meta:
                setattr(module, name, torch.zeros_like(buffer, device=embedding.device))
    shell.config.use_cache = False
    shell.eval()
    return shell


def _read_score(source: str, score: nn.Linear) -> tuple[Tensor, Tensor]:
    """The head as it lies on disk, in float32: transformers rounds it to the model's dtype, and may skip a bias."""
    found = {"score.weight": score.weight.detach().float(), "score.bias": torch.zeros(1, device=score.weight.device)}
    if score.bias is not None:
        found["score.bias"] = score.bias.detach().float()
    for path in sorted(Path(source).glob("*.safetensors")):
        try:
            with safe_open(path, framework="pt") as file:
                for name in found.keys() & set(file.keys()):
                    value = file.get_tensor(name).float().to(score.weight.device)
                    found[name] = value.reshape(found[name].shape)
        except (SafetensorError, RuntimeError) as error:
            raise InputError(f'the head in "{source}" cannot be read: {reason(error)}') from error
    return found["score.weight"], found["score.bias"]
