"""Libraries keep their progress bars and advice to themselves while pairtune works: it says what matters."""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from logging import ERROR, getLogger

# Libraries whose warnings are meant for programmers.
CHATTY = r"transformers|torch|datasets|huggingface_hub"


@contextmanager
def quiet() -> Iterator[None]:
    """Inside, no bars, advice or warnings of the libraries underneath; afterwards everything is as it was."""
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
    from transformers.utils import logging

    verbosity, bars, hub_bars = logging.get_verbosity(), logging.is_progress_bar_enabled(), are_progress_bars_disabled()
    hub = getLogger("huggingface_hub")  # it tells of every retry before our one line
    level = hub.level
    with _environment(TOKENIZERS_PARALLELISM="false"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=CHATTY)
        logging.disable_progress_bar()  # the hub's too
        logging.set_verbosity_error()
        hub.setLevel(ERROR)
        try:
            yield
        finally:
            hub.setLevel(level)
            logging.set_verbosity(verbosity)
            if bars:
                logging.enable_progress_bar()
            (disable_progress_bars if hub_bars else enable_progress_bars)()


@contextmanager
def _environment(**values: str) -> Iterator[None]:
    """Variables of the environment that hold inside only; those that a person has set stay theirs."""
    ours = {name: value for name, value in values.items() if name not in os.environ}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name in ours:
            os.environ.pop(name, None)
