"""Reading pull requests with git: changes, times, and clones whose configuration is out for harm."""

from __future__ import annotations

import datetime as dt
import os
import stat
from pathlib import Path

import pytest

from harness.model import HarnessError
from harness.sources import gitprogram, pullrequest
from harness.sources.pullrequest import Change, Kind, record_folder
from tests.repositories import ABSENT_COMMIT, LINK, SUBMODULE, Content, Made, git, make

BASE: dict[str, Content] = {"README.md": b"# Golf\n", "records/track_a/old/README.md": b"old\n" * 40}
RUN = "records/track_a/run"


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return make(tmp_path / "clone.git")


def changed(made: Made, head: dict[str, Content], base: dict[str, Content] = BASE) -> tuple[Change, ...]:
    start = made.commit(base, branch="main")
    made.commit(head, start, branch="head")
    return pullrequest.read(made.repository, "main", "head").changes


def test_every_kind_of_change_is_told(made: Made) -> None:
    head: dict[str, Content] = {
        "README.md": (LINK, "/etc/passwd"),
        "records/track_a/new/README.md": b"old\n" * 40,
        f"{RUN}/train_gpt.py": b"print(1)\n",
        f"{RUN}/data": (LINK, "../../../../data"),
        f"{RUN}/vendor": (SUBMODULE, ABSENT_COMMIT),
    }
    assert changed(made, head) == (
        Change("retyped", "README.md", Kind.LINK),
        Change("renamed", "records/track_a/new/README.md", Kind.FILE, "records/track_a/old/README.md"),
        Change("added", f"{RUN}/data", Kind.LINK),
        Change("added", f"{RUN}/train_gpt.py", Kind.FILE),
        Change("added", f"{RUN}/vendor", Kind.SUBMODULE),
    )
    assert changed(made, {"README.md": b"other\n"}) == (
        Change("modified", "README.md", Kind.FILE),
        Change("deleted", "records/track_a/old/README.md", Kind.NOTHING),
    )


def test_names_of_any_bytes_come_through(made: Made) -> None:
    names = [f"{RUN}/a\nb\tc", f"{RUN}/" + os.fsdecode(b"\xff\xfe"), f"{RUN}/:(top)x", f"{RUN}/-rf", f'{RUN}/"q"']
    found = changed(made, BASE | dict.fromkeys(names, b"x"))
    assert {one.path for one in found} == set(names)


def test_only_what_the_head_itself_did_counts(made: Made) -> None:
    start = made.commit(BASE, branch="start")
    made.commit({**BASE, "later.txt": b"of the base branch"}, start, branch="main")
    first = made.commit({**BASE, f"{RUN}/a": b"1"}, start, date="2026-04-02T00:00:00+00:00")
    made.commit({**BASE, f"{RUN}/a": b"2"}, first, branch="head", date="2026-04-03T00:00:00+02:00")
    found = pullrequest.read(made.repository, "main", "head")
    assert [one.path for one in found.changes] == [f"{RUN}/a"]
    assert found.base == start
    assert found.committed == tuple(dt.datetime(2026, 4, 2, hour, tzinfo=dt.UTC) for hour in (0, 22))
    assert found.authored == found.committed


def test_references_are_found_and_what_is_none_is_refused(made: Made) -> None:
    start = made.commit(BASE, branch="main")
    git(made.path, "update-ref", "refs/pull/1/head", start)
    assert pullrequest.heads(made.repository, "refs/pull/") == {"refs/pull/1/head": start}
    for name in ("nothing", "--all", "", "main:README.md", "a\0b", "main\nmain"):
        with pytest.raises(HarnessError, match=r"no commit|no name of a commit"):
            pullrequest.commit_id(made.repository, name)
    assert pullrequest.commit_id(made.repository, "main") == start


def test_histories_without_a_common_commit_are_refused_with_a_hint(made: Made) -> None:
    made.commit(BASE, branch="main")
    made.commit({"a": b"1"}, branch="head")
    with pytest.raises(HarnessError, match="fetch-depth: 0"):
        pullrequest.read(made.repository, "main", "head")


def test_a_forged_time_beyond_the_calendar_is_no_time(made: Made) -> None:
    start = made.commit(BASE, branch="main")
    made.commit({"a": b"1"}, start, branch="head", date="@99999999999999 +0000")
    assert pullrequest.read(made.repository, "main", "head").committed == ()


@pytest.mark.parametrize(
    ("path", "folder"),
    [
        ("records/track_a/run/x", "records/track_a/run"),
        ("records/track_a/run/logs/deep/x", "records/track_a/run"),
        ("records/track_a/README.md", ""),
        ("records/run/x", "records/run"),
        ("records/README.md", ""),
        ("submissions/run/x", "submissions/run"),
        ("submissions/x", ""),
        ("train_gpt.py", ""),
        ("xrecords/track_a/run/x", ""),
    ],
)
def test_the_record_folder_of_a_path(path: str, folder: str) -> None:
    assert record_folder(path) == folder


