"""Each rule on record folders of our own making: `tests/rules/PGnnn/{pass,warn,fail,undecided}/`.

`ordinary/` is a whole folder in which every rule passes. A case holds the files that differ from it, and its file
`ABSENT` names those that it lacks.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from harness import audit
from harness.checks import RULES
from harness.model import Evidence, Status, Verdict
from tests.factories import AnyRule

ROOT = Path(__file__).parent / "rules"
CASES = sorted(path.relative_to(ROOT) for path in ROOT.glob("PG*/*") if path.is_dir())
FOLDER_RULES = [rule for rule in RULES if rule.needs is Evidence.FOLDER]
RECOUNT_RULES = [rule for rule in RULES if rule.needs is Evidence.RECOUNT]
# Rules whose missing fact is the defect itself.
NEVER_UNDECIDED = {"PG001", "PG002"}
# What cannot be read is a link, which a checkout may not keep: it has a test of its own below.
LINKS = {"PG010"}


def build(case: Path, where: Path) -> Path:
    """The ordinary folder with the case's differences, on the record track."""
    folder = where / "track_10min_16mb" / "2026-04-01_Case"
    shutil.copytree(ROOT / "ordinary", folder)
    shutil.copytree(ROOT / case, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("ABSENT"))
    absent = ROOT / case / "ABSENT"
    for name in absent.read_text(encoding="utf-8").split() if absent.is_file() else ():
        (folder / name).unlink()
    return folder


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_rule_ends_as_its_case_folder_says(case: Path, tmp_path: Path) -> None:
    code, verdict = case.parts
    recount = code in {rule.code for rule in RECOUNT_RULES}
    audited = audit.audit_folder(build(case, tmp_path), audit.Options(frozenset({code}), recount=recount))
    assert audited.report is not None, audited.crashes or audited.refused
    [finding] = audited.report.findings
    assert finding.verdict == verdict, finding.message
    assert finding.message.endswith(".")
    assert all((tmp_path / "track_10min_16mb" / "2026-04-01_Case" / place.path).exists() for place in finding.locations)


def test_every_rule_passes_on_the_ordinary_folder(tmp_path: Path) -> None:
    options = audit.Options(frozenset(rule.code for rule in FOLDER_RULES))
    audited = audit.audit_folder(build(Path("ordinary"), tmp_path), options)
    assert audited.report is not None
    assert {finding.rule: finding.message for finding in audited.report.findings if finding.verdict != "pass"} == {}
    assert len(audited.report.findings) == len(FOLDER_RULES)


def test_a_link_that_leaves_the_folder_is_refused(tmp_path: Path) -> None:
    folder = build(Path("ordinary"), tmp_path)
    (folder / "data.bin").symlink_to("/etc/hostname")
    audited = audit.audit_folder(folder, audit.Options(frozenset({"PG010"})))
    assert audited.report is not None
    assert audited.report.verdict is Verdict.UNDECIDED


@pytest.mark.parametrize("rule", [*FOLDER_RULES, *RECOUNT_RULES], ids=lambda rule: rule.code)
def test_every_rule_has_its_cases(rule: AnyRule) -> None:
    found = {case.name for case in CASES if case.parts[0] == rule.code}
    assert "pass" in found
    assert rule.code in NEVER_UNDECIDED | LINKS or "undecided" in found
    assert rule.code in LINKS or found & ({"fail", "warn"} if rule.status is Status.SETTLED else {"warn"})
    assert rule.status is Status.SETTLED or "fail" not in found
