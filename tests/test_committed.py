"""Folders of a commit written to disk: what is written, what is refused, and that nothing leaves the directory."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.model import HarnessError
from harness.sources import committed
from harness.sources.folder import ENTRIES_LIMIT, walk
from tests.repositories import ABSENT_COMMIT, FILE, LINK, SUBMODULE, Content, Made, git, make

RUN = "records/track_a/run"
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return make(tmp_path / "clone.git")


def extract(made: Made, files: dict[str, Content], where: Path) -> committed.Extracted:
    commit = made.commit({f"{RUN}/{path}": content for path, content in files.items()})
    where.mkdir()
    return committed.extract(made.repository, commit, RUN, where.resolve())


def refusals(extracted: committed.Extracted) -> dict[str, str]:
    return {entry.location.path: entry.value for entry in extracted.refused}


def test_files_come_out_as_they_are_stored_at_their_path(made: Made, tmp_path: Path) -> None:
    files: dict[str, Content] = {
        "README.md": b"a\r\nb\0",
        "logs/seed 1.log": b"",
        "run.sh": ("100755", made.blob(b"#")),
    }
    extracted = extract(made, files, tmp_path / "out")
    assert extracted.folder == (tmp_path / "out" / RUN).resolve()
    found = {path: walk(extracted.folder).read(path) for path in walk(extracted.folder).files}
    assert found == {"README.md": b"a\r\nb\0", "logs/seed 1.log": b"", "run.sh": b"#"}
    assert extracted.refused == ()
    assert not os.access(extracted.folder / "run.sh", os.X_OK)


def test_filters_and_line_endings_have_no_part_in_it(made: Made, tmp_path: Path) -> None:
    git(made.path, "config", "core.autocrlf", "true")
    git(made.path, "config", "filter.evil.smudge", "false")
    extracted = extract(made, {".gitattributes": b"* filter=evil text ident\n", "a": b"$Id$\n"}, tmp_path / "out")
    assert (extracted.folder / "a").read_bytes() == b"$Id$\n"


@pytest.mark.parametrize("name", [".git", ".GIT", ".g\u200cit", ".git ", "git~1", "..", "."])
def test_names_that_leave_the_folder_or_belong_to_git_are_refused(made: Made, tmp_path: Path, name: str) -> None:
    extracted = extract(made, {f"{name}/config": b"evil", "README.md": b"fine"}, tmp_path / "out")
    [reason] = refusals(extracted).values()
    assert "a name that" in reason
    assert [path.name for path in (tmp_path / "out").rglob("*") if path.is_file()] == ["README.md"]


def test_a_name_with_a_line_break_is_written_and_refused_by_the_walk(made: Made, tmp_path: Path) -> None:
    extracted = extract(made, {"a\nb": b"x", os.fsdecode(b"\xff"): b"y"}, tmp_path / "out")
    walked = walk(extracted.folder)
    assert not walked.files
    assert len(walked.refused) + len(extracted.refused) == 2


def test_links_are_never_followed_and_point_nowhere_else(made: Made, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret", encoding="utf-8")
    files: dict[str, Content] = {
        "README.md": b"x",
        "same": (LINK, "README.md"),
        "deep/up": (LINK, "../README.md"),
        "absolute": (LINK, str(tmp_path / "secret")),
        "outside": (LINK, "../../../../secret"),
        "detour": (LINK, "deep/../../../../../secret"),
        "loop": (LINK, "loop"),
        "self": (LINK, "."),
    }
    extracted = extract(made, files, tmp_path / "out")
    walked = walk(extracted.folder)
    assert sorted(walked.files) == ["README.md", "deep/up", "same"]
    assert {entry.location.path for entry in walked.refused} == {"absolute", "outside", "detour", "loop", "self"}
    for name in ("absolute", "outside", "detour"):
        assert (extracted.folder / name).resolve() == extracted.folder.parent
    assert extracted.refused == ()


def test_a_folder_that_is_a_link_is_no_folder(made: Made, tmp_path: Path) -> None:
    commit = made.commit({RUN: (LINK, "/etc")})
    with pytest.raises(HarnessError, match="has no folder"):
        committed.extract(made.repository, commit, RUN, tmp_path / "out")
    with pytest.raises(HarnessError, match="has no folder"):
        committed.extract(made.repository, commit, "records/track_a/absent", tmp_path / "out2")


def test_nothing_is_written_through_a_link_of_the_same_name(made: Made, tmp_path: Path) -> None:
    target = tmp_path / "victim"
    target.mkdir()
    inner = made.tree({"passwd": b"evil", "link": (LINK, "x")})
    lines = [f"{LINK} blob {made.blob(str(target).encode())}\td", f"040000 tree {inner}\td"]
    run = git(made.path, "mktree", "-z", given="".join(f"{line}\0" for line in lines).encode())
    commit = made.commit({RUN: ("040000", run)})
    extracted = committed.extract(made.repository, commit, RUN, tmp_path / "out")
    assert list(target.iterdir()) == []
    assert refusals(extracted) == {"d/passwd": "stands below a link", "d/link": "stands below a link"}


def test_submodules_and_lfs_pointers_are_named(made: Made, tmp_path: Path) -> None:
    extracted = extract(made, {"vendor": (SUBMODULE, ABSENT_COMMIT), "model.ptz": LFS}, tmp_path / "out")
    assert "submodule" in refusals(extracted)["vendor"]
    assert extracted.pointers == ("model.ptz",)
    assert (extracted.folder / "model.ptz").read_bytes() == LFS


def test_a_huge_file_has_its_size_but_no_content(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(committed, "FILE_LIMIT_BYTES", 10)
    extracted = extract(made, {"big": b"x" * 11, "small": b"y" * 10}, tmp_path / "out")
    assert (extracted.folder / "big").read_bytes() == bytes(11)
    assert (extracted.folder / "small").read_bytes() == b"y" * 10
    monkeypatch.setattr(committed, "FOLDER_LIMIT_BYTES", 15)
    with pytest.raises(HarnessError, match="larger than the 15 bytes"):
        extract(made, {"big": b"x" * 11, "small": b"y" * 10}, tmp_path / "again")


def test_an_object_that_the_clone_lacks_is_named(made: Made, tmp_path: Path) -> None:
    files: dict[str, Content] = {"a": b"1", "gone": (FILE, "2" * 40), "z": b"3"}
    extracted = extract(made, files, tmp_path / "out")
    assert refusals(extracted) == {"gone": "its content is not in this clone"}
    assert (extracted.folder / "z").read_bytes() == b"3"


def test_too_many_entries_are_left_to_the_walk(made: Made, tmp_path: Path) -> None:
    blob = made.blob(b"x")
    extracted = extract(made, {f"f{number}": (FILE, blob) for number in range(ENTRIES_LIMIT + 50)}, tmp_path / "out")
    walked = walk(extracted.folder)
    assert len(walked.files) == ENTRIES_LIMIT
    assert any("entries" in entry.value for entry in walked.refused)


def test_a_tree_that_unfolds_without_end_is_refused(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.sources.gitprogram.SECONDS_LIMIT", 1.0)
    tree = made.tree({f"f{number}": b"x" for number in range(10)})
    for _ in range(12):
        tree = made.tree({f"d{number}": ("040000", tree) for number in range(10)})
    commit = made.commit({RUN: ("040000", tree)})
    with pytest.raises(HarnessError, match=r"says more than|took longer"):
        committed.extract(made.repository, commit, RUN, tmp_path / "out")


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0/"), min_size=1, max_size=8), max_size=6))
def test_no_list_of_names_leaves_the_directory(names: list[str]) -> None:
    for name in names:
        path = Path("/root").joinpath(name) if not committed._unsafe(name) else Path("/root/x")
        assert os.path.normpath(path).startswith("/root/")
