"""`harness gate` on small repositories: what a change may do, what is audited, and that nothing of the clone moves."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from harness import cli
from harness.cli import output
from harness.sources import schemas
from tests.repositories import ABSENT_COMMIT, LINK, SUBMODULE, Content, Made, git, make

ORDINARY = Path(__file__).parent / "rules" / "ordinary"
TRACK = "records/track_10min_16mb"
BASE: dict[str, Content] = {"README.md": b"# Golf\n", f"{TRACK}/old/README.md": b"an old record\n"}
CHANGE_RULES = ("PG020", "PG021", "PG022", "PG023")


def ordinary(folder: str) -> dict[str, Content]:
    files = (path for path in sorted(ORDINARY.rglob("*")) if path.is_file())
    return {f"{folder}/{path.relative_to(ORDINARY).as_posix()}": path.read_bytes() for path in files}


RUN = ordinary(f"{TRACK}/run")


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return make(tmp_path / "clone", bare=False)


def gate(made: Made, head: dict[str, Content], *flags: str, date: str = "2026-04-02T00:00:00+00:00") -> int:
    start = made.commit(BASE, branch="main")
    made.commit(head, start, branch="head", date=date)
    return cli.main(["gate", "--repo", str(made.path), "--base", "main", "--head", "head", "--format", "json", *flags])


def verdicts(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    document = json.loads(capsys.readouterr().out)
    assert schemas.problems("report", document) == []
    findings = document["submissions"][0]["findings"]
    return {one["rule"]: one["verdict"] for one in findings if one["rule"] in CHANGE_RULES or one["verdict"] != "pass"}


def test_a_change_that_adds_one_good_folder_passes(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    assert gate(made, BASE | RUN, "--strict") == output.EXIT_PASS
    assert verdicts(capsys) == dict.fromkeys(CHANGE_RULES, "pass")


def test_the_report_names_the_folder_by_its_path_in_the_repository(
    made: Made, capsys: pytest.CaptureFixture[str]
) -> None:
    gate(made, BASE | RUN)
    [report] = json.loads(capsys.readouterr().out)["submissions"]
    assert report["folder"] == f"{TRACK}/run"
    assert "harness-" not in json.dumps(report)
    assert report["facts"]["change"]["new_folders"] == [f"{TRACK}/run"]


@pytest.mark.parametrize(
    ("head", "rule", "verdict"),
    [
        (BASE | RUN | {"train_gpt.py": b"x"}, "PG020", "fail"),
        (BASE | RUN | {"README.md": b"# Golf, with a new row\n"}, "PG020", "warn"),
        (BASE | RUN | {"README.md": (LINK, "/etc/passwd")}, "PG020", "fail"),
        (BASE | RUN | ordinary(f"{TRACK}/two"), "PG021", "fail"),
        (BASE | ordinary("records/run"), "PG021", "fail"),
        (BASE | ordinary("submissions/run"), "PG021", "pass"),
        (BASE | {"docs/a.md": b"x"}, "PG021", "fail"),
        (BASE | RUN | {f"{TRACK}/old/README.md": b"edited\n"}, "PG021", "fail"),
        (BASE | {f"{TRACK}/old/train.log": b"x\n"}, "PG021", "warn"),
        ({"README.md": b"# Golf\n"}, "PG021", "fail"),
        ({"README.md": b"# Golf\n"} | RUN, "PG021", "fail"),
        ({"README.md": b"# Golf\n", f"{TRACK}/new/README.md": b"an old record\n"}, "PG021", "warn"),
        (BASE | RUN | {f"{TRACK}/run/vendor": (SUBMODULE, ABSENT_COMMIT)}, "PG023", "undecided"),
        (
            BASE | RUN | {f"{TRACK}/run/m.ptz": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"},
            "PG023",
            "undecided",
        ),
        (BASE | RUN | {f"{TRACK}/run/.git/config": b"[core]"}, "PG023", "undecided"),
    ],
)
def test_what_else_a_change_does_is_told(
    made: Made, capsys: pytest.CaptureFixture[str], head: dict[str, Content], rule: str, verdict: str
) -> None:
    status = gate(made, head)
    found = verdicts(capsys)
    assert found[rule] == verdict
    assert status == (output.EXIT_FAIL if "fail" in found.values() else output.EXIT_PASS)


@pytest.mark.parametrize(
    ("date", "verdict"),
    [
        ("2026-04-02T00:00:00+00:00", "pass"),
        ("2026-03-20T00:00:00+00:00", "warn"),  # before the date in submission.json
        ("2026-05-01T23:59:59+00:00", "pass"),
        ("2026-05-02T00:00:00+00:00", "warn"),
        ("@99999999999999 +0000", "undecided"),
    ],
)
def test_commit_times_are_held_against_the_date_and_the_cut_off(
    made: Made, capsys: pytest.CaptureFixture[str], date: str, verdict: str
) -> None:
    assert gate(made, BASE | RUN, date=date) == output.EXIT_PASS
    assert verdicts(capsys)["PG022"] == verdict


def test_a_folder_that_holds_no_submission_fails_by_the_rules(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    assert gate(made, BASE | {f"{TRACK}/run/picture.png": b"x"}) == output.EXIT_FAIL
    assert verdicts(capsys)["PG001"] == "fail"


def test_references_that_do_not_exist_and_empty_changes_are_usage_errors(
    made: Made, capsys: pytest.CaptureFixture[str]
) -> None:
    made.commit(BASE, branch="main")
    for flags in (["--base", "none"], ["--base", "main", "--head", "none"], ["--base", "main", "--head", "main"]):
        assert cli.main(["gate", "--repo", str(made.path), *flags]) == output.EXIT_USAGE
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 3
    assert "changes nothing" in errors[2]


def test_work_tree_and_index_stay_as_they_are(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    start = made.commit(BASE, branch="main")
    git(made.path, "reset", "--hard", "--quiet", start)
    (made.path / "README.md").write_text("edited, not committed\n", encoding="utf-8")
    (made.path / "untracked").write_text("x", encoding="utf-8")
    before = (git(made.path, "status", "--porcelain"), (made.path / ".git" / "index").read_bytes())
    gate(made, BASE | RUN)
    capsys.readouterr()
    assert (git(made.path, "status", "--porcelain"), (made.path / ".git" / "index").read_bytes()) == before


def test_an_audit_of_a_folder_says_how_to_run_the_rules_on_changes(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["audit", str(ORDINARY), "--format", "json"])
    [report] = json.loads(capsys.readouterr().out)["submissions"]
    assert {"rule": "PG020", "command": "harness gate --base REF"} in report["not_exercised"]


def test_a_github_job_gets_the_report_in_its_summary(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    summary = tmp_path / "summary.md"
    summary.write_text("before\n", encoding="utf-8")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    assert gate(made, BASE | RUN | {"other": b"x"}, "--output", f"sarif={tmp_path / 'out.sarif'}") == output.EXIT_FAIL
    text = summary.read_text(encoding="utf-8")
    assert text.startswith("before\n")
    assert "PG020" in text
    assert f"{TRACK}/run" in (tmp_path / "out.sarif").read_text(encoding="utf-8")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "absent" / "summary.md"))
    assert gate(made, BASE | RUN) == output.EXIT_USAGE
    capsys.readouterr()


ROOT = Path(__file__).resolve().parent.parent


def test_the_workflow_and_the_action_are_safe_for_strangers_pull_requests() -> None:
    workflow = (ROOT / ".github" / "workflows" / "gate.yml").read_text(encoding="utf-8")
    action = (ROOT / "action.yml").read_text(encoding="utf-8")
    lines = [line.strip() for line in workflow.splitlines() if not line.strip().startswith("#")]
    assert "pull_request:" in lines
    assert "permissions: {}" in lines
    assert [line for line in lines if line.endswith(": read") or ": write" in line] == ["contents: read"]
    for forbidden in ("pull_request_target", "secrets.", "head.sha", "head.ref", "GITHUB_TOKEN", "github.token"):
        assert forbidden not in "\n".join(lines)
    assert lines.count("persist-credentials: false") == sum("actions/checkout@" in line for line in lines)
    used = [line.split("uses: ")[1] for line in lines if "uses: " in line]
    assert all(one == "./harness" or len(one.split("@")[1].split(" ")[0]) == 40 for one in used)
    # What comes from the event reaches a shell through the environment only.
    for text in (workflow, action):
        commands = re.findall(r"^ *run: (?:\|\n((?: {8,}.*\n)+)|(.*))", text, re.MULTILINE)
        assert commands
        assert not any("${{" in part for command in commands for part in command)
