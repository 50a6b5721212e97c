"""A survey of many pull requests as text: what went wrong, what each rule said and where, and what it cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from harness.model import Verdict
from harness.report.plain import plain

EXAMPLES: Final = 3
SLOWEST: Final = 5
VERDICTS: Final = (Verdict.PASS, Verdict.WARN, Verdict.UNDECIDED, Verdict.FAIL)
Row = Mapping[str, Any]


def render(rows: Sequence[Row]) -> str:
    """The survey as plain text."""
    folders = [(row, folder) for row in rows for folder in row["folders"]]
    verdicts = Counter(folder["verdict"] or "not audited" for _, folder in folders)
    counts = ", ".join(f"{verdicts[name]} {name}" for name in (*VERDICTS, "not audited"))
    lines = [f"{len(rows)} heads, {len(folders)} folders: {counts}", "", *_problems(rows), *_costs(rows)]
    return "\n".join(map(plain, [*lines, "", *_rules(folders)])) + "\n"


def problems(rows: Sequence[Row]) -> int:
    """How many heads hung or crashed, rules that raised included."""
    return sum(bool(row["failure"]) or any(folder["crashes"] for folder in row["folders"]) for row in rows)


def _problems(rows: Sequence[Row]) -> Iterator[str]:
    for row in rows:
        if row["failure"]:
            yield f"{row['reference']}: {row['failure']}"
        for folder in row["folders"]:
            place = f"{row['reference']} {folder['folder']}"
            yield from (f"{place}: the harness itself failed: {crash}" for crash in folder["crashes"])
            if folder["refused"]:
                yield f"{place}: not audited: {folder['refused']}"


def _costs(rows: Sequence[Row]) -> Iterator[str]:
    slowest = sorted(rows, key=lambda row: -row["seconds"])[:SLOWEST]
    if slowest:
        yield "slowest: " + ", ".join(f"{row['reference']} {row['seconds']:.2f} s" for row in slowest)
    largest = max(rows, key=lambda row: row["peak_bytes"] or 0, default=None)
    if largest is not None and largest["peak_bytes"]:
        yield f"most memory: {largest['reference']} {largest['peak_bytes'] / 1e6:.0f} MB"


def _rules(folders: Sequence[tuple[Row, Row]]) -> Iterator[str]:
    """One line for each rule, and below it examples of what it says worst."""
    found: dict[str, list[tuple[Row, Row]]] = {}
    for row, folder in folders:
        for finding in folder["findings"]:
            found.setdefault(finding["rule"], []).append((row, finding))
    yield f"{'rule':<6} {'name':<32} " + " ".join(f"{verdict:>9}" for verdict in VERDICTS)
    for code in sorted(found):
        counts = Counter(finding["verdict"] for _, finding in found[code])
        numbers = " ".join(f"{counts[verdict] or '-':>9}" for verdict in VERDICTS)
        yield f"{code:<6} {found[code][0][1]['name']:<32} {numbers}"
        yield from _examples(found[code], counts)


def _examples(findings: Sequence[tuple[Row, Row]], counts: Mapping[str, int]) -> Iterator[str]:
    """Some of the failures and warnings; of the undecided only where there is nothing worse to look at."""
    shown = [verdict for verdict in (Verdict.FAIL, Verdict.WARN) if counts[verdict]] or [Verdict.UNDECIDED]
    for verdict in shown:
        for row, finding in [pair for pair in findings if pair[1]["verdict"] == verdict][:EXAMPLES]:
            place = finding["places"][0] if finding["places"] else "."
            yield f"         {verdict}: {row['reference']} {place}: {finding['message']}"
