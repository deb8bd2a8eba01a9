"""What a run is: frozen dataclasses, read from presets, YAML and flags; an unknown key is an error.

Each command has one class below. A section's fields become flags with the section's name before them (`--ppo-steps`),
except those of the command's main section, which stand alone (`--beta`).
"""

import argparse
import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

import yaml

from pairtune.errors import InputError

T = TypeVar("T")


def _setting(default: Any, meaning: str, *, above: float | None = None, least: float | None = None) -> Any:
    """A field with its meaning (the flag's help) and its bound."""
    return field(default=default, metadata={"help": meaning, "above": above, "least": least})


@dataclass(frozen=True, kw_only=True)
class Optimisation:
    """How weights move: the same five words for every kind of training."""

    learning_rate: float = _setting(5e-5, "peak learning rate of AdamW", above=0)
    batch_size: int = _setting(16, "examples in one optimiser step", least=1)
    warmup: float = _setting(0.1, "share of the steps in which the learning rate rises; then it falls to 0", least=0)
    max_gradient_norm: float = _setting(1.0, "gradients longer than this are scaled down to it", above=0)
    weight_decay: float = _setting(0.0, "AdamW's weight decay", least=0)


@dataclass(frozen=True, kw_only=True)
class Sft(Optimisation):
    """Supervised fine-tuning on demonstrations."""

    epochs: int = _setting(1, "passes over the demonstrations; 0 leaves the model as it is", least=0)
    demonstrations: int = _setting(512, "demonstrations of the built-in task to warm-start on", least=1)


@dataclass(frozen=True, kw_only=True)
class Preference(Optimisation):
    """Preference tuning on pairs."""

    objective: str = _setting("dpo", "the preference objective, by its name in the catalogue")
    beta: float = _setting(0.1, "weight of the KL to the reference; larger stays closer to it", above=0)
    epochs: int = _setting(1, "passes over the pairs", least=1)


@dataclass(frozen=True, kw_only=True)
class Reward(Optimisation):
    """Training a reward model on pairs."""

    epochs: int = _setting(1, "passes over the pairs", least=1)


