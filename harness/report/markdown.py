"""The report as Markdown for a pull-request comment or a step summary.

Everything that a submission wrote is shown as itself: no markup, no image, no mention, no link comes of it. What
does not fit is left out from the end, and the report says how much that is.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from harness.model import Finding, Location, Report, SubmissionReport, Verdict
from harness.report import quotes, values
from harness.report.commands import by_command
from harness.report.plain import plain

COMMENT_LIMIT_CHARACTERS = 65_536
MARKS = {Verdict.FAIL: "❌", Verdict.UNDECIDED: "❔", Verdict.WARN: "⚠️", Verdict.PASS: "✅"}
WORST_FIRST = sorted(Verdict, key=lambda verdict: -verdict.severity)
PLACES_SHOWN = 8
CONTEXT_LINES = 2
# Room for the sentence that says what was left out.
RESERVE_CHARACTERS = 300

PlaceText = Callable[[SubmissionReport, Location], str]

# Characters that mean something to Markdown, to GitHub's extensions of it, or to HTML.
# At the start of a line also what makes headings, lists and rules.
_SPECIAL = re.compile(r"[&<>\\`*_~\[\]|!$^{}]|^[-#+=\d]")
# What GitHub links, pings or draws without any markup: mentions and addresses, issues, hosts, emoji codes.
_LIVELY = re.compile(
    r"(?<=@)|(?<=#)(?=\d)|(?<=:)(?=//)|(?<=\bwww)(?=\.)|(?<=\bGH)(?=-\d)|(?<=:)(?=[\w+-]+:)", re.IGNORECASE
)
_INVISIBLE = "&#8203;"
# Backticks around a name in a sentence, after escaping.
_NAMED = re.compile(r"&#96;(.+?)&#96;")


def render(report: Report, limit: int = COMMENT_LIMIT_CHARACTERS, place_url: PlaceText | None = None) -> str:
    """The report.

    Args:
        report: the report.
        limit: characters that fit.
        place_url: the address of a place, or an empty string where it has none.
    """
    blocks = list(_blocks(report, place_url or (lambda _report, _place: "")))
    kept: list[str] = []
    length = 0
    for block in blocks:
        if length + len(block) > limit - RESERVE_CHARACTERS:
            break
        kept.append(block)
        length += len(block)
    left = len(blocks) - len(kept)
    if left:
        kept.append(f"_{left} of {len(blocks)} sections are left out: a comment holds {limit:,} characters._\n")
    return "".join(kept)


def escape(text: str) -> str:
    """Untrusted text as Markdown that shows it and does nothing else.

    Example:
        >>> escape("<b> @you #1")
        '&#60;b&#62; @&#8203;you #&#8203;1'
    """
    # The breaks go in first: the codes of the special characters hold `#` and digits themselves.
    broken = _LIVELY.sub("\0", plain(text).strip())
    return _NAMED.sub(r"<code>\1</code>", _SPECIAL.sub(_coded, broken)).replace("\0", _INVISIBLE)


def code(text: str) -> str:
    """Untrusted text in a code span, where nothing is linked or mentioned; not for table cells."""
    shown = plain(text)
    fence = "`" * (max(map(len, re.findall("`+", shown)), default=0) + 1)
    pad = " " if shown[:1] in {"`", " "} or shown[-1:] in {"`", " "} else ""
    return f"{fence}{pad}{shown}{pad}{fence}" if shown.strip() else ""


def html_code(text: str) -> str:
    """Untrusted text in a code element of an HTML block, in which Markdown is not read."""
    return f"<code>{_SPECIAL.sub(_coded, plain(text))}</code>"


def _coded(match: re.Match[str]) -> str:
    return f"&#{ord(match[0])};"


def fenced(lines: Sequence[str]) -> str:
    """Untrusted lines in a code block, with a fence longer than any in it."""
    shown = [plain(line) for line in lines]
    runs = re.findall(r"`{3,}", "\n".join(shown))
    fence = "`" * (max(map(len, runs), default=2) + 1)
    return "\n".join([f"{fence}text", *shown, fence])


def _blocks(report: Report, place_url: PlaceText) -> Iterator[str]:
    """The report in the order in which parts are kept when it is cut."""
    many = len(report.submissions) > 1
    if many:
        yield _overview(report.submissions)
    for submission in report.submissions:
        yield _head(submission)
        for finding in submission.findings:
            if finding.verdict is not Verdict.PASS and (told := _details(submission, finding, place_url)):
                yield told
        yield from _rest(submission)
    yield f"\n<sub>harness {escape(report.tool_version)}, rules' edition {escape(report.edition)}</sub>\n"


def _overview(submissions: Sequence[SubmissionReport]) -> str:
    """A table with one row for each folder."""
    total = Counter(submission.verdict for submission in submissions)
    lines = [
        f"## {len(submissions)} folders: " + ", ".join(f"{total[v]} {v}" for v in WORST_FIRST if total[v]),
        "",
        "| verdict | submission | fail | undecided | warn | pass | failed and warned |",
        "|---|---|--:|--:|--:|--:|---|",
    ]
    for one in submissions:
        count = Counter(finding.verdict for finding in one.findings)
        told = " ".join(finding.rule for finding in one.findings if finding.verdict in {Verdict.FAIL, Verdict.WARN})
        numbers = " | ".join(str(count[verdict]) for verdict in WORST_FIRST)
        lines.append(f"| {_mark(one.verdict)} | {escape(last(one.folder))} | {numbers} | {told} |")
    return "\n".join(lines) + "\n\n"


def last(folder: str) -> str:
    """The folder's own name."""
    return folder.rstrip("/").rsplit("/", 1)[-1]


