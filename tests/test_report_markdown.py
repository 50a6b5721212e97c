"""The Markdown report: shows what a submission wrote, and lets it do nothing; fits a comment."""

from __future__ import annotations

import html
import re

import cmarkgfm
from cmarkgfm.cmark import Options
from hypothesis import given
from hypothesis import strategies as st

from harness.model import Excerpt, Location, Report, Verdict
from harness.report import markdown
from harness.report.plain import plain
from tests import reports

HOSTILE = (
    "<img src=x onerror=alert(1)> @openai/admins #1 GH-2 https://evil.example www.evil.example ![i](http://e/x.png) "
    "user@evil.example http://evil.example "
    "[l](javascript:x) `c` | a | ``` ~~~ <!-- --> $x$ :smile: **b** \u202e \x1b[31m </details>"
)
# Tags that the report itself writes.
OWN = {
    "h2",
    "p",
    "code",
    "table",
    "thead",
    "tbody",
    "tr",
    "th",
    "td",
    "details",
    "summary",
    "ul",
    "li",
    "pre",
    "sub",
    "a",
}


def parsed(text: str) -> str:
    """What GitHub's own parser makes of Markdown, before anything is sanitized."""
    return str(cmarkgfm.github_flavored_markdown_to_html(text, Options.CMARK_OPT_UNSAFE))


def tags(text: str) -> set[str]:
    return set(re.findall(r"<([a-z][a-z0-9]*)", parsed(text)))


def hostile() -> Report:
    place = Location(HOSTILE, 3)
    finding = reports.finding(
        message=HOSTILE,
        authority=HOSTILE,
        locations=(place, Location("a`|b.log", 1)),
        values={"rows": [{"seed": HOSTILE, HOSTILE: 1}]},
    )
    lines = {2: "```", 3: f"````` {HOSTILE}", 4: "</code></pre></details><script>"}
    submission = reports.submission(
        HOSTILE,
        name=HOSTILE,
        findings=(finding, reports.finding("PG001", Verdict.PASS, message=HOSTILE)),
        notes=(HOSTILE, "# no heading", "1. no list"),
        excerpts={place.file: Excerpt(lines)},
    )
    return reports.report(submission, submission)


def test_hostile_text_makes_no_markup() -> None:
    output = markdown.render(hostile())
    assert tags(output) <= OWN
    assert "\u202e" not in output
    assert "\x1b" not in output
    rendered = parsed(output)
    assert rendered.count("<details>") == rendered.count("</details>")


def test_hostile_text_mentions_and_links_nobody() -> None:
    # Code elements and blocks are left alone by GitHub's filters; what stands outside is what matters.
    outside = re.sub(r"<(code|pre)[^>]*>.*?</\1>", "", parsed(markdown.render(hostile())), flags=re.DOTALL)
    assert "<a" not in outside
    assert not re.search(r"@\w|#\d|GH-\d|https?:/|www\.|:smile:", html.unescape(outside))


@given(st.text())
def test_escaped_text_shows_as_itself(text: str) -> None:
    shown = html.unescape(re.sub(r"</?(p|code)>", "", parsed(markdown.escape(text)))).replace("\u200b", "")
    assert re.sub(r"[`\s]", "", shown) == re.sub(r"[`\s]", "", plain(text))


@given(st.lists(st.text(), max_size=4))
def test_a_fence_holds_any_line(lines: list[str]) -> None:
    rendered = parsed(f"before\n\n{markdown.fenced(lines)}\n\nafter")
    assert rendered.startswith("<p>before</p>")
    assert rendered.rstrip().endswith("<p>after</p>")
    assert rendered.count("<pre ") == 1


def test_no_link_is_made_of_any_text() -> None:
    assert "<a" not in parsed(markdown.render(hostile()))


@given(st.text())
def test_a_code_span_shows_its_text(text: str) -> None:
    shown = html.unescape(re.sub(r"</?(p|code)>", "", parsed(f"x {markdown.code(text)} x")))
    assert shown.split() == ["x", *plain(text).split(), "x"]


def test_a_comment_is_never_too_long_and_says_what_is_left_out() -> None:
    findings = tuple(reports.finding(f"PG{number}", message="x" * 900) for number in range(100, 130))
    whole = reports.report(*(reports.submission(f"records/{number}", findings=findings) for number in range(9)))
    output = markdown.render(whole)
    assert len(output) <= markdown.COMMENT_LIMIT_CHARACTERS
    assert re.search(r"_\d+ of \d+ sections are left out: a comment holds 65,536 characters\._\n$", output)
    assert output.startswith("## 9 folders: 9 fail\n")
    assert tags(output) <= OWN | {"em"}


def test_verdict_places_lines_tables_and_commands_are_told() -> None:
    finding = reports.finding(values={"cap_bytes": 16_000_000, "seeds": [{"seed": 1, "total_bytes": 16_000_001}]})
    excerpts = {"train.log": Excerpt({6: "before", 7: "Total: 16000001 bytes"})}
    output = markdown.render(reports.report(reports.submission(findings=(finding,), excerpts=excerpts)))
    assert output.startswith("## ❌ FAIL: One record\n")
    assert ">     7 Total: 16000001 bytes" in output
    assert "| seed | total |\n|---|---|\n| &#49; | &#49;6,000,001 bytes |" in output
    assert "PG801, PG802: `harness reproduce records/one`" in output


def test_places_are_links_where_they_have_an_address() -> None:
    output = markdown.render(reports.report(), place_url=lambda _, place: f"https://host/{place.path}")
    assert '<a href="https://host/train.log">`train.log:7`</a>' in output