@dataclass(frozen=True, kw_only=True)
class Ppo:
    """PPO with a reward model and a KL term."""

    steps: int = _setting(50, "rounds of sampling and updating", least=1)
    batch_size: int = _setting(64, "answers sampled in one step", least=1)
    minibatches: int = _setting(2, "optimiser steps in one pass over a step's answers", least=1)
    epochs: int = _setting(2, "passes over each step's answers", least=1)
    learning_rate: float = _setting(2e-5, "peak learning rate of the policy's Adam", above=0)
    value_learning_rate: float = _setting(2e-5, "peak learning rate of the value model's Adam", above=0)
    warmup: float = _setting(0.1, "share of the steps in which the learning rate rises; then it stays", least=0)
    max_gradient_norm: float = _setting(1.0, "gradients longer than this are scaled down to it", above=0)
    kl_coefficient: float = _setting(0.05, "weight of the per-token KL reward (its start, if adaptive)", least=0)
    kl_target: float = _setting(
        0.0, "nats per response an adaptive KL weight steers to; 0: the weight is fixed", least=0
    )
    discount: float = _setting(1.0, "γ of generalised advantage estimation", above=0)
    gae_lambda: float = _setting(0.95, "λ of generalised advantage estimation", least=0)
    clip_ratio: float = _setting(0.2, "how far the probability ratio counts on either side of 1", above=0)
    clip_value: float = _setting(0.2, "how far a value may move from the old one before it stops counting", above=0)
    missing_end_penalty: float = _setting(1.0, "taken from the reward of an answer without end of text", least=0)
    temperature: float = _setting(1.0, "temperature of sampling, and of every log-probability of the policy", above=0)


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How answers are drawn."""

    max_new_tokens: int = _setting(32, "longest answer, in tokens", least=1)
    temperature: float = _setting(1.0, "temperature of sampling", above=0)
    batch_size: int = _setting(128, "answers written side by side", least=1)


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """How an arm is measured."""

    prompts: int = _setting(256, "held-out prompts that every arm answers", least=2)
    curve_points: int = _setting(5, "measurements along each arm's training", least=0)
    curve_prompts: int = _setting(64, "held-out prompts answered, and pairs scored, at each of them", least=2)


@dataclass(frozen=True, kw_only=True)
class Run:
    """What every command that computes has."""

    seed: int = _setting(0, "seed of everything random", least=0)
    dtype: str = _setting("auto", "auto, bfloat16 or float32")
    trust_remote_code: bool = _setting(False, "run code that a hub model brings along")


@dataclass(frozen=True, kw_only=True)
class SftRun(Run):
    """`pairtune sft`."""

    model: str = _setting("smollm2-135m", "model to train: smollm2-135m, a folder, a .gguf file or a hub name")
    data: str = _setting("", "demonstrations: a JSONL, CSV or Parquet file, or a hub dataset")
    out: str = _setting("", "folder for the result; default runs/sft")
    max_tokens: int = _setting(1024, "longest row in tokens; longer prompts lose their beginning", least=8)
    sft: Sft = field(default_factory=Sft)


@dataclass(frozen=True, kw_only=True)
class RewardRun(Run):
    """`pairtune reward`."""

    model: str = _setting("smollm2-135m", "model to start from: smollm2-135m, a folder, a .gguf file or a hub name")
    data: str = _setting("", "pairs: a JSONL, CSV or Parquet file, or a hub dataset")
    heldout: float = _setting(0.1, "pairs kept for measuring: a share below 1, or a number of pairs", above=0)
    out: str = _setting("", "folder for the result; default runs/reward")
    max_tokens: int = _setting(1024, "longest row in tokens; longer prompts lose their beginning", least=8)
    reward: Reward = field(default_factory=Reward)


@dataclass(frozen=True, kw_only=True)
class TuneRun(Run):
    """`pairtune tune`."""

    model: str = _setting("smollm2-135m", "model to tune: smollm2-135m, a folder, a .gguf file or a hub name")
    data: str = _setting("", "pairs: a JSONL, CSV or Parquet file, or a hub dataset")
    heldout: float = _setting(0.1, "pairs kept for measuring: a share below 1, or a number of pairs", above=0)
    out: str = _setting("", "folder for the result; default runs/tune")
    max_tokens: int = _setting(1024, "longest row in tokens; longer prompts lose their beginning", least=8)
    preference: Preference = field(default_factory=Preference)


@dataclass(frozen=True, kw_only=True)
class PpoRun(Run):
    """`pairtune ppo`."""

    model: str = _setting("smollm2-135m", "policy to train: smollm2-135m, a folder, a .gguf file or a hub name")
    reward_model: str = _setting("", "folder of a reward model made by `pairtune reward`")
    data: str = _setting("", "prompts (pairs serve): a JSONL, CSV or Parquet file, or a hub dataset")
    out: str = _setting("", "folder for the result; default runs/ppo")
    max_tokens: int = _setting(1024, "longest prompt in tokens; longer prompts lose their beginning", least=8)
    ppo: Ppo = field(default_factory=Ppo)
    sampling: Sampling = field(default_factory=Sampling)


@dataclass(frozen=True, kw_only=True)
class GenerateRun(Run):
    """`pairtune generate`."""

    model: str = _setting("smollm2-135m", "model that answers: smollm2-135m, a folder, a .gguf file or a hub name")
    prompt: str = _setting("", "one prompt, answered on the terminal")
    data: str = _setting("", "prompts to answer instead: a JSONL, CSV or Parquet file, or a hub dataset")
    out: str = _setting("", "JSONL file for the answers; without it they are printed")
    max_tokens: int = _setting(1024, "longest prompt in tokens; longer prompts lose their beginning", least=8)
    sampling: Sampling = field(default_factory=Sampling)


@dataclass(frozen=True, kw_only=True)
class EvaluateRun(Run):
    """`pairtune evaluate`."""

    model: str = _setting("smollm2-135m", "policy to measure: smollm2-135m, a folder, a .gguf file or a hub name")
    reference: str = _setting("smollm2-135m", "the reference it was tuned from")
    reward_model: str = _setting("", "folder of a reward model that scores the answers, if there is one")
    data: str = _setting("", "held-out pairs: a JSONL, CSV or Parquet file, or a hub dataset")
    out: str = _setting("", "JSON file for the figures; they are printed in any case")
    max_tokens: int = _setting(1024, "longest row in tokens; longer prompts lose their beginning", least=8)
    evaluation: Evaluation = field(default_factory=Evaluation)
    sampling: Sampling = field(default_factory=Sampling)


@dataclass(frozen=True, kw_only=True)
class CompareRun(Run):
    """`pairtune compare`."""

    preset: str = _setting("quick", "quick (minutes) or chapter (the exercise to the letter)")
    model: str = _setting("smollm2-135m", "the model: smollm2-135m, a folder, a .gguf file or a hub name")
    data: str = _setting("reviews", "reviews (the built-in task), a file of pairs, or a hub dataset")
    methods: tuple[str, ...] = _setting(("dpo", "ppo"), "the arms: ppo, and objectives of the catalogue")
    pairs: int = _setting(640, "training pairs", least=2)
    heldout: int = _setting(400, "held-out pairs", least=2)
    max_tokens: int = _setting(1024, "longest row in tokens; longer prompts lose their beginning", least=8)
    out: str = _setting("", "folder for everything the run leaves behind; default runs/<preset>")
    sft: Sft = field(default_factory=Sft)
    preference: Preference = field(default_factory=Preference)
    reward: Reward = field(default_factory=Reward)
    ppo: Ppo = field(default_factory=Ppo)
    sampling: Sampling = field(default_factory=Sampling)
    evaluation: Evaluation = field(default_factory=Evaluation)


MAIN_SECTION = {
    SftRun: "sft",
    RewardRun: "reward",
    TuneRun: "preference",
    PpoRun: "ppo",
    GenerateRun: "sampling",
    EvaluateRun: "evaluation",
    CompareRun: "preference",
}


# ---- reading: preset, then --config, then flags; the later wins -------------------------------------------------


def settings_from(kind: type[T], flags: Mapping[str, Any], *, config: str | None = None) -> T:
    """The settings of one command: its defaults, its preset, a YAML file, then flags by dotted key, the later wins.

    Raises InputError for an unknown key (with the nearest known one), a value of the wrong type, or out of bounds.
    """
    from_file = read_yaml(Path(config)) if config else {}
    layers = [_flat(kind, from_file, config or ""), dict(flags)]
    if "preset" in _hints(kind):
        name = layers[1].get("preset") or layers[0].get("preset") or "quick"
        layers.insert(0, _flat(kind, read_preset(str(name)), f"preset {name}"))
    merged: dict[str, Any] = {}
    for layer in layers:
        merged.update(layer)
    return build(kind, merged)


def read_preset(name: str) -> dict[str, Any]:
    """The YAML of a shipped preset. Raises InputError if there is none of that name."""
    folder = resources.files("pairtune") / "presets"
    known = sorted(path.name.removesuffix(".yaml") for path in folder.iterdir() if path.name.endswith(".yaml"))
    if name not in known:
        raise InputError(f'there is no preset "{name}"; the presets are {", ".join(known)}')
    return typing.cast(dict[str, Any], yaml.safe_load((folder / f"{name}.yaml").read_text(encoding="utf-8")))


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file that holds a mapping. Raises InputError naming the file and, where known, the line."""
    try:
        loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f'settings file "{path}" does not exist') from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f'settings file "{path}" cannot be read: {error}') from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}" if mark else ""
        raise InputError(f'settings file "{path}"{line} is not YAML: {getattr(error, "problem", error)}') from error
    if loaded is None:
        return {}
    if not isinstance(loaded, dict):
        raise InputError(f'settings file "{path}" must hold "name: value" lines')
    return loaded


