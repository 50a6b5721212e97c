"""A calibration as text: tables by label, class, cluster and pair, then every row that is not as it should be."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from harness.report.plain import plain

OUTCOMES: Final = ("fail", "undecided", "warn", "silent", "crashed", "absent")
MESSAGE_CHARACTERS: Final = 300
Document = Mapping[str, Any]


def render(found: Document) -> str:
    """The measurement as plain text."""
    parts = (
        _summary(found["summary"], found["confidence"]),
        _labels(found["labels"]),
        _classes(found["classes"]),
        _clusters(found["clusters"]),
        _pairs(found["pairs"]),
        *_lists(found["rows"]),
        _ends(found),
    )
    texts = ["\n".join(map(plain, lines)) for lines in map(list, parts) if lines]
    return "\n\n".join(text for text in texts if text) + "\n"


def _share(value: Document) -> str:
    """`9 of 12, 75% (43-95%)`."""
    if not value["of"]:
        return "none"
    percent = 100 * value["count"] / value["of"]
    return f"{value['count']} of {value['of']}, {percent:.0f}% ({100 * value['low']:.0f}-{100 * value['high']:.0f}%)"


def _summary(summary: Document, confidence: float) -> Iterator[str]:
    yield f"Shares with exact {100 * confidence:.0f}% intervals; a fail counts only from a rule that fits the class."
    yield f"illegal, decidable by reading, that fail:  {_share(summary['caught'])}"
    yield f"  clusters of them that fail throughout:   {_share(summary['caught_clusters'])}"
    yield f"illegal, all of them, that fail or warn:   {_share(summary['noticed'])}"
    yield f"  not failed, but a line of it is named:   {_share(summary['pointed'])}"
    yield f"broken that fail:                          {_share(summary['broken'])}"
    yield f"legal that are accused:                    {_share(summary['accusations'])}"
    yield f"  clusters of them with an accusation:     {_share(summary['accused_clusters'])}"
    yield f"pairs with the right two verdicts:         {_share(summary['pairs'])}"
    yield f"not audited (see below):                   {summary['unavailable']}"
    yield f"crashes of the harness (see below):        {summary['crashed']}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    for row in (head, *rows):
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _counts(row: Document) -> list[str]:
    return [str(row[outcome] or "-") for outcome in OUTCOMES]


def _labels(table: Sequence[Document]) -> Iterator[str]:
    names = {True: "", False: ", beyond reading", None: ""}
    rows = [(row["label"] + names[row["readable"]], str(row["rows"]), *_counts(row)) for row in table]
    return _table(("label", "rows", *OUTCOMES), rows)


def _classes(table: Sequence[Document]) -> Iterator[str]:
    rows = []
    for row in table:
        rules = " ".join(row["rules"]) + ("" if row["known"] else " (unknown class: any rule on legality)")
        numbers = _counts(row)[:-1]
        rows.append((row["class"], *numbers, str(row["clusters"]), _share(row["caught"]), rules))
    return _table(("class", *OUTCOMES[:-1], "clusters", "caught by a rule of the class", "rules"), rows)


def _clusters(table: Sequence[Document]) -> Iterator[str]:
    rows = [(row["cluster"], str(row["rows"]), _share(row["caught"]), _share(row["accused"])) for row in table]
    return _table(("cluster", "rows", "illegal or broken that fail", "legal that are accused"), rows)


def _pairs(table: Sequence[Document]) -> Iterator[str]:
    for pair in table:
        told = "; ".join(f"{row['id']} ({row['label']}) {row['outcome']}" for row in pair["rows"])
        if pair["absent"]:
            yield f"pair  no twin   {told}; {pair['absent']} is not in the file"
        else:
            end = ("right" if pair["right"] else "wrong") if pair["counts"] else "open"
            yield f"pair  {end:<8}  {told}"


def _lists(rows: Sequence[Document]) -> Iterator[Iterator[str]]:
    """The rows, in groups by what has to be looked at."""
    wrong = [row for row in rows if row["label"] in {"illegal", "broken"} and row["outcome"] != "absent"]
    readable = [row for row in wrong if row["readable"]]
    right = [row for row in rows if row["label"] == "legal" and row["outcome"] != "absent"]
    yield _group("Caught", [row for row in readable if row["outcome"] == "fail"], _told)
    yield _group("Not caught", [row for row in readable if row["outcome"] != "fail"], _told)
    yield _group("Beyond reading", [row for row in wrong if not row["readable"]], _told)
    yield _group("FALSE ACCUSATIONS of legal submissions", [row for row in right if row["outcome"] == "fail"], _told)
    yield _group("Legal, failing rules that accuse nobody", [row for row in right if row["other_fails"]], _others)
    yield _group("Disputed, failing", [row for row in rows if row["label"] == "disputed" and _fails(row)], _told)
    yield _group("Not audited", [row for row in rows if row["outcome"] == "absent"], _problem)
    yield _group("Crashed", [row for row in rows if row["problem"] and row["outcome"] != "absent"], _problem)


def _fails(row: Document) -> bool:
    return bool(row["outcome"] == "fail" or row["other_fails"])


def _group(title: str, rows: Sequence[Document], told: Callable[[Document], Iterator[str]]) -> Iterator[str]:
    if rows:
        yield f"{title} ({len(rows)})"
        for row in rows:
            yield f"  {row['id']} [{row['cluster']}; {', '.join(row['classes'])}] {row['seconds']:.2f} s"
            yield from told(row)


def _told(row: Document) -> Iterator[str]:
    """What the fitting rules say, then what the others fail on."""
    if row["problem"]:
        yield from _problem(row)
    elif not row["findings"]:
        yield f"    silent: {' '.join(row['fitting_rules'])} say nothing"
    for finding in row["findings"]:
        yield f"    {_sentence(finding)}"
    if row["line_distance"] is not None:
        yield f"    nearest key line: {row['line_distance']} lines away"
    yield from _others(row)
    if row["environment"]:
        yield f"    the label says of the environment: {row['environment']}"


def _others(row: Document) -> Iterator[str]:
    for finding in row["other_fails"]:
        yield f"    another family: {_sentence(finding)}"


def _problem(row: Document) -> Iterator[str]:
    yield f"    {row['problem']}"


def _sentence(finding: Document) -> str:
    places = [f"{place['path']}:{place['line']}" for place in finding["locations"] if "line" in place]
    text = f"{finding['verdict']} {finding['rule']} {finding['message']}"
    short = text if len(text) <= MESSAGE_CHARACTERS else text[: MESSAGE_CHARACTERS - 3] + "..."
    return f"{short} [{', '.join(places[:3])}]" if places else short


def _ends(found: Document) -> Iterator[str]:
    if found["unknown_classes"]:
        names = ", ".join(found["unknown_classes"])
        yield f"Classes of unknown meaning, for which any rule on legality counts: {names}"
    seconds = found["seconds"]
    slowest = ", ".join(f"{one['id']} {one['seconds']:.2f} s" for one in seconds["slowest"])
    yield f"{len(found['rows'])} rows in {seconds['elapsed']:.1f} s; slowest: {slowest}"
