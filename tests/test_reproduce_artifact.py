"""Which of the files that a run left is the artifact."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from harness.reproduce import artifact

FILES = {
    "train_gpt.py": 50,
    "shipped.ptz": 900,
    "final_model.pt": 1000,
    "final_model.raw.ptz": 300,
    "final_model.int8.ptz": 200,
    "packed": 123,
    "logs/x.txt": 5,
}


@pytest.fixture
def left(tmp_path: Path) -> Path:
    for name, size in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name[:1].encode() * size)
    (tmp_path / "link.ptz").symlink_to("/etc/hostname")
    return tmp_path


@pytest.mark.parametrize(
    ("pattern", "logged_bytes", "expected"),
    [
        ("final_model.int*.ptz", None, "final_model.int8.ptz"),
        ("*.ptz", None, "shipped.ptz"),
        ("absent.ptz", 200, None),
        ("", 200, "final_model.int8.ptz"),
        ("", 123, "packed"),
        ("", 77, "final_model.raw.ptz"),  # no file of that size: the largest with the first customary ending
        ("", None, "final_model.raw.ptz"),
    ],
)
def test_find(left: Path, pattern: str, logged_bytes: int | None, expected: str | None) -> None:
    shipped = frozenset({"train_gpt.py", "shipped.ptz"})
    found = artifact.find(left, pattern, shipped, logged_bytes)
    assert (found.path if found else None) == expected
    if found:
        data = (left / found.path).read_bytes()
        assert (found.size_bytes, found.sha256) == (len(data), hashlib.sha256(data).hexdigest())


def test_nothing_left(tmp_path: Path) -> None:
    (tmp_path / "final_model.pt").write_bytes(b"raw")
    assert artifact.find(tmp_path, "", frozenset(), None) is None