def build(kind: type[T], values: Mapping[str, Any], prefix: str = "") -> T:
    """A settings object from values by dotted key, each checked for type and bounds."""
    made: dict[str, Any] = {}
    for entry in dataclasses.fields(typing.cast(Any, kind)):
        key = prefix + entry.name
        hint = _hints(kind)[entry.name]
        if dataclasses.is_dataclass(hint):
            made[entry.name] = build(typing.cast(type, hint), values, key + ".")
        elif key in values:
            made[entry.name] = _checked(key, values[key], hint, entry.metadata)
    return kind(**made)


def to_mapping(settings: Any) -> dict[str, Any]:
    """The settings as nested plain values, ready for YAML or JSON."""
    return {
        entry.name: to_mapping(value) if dataclasses.is_dataclass(value) else _plain(value)
        for entry in dataclasses.fields(settings)
        for value in [getattr(settings, entry.name)]
    }


def add_flags(parser: argparse.ArgumentParser, kind: type) -> None:
    """A flag for every setting of the command; values stay text until `build` checks them."""
    for key, entry, hint in _leaves(kind):
        section, _, name = key.rpartition(".")
        flag = name if section in ("", MAIN_SECTION[kind]) else f"{section}-{name}"
        options: dict[str, Any] = {"dest": key, "default": argparse.SUPPRESS}
        options["help"] = f"{entry.metadata['help']} (default {_shown(_default(kind, key))})".replace("%", "%%")
        if hint is bool:
            options["action"] = "store_true"
        else:
            options["metavar"] = "NAME" if hint is str else "NAMES" if _is_tuple(hint) else "N"
            options["nargs"] = "+" if _is_tuple(hint) else None
        group = _group(parser, section if section != MAIN_SECTION[kind] else "")
        group.add_argument(f"--{flag.replace('_', '-')}", **options)


