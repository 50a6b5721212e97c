"""Where a place stands in the quoted lines of a report."""

from __future__ import annotations

from harness.model import Location, SubmissionReport


def name_of(place: Location) -> str:
    """The place as text; what is not there has the folder for its place."""
    return "the folder" if place == Location(".") else str(place)


def shipped_line(report: SubmissionReport, place: Location) -> int | None:
    """The line of the file as shipped: for a packed script the one that unpacks it."""
    if not place.layer:
        return place.line
    excerpt = report.excerpts.get(place.file)
    return None if excerpt is None else excerpt.anchor


def quoted(report: SubmissionReport, place: Location, context: int = 0) -> list[tuple[int, str]]:
    """The line of a place and its neighbours, as far as they are quoted."""
    line, excerpt = place.line, report.excerpts.get(place.file)
    if line is None or excerpt is None or line not in excerpt.lines:
        return []
    found = {number: excerpt.lines.get(number) for number in range(line - context, line + context + 1)}
    return [(number, text) for number, text in found.items() if text is not None]
