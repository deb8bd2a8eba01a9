"""Small trainings in processes of their own, what they leave, and how one that was disturbed ended: of kill and damage.

A process is forked from this one, in which everything is imported; each works in the same folder, on a tiny model.
"""

import hashlib
import json
import os
import re
import shlex
import signal
import sys
import time
import traceback
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}

# A process that takes longer than this, in seconds, is stuck.
LIMIT = 120.0
_GIVEN = "--model model --data pairs.jsonl --dtype float32"
_SMALL = "--sampling-max-new-tokens 4 --sampling-batch-size 8"
_PPO = "--reward-model scorer --steps 5 --batch-size 4"
_GROUPS = f"{_PPO} --answers-per-prompt 2"
_ARMS = "--methods dpo ppo --pairs 12 --heldout 6 --evaluation-prompts 4 --evaluation-curve-points 2"
COMMANDS = {
    "sft": f"sft {_GIVEN} --batch-size 4",
    "reward": f"reward {_GIVEN} --batch-size 4",
    "tune": f"tune {_GIVEN} --batch-size 4",
    "ppo": f"ppo {_GIVEN} {_PPO} {_SMALL}",
    "rloo": f"rloo {_GIVEN} {_GROUPS} {_SMALL}",
    "grpo": f"grpo {_GIVEN} {_GROUPS} {_SMALL}",
    "online-dpo": f"online-dpo {_GIVEN} {_GROUPS} {_SMALL}",
    "compare": f"compare {_GIVEN} {_ARMS} --evaluation-curve-prompts 4 --ppo-steps 3 --ppo-batch-size 4 "
    f"--batch-size 2 --sft-batch-size 4 {_SMALL}",
}
# What depends on the clock, or is a hash of what does.
TIMES = {"seconds", "cost", "seal", "files", "peak_memory_bytes", "whole_run", "seconds_total", "verdict"}
TIMED = ("report.html", "stages/sittings.json", "environment.json")


@dataclass(frozen=True)
class Attempt:
    """How a process ended: its exit code (None: it was stuck), what it said, whether with a traceback."""

    code: int | None
    said: str

    @property
    def traceback(self) -> bool:
        """Whether an error was shown that nobody explained."""
        return "Traceback (most recent call last)" in self.said


def prepare(work: Path, commands: Collection[str] = tuple(COMMANDS)) -> None:
    """What these commands share, in `work`: a tiny model, pairs, a cache, and a reward model for the online ones."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    import pairtune.cli
    import pairtune.commands.compare
    import pairtune.commands.online
    import pairtune.commands.sft
    import pairtune.commands.tune  # noqa: F401

    os.environ["PAIRTUNE_CACHE"] = str(work / "cache")
    rows = [{"prompt": f"Film {i} was", "chosen": f" a wonder {i}", "rejected": f" dull, {i} long"} for i in range(24)]
    (work / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    bare = Tokenizer(models.BPE())
    bare.pre_tokenizer, bare.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet, marks = pre_tokenizers.ByteLevel.alphabet(), ["<s>", "</s>", "<pad>"]
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=marks, initial_alphabet=alphabet, show_progress=False)
    bare.train_from_iterator(["The film was a small wonder, warm and funny."], trainer)
    tokens = dict(zip(("bos_token", "eos_token", "pad_token"), marks, strict=True))
    PreTrainedTokenizerFast(tokenizer_object=bare, **tokens).save_pretrained(work / "model")
    _in_child(lambda: _save_model(work / "model", LlamaForCausalLM, LlamaConfig), work)
    if any("--reward-model scorer" in COMMANDS[command] for command in commands):
        assert attempt(work, [*shlex.split(COMMANDS["reward"]), "--out", "scorer"]).code == 0


def _save_model(folder: Path, kind: Any, config: Any) -> int:
    import torch

    torch.manual_seed(0)
    sizes = {"vocab_size": 300, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 256}
    kind(config(**sizes, **heads, bos_token_id=0, eos_token_id=1, pad_token_id=2)).save_pretrained(folder)
    return 0


def words(command: str, out: str = "out") -> list[str]:
    """A command as it is typed, always the same."""
    return [*shlex.split(COMMANDS[command]), "--out", out]


def attempt(work: Path, given: list[str], *, plant: Callable[[], None] | None = None) -> Attempt:
    """Run a command in a process of its own; `plant` changes something in there first."""

    def run() -> int:
        from pairtune.cli import main

        if plant:
            plant()
        return main(given)

    return _in_child(run, work)


def _in_child(run: Callable[[], int], work: Path) -> Attempt:
    said = work / "said"
    child = os.fork()
    if child == 0:
        code = 70
        try:
            os.chdir(work)
            stream = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(stream, 1)
            os.dup2(stream, 2)
            code = run()
        except SystemExit as error:
            code = int(error.code or 0)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    began = time.monotonic()
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return Attempt(os.waitstatus_to_exitcode(status), said.read_text(errors="replace"))
        if time.monotonic() - began > LIMIT:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return Attempt(None, said.read_text(errors="replace"))
        time.sleep(0.01)


def left(folder: Path) -> dict[str, str]:
    """What a run left, file by file, as far as the clock has no part in it."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and name not in TIMED:
            found[name] = hashlib.sha256(_untimed(path)).hexdigest()
    return found


def differing(folder: Path, expected: Mapping[str, str]) -> set[str]:
    """The files that are not as they were to be."""
    found = left(folder)
    return {name for name in {*found, *expected} if found.get(name) != expected.get(name)}


def _untimed(path: Path) -> bytes:
    if path.suffix not in (".json", ".jsonl"):
        return path.read_bytes()
    text = path.read_text(encoding="utf-8", errors="replace")
    try:
        values = [json.loads(part) for part in ([text] if path.suffix == ".json" else text.splitlines())]
    except ValueError:
        return path.read_bytes()
    return re.sub(r"\s", "", json.dumps([_without_times(value) for value in values])).encode()


def _without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_times(each) for name, each in value.items() if name not in TIMES}
    return [_without_times(each) for each in value] if isinstance(value, list) else value
