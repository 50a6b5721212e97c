"""The report as one self-contained HTML page: no script, no request, everything escaped.

The page is a Jinja template with escaping always on; what it prints passes through `plain` first, so that no
invisible or direction character of a submission is left either. A content security policy forbids the rest.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.resources
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import jinja2
from markupsafe import Markup, escape

from harness.model import Finding, Limits, Location, Report, SubmissionReport, Verdict
from harness.report import behaviour, charts, figures, jsonfacts, quotes, rulepages, values
from harness.report.commands import by_command
from harness.report.plain import plain
from harness.report.rulepages import AnyRule

FILES = importlib.resources.files("harness.report")
WORST_FIRST = sorted(Verdict, key=lambda verdict: -verdict.severity)
CONTEXT_LINES = 3
PLACES_SHOWN = 20
# A page of many folders shows what the rules say; each folder's facts are for its own page.
FOLDERS_WITH_FACTS = 6
_BACKTICKS = re.compile(r"`([^`]+)`")

PlaceText = Callable[[SubmissionReport, Location], str]


@dataclass(frozen=True, slots=True)
class QuotedFile:
    """A quoted text, its lines with their anchors on the page."""

    name: str
    key: str
    lines: tuple[tuple[int, str], ...]
    anchor: int | None


@dataclass(frozen=True, slots=True)
class Place:
    """A place as the page shows it: its name, its anchor on the page, and its address elsewhere."""

    name: str
    href: str
    url: str


@dataclass(frozen=True, slots=True)
class Block:
    """Places that stand close together, and the lines around them as (number, text, whether a place names it)."""

    places: tuple[Place, ...]
    lines: tuple[tuple[int, str, bool], ...]


@dataclass(frozen=True, slots=True)
class Said:
    """A finding as the page shows it."""

    finding: Finding
    blocks: tuple[Block, ...]
    more: int
    tables: tuple[values.Rows, ...]
    scalars: tuple[tuple[str, str], ...]
    sections: tuple[tuple[str, str], ...]


class View:
    """One submission as the page shows it."""

    def __init__(self, report: SubmissionReport, number: int, place_url: PlaceText) -> None:
        self.report = report
        self.id = f"s{number}"
        self.counts = Counter(finding.verdict for finding in report.findings)
        self.files = tuple(
            QuotedFile(name, f"{self.id}-f{index}", tuple(excerpt.lines.items()), excerpt.anchor)
            for index, (name, excerpt) in enumerate(report.excerpts.items())
            if excerpt.lines
        )
        self.commands = by_command(report.not_exercised)
        self._keys = {file.name: file.key for file in self.files}
        self._place_url = place_url

    @property
    def folder(self) -> str:
        """The folder's own name."""
        return self.report.folder.rstrip("/").rsplit("/", 1)[-1]

    @property
    def claimed(self) -> jsonfacts.Cell:
        """The claimed score."""
        return jsonfacts.cell("val_bpb", jsonfacts.within(dict(self.report.facts), "claims", "val_bpb"))

    def place(self, location: Location | None) -> Place | None:
        """A place with its links; None where there is none."""
        return None if location is None else self._place(location)

    def _place(self, location: Location) -> Place:
        found = quotes.quoted(self.report, location)
        href = f"#{self._keys[location.file]}-{location.line}" if found else ""
        return Place(quotes.name_of(location), href, self._place_url(self.report, location))

    def _block(self, locations: Sequence[Location]) -> Block:
        named = {location.line for location in locations}
        lines = {n: text for location in locations for n, text in quotes.quoted(self.report, location, CONTEXT_LINES)}
        told = tuple((number, lines[number], number in named) for number in sorted(lines))
        return Block(tuple(map(self._place, locations)), told)

    def said(self, findings: Sequence[Finding], rules: Mapping[str, AnyRule]) -> list[Said]:
        """Findings with their lines, numbers and rule pages."""
        return [self._said(finding, rules.get(finding.rule)) for finding in findings]

    def _said(self, finding: Finding, rule: AnyRule | None) -> Said:
        blocks = together(finding.locations[:PLACES_SHOWN])
        sections = rulepages.parts(rule)[1] if rule is not None else []
        return Said(
            finding,
            tuple(map(self._block, blocks)),
            max(len(finding.locations) - PLACES_SHOWN, 0),
            tuple(values.tables(finding.values)),
            tuple(values.scalars(finding.values)),
            tuple(sections),
        )

    @property
    def significance(self) -> list[Finding]:
        """The findings about seeds and tests that have numbers."""
        return [finding for finding in self.report.findings if finding.family == "significance" and finding.values]

    def of(self, *verdicts: Verdict) -> list[Finding]:
        """The findings of some verdicts, in order."""
        return [finding for finding in self.report.findings if finding.verdict in verdicts]


