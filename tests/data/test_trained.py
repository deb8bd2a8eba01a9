"""What was trained on is known by content, whoever wrote it in whatever form, and is handed on."""

from pathlib import Path

import numpy as np
import pytest

from pairtune.data.schema import Message, PromptText
from pairtune.data.trained import FILE, hashes_of, keep, trained_on
from pairtune.errors import InputError

ASKED = Message("user", "Who wrote Emma?")


def test_a_prompt_is_what_was_asked_in_every_form() -> None:
    forms: list[PromptText] = [
        "Who wrote Emma?",
        " Who wrote Emma?\n",
        (ASKED,),
        (Message("system", "Be brief."), ASKED),
        "\n\nHuman: Who wrote Emma?\n\nAssistant:",
    ]
    assert len(hashes_of(forms)) == 1
    others: list[PromptText] = [
        "Who wrote emma?",
        (ASKED, Message("assistant", "I."), Message("user", "No.")),
        (Message("tool", "x"),),
    ]
    assert len(hashes_of([*forms, *others])) == 4


def test_it_is_handed_on_to_what_is_trained_from_it(tmp_path: Path) -> None:
    first, second = tmp_path / "sft", tmp_path / "tune"
    for folder in (first, second):
        folder.mkdir()
    assert trained_on(str(first)) is None
    keep(first, hashes_of(["a", "b"]), model="smollm2-135m")
    keep(second, hashes_of(["b", "c"]), model=str(first))
    assert np.array_equal(trained_on(str(first)), hashes_of(["a", "b"]))  # type: ignore[arg-type]
    assert np.array_equal(trained_on(str(second)), hashes_of(["a", "b", "c"]))  # type: ignore[arg-type]


def test_the_models_of_a_comparison_share_it(tmp_path: Path) -> None:
    pairs, model = tmp_path / "stages" / "pairs", tmp_path / "models" / "dpo"
    pairs.mkdir(parents=True)
    model.mkdir(parents=True)
    keep(pairs, hashes_of(["a"]), model="")
    assert (pairs / FILE).is_file()
    assert np.array_equal(trained_on(str(model)), hashes_of(["a"]))  # type: ignore[arg-type]


def test_a_damaged_record_is_told(tmp_path: Path) -> None:
    keep(tmp_path, hashes_of(["a", "b"]), model="")
    whole = (tmp_path / FILE).read_bytes()
    for content in (b"", whole[: len(whole) // 2], b"not a record at all"):
        (tmp_path / FILE).write_bytes(content)
        with pytest.raises(InputError, match=f"{FILE} is damaged; remove that file"):
            trained_on(str(tmp_path))
