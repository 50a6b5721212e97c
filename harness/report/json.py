"""The report as JSON, `report/1` of `schemas/report.schema.json`."""

from __future__ import annotations

import json
from typing import Any

from harness.model import Finding, Location, Report, SubmissionReport

SCHEMA = "report/1"


def document(report: Report) -> dict[str, Any]:
    """The report as a JSON document."""
    return {
        "schema": SCHEMA,
        "tool": {"name": "harness", "version": report.tool_version},
        "edition": report.edition,
        "submissions": [_submission(one) for one in report.submissions],
    }


def render(report: Report) -> str:
    """The document as text, ASCII only: escapes of untrusted characters stay escapes."""
    return json.dumps(document(report), indent=2, ensure_ascii=True, allow_nan=False) + "\n"


def _submission(report: SubmissionReport) -> dict[str, Any]:
    return {
        "folder": report.folder,
        "name": report.name,
        "verdict": report.verdict.value,
        "facts": dict(report.facts),
        "findings": [_finding(finding) for finding in report.findings],
        "notes": list(report.notes),
        "not_exercised": [{"rule": item.rule, "command": item.command} for item in report.not_exercised],
    }


def _finding(finding: Finding) -> dict[str, Any]:
    return {
        "rule": finding.rule,
        "name": finding.name,
        "family": finding.family,
        "verdict": finding.verdict.value,
        "message": finding.message,
        "values": dict(finding.values),
        "locations": [location_of(location) for location in finding.locations],
        "authority": finding.authority,
        "status": finding.status.value,
    }


def location_of(location: Location) -> dict[str, Any]:
    """A location, with those of its parts that are known."""
    parts: dict[str, Any] = {"path": location.path}
    if location.line is not None:
        parts["line"] = location.line
    if location.pointer is not None:
        parts["pointer"] = location.pointer
    if location.layer:
        parts["layer"] = location.layer
    return parts
