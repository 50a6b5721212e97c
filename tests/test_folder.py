"""Walking and reading record folders written by somebody else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.model import HarnessError
from harness.sources import folder as folders
from harness.sources.folder import decode, shown, walk


def test_files_are_listed_by_relative_path(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "b.txt").write_bytes(b"12")
    (tmp_path / "a.py").write_bytes(b"")
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "a.pyc").write_bytes(b"x")
    folder = walk(tmp_path)
    assert {path: entry.size_bytes for path, entry in folder.files.items()} == {"a.py": 0, "logs/b.txt": 2}
    assert folder.refused == ()
    assert folder.name == tmp_path.name
    assert folder.read("logs/b.txt") == b"12"


def test_links_that_leave_the_folder_are_refused(tmp_path: Path) -> None:
    outside = tmp_path / "secret.txt"
    outside.write_text("secret")
    root = tmp_path / "record"
    root.mkdir()
    (root / "real.txt").write_text("inside")
    (root / "inner.txt").symlink_to("real.txt")
    (root / "outer.txt").symlink_to(outside)
    (root / "gone.txt").symlink_to("nowhere")
    (root / "loop").symlink_to(".")
    folder = walk(root)
    assert sorted(folder.files) == ["inner.txt", "real.txt"]
    assert folder.text("inner.txt") == "inside"
    reasons = {item.location.path: item.value for item in folder.refused}
    assert reasons["outer.txt"] == "a link that leaves the folder"
    assert reasons["loop"] == "a link to a folder"
    assert "leads nowhere" in reasons["gone.txt"]


def test_pipes_are_refused_and_never_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    folder = walk(tmp_path)
    assert folder.files == {}
    assert folder.refused[0].value == "not a regular file"


def test_names_that_disturb_a_terminal_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a\u202egpj.py").write_text("")
    (tmp_path / "b\x1b[2J.py").write_text("")
    (tmp_path / "ok.py").write_text("")
    folder = walk(tmp_path)
    assert list(folder.files) == ["ok.py"]
    assert len(folder.refused) == 2
    assert all("\u202e" not in item.location.path and "\x1b" not in item.location.path for item in folder.refused)


def test_names_are_composed_and_still_open(tmp_path: Path) -> None:
    (tmp_path / "re\u0301sume.md").write_text("text")
    folder = walk(tmp_path)
    assert list(folder.files) == ["r\u00e9sume.md"]
    assert folder.text("r\u00e9sume.md") == "text"


def test_reads_are_capped(tmp_path: Path) -> None:
    (tmp_path / "big.log").write_bytes(b"x" * 11)
    folder = walk(tmp_path)
    with pytest.raises(HarnessError, match=r"big\.log: larger than the 10 bytes"):
        folder.read("big.log", 10)
    assert folder.read("big.log", 11) == b"x" * 11


def test_missing_files_and_folders_are_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match="not a folder"):
        walk(tmp_path / "nothing")
    with pytest.raises(HarnessError, match="no such file"):
        walk(tmp_path).read("nothing.txt")


def test_a_file_that_goes_away_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "a.log").write_text("x")
    folder = walk(tmp_path)
    (tmp_path / "a.log").unlink()
    with pytest.raises(HarnessError, match=r"a\.log: cannot be read"):
        folder.read("a.log")


def test_depth_and_count_are_capped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "DEPTH_LIMIT", 1)
    monkeypatch.setattr(folders, "ENTRIES_LIMIT", 4)
    (tmp_path / "one" / "two").mkdir(parents=True)
    (tmp_path / "one" / "two" / "deep.txt").write_text("")
    for name in "abcdef":
        (tmp_path / name).write_text("")
    folder = walk(tmp_path)
    assert "one/two/deep.txt" not in folder.files
    assert len(folder.files) <= 4
    assert any("more than 4 entries" in item.value for item in folder.refused)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"plain", "plain"),
        (b"\xef\xbb\xbfmark", "mark"),
        ("wide".encode("utf-16"), "wide"),
        ("big".encode("utf-16-be").join([b"\xfe\xff", b""]), "big"),
        (b"bad\xff", "bad\ufffd"),
    ],
)
def test_bytes_become_text(data: bytes, text: str) -> None:
    assert decode(data) == text


@given(st.binary(max_size=80))
def test_any_bytes_become_text(data: bytes) -> None:
    assert len(decode(data).encode("utf-8")) <= 3 * len(data), "at most one replacement mark for each byte"


@given(st.text(max_size=300))
def test_shown_names_are_short_and_plain(name: str) -> None:
    result = shown(name)
    assert len(result) <= folders.NAME_SHOWN_CHARACTERS
    assert "\n" not in result
    assert "\u202e" not in result
    result.encode("utf-8")
