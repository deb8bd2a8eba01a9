"""One tiny model of each mechanism, against plain transformers: a part of `python -m tests.survey`.

The whole of it, every architecture in every use and both dtypes, is in docs/architectures.md.
"""

import pytest

from tests.survey.attempt import REFUSED, RIGHT, Outcome, survey
from tests.survey.configs import Case, cases
from tests.survey.page import verdict

CASES = {case.title: case for case in cases()}
NUMBERS = ("log-probabilities", "gradients", "rewards", "sampling")

# What packed rows with shared prompts are right for.
PACKED = {
    "rotary embeddings": "llama",
    "a bias and learned positions": "gpt2",
    "a sliding window": "mistral",
    "windows in some layers": "qwen2 window",
    "capped scores and logits": "gemma2 tight caps",
    "logits that are scaled": "granite multipliers",
    "a head with a bias, part of a head rotated": "phi",
    "yarn": "llama yarn",
    "experts": "mixtral",
}
# What needs the model's own forward: packed rows would be wrong, or the model does not show its attention.
OWN = {
    "alibi": "bloom",
    "one key for all heads": "falcon",
    "chunked attention": "llama4_text",
    "convolutions": "lfm2",
    "state spaces beside attention": "bamba",
    "state spaces alone": "mamba",
    "linear attention": "minimax",
    "rotary embeddings that depend on a row's length": "llama dynamic rotary",
    "frequencies that switch at a length": "phi3 longrope",
    "hidden states of another size than hidden_size says": "opt as 350m",
    "a decoder that was cut from an encoder-decoder": "bart",
}
NO_CAUSAL_MODEL = {"an encoder": "bert", "an encoder-decoder": "t5", "no language model": "clip"}


def wrong(outcomes: dict[str, Outcome], word: str) -> dict[str, Outcome]:
    return {use: outcome for use, outcome in outcomes.items() if outcome.word != word}


@pytest.mark.parametrize("title", PACKED.values(), ids=PACKED.keys())
def test_packed_rows_give_what_plain_transformers_gives(title: str) -> None:
    finding = survey(CASES[title], dtypes=("float32",), uses=NUMBERS)
    assert not wrong(finding.uses["float32"], RIGHT)
    assert verdict(finding) == "packed"
    assert finding.signal > 0.05  # another response in view would show


@pytest.mark.parametrize("title", OWN.values(), ids=OWN.keys())
def test_other_architectures_give_it_by_their_own_forward(title: str) -> None:
    finding = survey(CASES[title], dtypes=("float32",), uses=NUMBERS)
    assert not wrong(finding.uses["float32"], RIGHT)
    assert finding.signal > 0.05


@pytest.mark.parametrize("title", NO_CAUSAL_MODEL.values(), ids=NO_CAUSAL_MODEL.keys())
def test_what_is_no_causal_language_model_is_refused_in_one_line(title: str) -> None:
    finding = survey(CASES[title], dtypes=("float32",))
    assert not wrong(finding.uses["float32"], REFUSED)
    assert not any("\n" in outcome.line for outcome in finding.uses["float32"].values())


def test_what_cannot_be_trained_is_refused_in_one_line_and_else_right() -> None:
    """Reformer's layers compute their inputs again backwards, and only with dropout on."""
    finding = survey(CASES["reformer"], dtypes=("float32",))
    outcomes = finding.uses["float32"]
    words = {use: outcome.word for use, outcome in wrong(outcomes, RIGHT).items()}
    assert words == {"gradients": REFUSED, "tune": REFUSED}
    said = "this model cannot be trained here: AssertionError: If you want to train `ReformerModel`"
    assert outcomes["gradients"].line.startswith(said)
    assert outcomes["tune"].line.startswith(said)


def test_a_router_that_falls_to_either_side_in_bfloat16_is_rounding() -> None:
    """Cohere 2's experts: plain bfloat16 with embeddings one rounding off chooses as ours does."""
    finding = survey(CASES["cohere2_moe"], dtypes=("bfloat16",), uses=("sampling",))
    assert not wrong(finding.uses["bfloat16"], RIGHT)
    assert finding.uses["bfloat16"]["sampling"].allowed < finding.signal


@pytest.mark.parametrize("title", ["llama", "lfm2", "falcon_h1"])
def test_bfloat16_is_no_further_off_than_plain_bfloat16(title: str) -> None:
    finding = survey(CASES[title], dtypes=("bfloat16",), uses=(*NUMBERS, "tune"))
    assert not wrong(finding.uses["bfloat16"], RIGHT)


def test_the_survey_has_every_architecture_that_transformers_has() -> None:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    assert {case.architecture for case in CASES.values()} >= set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
    assert all(isinstance(case, Case) for case in CASES.values())
