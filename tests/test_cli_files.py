"""Files that commands write: links stay, pipes and devices stay, and what cannot be written is said first."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from harness import cli
from harness.cli import files, output
from harness.model import HarnessError
from tests.clifolders import one_record


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return one_record(tmp_path)


def test_a_link_stays_and_its_file_is_written(tmp_path: Path) -> None:
    (tmp_path / "real.txt").write_text("old", encoding="utf-8")
    link, dangling = tmp_path / "link.txt", tmp_path / "dangling.txt"
    link.symlink_to("real.txt")
    dangling.symlink_to("made.txt")
    for path in (link, dangling):
        files.check([path])
        files.write(path, "new")
        assert path.is_symlink()
    assert (tmp_path / "real.txt").read_text(encoding="utf-8") == "new"
    assert (tmp_path / "made.txt").read_text(encoding="utf-8") == "new"
    assert len(list(tmp_path.iterdir())) == 4


def test_a_pipe_is_written_into(tmp_path: Path) -> None:
    pipe, got = tmp_path / "pipe", list[str]()
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: got.append(pipe.read_text(encoding="utf-8")))
    reader.start()
    files.check([pipe])
    files.write(pipe, "text")
    reader.join()
    assert got == ["text"]
    assert stat.S_ISFIFO(pipe.lstat().st_mode)


def test_a_device_is_written_into_like_a_pipe(tmp_path: Path) -> None:
    link = tmp_path / "null"
    link.symlink_to(os.devnull)
    for path in (Path(os.devnull), link):
        files.check([path, path])
        # Not tried on the device itself: a mistake here would replace it.
        assert files._written_into(path)


def test_what_cannot_be_written_is_refused_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    (tmp_path / "circle").symlink_to("circle")
    refused = {
        tmp_path: "a directory",
        tmp_path / "absent" / "a": "is no directory",
        tmp_path / "file" / "a": "is no directory",
        tmp_path / "circle": "links to itself",
    }
    for path, reason in refused.items():
        with pytest.raises(HarnessError, match=reason):
            files.check([path])
        with pytest.raises(HarnessError):
            files.write(path, "text")
    files.check([tmp_path / "out" / "a"], made=tmp_path / "out")
    with pytest.raises(HarnessError, match="two files"):
        files.check([tmp_path / "a", tmp_path / "b" / ".." / "a"])


@pytest.mark.parametrize("flags", [("text=same", "json=same"), ("json=absent/report.json",), ("json=.",)])
def test_no_audit_begins_whose_report_cannot_be_written(
    folder: Path, flags: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    def begun(*_: object) -> None:
        raise AssertionError("the audit began")

    monkeypatch.chdir(folder.parent)
    monkeypatch.setattr("harness.audit.audit_folders", begun)
    options = [part for flag in flags for part in ("--output", flag)]
    assert cli.main(["audit", str(folder), *options]) == output.EXIT_USAGE


def test_calibration_says_first_that_its_document_cannot_be_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["calibrate", "nothing", "--repo", ".", "--output", str(tmp_path)]) == output.EXIT_USAGE
    assert "a directory, not a file" in capsys.readouterr().err


def test_a_root_that_is_not_there_is_a_usage_error(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["audit", str(folder), "--root", "nosuch"]) == output.EXIT_USAGE
    assert "--root nosuch: not a folder" in capsys.readouterr().err
