"""What comes out of a sandbox and what is cleared away: bounded, plain, and never through a link."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.sandbox import cgroup, disk, keep, runtime, stage
from harness.sandbox.job import View
from harness.sandbox.places import of_this_machine
from harness.sandbox.pump import Answers, Bounded, fresh, harmless, printable
from harness.sandbox.spec import Spec, load


def spec(scratch: Path, *patterns: str, size: int = 1000, files: int = 10) -> Spec:
    return Spec(["x"], {}, "/", str(scratch), keep=list(patterns), keep_bytes=size, keep_files=files)


def brought(given_spec: Spec, into: Path, pieces: int = 7) -> Answers:
    """Send and receive through a real pipe."""
    reader, writer = os.pipe()

    def send() -> None:
        os.write(writer, b'ready\n{"returncode": 0}\n')
        keep.send(given_spec, writer)
        os.close(writer)

    thread = threading.Thread(target=send)
    thread.start()
    answers = Answers(into, 10_000, 100)
    while data := os.read(reader, pieces):
        answers.feed(data)
    thread.join()
    os.close(reader)
    answers.close()
    return answers


def test_files_come_out_whole(tmp_path: Path) -> None:
    scratch, into = tmp_path / "scratch", tmp_path / "into"
    (scratch / "a/b").mkdir(parents=True)
    into.mkdir()
    (scratch / "a/b/one.pt").write_bytes(bytes(range(256)))
    (scratch / "a/two.txt").write_bytes(b"no")
    (scratch / "empty.pt").touch()
    (scratch / "a/link.pt").symlink_to("two.txt")
    os.mkfifo(scratch / "pipe.pt")
    answers = brought(spec(scratch, "*.pt"), into)
    assert {str(path.relative_to(into)) for path in into.rglob("*.*")} == {"a/b/one.pt", "empty.pt"}
    assert (into / "a/b/one.pt").read_bytes() == bytes(range(256))
    assert sorted(answers.skipped) == ["a/link.pt: a link", "pipe.pt: not a file"]
    assert answers.report == {"returncode": 0}


def test_too_much_stays_inside(tmp_path: Path) -> None:
    scratch, into = tmp_path / "scratch", tmp_path / "into"
    scratch.mkdir()
    into.mkdir()
    for number in range(4):
        (scratch / f"{number}").write_bytes(b"x" * 400)
    answers = brought(spec(scratch, "*"), into)
    assert sorted(path.name for path in into.iterdir()) == ["0", "1"]
    assert answers.skipped == ["2: too much", "3: too much"]


@given(st.lists(st.binary(max_size=60), max_size=8), st.integers(1, 50))
def test_answers_believe_nothing(tmp_path_factory: pytest.TempPathFactory, pieces: list[bytes], step: int) -> None:
    into = tmp_path_factory.mktemp("into")
    data = b"".join(pieces)
    answers = Answers(into, 100, 5)
    for start in range(0, len(data), step):
        answers.feed(data[start : start + step])
    answers.close()
    assert sum(path.stat().st_size for path in into.rglob("*") if path.is_file()) <= 100


NAMES = st.one_of(
    st.text(max_size=20),
    st.sampled_from(
        ("../x", "/etc/x", "a/../../x", "a//b", ".", "a\x1b[2J", "a\nb", "..\\x", "\udcff", "good/name.pt", "")
    ),
)


@given(st.lists(st.tuples(NAMES, st.binary(max_size=30)), max_size=6))
def test_hostile_names_never_leave_the_folder(
    tmp_path_factory: pytest.TempPathFactory, files: list[tuple[str, bytes]]
) -> None:
    top = tmp_path_factory.mktemp("top")
    into = top / "a/b/c"
    into.mkdir(parents=True)
    answers = Answers(into, 1000, 10)
    answers.feed(b'ready\n{"returncode": 0}\n')
    for name, content in files:
        answers.feed(json.dumps({"name": name, "size": len(content)}).encode() + b"\n" + content)
    answers.close()
    found = [path for path in top.rglob("*") if path.is_file()]
    assert all(path.is_relative_to(into) for path in found)
    assert all(str(path.relative_to(into)).isprintable() for path in found)
    assert all(line.isprintable() for line in answers.skipped)
    assert not [path for path in top.rglob("*") if path.is_symlink()]


@pytest.mark.parametrize(
    "line",
    [
        b"[]\n",
        b"not json\n",
        b'{"name": 7, "size": 1}\n',
        b'{"name": "x", "size": -1}\n',
        b'{"name": "x", "size": 1e99}\n',
        b'{"name": "x", "size": 1000000}\n',
        b"[" * 50_000 + b"\n",
        b"x" * 100_000,
    ],
)
def test_broken_answers_end_the_conversation(tmp_path: Path, line: bytes) -> None:
    answers = Answers(tmp_path, 1000, 10)
    answers.feed(b'ready\n{"returncode": 0}\n' + line)
    answers.feed(b'{"name": "late", "size": 1}\nx')
    answers.close()
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_cut_off_is_removed(tmp_path: Path) -> None:
    answers = Answers(tmp_path, 1000, 10)
    answers.feed(b'ready\n{"returncode": 0}\n{"name": "half", "size": 10}\nxxx')
    answers.close()
    assert list(tmp_path.iterdir()) == []
    assert answers.skipped == ["half: cut off"]


def test_the_same_name_twice_is_taken_once(tmp_path: Path) -> None:
    answers = Answers(tmp_path, 1000, 10)
    answers.feed(b'ready\n{"returncode": 0}\n{"name": "a", "size": 1}\nx{"name": "a", "size": 1}\ny')
    answers.close()
    assert (tmp_path / "a").read_bytes() == b"x"
    assert answers.skipped == ["a: File exists"]


def test_names() -> None:
    assert harmless("a/b.pt")
    for name in ("", "/a", "a/", "a/..", "a\x00", "x" * 300, "a/" * 40 + "b", "\u202ea"):
        assert not harmless(name), name
    assert printable("a\x1b[2J\n") == "a\\x1b[2J\\n"


def test_bounded_file_takes_so_much_and_no_more(tmp_path: Path) -> None:
    bounded = Bounded(fresh(tmp_path / "file"), 5)
    bounded.feed(b"abc")
    before = bounded.full
    bounded.feed(b"defg")
    bounded.feed(b"h")
    bounded.close()
    assert (before, bounded.full) == (False, True)
    assert (tmp_path / "file").read_bytes() == b"abcde"


def test_fresh_file_is_never_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "target")
    with pytest.raises(FileExistsError):
        fresh(tmp_path / "link")
    assert not (tmp_path / "target").exists()


def test_hostile_folder_is_removed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").touch()
    scratch = tmp_path / "scratch"
    (scratch / "closed/inner").mkdir(parents=True)
    (scratch / "closed/inner").chmod(0)
    (scratch / "closed").chmod(0o200)
    (scratch / "link").symlink_to(outside)
    os.mkfifo(scratch / "pipe")
    here = os.open(scratch, os.O_RDONLY)
    for _ in range(300):
        os.mkdir("d" * 100, dir_fd=here)
        below = os.open("d" * 100, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    assert disk.remove(scratch)
    assert not scratch.exists()
    assert (outside / "file").exists()
    assert disk.remove(scratch)


def test_what_cannot_be_removed_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_path: object) -> None:
        raise PermissionError

    (tmp_path / "scratch").mkdir()
    (tmp_path / "scratch/file").touch()
    monkeypatch.setattr(disk.os, "unlink", refuse)  # type: ignore[attr-defined]
    assert not disk.remove(tmp_path / "scratch")


def test_disk_is_measured(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/file").write_bytes(b"x" * 100_000)
    (tmp_path / "link").symlink_to("/")
    used, entries = disk.used(tmp_path, 100)
    assert 100_000 <= used < 200_000
    assert entries == 3
    assert disk.used(tmp_path / "none", 100) == (0, 0)
    assert disk.used(tmp_path, 1)[1] == 2


def test_open_files_without_a_name_are_measured(tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb") as file:
        file.write(b"x" * 50_000)
        file.flush()
        assert disk.unlinked([os.getpid()], tmp_path.stat().st_dev) < 50_000
        (tmp_path / "file").unlink()
        assert disk.unlinked([os.getpid()], tmp_path.stat().st_dev) >= 50_000
    assert disk.mounted([0], "/scratch") is None


def test_spec_survives_its_pipe(tmp_path: Path) -> None:
    made = Spec(["a", "é\udc80"], {"A": "b"}, "/w", "/s", rlimits={"CPU": (1, 2)}, keep=["*"])
    dumped = made.dump()
    assert int(dumped[:8]) == len(dumped) - 8
    back = load(dumped[8:])
    assert (back.argv, back.environment, back.keep) == (made.argv, made.environment, made.keep)
    assert {name: tuple(both) for name, both in back.rlimits.items()} == made.rlimits
    assert stage._prepare(Spec([], {}, "/", "/", folders=[str(tmp_path / "x")], links={str(tmp_path / "l"): "x"})) == ""
    assert "cannot be prepared" in stage._prepare(Spec([], {}, "/", "/", links={str(tmp_path / "l"): "x"}))


def test_places_without_namespaces() -> None:
    views = (
        View(Path("/home/me/sub"), "/submission"),
        View(Path("/data/v"), "/scratch/work/data"),
        View(Path("/usr"), "/usr"),
    )
    places = of_this_machine(views, Path("/run/7/scratch"))
    assert places.translate("/submission/train.py") == "/home/me/sub/train.py"
    assert places.translate("/submissions /submission") == "/submissions /home/me/sub"
    assert places.translate("/scratch/work/data/x:/x/scratch") == "/run/7/scratch/work/data/x:/x/scratch"
    assert places.translate('{"a": "/submission", "b": 1}') == '{"a": "/home/me/sub", "b": 1}'
    assert places.translate("./submission") == "./submission"


def test_runtime_views_stand_at_their_own_paths() -> None:
    views = runtime.python_runtime_views()
    assert all(str(view.source) == view.target and view.source.exists() for view in views)
    targets = [view.target for view in views]
    assert not any(one != other and one.startswith(f"{other}/") for one in targets for other in targets)
    assert "/" not in targets


def test_groups_are_made_where_they_are_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroup, "_homes", lambda: [(tmp_path, ("pids",))])
    stale = tmp_path / f"{cgroup._prefix()}999999999-abc"
    stale.mkdir()
    group = cgroup.create(100, 7)
    assert not stale.exists()
    [folder] = group.folders
    assert (folder / "pids.max").read_text(encoding="ascii") == "7"
    assert group.controls == ("pids",)
    group.join([1])
    assert (folder / "cgroup.procs").read_text(encoding="ascii") == "1"
    for path in folder.iterdir():
        path.unlink()
    group.close()
    assert not folder.exists()


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("9:name=systemd:/\n8:pids:/\n4:memory:/made/by/others\n1:cpu:/\n", {"pids": ("pids",)}),
        ("8:pids:/deep\n", {}),
        ("0::/\n", {"": ("memory", "pids")}),
    ],
)
def test_groups_of_others_are_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: str, expected: dict[str, tuple[str, ...]]
) -> None:
    for name in ("pids/deep", "memory/made/by/others"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "cgroup.subtree_control").write_text("cpu memory pids\n", encoding="ascii")
    (tmp_path / "own").write_text(lines, encoding="ascii")
    monkeypatch.setattr(cgroup, "ROOT", tmp_path)
    monkeypatch.setattr(cgroup, "OWN", tmp_path / "own")
    assert cgroup._homes() == [(tmp_path / name, controls) for name, controls in expected.items()]
    monkeypatch.setattr(cgroup, "OWN", tmp_path / "none")
    assert cgroup._homes() == []
