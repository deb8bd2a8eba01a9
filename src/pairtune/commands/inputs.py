"""What commands are given: models and rows, read, checked, and told of."""

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn
from transformers import PreTrainedModel

from pairtune import manifest, own, parallel
from pairtune.data.check import check_pairs, check_reading
from pairtune.data.ends import end_ids
from pairtune.data.left_out import write_left_out
from pairtune.data.pack import Tokens
from pairtune.data.preflight import check_rows, say_truncation, told_numbers
from pairtune.data.prompt_format import CHAT, in_format
from pairtune.data.schema import Pair, Row, Rows, Skipped
from pairtune.data.sources import asked_of, read_pairs, read_prompts
from pairtune.data.split import split_by_prompt
from pairtune.data.tokenize import encode_pairs, encode_prompts
from pairtune.data.trained import Hashes, hashes_of, keep
from pairtune.engine.kernels import round_into
from pairtune.engine.own_score import OwnScore
from pairtune.engine.readers import load_reader
from pairtune.errors import InputError
from pairtune.models import adapters
from pairtune.models.heads import ScalarModel, learner_of
from pairtune.models.load import Tokenizer, load_model, load_tokenizer, resolve
from pairtune.models.machine import choose_machine
from pairtune.progress import counted, say
from pairtune.runs import EvaluateRun, LogProbsRun, Merging, OnlineRun, PpoRun, RewardRun, Run, SftRun, TuneRun
from pairtune.settings import Adapting

# What becomes of rows' margins.
OF_REWARDS = "each is taken from its pair's difference of rewards"
OF_LOSS = "the objective takes them"
UNUSED = "not used by this objective; a reward model's loss takes them"


def given(value: str, name: str) -> str:
    """The value of a setting that has no default. Raises InputError if there is none."""
    if not value:
        raise InputError(f"{name} is missing; give --{name.replace('_', '-')}")
    return value


def load(settings: Any) -> PreTrainedModel:
    """The command's model, after what is cheap to check has been checked."""
    machine = choose_machine(settings.dtype)
    model = load_model(settings.model, machine, trust_remote_code=settings.trust_remote_code)
    say(f"machine: {machine}")
    return model


def check_adapters(settings: Adapting) -> None:
    """Raises InputError for what says something of adapters where none are asked for."""
    names = [entry.name for entry in fields(Merging) if entry.name != "lora" and hasattr(settings, entry.name)]
    unused = [name for name in names if getattr(settings, name) != getattr(Merging(), name)]
    if unused and not settings.lora:
        raise InputError(f"{unused[0]} says something of adapters, and none are asked for; add --lora")


def load_to_train(settings: SftRun | TuneRun | RewardRun | OnlineRun) -> PreTrainedModel:
    """The command's model as it is to learn: the whole of it, or fresh adapters beside weights that stay."""
    check_adapters(settings)
    model = load(settings)
    if settings.lora:
        source = resolve(settings.model)
        base = str(Path(source).resolve()) if Path(source).is_dir() else source
        adapters.adapt(model, settings, base=base, seed=settings.seed)
        few = sum(p.numel() for p in model.parameters() if p.requires_grad)
        share = few / sum(p.numel() for p in adapters.base_state(model).values())
        beside = f"rank {settings.lora_rank} beside {counted(len(adapters.layers(model)), 'linear layer')}"
        say(f"adapters: {beside}; {few:,} numbers learn, {share:.1%} of the model's")
    elif adapters.wrapper_of(model) is not None:
        say(f"model: the adapters in {settings.model} are added into its weights, and all of these are trained")
        model = adapters.fold(model, round_into)
    return model


def load_reward_model(settings: Run, name: str, tokenizer: Tokenizer) -> ScalarModel | OwnScore:
    """What scores what the policy writes: a reward model, or a person's own function."""
    if own.is_own(name):
        return OwnScore(name, tokenizer)
    machine, trust = choose_machine(settings.dtype), settings.trust_remote_code
    return load_reader(name, machine, tokenizer, setting="reward_model", trust_remote_code=trust)


def load_value_model(
    settings: PpoRun, tokenizer: Tokenizer, policy: PreTrainedModel, reward_model: ScalarModel | OwnScore
) -> ScalarModel:
    """What learns the values: a second copy of the reward model; where a function scores, the policy and a 0.

    Adapters learn beside weights that are held once: the reward model's, and the policy's where both are the same.
    """
    if isinstance(reward_model, ScalarModel) and settings.lora:
        adapters.share(reward_model.body, policy)
        return learner_of(reward_model, settings, seed=settings.seed)
    if isinstance(reward_model, ScalarModel):
        again = load_reward_model(settings, settings.reward_model, tokenizer)
        assert isinstance(again, ScalarModel)
        again.body = adapters.whole(again.body, round_into)
        return again
    if settings.lora:
        model = ScalarModel(adapters.twin(policy))
    else:
        machine = choose_machine(settings.dtype)
        body = load_model(settings.model, machine, trust_remote_code=settings.trust_remote_code)
        model = ScalarModel(adapters.whole(body, round_into))
    nn.init.zeros_(model.head.weight)
    return model


