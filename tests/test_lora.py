"""`--lora` through the commands: what peft and a plain loop train is trained, and its folder serves everywhere."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

import pairtune
from pairtune.cli import main
from pairtune.commands import online
from pairtune.data.pack import Tokens
from pairtune.data.sources import read_pairs
from pairtune.data.split import split_by_prompt
from pairtune.engine.reference import compute_logprobs
from pairtune.errors import InputError
from pairtune.models import adapters
from pairtune.models.load import load_model
from pairtune.models.machine import Machine
from pairtune.training import checkpoint
from tests.written import write

pytestmark = [
    pytest.mark.usefixtures("inside"),
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning"),  # peft asks by an old name
]

PAIRS = [
    {"prompt": f"Film {i} was", "chosen": " a small wonder, warm", "rejected": " dull and went nowhere"}
    for i in range(12)
]
JUDGE = f"{Path(__file__).parents[1] / 'examples' / 'my_reward.py'}:score"
COMMON = {"dtype": "float32", "lora": True, "lora_rank": 4, "lora_alpha": 8}


@pytest.fixture
def base(tmp_path: Path, tiny_folder: Any) -> str:
    return str(tiny_folder(tmp_path, spread=3.0))


def records(folder: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(folder, "records.jsonl").read_text().splitlines()]


def plain_dpo(base: str, rows: list[dict[str, str]], rates: list[float], *, beta: float) -> Iterator[Any]:
    """DPO of adapters by transformers, peft and torch alone, all rows a step: each step's loss, then the model."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    config = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", exclude_modules=["lm_head"])
    torch.manual_seed(0)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), config).eval()
    adam = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], weight_decay=0.0)

    def logprob(prompt: str, response: str) -> torch.Tensor:
        first = tokenizer(prompt)["input_ids"]
        ids = [*first, *tokenizer(response)["input_ids"], tokenizer.eos_token_id]
        logprobs = model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
        return sum((logprobs[i - 1, ids[i]] for i in range(len(first), len(ids))), torch.zeros(()))

    def margin(row: dict[str, str]) -> torch.Tensor:
        return logprob(row["prompt"], row["chosen"]) - logprob(row["prompt"], row["rejected"])

    with torch.no_grad(), model.disable_adapter():
        reference = torch.stack([margin(row) for row in rows])
    for rate in rates:
        adam.zero_grad()
        loss = -torch.nn.functional.logsigmoid(beta * (torch.stack([margin(row) for row in rows]) - reference)).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], 1.0)
        adam.param_groups[0]["lr"] = rate
        adam.step()
        yield float(loss.detach())
    yield model


def test_tuning_adapters_is_what_a_plain_loop_does(base: str) -> None:
    out = pairtune.tune(
        model=base,
        data=write(*PAIRS),
        heldout=2,
        batch_size=10,
        epochs=3,
        warmup=0.0,
        learning_rate=1e-2,
        out="a",
        **COMMON,
    )
    tensors = load_file(out / "adapter_model.safetensors")
    found = [row["loss"] for row in records("a")]
    train, _ = split_by_prompt(read_pairs("d.jsonl").rows, heldout=2, seed=0)
    rows = [{"prompt": pair.prompt, "chosen": pair.chosen, "rejected": pair.rejected} for pair in train]
    *losses, model = plain_dpo(base, rows, [1e-2, 2e-2 / 3, 1e-2 / 3], beta=0.1)
    assert found == pytest.approx(losses, abs=1e-5)
    assert found[0] == pytest.approx(0.693147, abs=1e-5)
    theirs = {name.replace(".default", ""): value for name, value in model.named_parameters() if ".lora_" in name}
    assert theirs.keys() == tensors.keys()
    for name, value in tensors.items():
        torch.testing.assert_close(value, theirs[name].detach(), atol=2e-4, rtol=1e-3, msg=name)
    assert not list(out.glob("model*.safetensors"))


