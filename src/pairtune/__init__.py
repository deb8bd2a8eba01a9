"""pairtune: preference pairs in, an aligned language model out, and an honest answer to which method won.

The names below are the whole public surface. They are found when they are first used, so that `import pairtune` costs
nothing: torch and transformers are imported by the command that needs them.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pairtune.api import (
        check_loss,
        compare,
        evaluate,
        generate,
        grpo,
        log_probs,
        online_dpo,
        ppo,
        reward,
        rloo,
        sample,
        sft,
        tune,
    )
    from pairtune.errors import InputError

__all__ = [
    "InputError",
    "check_loss",
    "compare",
    "evaluate",
    "generate",
    "grpo",
    "log_probs",
    "online_dpo",
    "ppo",
    "reward",
    "rloo",
    "sample",
    "sft",
    "tune",
]


def __getattr__(name: str) -> Any:
    """A public name, from the module that defines it (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("pairtune.errors" if name == "InputError" else "pairtune.api"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