def together(locations: Sequence[Location]) -> list[list[Location]]:
    """Places in order; those that follow one another in one file, so close that their lines overlap, in one group."""
    groups: list[list[Location]] = []
    for location in locations:
        last = groups[-1][-1] if groups else None
        near = last is not None and last.file == location.file and last.line is not None and location.line is not None
        if last is not None and near and abs((location.line or 0) - (last.line or 0)) <= 2 * CONTEXT_LINES:
            groups[-1].append(location)
        else:
            groups.append([location])
    return groups


@dataclass(frozen=True, slots=True)
class Drawn:
    """One submission's tables and figures."""

    seeds: tuple[figures.SeedRow, ...]
    left_out: int
    measured: tuple[figures.SeedRow, ...]
    curves: charts.Plot | None
    losses: charts.Plot | None
    sizes: tuple[charts.Bar, ...]
    timelines: tuple[figures.Timeline, ...]
    behaviour: behaviour.Behaviour | None
    groups: tuple[jsonfacts.Group, ...]


def render(report: Report, rules: Sequence[AnyRule] = (), place_url: PlaceText | None = None) -> str:
    """The page.

    Args:
        report: the report.
        rules: the catalogue, for what each rule says about itself.
        place_url: the address of a place, or an empty string where it has none.
    """
    style = Markup((FILES / "page.css").read_text(encoding="utf-8"))  # noqa: S704 - our own file
    views = [
        View(submission, number, place_url or (lambda _report, _place: ""))
        for number, submission in enumerate(report.submissions, start=1)
    ]
    with_facts = len(views) <= FOLDERS_WITH_FACTS
    page = _environment().get_template("page.html")
    text = page.render(
        report=report,
        views=views,
        rules={rule.code: rule for rule in rules},
        drawn=lambda view: _drawn(view.report, report.limits, with_facts=with_facts),
        with_facts=with_facts,
        totals=Counter(submission.verdict for submission in report.submissions),
        verdicts=WORST_FIRST,
        V=Verdict,
        columns=figures.SEED_COLUMNS,
        measured_columns=figures.MEASURED_COLUMNS,
        run_columns=behaviour.RUN_COLUMNS,
        copy_columns=behaviour.COPY_COLUMNS,
        style=style,
        policy=_policy(style),
    )
    # The template's macros leave empty lines.
    return re.sub(r"\n{2,}", "\n", text).lstrip()


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: (FILES / name).read_text(encoding="utf-8")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_harmless,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["named"] = _named
    return environment


def _named(text: str) -> Markup:
    """A sentence whose names in backticks stand as code."""
    escaped = str(escape(plain(text)))
    return Markup(_BACKTICKS.sub(r"<code>\1</code>", escaped))  # noqa: S704 - escaped one line above


def _harmless(value: object) -> object:
    """What the template prints: text without characters that hide or reorder; markup is the template's own."""
    return plain(str(value)) if isinstance(value, str) and not isinstance(value, Markup) else value


def _policy(style: str) -> str:
    """Nothing may be loaded or run; this one style sheet applies."""
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'"


def _drawn(report: SubmissionReport, limits: Limits | None, *, with_facts: bool) -> Drawn:
    runs = figures.runs_of(report.facts)
    return Drawn(
        tuple(figures.seeds(runs)),
        max(len(jsonfacts.members(report.facts, "runs")) - len(runs), 0),
        tuple(figures.measured(report.facts)),
        figures.curves(runs),
        figures.losses(runs),
        figures.sizes(report.facts, limits) if limits is not None else (),
        tuple(figures.timelines(runs, limits)) if limits is not None else (),
        behaviour.behaviour(report.facts),
        tuple(jsonfacts.groups(report.facts)) if with_facts else (),
    )