def read(settings: RewardRun | TuneRun | EvaluateRun | LogProbsRun) -> tuple[Rows[Pair], Tokenizer]:
    """The pairs, with what is to be said of them, and the model's tokenizer."""
    data = read_pairs(given(settings.data, "data"), asked=asked_of(settings))
    tokenizer = load_tokenizer(settings.model, trust_remote_code=settings.trust_remote_code)
    say_reading(data)
    data = in_format(data, tokenizer, settings.prompt_format)
    say_other_format(data, settings.model, getattr(settings, "reward_model", ""))
    for finding in check_pairs(data.rows):
        say(f"data: {finding.message}")
    return data, tokenizer


class Kept(NamedTuple):
    """What a result's folder keeps of the rows: the prompts trained on, and what was left out."""

    prompts: Hashes
    left_out: tuple[Skipped, ...]
    prompt_format: str

    def write(self, folder: Path, *, model: str) -> dict[str, str]:
        """Into the folder of what was trained from `model`; what the result is to say of them."""
        if parallel.is_first():
            keep(folder, self.prompts, model=model)
            write_left_out(folder, self.left_out)
        return {"prompt_format": self.prompt_format} if self.prompt_format else {}


class Split(NamedTuple):
    """Pairs read, checked, split by prompt and tokenised."""

    train: Sequence[Tokens]
    heldout: Sequence[Tokens]
    tokenizer: Tokenizer
    kept: Kept


def split_pairs(settings: RewardRun | TuneRun, *, margins: str) -> Split:
    """The training and the held-out pairs of a command; `margins`: what becomes of those that rows may have."""
    heldout = heldout_size(settings.heldout)
    data, tokenizer = read(settings)
    train, held = split_by_prompt(data.rows, heldout=heldout, seed=settings.seed)
    encoded = [
        encode_pairs(pairs, tokenizer, max_tokens=settings.max_tokens, part=part)
        for pairs, part in ((train, "training part"), (held, "held-out part"))
    ]
    for each in encoded:
        say_truncation(each.remarks)
    train_rows, held_rows = (each.rows for each in encoded)
    places = encoded[0].place, encoded[1].place
    check_rows(train_rows, held_rows, tokenizer, end_ids=end_ids(tokenizer), places=places, say_longer=False)
    say(f"data: {len(train_rows):,} training and {counted(len(held_rows), 'held-out pair')}")
    say_numbers(train_rows, "pair", margins=margins)
    return Split(
        train_rows,
        held_rows,
        tokenizer,
        Kept(hashes_of(pair.prompt for pair in train), data.skipped, data.prompt_format),
    )


def say_numbers(rows: Sequence[Tokens], noun: str, *, weights: str = "", margins: str = "") -> None:
    """What weights and margins the rows have, and what becomes of them."""
    weights = weights or f"training counts them, held-out figures count each {noun} once"
    for line in told_numbers(rows, noun, weights=weights, margins=margins):
        say(f"data: {line}")


def heldout_size(heldout: float) -> int | float:
    """A share below 1, or a number of pairs."""
    if heldout >= 1 and not float(heldout).is_integer():
        raise InputError(f"heldout is {heldout:g}; it must be a share below 1 or a whole number of pairs")
    return int(heldout) if heldout >= 1 else heldout


def read_prompt_ids(settings: OnlineRun, tokenizer: Tokenizer) -> tuple[list[list[int]], Kept]:
    """The prompts of a source as token ids, at most `max_tokens` of each, and what is kept of them."""
    data = read_prompts(given(settings.data, "data"), asked=asked_of(settings))
    say_reading(data)
    data = in_format(data, tokenizer, settings.prompt_format)
    say_other_format(data, settings.model, settings.reward_model)
    ids, remarks = encode_prompts(data.rows, tokenizer, max_tokens=settings.max_tokens)
    say_truncation(remarks)
    return ids, Kept(hashes_of(row.prompt for row in data.rows), data.skipped, data.prompt_format)


def say_reading(data: Rows[Row]) -> None:
    """How the data were read, and what of them was left out or not read, and why."""
    for finding in check_reading(data):
        say(f"data: {finding.message}")


def say_other_format(data: Rows[Row], *models: str) -> None:
    """Where a model of ours was trained with text prompts taken for something else."""
    for model in filter(None, models):
        before = (manifest.read(Path(model).expanduser()) or {}).get("prompt_format")
        if before and data.prompt_format and before != data.prompt_format:
            was = "what the user says" if before == CHAT else "text that the answer goes on from"
            say(f"data: {model} was trained with text prompts as {was}; --prompt-format {before} for the same here")
