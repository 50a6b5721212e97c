"""The command line: exit status, output files, selection, and the rules' pages."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness import cli
from harness.cli import output
from harness.cli.audit import selected
from harness.model import HarnessError, Verdict
from harness.sources import schemas
from tests import reports

GOOD = {"name": "n", "author": "a", "github_id": "a", "date": "2026-04-01", "val_bpb": 1.2345}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "2026-04-01_One"
    path.mkdir()
    (path / "submission.json").write_text(json.dumps(GOOD), encoding="utf-8")
    (path / "README.md").write_text("val_bpb: 1.2345\n", encoding="utf-8")
    return path


def run(*arguments: object) -> int:
    return cli.main([str(argument) for argument in arguments])


def test_json_on_standard_output_fits_the_schema(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("audit", folder, "--format", "json") == output.EXIT_FAIL  # no log, no script
    document = json.loads(capsys.readouterr().out)
    assert schemas.problems("report", document) == []
    assert document["submissions"][0]["folder"] == str(folder)


def test_select_ignore_and_strict_change_the_status(folder: Path) -> None:
    assert run("audit", folder, "--select", "PG001") == output.EXIT_PASS
    assert run("audit", folder, "--select", "pg0", "--ignore", "PG003,PG004") == output.EXIT_PASS
    assert run("audit", folder, "--select", "PG101") == output.EXIT_PASS
    assert run("audit", folder, "--select", "PG101", "--strict") == output.EXIT_UNDECIDED


def test_a_selection_that_leaves_no_rule_is_a_usage_error(folder: Path) -> None:
    assert run("audit", folder, "--select", "PG001", "--ignore", "PG0") == output.EXIT_USAGE


def test_an_unknown_code_or_folder_is_a_usage_error(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("audit", folder, "--select", "PG9999") == output.EXIT_USAGE
    assert run("audit", folder.parent / "nothing") == output.EXIT_USAGE
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert "PG9999" in lines[0]
    assert "nothing" in lines[1]


@pytest.mark.parametrize(
    "flags",
    [["--format", "pdf"], ["--output", "json"], ["--output", "pdf=a"], ["--edition", "x"], ["--links", "javascript:x"]],
)
def test_argparse_refuses_what_does_not_exist(folder: Path, flags: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        run("audit", folder, *flags)
    assert caught.value.code == output.EXIT_USAGE


def test_one_bad_folder_does_not_silence_the_others(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("audit", folder, folder.parent / "nothing") == output.EXIT_USAGE
    captured = capsys.readouterr()
    assert "PG001" in captured.out
    assert "nothing" in captured.err


def test_files_are_written_whole_in_both_formats(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text, data = folder.parent / "report.txt", folder.parent / "report.json"
    run("audit", folder, "--output", f"text={text}", "--output", f"json={data}")
    assert capsys.readouterr().out.startswith("FAIL")
    assert text.read_text(encoding="utf-8").startswith("FAIL")
    assert json.loads(data.read_text(encoding="utf-8"))["schema"] == "report/1"
    assert sorted(path.name for path in folder.parent.iterdir()) == [folder.name, "report.json", "report.txt"]


def test_sarif_and_markdown_name_places_from_the_root(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = folder.parent
    flags = ("--root", root, "--links", "https://host/o/r/blob/c0ffee")
    assert run("audit", folder, "--format", "sarif", *flags) == output.EXIT_FAIL
    result = json.loads(capsys.readouterr().out)["runs"][0]
    assert result["invocations"][0]["exitCode"] == output.EXIT_FAIL
    uris = {one["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] for one in result["results"]}
    assert uris <= {f"{folder.name}/README.md", f"{folder.name}/submission.json"}
    run("audit", folder, "--format", "markdown", *flags)
    assert f"https://host/o/r/blob/c0ffee/{folder.name}/submission.json#L1" in capsys.readouterr().out


def test_many_folders_make_one_page_and_one_comment(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page, comment = folder.parent / "report.html", folder.parent / "report.md"
    flags = ("--output", f"html={page}", "--output", f"markdown={comment}", "--format", "summary")
    assert run("audit", *(folder for _ in range(3)), *flags) == output.EXIT_FAIL
    assert "3 folders: 3 fail" in page.read_text(encoding="utf-8")
    assert comment.read_text(encoding="utf-8").startswith("## 3 folders: 3 fail\n")
    assert capsys.readouterr().out.startswith("3 folders: 0 pass, 0 warn, 0 undecided, 3 fail\n")


def test_a_folder_outside_the_root_keeps_its_own_name(tmp_path: Path) -> None:
    assert output.relative(str(tmp_path / "records" / "one"), tmp_path) == "records/one"
    assert output.relative(str(tmp_path / "one"), tmp_path / "elsewhere") == "one"


def test_a_file_that_cannot_be_written_is_a_usage_error(folder: Path) -> None:
    assert run("audit", folder, "--output", f"json={folder.parent / 'absent' / 'report.json'}") == output.EXIT_USAGE


def test_a_mistake_of_ours_exits_with_three(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(_: object) -> None:
        raise KeyError("our mistake")

    monkeypatch.setattr("harness.facts.submission.read", crash)
    assert run("audit", folder) == output.EXIT_INTERNAL
    monkeypatch.setattr("harness.audit.audit_folders", crash)
    assert run("audit", folder) == output.EXIT_INTERNAL


def test_evidence_belongs_to_one_folder(folder: Path) -> None:
    assert run("audit", folder, folder, "--evidence", folder.parent) == output.EXIT_USAGE


@pytest.mark.parametrize(
    ("verdict", "strict", "refused", "crashed", "status"),
    [
        (Verdict.PASS, False, False, False, 0),
        (Verdict.WARN, True, False, False, 0),
        (Verdict.UNDECIDED, False, False, False, 0),
        (Verdict.UNDECIDED, True, False, False, 4),
        (Verdict.FAIL, True, False, False, 1),
        (Verdict.FAIL, True, True, False, 2),
        (Verdict.FAIL, True, True, True, 3),
    ],
)
def test_the_first_that_applies_of_3_2_1_4_0(
    verdict: Verdict,
    strict: bool,  # noqa: FBT001 - a column of the table
    refused: bool,  # noqa: FBT001 - the same
    crashed: bool,  # noqa: FBT001 - the same
    status: int,
) -> None:
    report = reports.report(reports.submission(verdict=verdict))
    assert output.exit_status(report, strict=strict, refused=refused, crashed=crashed) == status


def test_codes_may_be_beginnings_of_codes() -> None:
    assert selected(["PG30"], []) >= {"PG301", "PG302"}
    assert selected([], ["PG"]) == frozenset()
    with pytest.raises(HarnessError):
        selected([""], [])


def test_rules_lists_and_explains(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("rules") == output.EXIT_PASS
    assert "PG101  artifact-over-cap" in capsys.readouterr().out
    assert run("rules", "pg101") == output.EXIT_PASS
    assert "## How to fix" in capsys.readouterr().out
    assert run("rules", "PG000") == output.EXIT_USAGE


def test_rule_pages_are_written_checked_and_cleared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    docs = tmp_path / "docs" / "rules"
    assert run("rules", "--write-docs", docs) == output.EXIT_PASS
    assert run("rules", "--check-docs", docs) == output.EXIT_PASS
    gone = docs / "PG000-gone.md"
    gone.write_text((docs / "index.md").read_text(encoding="utf-8"), encoding="utf-8")
    (docs / "index.md").write_text("stale", encoding="utf-8")
    assert run("rules", "--check-docs", docs) == output.EXIT_FAIL
    assert "PG000-gone.md: stale" in capsys.readouterr().out
    assert run("rules", "--write-docs", docs) == output.EXIT_PASS
    assert run("rules", "--check-docs", docs) == output.EXIT_PASS
    assert not gone.exists()


def test_pages_of_others_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("mine", encoding="utf-8")
    (tmp_path / "old.md").write_bytes(b"\xff\xfe")
    for flag in ("--write-docs", "--check-docs"):
        assert run("rules", flag, tmp_path) == output.EXIT_PASS
    assert (tmp_path / "README.md").read_text(encoding="utf-8") == "mine"
    (tmp_path / "index.md").write_bytes(b"\xff\xfe")
    assert run("rules", "--check-docs", tmp_path) == output.EXIT_FAIL
    assert run("rules", "--write-docs", tmp_path) == output.EXIT_PASS
    assert run("rules", "--check-docs", tmp_path) == output.EXIT_PASS


def test_a_place_where_no_pages_can_be_is_a_usage_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    (tmp_path / "docs" / "y.md").mkdir(parents=True)
    assert run("rules", "--check-docs", tmp_path / "nosuch") == output.EXIT_USAGE
    assert not (tmp_path / "nosuch").exists()
    for flag in ("--write-docs", "--check-docs"):
        assert run("rules", flag, tmp_path / "file") == output.EXIT_USAGE
        assert run("rules", flag, tmp_path / "docs") == output.EXIT_USAGE
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 5
    assert "nosuch: not a folder" in lines[0]
    assert "y.md: cannot be read" in lines[-1]


def test_a_reader_that_goes_away_is_nobodys_error(folder: Path) -> None:
    command = [sys.executable, "-m", "harness", "audit", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 0


def test_output_survives_a_narrow_encoding(folder: Path) -> None:
    (folder / "submission.json").write_text(json.dumps(GOOD | {"name": "Über"}), encoding="utf-8")
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-m", "harness", "audit", str(folder), "--select", "PG001"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0
    assert "\\xdcber" in done.stdout


def test_a_directory_is_audited_by_the_record_folders_in_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("one", "two"):
        inner = tmp_path / "records" / "track_10min_16mb" / name
        inner.mkdir(parents=True)
        (inner / "submission.json").write_text("{}", encoding="utf-8")
    assert run("audit", tmp_path, "--format", "json") == output.EXIT_FAIL
    printed = capsys.readouterr()
    assert [Path(each["folder"]).name for each in json.loads(printed.out)["submissions"]] == ["one", "two"]
    assert "2 record folders found in it" in printed.err
