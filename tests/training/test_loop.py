"""What every training says at its start of what it leaves out."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from pairtune.data.pack import Tokens
from pairtune.engine.examples import Examples
from pairtune.models.heads import ScalarModel
from pairtune.objectives.loss import loss_of
from pairtune.settings import Reward, Sft, Tuning
from pairtune.training.checkpoint import Journal
from pairtune.training.preference import train_preference
from pairtune.training.reward import train_reward
from pairtune.training.sft import train_sft

LINE = "a mixture of experts (2 layers): its router's auxiliary loss (router_aux_loss) is not added"


def mixture_of_experts() -> PreTrainedModel:
    config = AutoConfig.for_model(
        "mixtral", vocab_size=300, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, num_local_experts=4, num_experts_per_tok=2, pad_token_id=2, bos_token_id=0,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        return AutoModelForCausalLM.from_config(config).eval()  # type: ignore[no-any-return]


def preference(model: PreTrainedModel, rows: list[Tokens]) -> None:
    train_preference(model, Examples(rows), loss_of("simpo"), Tuning(batch_size=4), seed=0, journal=Journal("simpo"))


def reward(model: PreTrainedModel, rows: list[Tokens]) -> None:
    train_reward(ScalarModel(model), rows, Reward(batch_size=4), seed=0, journal=Journal("reward"))


def demonstrations(model: PreTrainedModel, rows: list[Tokens]) -> None:
    train_sft(
        model, [Tokens(row.prompt, row.responses[:1]) for row in rows], Sft(batch_size=4), seed=0, journal=Journal("s")
    )


@pytest.mark.parametrize("train", [preference, reward, demonstrations])
def test_the_routers_loss_that_is_left_out_is_told_once(
    train: Callable[..., None],
    tiny_model: Any,
    token_pairs: Callable[..., list[Tokens]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    train(mixture_of_experts(), token_pairs(8))
    assert capsys.readouterr().err.count(LINE) == 1
    train(tiny_model(), token_pairs(8))
    assert "mixture of experts" not in capsys.readouterr().err
