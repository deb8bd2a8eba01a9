"""Reward models that read what a policy writes, and where they read it."""

from pathlib import Path

from pairtune.data.dialogue import PROBE, RefusedError, render
from pairtune.data.writing import Writer
from pairtune.errors import InputError
from pairtune.models.classifier import OFFSET
from pairtune.models.heads import HEAD_FILE, ScalarModel, load_scalar_model
from pairtune.models.load import Tokenizer, read_config
from pairtune.models.machine import Machine
from pairtune.progress import say


def load_reader(
    name: str, machine: Machine, writer: Tokenizer, *, setting: str, trust_remote_code: bool = False
) -> ScalarModel:
    """A reward model that reads what a policy with the tokenizer `writer` writes: each token by the same id.

    A tokenizer with more tokens than the policy's will do (many reward models were given one to pad with). One that was
    not made here reads an answer to the last token of its chat template, which may stand behind the answer's end; that
    is said, and so is a template that is not the policy's. Raises InputError, which names the `setting`, if it has
    another token for an id.
    """
    model, tokenizer = load_scalar_model(name, machine, trust_remote_code=trust_remote_code)
    known = tokenizer.get_vocab()
    if any(known.get(token) != number for token, number in writer.get_vocab().items()):
        raise InputError(f"{setting}: its tokenizer is not the policy's; give a reward model with the same one")
    if tokenizer.chat_template and writer.chat_template and tokenizer.chat_template != writer.chat_template:
        say(f"{setting}: its chat template is not the policy's; dialogues are as the policy's writes them")
    ours = (Path(name).expanduser() / HEAD_FILE).is_file() or hasattr(
        read_config(name, trust_remote_code=trust_remote_code), OFFSET
    )
    model.behind = {} if ours else behind_an_end(tokenizer)
    if model.behind:
        (behind,) = map(list, model.behind.values())
        say(f"{setting}: its score is read where its chat template ends, {tokenizer.decode(behind)!r} behind an answer")
    return model


def behind_an_end(tokenizer: Tokenizer) -> dict[int, tuple[int, ...]]:
    """An answer's end, and what the chat template writes behind it at a dialogue's end; empty if that is nothing."""
    if not tokenizer.chat_template:
        return {}
    asked, answer = PROBE
    writer = Writer(tokenizer)
    try:
        row = writer.row((asked,), [answer.content])
        whole = writer.text.ids(render(tokenizer, PROBE))
    except RefusedError:
        return {}
    ours = [*row.prompt, *row.responses[0]]
    behind = tuple(whole[len(ours) :])
    return {ours[-1]: behind} if behind and whole[: len(ours)] == ours else {}