def test_a_directory_without_a_repository_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match="no git repository"):
        gitprogram.open_repository(tmp_path)
    with pytest.raises(HarnessError, match="not a folder"):
        gitprogram.open_repository(tmp_path / "nothing")


def test_without_a_git_program_one_line_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(HarnessError, match="no git program"):
        gitprogram.open_repository(tmp_path)


def test_a_linked_work_tree_and_a_folder_inside_serve_too(tmp_path: Path) -> None:
    made = make(tmp_path / "clone", bare=False)
    start = made.commit(BASE, branch="main")
    git(made.path, "worktree", "add", "--quiet", "--detach", str(tmp_path / "linked"), "main")
    for directory in (tmp_path / "linked", tmp_path / "linked" / "records", made.path):
        assert pullrequest.commit_id(gitprogram.open_repository(directory), "main") == start


def test_only_reading_commands_run(made: Made) -> None:
    with pytest.raises(ValueError, match="not among"):
        made.repository.output("checkout", "main")


def test_output_and_time_are_bounded(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    made.commit(BASE, branch="main")
    with pytest.raises(HarnessError, match="more than 10 bytes"):
        made.repository.output("ls-tree", "-r", "main", limit_bytes=10)
    slow = made.path / "bin"
    slow.mkdir()
    (slow / "git").write_text("#!/bin/sh\nsleep 60 & sleep 60\n", encoding="utf-8")
    (slow / "git").chmod(0o755)
    monkeypatch.setattr(gitprogram, "SECONDS_LIMIT", 0.2)
    repository = made.repository
    monkeypatch.setenv("PATH", f"{slow}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(HarnessError, match="took longer"):
        repository.output("ls-tree", "-r", "main")


def trap(directory: Path) -> tuple[Path, str]:
    """A program that leaves a mark when it is run, and the mark."""
    mark, program = directory / "executed", directory / "trap.sh"
    program.write_text(f"#!/bin/sh\ntouch '{mark}'\ncat\n", encoding="utf-8")
    program.chmod(program.stat().st_mode | stat.S_IEXEC)
    return mark, str(program)


SETTINGS = (
    "core.fsmonitor",
    "core.pager",
    "core.sshCommand",
    "core.editor",
    "diff.external",
    "diff.evil.textconv",
    "diff.evil.command",
    "filter.evil.clean",
    "filter.evil.smudge",
    "filter.evil.process",
    "gpg.program",
    "credential.helper",
    "uploadpack.packObjectsHook",
    "core.gitProxy",
    "core.alternateRefsCommand",
    "alias.diff-tree",
    "alias.ls-tree",
)


def test_nothing_that_a_clone_configures_is_run(tmp_path: Path) -> None:
    made = make(tmp_path / "clone", bare=False)
    mark, program = trap(tmp_path)
    start = made.commit({".gitattributes": b"* diff=evil filter=evil\n", **BASE}, branch="main")
    made.commit({".gitattributes": b"* diff=evil filter=evil\n", **BASE, f"{RUN}/a": b"1"}, start, branch="head")
    for name in SETTINGS:
        git(made.path, "config", name, f"!{program}" if name.startswith("alias") else program)
    for name, value in (
        ("log.showSignature", "true"),
        ("pager.diff-tree", "true"),
        ("extensions.partialClone", "evil"),
    ):
        git(made.path, "config", name, value)
    git(made.path, "config", "remote.evil.url", f"ext::{program}")
    git(made.path, "config", "remote.evil.promisor", "true")
    for hook in ("post-checkout", "post-index-change", "reference-transaction", "pre-auto-gc", "fsmonitor-watchman"):
        (made.path / ".git" / "hooks").mkdir(exist_ok=True)
        (made.path / ".git" / "hooks" / hook).symlink_to(program)
    (made.path / ".git" / "info").mkdir(exist_ok=True)
    (made.path / ".git" / "info" / "attributes").write_text("* diff=evil filter=evil\n", encoding="utf-8")
    before = sorted(path.name for path in (made.path / ".git").iterdir())
    assert [one.path for one in pullrequest.read(made.repository, "main", "head").changes] == [f"{RUN}/a"]
    with pytest.raises(HarnessError):  # absent here: a partial clone would fetch it from its remote
        made.repository.output("cat-file", "blob", ABSENT_COMMIT)
    assert not mark.exists()
    assert sorted(path.name for path in (made.path / ".git").iterdir()) == before


def test_replaced_objects_and_the_callers_environment_change_nothing(
    made: Made, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    start = made.commit(BASE, branch="main")
    head = made.commit({**BASE, f"{RUN}/a": b"1"}, start, branch="head")
    git(made.path, "replace", head, made.commit({**BASE, f"{RUN}/innocent": b"1"}, start))
    other = make(tmp_path / "other.git")
    monkeypatch.setenv("GIT_DIR", str(other.path))
    monkeypatch.setenv("GIT_OBJECT_DIRECTORY", str(other.path / "objects"))
    monkeypatch.setenv("GIT_EXTERNAL_DIFF", "false")
    assert [one.path for one in pullrequest.read(made.repository, "main", "head").changes] == [f"{RUN}/a"]
