"""The survey of many pull requests: which heads, resuming, what is told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness import cli
from harness.cli import output
from harness.report import survey
from tests.repositories import Content, Made, git, make

ORDINARY = Path(__file__).parent / "rules" / "ordinary"
BASE: dict[str, Content] = {"README.md": b"# Golf\n"}


def ordinary(folder: str) -> dict[str, Content]:
    """The files of the ordinary record, as they would stand in a folder."""
    files = (path for path in sorted(ORDINARY.rglob("*")) if path.is_file())
    return {f"{folder}/{path.relative_to(ORDINARY).as_posix()}": path.read_bytes() for path in files}


@pytest.fixture
def clone(tmp_path: Path) -> Made:
    made = make(tmp_path / "clone.git")
    start = made.commit(BASE, branch="main")
    good = made.commit({**BASE, **ordinary("records/track_10min_16mb/one")}, start)
    bad = made.commit({**BASE, "records/track_10min_16mb/two/README.md": b"# x\n"}, start)
    for number, commit in ((1, good), (2, bad), (3, start), (4, made.commit({**BASE, "train_gpt.py": b""}, start))):
        git(made.path, "update-ref", f"refs/pull/{number}/head", commit)
    git(made.path, "update-ref", "refs/pull/1/merge", good)
    return made


def run(*arguments: object) -> int:
    return cli.main(["corpus", *map(str, arguments)])


def test_heads_that_add_a_folder_are_audited_and_rows_kept(
    clone: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "rows.jsonl"
    assert run(clone.path, "--results", results, "--format", "json") == output.EXIT_PASS
    rows = json.loads(capsys.readouterr().out)
    assert [(row["reference"], row["folders"][0]["verdict"]) for row in rows] == [
        ("refs/pull/1/head", "pass"),
        ("refs/pull/2/head", "fail"),
    ]
    assert all(row["failure"] == "" and row["seconds"] > 0 for row in rows)
    # A cut last line is made again, a whole one is not.
    first, second = results.read_text(encoding="utf-8").splitlines()
    kept = json.loads(first)
    results.write_text(json.dumps(kept | {"seconds": 99.0}) + "\n" + second[:40], encoding="utf-8")
    assert run(clone.path, "--results", results, "--format", "json") == output.EXIT_PASS
    again = json.loads(capsys.readouterr().out)
    assert [row["seconds"] == 99.0 for row in again] == [row["reference"] == kept["reference"] for row in again]
    assert len(results.read_text(encoding="utf-8").splitlines()) == 2


def test_the_text_counts_rules_and_gives_examples(clone: Made, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(clone.path, "--sample", 1, "--head", "refs/pull/2/head") == output.EXIT_PASS
    text = capsys.readouterr().out
    assert "1 heads, 1 folders: 0 pass, 0 warn, 0 undecided, 1 fail, 0 not audited" in text
    assert "fail: refs/pull/2/head .: The folder has no submission.json" in text


def test_crashes_hangs_and_refusals_are_told() -> None:
    folder = {"folder": "f", "seconds": 1.0, "verdict": "", "refused": "no folder", "crashes": ["PG1"], "findings": []}
    row = {"reference": "r", "commit": "c", "seconds": 1.0, "peak_bytes": None, "failure": "", "folders": [folder]}
    hung = {**row, "reference": "h", "failure": "killed after 60 s", "folders": []}
    text = survey.render([row, hung])
    assert "h: killed after 60 s" in text
    assert "r f: the harness itself failed: PG1" in text
    assert "r f: not audited: no folder" in text
    assert survey.problems([row, hung]) == 2


def test_what_is_no_survey_is_a_usage_error(clone: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "other").write_text("hello\n", encoding="utf-8")
    assert run(clone.path, "--results", tmp_path / "other") == output.EXIT_USAGE
    assert run(clone.path, "--head", "refs/pull/3/head") == output.EXIT_USAGE
    assert run(tmp_path / "absent") == output.EXIT_USAGE
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 3
    assert "other:1: not a row" in errors[0]


def test_a_base_or_a_head_that_is_not_there_is_told(clone: Made, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(clone.path, "--base", "nosuch") == output.EXIT_USAGE
    assert "there is no commit 'nosuch'" in capsys.readouterr().err
    assert run(clone.path, "--head", "refs/pull/1/head", "--head", "absent") == output.EXIT_USAGE
    assert "there is no commit 'absent'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\xff\n", "which are UTF-8"),
        (b'{"reference": "a", "commit": "b"}\n', ":1: not a row"),
        (b"[1]\n", ":1: not a row"),
        # A foreign file of one line without an end is no row that an interruption cut.
        (b"my notes", ":1: not a row"),
    ],
)
def test_a_foreign_results_file_is_refused_and_left_alone(
    clone: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes, reason: str
) -> None:
    results = tmp_path / "rows.jsonl"
    results.write_bytes(content)
    assert run(clone.path, "--results", results) == output.EXIT_USAGE
    assert reason in capsys.readouterr().err
    assert results.read_bytes() == content


def test_results_that_cannot_be_kept_are_refused_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path / "no clone", "--results", tmp_path) == output.EXIT_USAGE
    assert "no regular file" in capsys.readouterr().err
    assert run(tmp_path / "no clone", "--results", tmp_path / "absent" / "rows") == output.EXIT_USAGE
    assert "is no directory" in capsys.readouterr().err
