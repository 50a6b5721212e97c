"""Whole reports of our own folders, kept in `tests/golden/`; `pytest --update-golden` writes them anew.

Only a fixed handful of rules runs, so that a new rule does not change them all.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from harness import audit
from harness.checks import RULES
from harness.model import Report
from harness.report import html, markdown, sarif, text
from tests.test_rules import build

GOLDEN = Path(__file__).parent / "golden"
CODES = frozenset({"PG001", "PG101", "PG201", "PG301", "PG403", "PG504", "PG801"})
CHOSEN = [rule for rule in RULES if rule.code in CODES]
FOLDERS = {
    "ordinary": (Path("ordinary"),),
    "over-cap": (Path("PG101/fail"),),
    "several": (Path("ordinary"), Path("PG201/fail"), Path("PG301/undecided"), Path("PG504/warn")),
}


# Grows with every fact; a test of its own reads it.
FACTS = re.compile(r"<h3>Facts</h3>.*?(?=<h3>Quoted lines</h3>)", re.DOTALL)


class Outline(HTMLParser):
    """What a page says in its headings, summaries and tables, a line each."""

    HEARD = ("h1", "h2", "h3", "h4", "summary", "th", "td", "figcaption", "dt", "dd", "li")

    def __init__(self, page: str) -> None:
        super().__init__()
        self.lines: list[str] = []
        self._within: list[str] = []
        self.feed(FACTS.sub("", page.partition("</style>")[2]))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        del attrs
        if tag in self.HEARD:
            self._within.append(tag)
            self.lines.append(f"{tag}: ")

    def handle_endtag(self, tag: str) -> None:
        if self._within and self._within[-1] == tag:
            self._within.pop()

    def handle_data(self, data: str) -> None:
        if self._within and data.strip():
            self.lines[-1] += re.sub(r"\s+", " ", data)


def outline(report: Report) -> str:
    """The page's structure, line by line."""
    return "\n".join(line.rstrip() for line in Outline(html.render(report, CHOSEN)).lines) + "\n"


RENDERERS: dict[str, Callable[[Report], str]] = {
    "40.txt": lambda report: text.render(report, 40, color=False),
    "120.txt": lambda report: text.render(report, 120, color=False),
    "md": markdown.render,
    "sarif": lambda report: sarif.render(report, status=1),
    "outline": outline,
}


@pytest.mark.parametrize("ending", RENDERERS)
@pytest.mark.parametrize("name", FOLDERS)
def test_a_report_reads_as_it_did(
    name: str, ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.chdir(tmp_path)
    options = audit.Options(CODES, edition="2026-04-28", excerpts=True)
    folders = [build(case, Path(case.as_posix().replace("/", "-"))) for case in FOLDERS[name]]
    report = audit.report_of(audit.audit_folder(folder, options) for folder in folders)
    made = RENDERERS[ending](dataclasses.replace(report, tool_version="0"))
    kept = GOLDEN / f"{name}.{ending}"
    if request.config.getoption("--update-golden"):
        kept.write_text(made, encoding="utf-8")
    assert made == kept.read_text(encoding="utf-8"), "run `pytest --update-golden` and read the difference"
