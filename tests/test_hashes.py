"""What things are, by their content."""

import hashlib
from pathlib import Path
from typing import Any

import pytest

from pairtune import hashes
from pairtune.data.files import data_hash
from pairtune.hashes import file_hash, model_hash


def test_hashes_follow_content_not_names(tmp_path: Path, tiny_folder: Any) -> None:
    one, same, other = (str(tiny_folder(tmp_path / name, seed=seed)) for name, seed in (("a", 0), ("b", 0), ("c", 1)))
    assert model_hash(one) == model_hash(same) != model_hash(other)
    assert model_hash("some/model") == "hub:some/model"
    for name, text in (("x", "1"), ("y", "1"), ("z", "2")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "data.jsonl").write_text(text)
    x, y, z = (str(tmp_path / name) for name in "xyz")
    assert data_hash(x) == data_hash(y) != data_hash(z)
    assert data_hash(f"{x}/data.jsonl") == data_hash(f"{y}/data.jsonl") != data_hash(f"{z}/data.jsonl")
    assert data_hash("some/data") == "hub:some/data"


def test_a_large_file_is_read_once_until_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, reads = tmp_path / "weights", []
    real = hashes._read
    monkeypatch.setattr(hashes, "_read", lambda path: reads.append(path) or real(path))
    for content in (b"a" * hashes.SMALL, b"b" * (hashes.SMALL + 1)):
        path.write_bytes(content)
        for _ in range(3):
            assert file_hash(path) == hashlib.sha256(content).hexdigest()
    assert len(reads) == 2
