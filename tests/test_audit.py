"""Running rules over facts: order, verdicts, crashes, and many folders at once."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path

import pytest

from harness import audit
from harness.challenge import EDITIONS
from harness.checks import RULES
from harness.facts.submission import Submission
from harness.model import Evidence, HarnessError, Missing, Outcome, Status, SubmissionReport, Verdict, rule
from tests import factories
from tests.factories import at

EVERY = frozenset(rule.code for rule in RULES)


def made(code: str, verdict: Verdict | None, status: Status = Status.SETTLED, **changes: Evidence) -> factories.AnyRule:
    @rule(code, f"rule-{code.lower()}", family="size", status=status, authority="a test", **changes)
    def check(_: Submission) -> Outcome | None:
        return None if verdict is None else Outcome(verdict, f"{code} says so.", notes=(f"note of {code}",))

    return check


def judged(*rules: factories.AnyRule, has_reproduction: bool = False) -> SubmissionReport:
    return audit.audit(factories.submission(), rules, EDITIONS[0], has_reproduction=has_reproduction)


def test_findings_stand_worst_first_and_the_worst_is_the_verdict() -> None:
    report = judged(
        made("PG101", Verdict.PASS),
        made("PG102", Verdict.WARN),
        made("PG103", Verdict.FAIL),
        made("PG104", Verdict.UNDECIDED),
    )
    assert [finding.rule for finding in report.findings] == ["PG103", "PG104", "PG102", "PG101"]
    assert report.verdict is Verdict.FAIL


def test_what_is_absent_is_placed_at_the_folder() -> None:
    (finding,) = judged(made("PG001", Verdict.FAIL)).findings
    assert [str(place) for place in finding.locations] == ["."]


def test_a_rule_that_does_not_apply_does_not_count() -> None:
    report = judged(made("PG101", None))
    assert report.findings == ()
    assert report.verdict is Verdict.PASS


def test_notes_are_collected_and_the_edition_is_told() -> None:
    report = judged(made("PG101", Verdict.PASS))
    assert report.notes[-1] == "note of PG101"
    assert EDITIONS[0].name in report.notes[0]


def test_rules_without_their_evidence_are_listed_with_the_command() -> None:
    needy = made("PG801", Verdict.FAIL, needs=Evidence.REPRODUCTION)
    report = judged(needy)
    assert report.verdict is Verdict.PASS
    assert report.not_exercised[0].command == f"harness reproduce {factories.submission().folder}"
    assert judged(needy, has_reproduction=True).verdict is Verdict.FAIL


def test_a_folder_name_in_a_command_is_quoted() -> None:
    submission = factories.submission(folder="a b; rm -rf ~")
    needy = made("PG801", Verdict.FAIL, needs=Evidence.REPRODUCTION)
    report = audit.audit(submission, [needy], EDITIONS[0], has_reproduction=False)
    assert report.not_exercised[0].command == "harness reproduce 'a b; rm -rf ~'"


def broken(_: Submission) -> Outcome | None:
    raise ZeroDivisionError("a bug")


def test_a_crash_names_rule_folder_and_error_and_keeps_the_other_findings() -> None:
    bad = rule("PG199", "bug", family="size", status=Status.SETTLED, authority="a test")(broken)
    with pytest.raises(audit.RuleCrashed) as caught:
        judged(bad, made("PG101", Verdict.WARN))
    assert "PG199 on records/track_10min_16mb/2026-04-01_Ordinary: ZeroDivisionError: a bug at test_audit.py:" in str(
        caught.value
    )
    assert [finding.rule for finding in caught.value.report.findings] == ["PG101"]


@pytest.mark.parametrize("status", [Status.POLICY, Status.DISPUTED])
def test_a_rule_that_is_not_settled_may_not_fail(status: Status) -> None:
    with pytest.raises(audit.RuleCrashed, match="may not fail"):
        judged(made("PG101", Verdict.FAIL, status))


def test_the_edition_follows_the_date() -> None:
    early, late = (factories.manifest(date=at(dt.date(2026, month, 30))) for month in (3, 4))
    undated = factories.manifest(date=Missing("no date"))
    assert audit.edition_for(factories.submission(claims=early), "") == EDITIONS[0]
    assert audit.edition_for(factories.submission(claims=late), "") == EDITIONS[1]
    assert audit.edition_for(factories.submission(claims=undated), "") == EDITIONS[-1]
    assert audit.edition_for(factories.submission(claims=late), EDITIONS[0].name) == EDITIONS[0]


def folder(root: Path, name: str, date: str = "2026-04-01") -> Path:
    path = root / name
    path.mkdir()
    document = {"name": name, "author": "a", "github_id": "a", "date": date, "val_bpb": 1.2345}
    (path / "submission.json").write_text(json.dumps(document), encoding="utf-8")
    (path / "README.md").write_text("# A record\n", encoding="utf-8")
    return path


def test_many_folders_come_back_in_order_and_alike_from_workers(tmp_path: Path) -> None:
    folders = [folder(tmp_path, f"run{number}") for number in range(6)]
    options = audit.Options(EVERY)
    alone = [audit.audit_folder(path, options) for path in folders]
    together = list(audit.audit_folders(folders, options, workers=2))
    assert together == alone
    assert [one.report.name for one in together if one.report] == [f"run{number}" for number in range(6)]


def test_what_is_no_record_folder_is_refused_without_ending_the_rest(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    folders = [tmp_path / "empty", tmp_path / "absent", folder(tmp_path, "good")]
    empty, absent, good = audit.audit_folders(folders, audit.Options(EVERY))
    assert "not a record folder" in empty.refused
    assert "absent" in absent.refused
    assert good.report is not None
    assert audit.report_of([empty, absent, good]).submissions == (good.report,)


def test_a_folder_of_record_folders_is_refused_with_a_hint(tmp_path: Path) -> None:
    (folder(tmp_path, "one") / "train_gpt.py").write_text("print(1)\n", encoding="utf-8")
    audited = audit.audit_folder(tmp_path, audit.Options(EVERY))
    assert audited.report is None
    assert "name the record folders inside it" in audited.refused


def test_our_mistake_while_reading_is_told_with_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(_: Path) -> Submission:
        raise KeyError("our mistake")

    monkeypatch.setattr("harness.facts.submission.read", read)
    audited = audit.audit_folder(tmp_path, audit.Options(EVERY))
    assert audited.report is None
    assert str(tmp_path) in audited.crashes[0]


def test_folders_of_different_editions_are_judged_by_date(tmp_path: Path) -> None:
    audited = [
        audit.audit_folder(folder(tmp_path, name, date), audit.Options(EVERY))
        for name, date in (("early", "2026-03-20"), ("late", "2026-04-30"))
    ]
    assert audit.report_of(audited).edition == "by date"
    assert audit.report_of(audited[:1]).edition == EDITIONS[0].name


def test_only_the_selected_rules_run(tmp_path: Path) -> None:
    audited = audit.audit_folder(folder(tmp_path, "one"), audit.Options(frozenset({"PG001"})))
    assert audited.report is not None
    assert [finding.rule for finding in audited.report.findings] == ["PG001"]


def test_evidence_that_is_no_evidence_is_refused(tmp_path: Path) -> None:
    (tmp_path / "evidence").mkdir()
    with pytest.raises(HarnessError):
        audit.read(folder(tmp_path, "one"), tmp_path / "evidence")
