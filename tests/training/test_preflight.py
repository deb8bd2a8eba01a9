"""Preflight: each fault that it promises to catch is planted, and caught."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from pairtune.data.pack import Pack, Tokens
from pairtune.data.writing import CUT, DROPPED, SHORTENED
from pairtune.engine import hidden, naive
from pairtune.engine.examples import Examples
from pairtune.engine.hidden import is_padded
from pairtune.errors import InputError
from pairtune.models.load import frozen_copy
from pairtune.objectives.mixture import loss_of
from pairtune.settings import Tuning
from pairtune.training import preflight
from pairtune.training.checkpoint import Journal
from pairtune.training.preference import train_preference
from pairtune.training.preflight import check_engine, check_rows, say_truncation

Pairs = Callable[..., list[Tokens]]
BOS, EOS = 0, 1


def test_a_sound_model_passes_within_rounding(
    architecture: str, tiny_model: Any, token_pairs: Pairs, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tiny_model(architecture)
    rounding = check_engine(model, token_pairs(6))
    assert rounding.packed_to_naive < 1e-5
    assert rounding.alone_to_together < 1e-5
    assert not is_padded(model)
    assert "nats per token" in capsys.readouterr().err


def test_dropout_left_on_is_caught(tiny_model: Any, token_pairs: Pairs) -> None:
    model = tiny_model("gpt2").train()
    with pytest.raises(InputError, match="two passes of the model over the same rows differ; switch its dropout off"):
        check_engine(model, token_pairs(4))


def test_an_architecture_that_packed_rows_make_wrong_takes_the_padded_path_and_says_so(
    tiny_model: Any, token_pairs: Pairs, blind_to_branches: Callable[[], None], capsys: pytest.CaptureFixture[str]
) -> None:
    blind_to_branches()
    model = tiny_model()
    reference = frozen_copy(model)
    rounding = check_engine(model, token_pairs(4), others=[reference])
    assert is_padded(model)
    assert is_padded(reference)
    assert rounding.packed_to_naive < 1e-5
    said = capsys.readouterr().err
    assert "packed rows differ by" in said
    assert "using padded rows, which are right but slower" in said


def test_the_padded_path_trains_like_the_packed_one(
    tiny_model: Any, token_pairs: Pairs, reference_of: Any, blind_to_branches: Callable[[], None]
) -> None:
    rows, losses = token_pairs(8), []
    for padded in (False, True):
        model, journal = tiny_model(), Journal("dpo")
        if padded:
            blind_to_branches()
            check_engine(model, rows)
        reference = reference_of(model, rows)
        examples = Examples(rows, reference=reference)
        train_preference(model, examples, loss_of("dpo"), Tuning(batch_size=4, epochs=2), seed=0, journal=journal)
        losses.append([row["loss"] for row in journal.rows])
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)


def test_an_architecture_that_even_padded_rows_get_wrong_is_refused(
    tiny_model: Any, token_pairs: Pairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = hidden.hidden_states

    def wrong(model: Any, pack: Pack) -> Tensor:
        return right(model, replace(pack, tokens_T=pack.tokens_T.flip(0)))

    monkeypatch.setattr("pairtune.engine.logprob.hidden_states", wrong)
    with pytest.raises(InputError, match="cannot be trained here"):
        check_engine(tiny_model(), token_pairs(4))


def test_a_head_that_is_no_plain_map_is_refused(tiny_model: Any, token_pairs: Pairs) -> None:
    with pytest.raises(InputError, match="this architecture cannot be trained here"):
        check_engine(tiny_model("gemma2"), token_pairs(4))


def test_weights_that_are_not_finite_are_refused(tiny_model: Any, token_pairs: Pairs) -> None:
    model = tiny_model()
    with torch.no_grad():
        model.get_output_embeddings().weight[5] = math.nan
    with pytest.raises(InputError):
        check_engine(model, token_pairs(4))


GOOD = [Tokens((BOS, 5, i), ((7, EOS), (8, 9, EOS))) for i in range(10, 20)]
HELD = [Tokens((BOS, 6, i), ((7, EOS), (8, 9, EOS))) for i in range(10, 14)]


@pytest.mark.parametrize(
    ("train", "heldout", "complaint"),
    [
        ([*GOOD, Tokens((BOS, BOS, 5), ((7, EOS), (8, EOS)))], HELD, "1 prompt begins with two beginning-of-text"),
        ([*GOOD, Tokens((BOS, 5), ((7, EOS), (7, EOS)))], HELD, "1 pair has two equal responses"),
        (GOOD, [*HELD, GOOD[3]], "1 prompt is in the training and in the held-out pairs"),
    ],
    ids=["two BOS", "equal responses", "shared prompts"],
)
def test_faults_in_the_rows_are_caught(train: list[Tokens], heldout: list[Tokens], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        check_rows(train, heldout, None, end_ids=[EOS], bos_id=BOS)


def test_what_is_no_fault_is_told(capsys: pytest.CaptureFixture[str], tiny_tokenizer: Any) -> None:
    cut = Tokens((BOS, 5, 3), ((7, 8, 9, 9), (8, EOS)))
    check_rows([*GOOD, cut], HELD, tiny_tokenizer(), end_ids=[EOS], bos_id=BOS)
    said = capsys.readouterr().err
    assert "1 response has no end-of-text token" in said
    assert "the longer response is the chosen one in 9.1% of 11 pairs" in said
    assert "boundary of the first row" in said
    check_rows([*GOOD, cut], HELD, tiny_tokenizer(), end_ids=[EOS], bos_id=BOS, say_longer=False)
    assert "longer" not in capsys.readouterr().err  # the check of the texts has said it


def test_one_is_one_and_many_are_many(capsys: pytest.CaptureFixture[str]) -> None:
    def said(shortened: int, cut: int, dropped: int) -> str:
        counts = zip((SHORTENED, CUT, DROPPED), (shortened, cut, dropped), strict=True)
        say_truncation({remark: tuple(range(1, count + 1)) for remark, count in counts if count})
        return capsys.readouterr().err

    assert said(1, 1, 1).splitlines() == [
        "data: 1 prompt lost its beginning to --max-tokens; raise it to keep it whole (row 1)",
        "data: 1 row has a response that lost its end to --max-tokens; raise it to keep it whole (row 1)",
        "data: 1 pair was left out: its responses are the same once tokenised (row 1)",
    ]
    assert said(2, 0, 7).splitlines() == [
        "data: 2 prompts lost their beginning to --max-tokens; raise it to keep them whole (rows 1, 2)",
        "data: 7 pairs were left out: their responses are the same once tokenised (rows 1, 2, 3, 4, 5, ...)",
    ]


def test_a_tokenizer_without_bos_has_no_double_bos() -> None:
    check_rows([Tokens((BOS, BOS, 5), ((7, EOS), (8, EOS)))], HELD, None, end_ids=[EOS], bos_id=None)


def test_the_oracle_itself_is_checked_on_few_short_rows(tiny_model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    oracle = naive.response_logprobs

    def watched(model: Any, prompts: Any, responses: Any) -> list[Tensor]:
        seen.append(max(len(p) + len(r) for p, r in zip(prompts, responses, strict=True)))
        return oracle(model, prompts, responses)

    monkeypatch.setattr(naive, "response_logprobs", watched)
    monkeypatch.setattr(preflight, "CHECKED_TOKENS", 20)
    long = tuple(range(3, 203))
    check_engine(tiny_model(), [Tokens(long, (long, long[::-1]))] * 50)
    assert len(seen) <= 4
    assert max(seen) <= 40