def _group(parser: argparse.ArgumentParser, section: str) -> Any:
    title = f"{section} settings" if section else "settings"
    return next((g for g in parser._action_groups if g.title == title), None) or parser.add_argument_group(title)


def _leaves(kind: type, prefix: str = "") -> typing.Iterator[tuple[str, Any, Any]]:
    for entry in dataclasses.fields(kind):
        hint = _hints(kind)[entry.name]
        if dataclasses.is_dataclass(hint):
            yield from _leaves(typing.cast(type, hint), f"{prefix}{entry.name}.")
        else:
            yield prefix + entry.name, entry, hint


def _default(kind: type, key: str) -> Any:
    values = _flat(kind, read_preset("quick"), "preset quick") if kind is CompareRun else {}
    found: Any = build(kind, values)
    for name in key.split("."):
        found = getattr(found, name)
    return found


def _flat(kind: type, nested: Mapping[str, Any], where: str, prefix: str = "") -> dict[str, Any]:
    """A nested mapping by dotted key, every key known to `kind`."""
    hints = _hints(kind)
    flat: dict[str, Any] = {}
    for name, value in nested.items():
        if name not in hints:
            near = difflib.get_close_matches(
                str(name), [key.rpartition(".")[2] for key, *_ in _leaves(kind)] + [*hints], 1
            )
            raise InputError(
                f'{where}: there is no setting "{prefix}{name}"' + (f'; did you mean "{near[0]}"?' if near else "")
            )
        if dataclasses.is_dataclass(hints[name]):
            if not isinstance(value, dict):
                raise InputError(f'{where}: "{prefix}{name}" is a section; write its settings below it, indented')
            flat.update(_flat(typing.cast(type, hints[name]), value, where, f"{prefix}{name}."))
        else:
            flat[prefix + str(name)] = value
    return flat


def _checked(key: str, value: Any, hint: Any, bounds: Mapping[str, Any]) -> Any:
    """One value, converted from a flag's text if need be, of the right type and within its bounds."""
    if _is_tuple(hint):
        parts = value.split(",") if isinstance(value, str) else value
        if not isinstance(parts, list | tuple) or not parts or not all(isinstance(part, str) for part in parts):
            raise InputError(f"{key} is {_shown(value)}; it must be a list of names")
        return tuple(parts)
    converted = _converted(value, hint)
    if converted is None:
        wanted = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}[hint]
        raise InputError(f"{key} is {_shown(value)}; it must be {wanted}")
    above, least = bounds.get("above"), bounds.get("least")
    if above is not None and not converted > above:
        raise InputError(f"{key} is {_shown(converted)}; it must be above {above:g}")
    if least is not None and not converted >= least:
        raise InputError(f"{key} is {_shown(converted)}; it must be at least {least:g}")
    return converted


def _converted(value: Any, hint: Any) -> Any:
    """`value` as `hint`, or None if it is not one; text is read as a number (YAML takes 1e-4 for text)."""
    if hint is str:
        return value if isinstance(value, str) else None
    if hint is bool:
        return value if isinstance(value, bool) else None
    if isinstance(value, bool):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    if number != number or number in (float("inf"), float("-inf")):
        return None
    if hint is int:
        return int(number) if number == int(number) else None
    return number


def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _is_tuple(hint: Any) -> bool:
    return isinstance(hint, types.GenericAlias) and hint.__origin__ is tuple


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _shown(value: Any) -> str:
    if isinstance(value, tuple | list):
        return " ".join(str(part) for part in value)
    return f'"{value}"' if isinstance(value, str) else str(value)
