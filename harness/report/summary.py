"""Many folders in three tables: verdicts, findings by rule, and how many facts of each kind could be read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from harness.model import Finding, Report, SubmissionReport, Value, Verdict

VERDICTS = (Verdict.PASS, Verdict.WARN, Verdict.UNDECIDED, Verdict.FAIL)


def render(report: Report) -> str:
    """The tables as plain text; a rule's last column counts the folders to which it does not apply."""
    submissions = report.submissions
    verdicts = Counter(submission.verdict for submission in submissions)
    lines = [f"{len(submissions)} folders: " + ", ".join(f"{verdicts[verdict]} {verdict}" for verdict in VERDICTS), ""]
    lines += _table(("rule", "name", *VERDICTS, "no matter"), list(_rule_rows(submissions)))
    lines += ["", *_table(("fact", "read", "missing"), list(_fact_rows(submissions)))]
    return "\n".join(lines) + "\n"


def _rule_rows(submissions: Sequence[SubmissionReport]) -> Iterator[tuple[str, ...]]:
    """One row for each rule that ran anywhere."""
    findings: dict[str, list[Finding]] = {}
    for submission in submissions:
        for finding in submission.findings:
            findings.setdefault(finding.rule, []).append(finding)
    for code in sorted(findings):
        counts = Counter(finding.verdict for finding in findings[code])
        silent = len(submissions) - len(findings[code])
        yield (code, findings[code][0].name, *(str(counts[verdict] or "-") for verdict in VERDICTS), str(silent or "-"))


def _fact_rows(submissions: Sequence[SubmissionReport]) -> Iterator[tuple[str, ...]]:
    """One row for each kind of fact, lists counted element by element."""
    read: Counter[str] = Counter()
    missing: Counter[str] = Counter()
    for submission in submissions:
        for name, found in _facts("", dict(submission.facts)):
            (read if found else missing)[name] += 1
    for name in sorted(read | missing):
        yield (name, str(read[name] or "-"), str(missing[name] or "-"))


def _facts(name: str, value: Value) -> Iterator[tuple[str, bool]]:
    """Every fact below a JSON value: its dotted name without list indices, and whether it was read."""
    if isinstance(value, list):
        for element in value:
            yield from _facts(name, element)
    elif isinstance(value, dict):
        if "missing" in value:
            yield name, False
        elif "value" in value and "path" in value:
            yield name, True
            yield from _facts(name, value["value"])
        else:
            yield from _members(name, value)


def _members(name: str, members: Mapping[str, Value]) -> Iterator[tuple[str, bool]]:
    for key, member in members.items():
        # Logged settings have as many names as there are scripts: they are one kind of fact.
        within = name if name.endswith("config") else f"{name}.{key}".lstrip(".")
        yield from _facts(within, member)


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Columns as wide as they need; all but the first two, or but the first where numbers follow, to the right."""
    texts = 2 if head[0] == "rule" else 1
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    return [
        "  ".join(
            cell.ljust(width) if column < texts else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in (head, *rows)
    ]
