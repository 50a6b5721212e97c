"""A leaderboard document for a terminal (narrow and wide) and as Markdown."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from rich import box
from rich.console import Console, JustifyMethod
from rich.table import Table
from rich.text import Text

from harness.model import Verdict
from harness.report.plain import plain
from harness.report.terminal import rendered
from harness.report.text import STYLES, WIDE_COLUMNS

TITLES: Final = {"record": "Record track", "non-record": "Non-record track", "": "No track stated"}
ABSENT: Final = "-"
LEGEND: Final = (
    "n: runs. p above: one-sided Welch test that the row above is better; p record: that the row is better than the "
    "record, the best row of an earlier date. Without two runs on both sides there is none. bytes: the largest run's; "
    "seconds: the slowest run's. A systems-only change needs no significance: people decide."
)
Row = Mapping[str, Any]


def _number(key: str, form: str) -> Callable[[Row], str]:
    return lambda row: ABSENT if row.get(key) is None else format(row[key], form)


def _p_value(key: str) -> Callable[[Row], str]:
    def cell(row: Row) -> str:
        test = row.get(key)
        if not test or test["p_value"] is None:
            return ABSENT
        return f"{test['p_value']:.3f}" if test["p_value"] >= 0.001 else "<0.001"

    return cell


def _gain(row: Row) -> str:
    test = row.get("against_record")
    return ABSENT if not test else f"{test['difference_bpb']:+.4f}"


def _verdict(row: Row) -> str:
    failed = " ".join(row.get("failed") or ())
    return f"{row.get('verdict') or ABSENT} {failed}".strip()


def _text(key: str) -> Callable[[Row], str]:
    return lambda row: str(row.get(key) or ABSENT)


# Title, whether a narrow terminal shows it, and the cell.
COLUMNS: Final[tuple[tuple[str, bool, Callable[[Row], str]], ...]] = (
    ("#", True, _number("rank", "d")),
    ("val_bpb", True, _number("mean_bpb", ".5f")),
    ("n", True, _number("count", "d")),
    ("std", False, _number("deviation_bpb", ".5f")),
    ("p above", False, _p_value("against_row_above")),
    ("to record", False, _gain),
    ("p record", True, _p_value("against_record")),
    ("bytes", False, _number("artifact_bytes", ",d")),
    ("train s", False, _number("train_seconds", ".0f")),
    ("eval s", False, _number("eval_seconds", ".0f")),
    ("date", False, _text("date")),
    ("verdict", True, _verdict),
    ("folder", True, _text("name")),
)
TEXT_COLUMNS: Final = frozenset({"date", "verdict", "folder"})


def text(document: Mapping[str, Any], width: int, *, color: bool) -> str:
    """The document as tables, one for each track, and below them the folders without a score."""

    def write(console: Console) -> None:
        for title, rows in _tracks(document["rows"]):
            console.print(Text(f"{title}: {len(rows)} folders", style="bold"))
            console.print(_table(rows, wide=width >= WIDE_COLUMNS))
        if document["rows"]:
            console.print(Text(LEGEND, style="dim"))
        for one in document.get("unranked", ()):
            console.print(Text(plain(f"without a score: {one['folder']}: {one['reason']}")))

    return rendered(write, width, color=color)


def _tracks(rows: Sequence[Row]) -> list[tuple[str, list[Row]]]:
    """Title and rows of each track that has any."""
    tracks = [(title, [row for row in rows if (row.get("track") or "") == key]) for key, title in TITLES.items()]
    return [(title, found) for title, found in tracks if found]


def _table(rows: Sequence[Row], *, wide: bool) -> Table:
    columns = [column for column in COLUMNS if wide or column[1]]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for title, _, _ in columns:
        justify: JustifyMethod = "left" if title in TEXT_COLUMNS else "right"
        table.add_column(title, justify=justify, overflow="fold", no_wrap=title not in {"folder", "verdict"})
    for row in rows:
        table.add_row(*[_styled(title, plain(cell(row)), row) for title, _, cell in columns])
    return table


def _styled(title: str, cell: str, row: Row) -> Text:
    known = row.get("verdict") in set(Verdict)
    return Text(cell, style=STYLES[Verdict(row["verdict"])] if title == "verdict" and known else "")


def markdown(document: Mapping[str, Any]) -> str:
    """The document as Markdown tables."""
    lines: list[str] = []
    for title, rows in _tracks(document["rows"]):
        lines += [f"## {title}", "", "| " + " | ".join(name for name, _, _ in COLUMNS) + " |"]
        lines.append("|" + "|".join("---" if name in TEXT_COLUMNS else "--:" for name, _, _ in COLUMNS) + "|")
        lines += ["| " + " | ".join(_escaped(cell(row)) for _, _, cell in COLUMNS) + " |" for row in rows]
        lines.append("")
    lines += [LEGEND, ""] if document["rows"] else []
    unranked = document.get("unranked", ())
    if unranked:
        lines += ["## Without a score", ""]
        lines += [f"- {_escaped(one['folder'])}: {_escaped(one['reason'])}" for one in unranked]
    return "\n".join(lines).rstrip("\n") + "\n"


def _escaped(cell: str) -> str:
    """Text that no reader of Markdown takes for markup, a link or a mention."""
    marks = {ord(mark): f"\\{mark}" for mark in "\\`*_{}[]<>#|!~"}
    return plain(cell).translate(marks).replace("@", "@\u200b")