def _mark(verdict: Verdict) -> str:
    return f"{MARKS[verdict]} {verdict}"


def _head(report: SubmissionReport) -> str:
    """Verdict, name, counts, and a table of what did not pass."""
    count = Counter(finding.verdict for finding in report.findings)
    told = ", ".join(f"{count[verdict]} {verdict}" for verdict in WORST_FIRST if count[verdict]) or "no rule ran"
    title = f"## {MARKS[report.verdict]} {report.verdict.upper()}: {escape(report.name)}"
    rows = [
        f"| {_mark(finding.verdict)} | {finding.rule} {escape(finding.name)} | {escape(finding.message)} |"
        for finding in report.findings
        if finding.verdict is not Verdict.PASS
    ]
    table = "\n".join(["| verdict | rule | says |", "|---|---|---|", *rows]) + "\n\n" if rows else ""
    return f"{title}\n\n{code(report.folder)}: {told}\n\n{table}"


def _details(report: SubmissionReport, finding: Finding, place_url: PlaceText) -> str:
    """One finding's places, lines and tables, folded; nothing when the table above says it all."""
    places = [place for place in finding.locations if place != Location(".")]
    inner = [_place(report, place, place_url) for place in places[:PLACES_SHOWN]]
    if len(places) > PLACES_SHOWN:
        inner.append(f"and {len(places) - PLACES_SHOWN} more places")
    inner += [_table(rows) for rows in values.tables(finding.values)]
    if not inner:
        return ""
    inner.append(f"Rule: {finding.status}; authority: {code(finding.authority)}")
    at = f": {html_code(str(places[0]))}" if places else ""
    more = f" and {len(places) - 1} more" if len(places) > 1 else ""
    body = "\n\n".join(inner)
    title = f"{finding.verdict} {finding.rule} {escape(finding.name)}{at}{more}"
    return f"<details><summary>{title}</summary>\n\n{body}\n\n</details>\n\n"


def _place(report: SubmissionReport, place: Location, place_url: PlaceText) -> str:
    """A place, linked when it has an address, and the lines around it."""
    url = place_url(report, place)
    told = f'<a href="{url}">{code(str(place))}</a>' if url else code(str(place))
    lines = quotes.quoted(report, place, CONTEXT_LINES)
    marked = [f"{'>' if number == place.line else ' '} {number:>5} {text}" for number, text in lines]
    return f"{told}\n\n{fenced(marked)}" if marked else told


def _table(rows: values.Rows) -> str:
    """A table of untrusted cells."""
    lines = [f"{escape(rows.title)}:", "", _row(rows.head), "|" + "---|" * len(rows.head), *map(_row, rows.rows)]
    return "\n".join(lines) + (f"\n\nand {rows.cut} more rows" if rows.cut else "")


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(map(escape, cells)) + " |"


def _rest(report: SubmissionReport) -> Iterator[str]:
    """What passed, notes, and what did not run."""
    passed = [finding for finding in report.findings if finding.verdict is Verdict.PASS]
    rows = [f"| {finding.rule} {escape(finding.name)} | {escape(finding.message)} |" for finding in passed]
    if rows:
        table = "\n".join(["| rule | says |", "|---|---|", *rows])
        yield f"<details><summary>{len(passed)} rules passed</summary>\n\n{table}\n\n</details>\n\n"
    if report.notes:
        notes = "\n".join(f"- {escape(note)}" for note in report.notes)
        yield f"<details><summary>Notes ({len(report.notes)})</summary>\n\n{notes}\n\n</details>\n\n"
    commands = by_command(report.not_exercised)
    if commands:
        lines = "\n".join(f"- {', '.join(rules)}: {code(command)}" for command, rules in commands)
        title = f"Not exercised ({len(report.not_exercised)} rules)"
        yield f"<details><summary>{title}</summary>\n\n{lines}\n\n</details>\n\n"
