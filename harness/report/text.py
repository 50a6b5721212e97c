"""The report for a terminal: verdict first, findings worst first, readable narrow and wide."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from harness.model import Finding, Location, NotExercised, Report, SubmissionReport, Verdict
from harness.report import quotes, values
from harness.report.commands import by_command
from harness.report.plain import plain
from harness.report.terminal import rendered

STYLES = {
    Verdict.FAIL: "bold red",
    Verdict.UNDECIDED: "bold magenta",
    Verdict.WARN: "bold yellow",
    Verdict.PASS: "green",
}
WORST_FIRST = sorted(Verdict, key=lambda verdict: -verdict.severity)
LOCATIONS_SHOWN = 4
LINES_SHOWN = 3
# What fails a submission is proved by a path of lines: more of them.
LINES_SHOWN_OF_FAIL = 8
WIDE_COLUMNS = 100


def render(report: Report, width: int, *, color: bool) -> str:
    """The report as text.

    Args:
        report: the report.
        width: columns of the terminal.
        color: whether to use colour; without it the text holds no escape sequence at all.
    """

    def write(console: Console) -> None:
        for submission in report.submissions:
            _submission(console, submission)
        if len(report.submissions) > 1:
            _summary(console, report.submissions)

    return rendered(write, width, color=color)


def _submission(console: Console, report: SubmissionReport) -> None:
    """One folder: verdict, findings, notes, and what did not run."""
    console.print(Text.assemble((report.verdict.upper(), STYLES[report.verdict]), "  ", (plain(report.name), "bold")))
    console.print(Text(f"{plain(report.folder)}: {_counts(report.findings)}"))
    for finding in report.findings:
        if finding.verdict is not Verdict.PASS:
            _finding(console, report, finding)
    passed = [f"{finding.rule} {finding.message}" for finding in report.findings if finding.verdict is Verdict.PASS]
    _section(console, "Passed", passed, style="dim")
    _section(console, "Notes", report.notes)
    _section(console, "Not exercised", _commands(report.not_exercised))
    console.print()


def _section(console: Console, title: str, lines: Sequence[str], style: str = "") -> None:
    """A heading and its indented lines; nothing at all when there are none."""
    if lines:
        console.print(Text(title, style="bold"))
    for line in lines:
        console.print(Padding(Text(plain(line), style=style), (0, 0, 0, 2)))


def _finding(console: Console, report: SubmissionReport, finding: Finding) -> None:
    """One finding: what it says, where, the lines there, and its tables."""
    head = Text.assemble((finding.verdict.value, STYLES[finding.verdict]), f" {finding.rule} {finding.name}")
    if finding.verdict is Verdict.FAIL or finding.status != "settled":
        head.append(f" ({finding.status}: {plain(finding.authority)})", style="dim")
    console.print(Padding(head, (0, 0, 0, 2)))
    console.print(Padding(Text(plain(finding.message)), (0, 0, 0, 4)))
    told = [place for place in finding.locations if place != Location(".")]
    count = LINES_SHOWN_OF_FAIL if finding.verdict is Verdict.FAIL else LINES_SHOWN
    shown = [place for place in told[:count] if quotes.quoted(report, place)]
    for place in shown:
        console.print(Padding(_line(report, place, console.width), (0, 0, 0, 4)))
    rest = [place for place in told if place not in shown]
    if rest:
        console.print(Padding(Text(_places(rest), style="cyan"), (0, 0, 0, 4)))
    for rows in values.tables(finding.values):
        console.print(Padding(_table(rows), (0, 0, 0, 4)))


def _line(report: SubmissionReport, place: Location, width: int) -> Text:
    """A place and the line that it names, cut to the terminal; below the place where that is narrow."""
    name = f"at {plain(str(place))}"
    between = "  " if width >= WIDE_COLUMNS else "\n  "
    line = Text(plain(quotes.quoted(report, place)[0][1].strip()))
    line.truncate(max(width - 6 - (cell_len(name) if width >= WIDE_COLUMNS else 2), 8), overflow="ellipsis")
    return Text.assemble((name, "cyan"), between, line)


def _table(rows: values.Rows) -> Table:
    """A value that is a list of rows."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), title=None, expand=False)
    for heading in rows.head:
        table.add_column(Text(plain(heading)), overflow="fold")
    for row in rows.rows:
        table.add_row(*(Text(plain(cell)) for cell in row))
    if rows.cut:
        table.add_row(Text(f"and {rows.cut} more"))
    return table


def _places(locations: Sequence[Location]) -> str:
    shown = ", ".join(plain(str(location)) for location in locations[:LOCATIONS_SHOWN])
    more = len(locations) - LOCATIONS_SHOWN
    return f"at {shown}" + (f" and {more} more" if more > 0 else "")


def _counts(findings: Sequence[Finding]) -> str:
    """`1 fail, 2 warn, 20 pass`."""
    count = Counter(finding.verdict for finding in findings)
    return ", ".join(f"{count[verdict]} {verdict}" for verdict in WORST_FIRST if count[verdict]) or "no rule ran"


def _commands(items: Sequence[NotExercised]) -> list[str]:
    """One line for each command, with the rules that it would run."""
    return [f"{', '.join(codes)}: run `{command}`" for command, codes in by_command(items)]


def _summary(console: Console, reports: Sequence[SubmissionReport]) -> None:
    """A table with one row for each folder, and the totals."""
    wide = console.width >= WIDE_COLUMNS
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, expand=False)
    table.add_column("Verdict", no_wrap=True)
    table.add_column("Folder", overflow="fold")
    if wide:
        for verdict in WORST_FIRST:
            table.add_column(verdict.value, justify="right", no_wrap=True)
        table.add_column("Failed and warned", overflow="fold")
    for report in reports:
        count = Counter(finding.verdict for finding in report.findings)
        cells = [Text(report.verdict.value, style=STYLES[report.verdict]), Text(plain(_last(report.folder)))]
        if wide:
            cells += [Text(str(count[verdict])) for verdict in WORST_FIRST]
            cells.append(Text(_codes(report.findings)))
        table.add_row(*cells)
    console.print(table)
    total = Counter(report.verdict for report in reports)
    told = ", ".join(f"{total[verdict]} {verdict}" for verdict in WORST_FIRST if total[verdict])
    console.print(Text(f"{len(reports)} folders: {told}"))


def _last(folder: str) -> str:
    return folder.rstrip("/").rsplit("/", 1)[-1]


def _codes(findings: Sequence[Finding]) -> str:
    return " ".join(finding.rule for finding in findings if finding.verdict in {Verdict.FAIL, Verdict.WARN})
