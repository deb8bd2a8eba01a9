"""Rows are values: frozen, comparable, and usable as keys."""

import dataclasses
import subprocess
import sys
from typing import Any

import pytest

from pairtune.data.schema import Demonstration, Labelled, Message, Pair, Prompt, Rows, Skipped

DIALOGUE = (Message("user", "Hi"), Message("assistant", "Hello"), Message("user", "Bye"))


@pytest.mark.parametrize(
    "value",
    [
        Message("user", "Hi"),
        Pair(DIALOGUE, "a", "b", 1),
        Demonstration("x", "a", 1),
        Labelled("x", "a", True, 1),
        Prompt(DIALOGUE, 1),
        Skipped(1, "why"),
        Rows((Prompt("x", 1),), ()),
    ],
)
def test_rows_are_frozen_values_without_a_dictionary(value: Any) -> None:
    field = dataclasses.fields(value)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(value, field, None)
    assert dataclasses.replace(value) == value
    assert hash(dataclasses.replace(value)) == hash(value)
    assert not hasattr(value, "__dict__")


def test_reading_a_file_imports_nothing_heavy() -> None:
    heavy = {"torch", "transformers", "datasets", "pyarrow"}
    code = f"import sys, pairtune.data.sources, pairtune.data.check; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
