"""Low-rank adapters (LoRA, Hu et al. 2106.09685) by peft: small matrices learn, and the model itself is the reference.

An adapted model stays the object it was: its linear layers are wrapped where they lie, so whatever goes through the
model goes through its adapters. Turned off, they leave the base to the bit. On disk they are an ordinary peft folder.
"""

import copy
import json
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from pairtune.errors import InputError, is_memory
from pairtune.hashes import ADAPTERS
from pairtune.hints import nearest
from pairtune.settings import Adapting

CONFIG, WEIGHTS = ADAPTERS, "adapter_model.safetensors"
# What peft calls the one adapter of a model, and what it puts before the names of the model's own modules.
NAME, PREFIX = "default", "base_model.model."
_WRAPPER = "_pairtune_peft"
# In the name of every parameter of adapters, and what stands in the names of those that they are beside.
LOW_RANK, BESIDE = ".lora_", ".base_layer."


def is_adapter(folder: Path) -> bool:
    """Whether the folder holds adapters and not a whole model."""
    return (folder / CONFIG).is_file()


def base_of(folder: Path) -> str:
    """The folder or hub name of the model that these adapters belong to. Raises InputError if they do not say it."""
    name = _read_config(folder).base_model_name_or_path
    if not name:
        raise InputError(f'adapters "{folder}" do not name their base: base_model_name_or_path in {CONFIG} is empty')
    if is_adapter(Path(str(name)).expanduser()):
        raise InputError(f'adapters "{folder}" stand on other adapters, "{name}"; merge those into their model first')
    return str(name)


def adapt(model: PreTrainedModel, how: Adapting, *, base: str, seed: int) -> None:
    """Give the model fresh adapters, which learn instead of it; they change nothing yet.

    base: the folder or name of the model, which the adapters' folder will say. Raises InputError for a target that is
    none of the model's linear layers.
    """
    if wrapper_of(model) is not None:
        raise InputError("lora: the model has adapters already; merge them first, or give the model without them")
    if how.lora_dropout:
        raise InputError(
            f"lora_dropout is {how.lora_dropout:g}; it must be 0: with dropout two passes over one text differ, so a "
            "policy would differ by chance from the one that was sampled, and from its own reference"
        )
    from peft import LoraConfig

    targets = _targets(model, how.lora_targets)
    config = LoraConfig(
        r=how.lora_rank,
        lora_alpha=how.lora_alpha,  # type: ignore[arg-type]  # scaling is alpha / r, whole or not
        target_modules=targets,
        fan_in_fan_out=all(isinstance(layer, Conv1D) for layer in linear_layers(model).values()),
        task_type="CAUSAL_LM",
        base_model_name_or_path=base,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            _wrap(model, config)
        except ValueError as error:  # layers that peft knows to be read without being called
            raise InputError(f"lora: {str(error).splitlines()[0]} Name the others with --lora-targets") from error


def attach(model: PreTrainedModel, folder: Path) -> None:
    """Put adapters from a folder on their base, frozen. Raises InputError unless they are LoRA and fit."""
    from peft import get_peft_model_state_dict, set_peft_model_state_dict

    config = _read_config(folder)
    if str(getattr(config.peft_type, "value", config.peft_type)) != "LORA":
        raise InputError(f'adapters "{folder}" are of the kind {config.peft_type}; pairtune reads LoRA')
    if not (folder / WEIGHTS).is_file():
        raise InputError(f'adapters "{folder}" have no {WEIGHTS}; pairtune unpickles nothing - save them again with it')
    config.task_type, config.inference_mode = "CAUSAL_LM", True  # a reward model's head is read where reward models are
    config.modules_to_save = [name for name in config.modules_to_save or () if name != "score"] or None
    try:
        given = load_file(folder / WEIGHTS)
        if damaged := [name for name, value in given.items() if not value.isfinite().all()]:
            raise InputError(f'adapters "{folder}": {damaged[0]} in {WEIGHTS} holds numbers that are not finite')
        _wrap(model, config)
        wrapper = wrapper_of(model)
        known = set(get_peft_model_state_dict(wrapper, save_embedding_layers=False))
        given = {name: value for name, value in given.items() if not name.startswith(f"{PREFIX}score.")}
        if given.keys() != known:
            some = sorted(given.keys() ^ known)[0]
            raise InputError(f'adapters "{folder}" do not fit their base: {some} is in one of them only')
        set_peft_model_state_dict(wrapper, given)
    except InputError:
        raise
    except Exception as error:  # whatever the configuration and the file lead peft to
        if is_memory(error):
            raise
        why = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f'adapters "{folder}" cannot be put on their base: {why}') from error
    model.requires_grad_(False)
    model.eval()


def wrapper_of(model: nn.Module) -> Any:
    """peft's object around an adapted model; None of a model without adapters."""
    return vars(model).get(_WRAPPER)


def learns(model: nn.Module) -> bool:
    """Whether adapters of the model learn, and nothing else of it."""
    return wrapper_of(model) is not None and any(p.requires_grad for layer in layers(model) for p in layer.parameters())


def learn(model: nn.Module) -> None:
    """Let the model's adapters learn, and nothing else of it."""
    model.requires_grad_(False)
    _turn(model, on=True)


@contextmanager
def as_base(model: nn.Module) -> Iterator[None]:
    """Inside, a model whose adapters learn is its base, which is the reference; another model is what it is."""
    if not learns(model):
        yield
        return
    _turn(model, on=False)
    try:
        yield
    finally:
        _turn(model, on=True)


