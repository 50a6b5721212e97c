"""Finding record folders below a directory somebody else filled."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.model import HarnessError
from harness.sources import discover as module
from harness.sources.discover import discover


def put(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_text("", encoding="utf-8")
    return folder


def test_a_checkout_gives_the_folders_on_its_shelves_only(tmp_path: Path) -> None:
    put(tmp_path, "README.md", "train_gpt.py")
    put(tmp_path / "data", "README.md", "fetch.py")
    track = tmp_path / "records" / "track_10min_16mb"
    one = put(track / "one", "submission.json")
    put(track / "one" / "older", "submission.json")
    two = put(track / "two", "README.md", "train.log")
    three = put(track / "three", "train_gpt.py")
    assert discover(tmp_path).folders == (one, three, two)
    assert discover(tmp_path / "records").folders == (one, three, two)
    assert discover(track).folders == (one, three, two)
    assert discover(one).folders == (one,)


def test_a_folder_with_script_and_readme_may_hold_record_folders(tmp_path: Path) -> None:
    put(tmp_path, "README.md", "train_gpt.py")
    assert discover(tmp_path).folders == (tmp_path,)
    put(tmp_path / "vendor", "README.md", "setup.py")
    assert discover(tmp_path).folders == (tmp_path,)
    inner = put(tmp_path / "one", "submission_seed1.json")
    assert inner in discover(tmp_path).folders
    assert tmp_path not in discover(tmp_path).folders


def test_links_are_not_followed(tmp_path: Path) -> None:
    put(tmp_path / "real", "submission.json")
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "again").symlink_to(tmp_path / "real")
    assert discover(tmp_path).folders == (tmp_path / "real",)


def test_what_lies_too_deep_or_is_too_much_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = put(tmp_path.joinpath(*["d"] * 20), "submission.json")
    search = discover(tmp_path)
    assert search.folders == ()
    assert deep not in search.folders
    assert "deeper than" in search.unread[0]
    monkeypatch.setattr(module, "ENTRIES_LIMIT", 3)
    with pytest.raises(HarnessError, match="name a smaller directory"):
        discover(tmp_path)