def test_an_adapters_folder_serves_wherever_a_model_does(
    base: str, cpu: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    given = {"data": write(*PAIRS), "learning_rate": 1e-2, "heldout": 2, **COMMON}
    pairtune.sft(model=base, out="sft", data="d.jsonl", merge=True, learning_rate=1e-2, **COMMON)
    merged = "sft/merged"
    pairtune.tune(model=merged, out="tuned", merge=True, **given)
    pairtune.reward(model=merged, out="reward", merge=True, **given)
    rows = [tokens(base, row) for row in PAIRS]
    whole, beside = (compute_logprobs(load_model(name, cpu), rows) for name in ("tuned/merged", "tuned"))
    for one, two in zip(whole, beside, strict=True):
        torch.testing.assert_close(one, two, atol=1e-4, rtol=1e-4)
    few = {"steps": 1, "batch_size": 4, "sampling_max_new_tokens": 4}
    pairtune.ppo(model=merged, reward_model="reward", out="ppo", data="d.jsonl", **few, **COMMON)
    pairtune.ppo(model=merged, reward_model="reward/merged", out="ppo-2", data="d.jsonl", **few, **COMMON)
    answers = {"max_new_tokens": 4}
    pairtune.generate(model="tuned", prompt="Film 1 was", **answers)
    figures = pairtune.evaluate(
        model="tuned",
        reference=merged,
        data="d.jsonl",
        reward_model="reward",
        sampling_max_new_tokens=4,
        dtype="float32",
    )
    assert figures["accuracy"]["mean"] == 1
    capsys.readouterr()
    assert main(["tune", "--model", "tuned", "--data", "d.jsonl", "--out", "again", "--dtype", "float32"]) == 0
    assert "the adapters in tuned are added into its weights" in capsys.readouterr().err
    assert Path("again/model.safetensors").is_file()


def tokens(base: str, row: dict[str, str]) -> Tokens:
    tokenizer = AutoTokenizer.from_pretrained(base)
    prompt, answer = (tuple(tokenizer(row[name])["input_ids"]) for name in ("prompt", "chosen"))
    return Tokens(prompt, (answer,))


def test_stopped_and_gone_on_with_they_end_in_the_same_bits(base: str, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["tune", "--model", base, "--data", write(*PAIRS), "--dtype", "float32", "--batch-size", "4", "--lora"]
    assert main([*words, "--out", "whole"]) == 0
    keep = checkpoint.Journal.checkpoint
    with monkeypatch.context() as patched:
        patched.setattr(
            checkpoint.Journal,
            "checkpoint",
            lambda self, step, *others, stopping, due: keep(self, step, *others, stopping=step == 2, due=due),
        )
        assert main([*words, "--out", "parts"]) == 130
    assert main([*words, "--out", "parts"]) == 0
    assert Path("parts/adapter_model.safetensors").read_bytes() == Path("whole/adapter_model.safetensors").read_bytes()


def watch_training(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What `online` is given from here on, PPO's value model among it."""
    seen: list[dict[str, Any]] = []
    train = online.online

    def spy(folder: Path, *, make: Any, **given: Any) -> Any:
        def noting() -> Any:
            method = make()
            seen.append(given | {"value": getattr(method, "value", None)})
            return method

        return train(folder, make=noting, **given)

    monkeypatch.setattr(online, "online", spy)
    return seen


def test_trained_whole_an_adapted_model_learns_with_all_its_weights(
    base: str, cpu: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Adapters that came with a model are in its weights, wherever these are to learn: none is left frozen."""
    write(*PAIRS)
    pairtune.sft(model=base, data="d.jsonl", out="sft", **COMMON)
    pairtune.reward(model=base, data="d.jsonl", heldout=2, out="reward", **COMMON)
    seen = watch_training(monkeypatch)
    few = {"steps": 1, "batch_size": 4, "sampling_max_new_tokens": 4, "dtype": "float32"}
    pairtune.ppo(model="sft", reward_model="reward", data="d.jsonl", out="ppo", **few)
    (given,) = seen
    for model in (given["policy"], given["value"].body):
        assert adapters.layers(model) == []
        assert all(value.requires_grad for name, value in model.named_parameters() if name != "lm_head.weight")
    rows = [tokens(base, row) for row in PAIRS[:2]]
    sizes = {"pairs": 4, "heldout": 2, "sft_epochs": 0, "evaluation_prompts": 2, "sampling_max_new_tokens": 4}
    out = pairtune.compare(
        model="sft", data="d.jsonl", methods=["dpo"], judge=str(JUDGE), out="run", dtype="float32", **sizes
    )
    whole, beside = (compute_logprobs(load_model(str(name), cpu), rows) for name in (out / "models/reference", "sft"))
    for one, two in zip(whole, beside, strict=True):
        torch.testing.assert_close(one, two, atol=1e-4, rtol=1e-4)
    assert (out / "models" / "reference" / "model.safetensors").is_file()


@pytest.mark.parametrize("judge", ["reward", "whole"])
def test_ppo_holds_one_base(judge: str, base: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write(*PAIRS)
    how = COMMON if judge == "reward" else {"dtype": "float32"}
    pairtune.reward(model=base, data="d.jsonl", heldout=2, out=judge, **how)
    seen = watch_training(monkeypatch)
    few = {"steps": 1, "batch_size": 4, "sampling_max_new_tokens": 4}
    pairtune.ppo(model=base, reward_model=judge, data="d.jsonl", out="ppo", **few, **COMMON)
    (given,) = seen
    places = [
        {value.data_ptr() for value in adapters.base_state(model).values()}
        for model in (given["policy"], given["value"].body, given["reward_model"].body)
    ]
    same = places[1] == places[2]
    assert same
    assert (places[0] == places[1]) is (judge == "reward")
    learning = [name for name, value in given["value"].named_parameters() if value.requires_grad]
    assert all(".lora_" in name or name.startswith("head.") for name in learning)
    assert not any(value.requires_grad for value in given["reward_model"].parameters())


def test_without_a_value_model_policy_and_reward_model_are_one_base_too(
    base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(*PAIRS)
    pairtune.reward(model=base, data="d.jsonl", heldout=2, out="reward", **COMMON)
    seen = watch_training(monkeypatch)
    few = {"steps": 1, "batch_size": 4, "answers_per_prompt": 2, "sampling_max_new_tokens": 4}
    for train in (pairtune.rloo, pairtune.online_dpo):
        out = train(model=base, reward_model="reward", data="d.jsonl", out=train.__name__, **few, **COMMON)
        assert (out / "adapter_model.safetensors").is_file()
        given = seen.pop()
        one, two = (
            {value.data_ptr() for value in adapters.base_state(model).values()}
            for model in (given["policy"], given["reward_model"].body)
        )
        assert one == two
        assert not any(value.requires_grad for value in given["reward_model"].parameters())


# ---- what cannot be ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--lora-rank 8", "lora_rank says something of adapters, and none are asked for; add --lora"),
        ("--merge", "merge says something of adapters, and none are asked for; add --lora"),
        ("--lora --lora-dropout 0.1", "lora_dropout is 0.1; it must be 0"),
        ("--lora --lora-rank 0", '--lora-rank is "0"; it must be at least 1'),
        ("--lora --lora-targets k_prj", 'lora_targets: the model has no linear layer "k_prj"; did you mean "k_proj"?'),
    ],
)
def test_wrong_words(words: str, said: str, base: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tune", "--model", base, "--data", write(*PAIRS), "--heldout", "2", *words.split()]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"pairtune: {said}")


def test_adapters_on_another_base_than_theirs_are_refused(base: str, tiny_folder: Any, cpu: Machine) -> None:
    pairtune.tune(model=base, data=write(*PAIRS), heldout=2, out="a", **COMMON)
    load_model("a", cpu)
    tiny_folder(Path(base).parent, seed=1)
    with pytest.raises(InputError, match="were trained on another model than now lies at"):
        load_model("a", cpu)
    tiny_folder(Path(base).parent, spread=3.0)
    with pytest.raises(InputError, match="has adapters already"):
        pairtune.tune(model="a", data="d.jsonl", heldout=2, out="b", **COMMON)
