"""The report as SARIF 2.1.0, fit for GitHub's code scanning: one result for each finding that did not pass.

Paths are relative to the repository's root. A place in a packed script stands at the line of the shipped file that
unpacks it; the message names the inner line.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from harness.model import Finding, Location, Report, SubmissionReport, Value, Verdict
from harness.report import quotes, rulepages
from harness.report.plain import plain
from harness.report.quotes import name_of
from harness.report.rulepages import AnyRule

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
LEVELS = {Verdict.FAIL: "error", Verdict.WARN: "warning", Verdict.UNDECIDED: "note"}
# What GitHub takes: https://docs.github.com/en/code-security/code-scanning, "SARIF support".
RESULTS_LIMIT = 25_000
RELATED_LIMIT = 100
TEXT_LIMIT_CHARACTERS = 4_000
EVERYTHING_FINE = 0
# The base that relative paths count from, as GitHub and editors name it.
ROOT_ID = "%SRCROOT%"
# An opening bracket that would start an embedded link.
_LINK = re.compile(r"\[(?=[^\]]*\]\()")


def render(
    report: Report,
    rules: Sequence[AnyRule] = (),
    folders: Mapping[str, str] | None = None,
    status: int = EVERYTHING_FINE,
) -> str:
    """The document as text.

    Args:
        report: the report.
        rules: the catalogue, for help texts.
        folders: the path of each folder relative to the repository's root; default: as the folder was named.
        status: exit status of the command.
    """
    return (
        json.dumps(document(report, rules, folders or {}, status), indent=1, ensure_ascii=True, allow_nan=False) + "\n"
    )


def document(report: Report, rules: Sequence[AnyRule], folders: Mapping[str, str], status: int) -> dict[str, Any]:
    """The document."""
    every = [
        (submission, finding)
        for submission in report.submissions
        for finding in submission.findings
        if finding.verdict is not Verdict.PASS
    ]
    every.sort(key=lambda pair: -pair[1].verdict.severity)
    used = sorted({finding.rule for submission in report.submissions for finding in submission.findings})
    known = {rule.code: rule for rule in rules}
    index = {code: number for number, code in enumerate(used)}
    results = [_result(one, finding, folders, index) for one, finding in every[:RESULTS_LIMIT]]
    run = {
        "tool": {"driver": _driver(report, [known.get(code) or code for code in used])},
        "invocations": [_invocation(status, len(every) - len(results))],
        "columnKind": "unicodeCodePoints",
        "results": results,
        "properties": {"edition": report.edition, "verdicts": _verdicts(report, folders)},
    }
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}


def _driver(report: Report, rules: Sequence[AnyRule | str]) -> dict[str, Any]:
    return {
        "name": "harness",
        "fullName": "Parameter Golf harness",
        "version": report.tool_version,
        "rules": [{"id": rule} if isinstance(rule, str) else _rule(rule) for rule in rules],
    }


def _rule(rule: AnyRule) -> dict[str, Any]:
    """A rule with its page as help."""
    title, sections = rulepages.parts(rule)
    state = f"Family {rule.family}; status {rule.status}; authority: {rule.authority}."
    page = [state, *(f"{name}: {body}" for name, body in sections)]
    return {
        "id": rule.code,
        "name": "".join(part.capitalize() for part in rule.name.split("-")),
        "shortDescription": {"text": title},
        "fullDescription": {"text": title},
        "help": {"text": "\n\n".join(page), "markdown": "\n\n".join([state, *(f"## {n}\n\n{b}" for n, b in sections)])},
        "defaultConfiguration": {"level": "error" if rule.status == "settled" else "warning"},
        "properties": {"tags": [rule.family, rule.status.value], "authority": rule.authority},
    }


def _invocation(status: int, left_out: int) -> dict[str, Any]:
    """How the command ended; `executionSuccessful` says whether it could judge, not what it found."""
    told: dict[str, Any] = {"executionSuccessful": status not in {2, 3}, "exitCode": status}
    if left_out:
        text = f"{left_out:,} results are left out: {RESULTS_LIMIT:,} are the most that are taken."
        told["toolExecutionNotifications"] = [{"level": "warning", "message": {"text": text}}]
    return told


def _verdicts(report: Report, folders: Mapping[str, str]) -> dict[str, str]:
    return {_folder(submission, folders): submission.verdict.value for submission in report.submissions}


def _folder(report: SubmissionReport, folders: Mapping[str, str]) -> str:
    return plain(folders.get(report.folder, report.folder)).strip("/") or "."


def _result(
    report: SubmissionReport, finding: Finding, folders: Mapping[str, str], index: Mapping[str, int]
) -> dict[str, Any]:
    folder = _folder(report, folders)
    places = finding.locations[:RELATED_LIMIT] or (Location("."),)
    related = [
        {"id": number, "message": {"text": _cut(name_of(place))}, **_location(report, place, folder)}
        for number, place in enumerate(places, start=1)
    ]
    result: dict[str, Any] = {
        "ruleId": finding.rule,
        "ruleIndex": index[finding.rule],
        "level": LEVELS[finding.verdict],
        "message": {"text": _message(report, finding, places)},
        "locations": [_location(report, places[0], folder)],
        "partialFingerprints": _fingerprints(report, finding, folder),
        "properties": {
            "verdict": finding.verdict.value,
            "status": finding.status.value,
            "values": dict(finding.values),
        },
    }
    if len(related) > 1:
        result["relatedLocations"] = related
    return result


def _message(report: SubmissionReport, finding: Finding, places: Sequence[Location]) -> str:
    """The sentence, the submission, and links to the places."""
    text = f"{_text(finding.message)} ({_text(report.name)}"
    if finding.status != "settled":
        text += f"; {finding.status}: {_text(finding.authority)}"
    text += ")"
    if len(places) > 1:
        links = [f"[{_bracketed(name_of(place))}]({number})" for number, place in enumerate(places, start=1)]
        return f"{text} At {', '.join(links)}."
    return text if places[0] == Location(".") else f"{text} At {_text(str(places[0]))}."


def _text(text: str) -> str:
    """Untrusted text that holds no embedded link."""
    return _LINK.sub(r"\\[", _cut(text))


def _cut(text: str) -> str:
    text = plain(text)
    return text if len(text) <= TEXT_LIMIT_CHARACTERS else text[: TEXT_LIMIT_CHARACTERS - 1] + "…"


def _bracketed(text: str) -> str:
    """Untrusted text as the label of an embedded link."""
    return re.sub(r"([\[\]\\])", r"\\\1", _cut(text))


def _location(report: SubmissionReport, place: Location, folder: str) -> dict[str, Any]:
    """A place; what belongs to the whole folder stands at one of its files, since code scanning shows only files."""
    path = place.path if place.path != "." else _face(report.facts)
    parts = [part for part in (folder, path) if part != "."]
    region: dict[str, Any] = {"startLine": quotes.shipped_line(report, place) or 1}
    lines = quotes.quoted(report, place)
    if lines and not place.layer:
        region["snippet"] = {"text": plain(lines[0][1])}
    uri = quote("/".join(parts) or ".", safe="/", errors="replace")
    return {"physicalLocation": {"artifactLocation": {"uri": uri, "uriBaseId": ROOT_ID}, "region": region}}


def _face(facts: Mapping[str, Value]) -> str:
    """A file that stands for the whole folder: README, manifest, or whichever comes first."""
    package = facts.get("package")
    known = package if isinstance(package, dict) else {}
    for name in ("readme", "manifest"):
        fact = known.get(name)
        if isinstance(fact, dict) and isinstance(fact.get("value"), str):
            return str(fact["value"])
    files = known.get("files")
    first = files[0] if isinstance(files, list) and files else None
    return str(first["path"]) if isinstance(first, dict) and "path" in first else "README.md"


def _fingerprints(report: SubmissionReport, finding: Finding, folder: str) -> dict[str, str]:
    """The same for the same finding after lines have moved: rule, file, and the text of the line."""
    place = finding.locations[0] if finding.locations else Location(".")
    lines = quotes.quoted(report, place)
    at = lines[0][1].strip() if lines else place.pointer or ""
    digest = hashlib.sha256(f"{finding.rule}\n{folder}\n{place.file}\n{at}".encode("utf-8", "replace")).hexdigest()
    return {"primaryLocationLineHash": f"{digest[:32]}:1", "harnessFinding/v1": digest}