def twin(model: nn.Module) -> Any:
    """A copy with numbers of its own for what learns, and the very same ones for what does not."""
    kept = [value for value in model.parameters() if not value.requires_grad]
    return copy.deepcopy(model, {id(value): value for value in (*kept, *model.buffers())})


def base_copy(model: nn.Module) -> Any:
    """The base of an adapted model, as a model of its own that shares its weights."""
    result = twin(model)
    _turn(result, on=False)
    return result.requires_grad_(False)


def share(model: nn.Module, other: nn.Module) -> None:
    """Let a model use the other one's weights where both have the same, so that they are held once."""
    known = base_state(other)
    for name, value in base_state(model).items():
        same = known.get(name)
        if same is not None and same.dtype == value.dtype and torch.equal(same, value):
            value.data = same.data


def state(model: nn.Module) -> dict[str, Tensor]:
    """What the model's numbers come from: those of its base where the adapters are off."""
    adapted = layers(model)
    silent = adapted and all(layer.disable_adapters for layer in adapted)
    return base_state(model) if silent else model.state_dict(keep_vars=True)


def base_state(model: nn.Module) -> dict[str, Tensor]:
    """The parameters and buffers of a model but for its adapters, by the names they have without any."""
    found = model.state_dict(keep_vars=True)
    return {name.replace(BESIDE, "."): value for name, value in found.items() if LOW_RANK not in name}


def fold(model: PreTrainedModel, write: Callable[[Tensor, Tensor], object]) -> PreTrainedModel:
    """The model with its adapters added into its weights, in place. write(weight, sum): puts a float32 sum there."""
    for layer in layers(model):
        if layer.lora_variant:
            raise InputError("these adapters are a variant of LoRA (DoRA?) that cannot be added into the weights here")
        weight = layer.get_base_layer().weight
        with torch.no_grad():
            write(weight, weight.float() + layer.get_delta_weight(NAME).float())
    wrapper = wrapper_of(model)
    vars(model).pop(_WRAPPER)
    plain: PreTrainedModel = wrapper.unload()
    return plain.requires_grad_(True)


def whole(model: PreTrainedModel, write: Callable[[Tensor, Tensor], object]) -> PreTrainedModel:
    """The model as it is to be trained whole: with adapters that came with it in its weights."""
    return model if wrapper_of(model) is None else fold(model, write)


def save(model: PreTrainedModel, folder: Path, *, score: Tensor | None = None) -> None:
    """Write an ordinary peft folder; with `score`, a reward model's head [1, E], one for sequence classification."""
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    wrapper = wrapper_of(model)
    config = copy.deepcopy(wrapper.peft_config[NAME])
    tensors = {
        name: value.detach().cpu().contiguous()
        for name, value in get_peft_model_state_dict(wrapper, save_embedding_layers=False).items()
    }
    config.inference_mode = True
    if score is not None:
        config.task_type, config.modules_to_save = "SEQ_CLS", ["score"]
        tensors[f"{PREFIX}score.weight"] = score.detach().cpu().contiguous()
    folder.mkdir(parents=True, exist_ok=True)
    config.save_pretrained(folder)
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def layers(model: nn.Module) -> list[Any]:
    """The layers that have adapters."""
    if not any(LOW_RANK in name for name, _ in model.named_parameters()):
        return []  # peft is slow to import, and most models have none
    return [module for module in model.modules() if isinstance(module, kind())]


def kind() -> type[nn.Module]:
    """The class of layers that have adapters."""
    from peft.tuners.lora import LoraLayer

    return LoraLayer  # type: ignore[return-value]  # it is mixed into one


def linear_layers(model: PreTrainedModel) -> dict[str, nn.Module]:
    """The model's linear layers by name: not its head, nor routers, some of which are linear and give more."""
    head = model.get_output_embeddings()
    linear = ((name, module) for name, module in model.named_modules() if isinstance(module, nn.Linear | Conv1D))
    return {name: module for name, module in linear if module is not head and "Router" not in type(module).__name__}


def _targets(model: PreTrainedModel, asked: Sequence[str]) -> list[str]:
    """The names of layers that are to have adapters: all linear ones if none are asked for."""
    names = list(linear_layers(model))
    short = sorted({name if name.rpartition(".")[2].isdigit() else name.rpartition(".")[2] for name in names})
    if not names:
        raise InputError("lora: this model has no linear layers of its own that adapters could stand beside")
    for target in asked:
        if not any(name == target or name.endswith(f".{target}") for name in names):
            near = nearest(target, short)
            hint = f'did you mean "{near}"?' if near else f"there are {', '.join(short)}"
            raise InputError(f'lora_targets: the model has no linear layer "{target}"; {hint}')
    return list(asked) or short


def _wrap(model: PreTrainedModel, config: Any) -> None:
    from peft import get_peft_model

    base, config.base_model_name_or_path = config.base_model_name_or_path, None  # peft would put the model's own name
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers by an old name
        wrapper = get_peft_model(model, config)
    config.base_model_name_or_path = base
    object.__setattr__(model, _WRAPPER, wrapper)  # beside the modules: it holds the model, which would hold itself
    model.eval()


def _turn(model: nn.Module, *, on: bool) -> None:
    for layer in layers(model):
        layer.enable_adapters(on)


def _read_config(folder: Path) -> Any:
    from peft import PeftConfig

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            config = PeftConfig.from_pretrained(str(folder))
        given = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except Exception as error:  # whatever the file says
        raise InputError(f'adapters "{folder}" cannot be read: {str(error).splitlines()[0]}') from error
    for name in sorted(given.keys() - vars(config).keys()):
        if given[name]:
            raise InputError(f'adapters "{folder}": "{name}" is not known to this version of peft; install a newer one')
    return config
