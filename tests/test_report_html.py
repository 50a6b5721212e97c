"""The HTML page: everything told, everything escaped, nothing loaded; opened in Chromium where there is one."""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import audit
from harness.checks import RULES
from harness.model import Excerpt, Limits, Location, Report, Value
from harness.report import charts, html, jsonfacts
from harness.report.plain import DISTURBING
from tests import browser, reports

CASES = Path(__file__).parent / "rules"
EVERY = audit.Options(frozenset(rule.code for rule in RULES), excerpts=True)
LIMITS = Limits(16_000_000, 600.0, 600.0)
VOID = {"meta", "link", "br"}
# Narrow and wide, light and dark.
SCREENS = [(360, False), (360, True), (1280, False), (1280, True)]
HOSTILE = (
    "</style></title><script>alert(1)</script><img src=http://evil.example/x onerror=alert(1)>"
    "\"' \u202e\x1b[2J {{ 7*7 }}"
)


class Outline(HTMLParser):
    """Tags, identifiers and links of a page; complains about tags that are not closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.headings: list[int] = []
        self._open: list[str] = []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self._open += [] if tag in VOID else [tag]
        if re.fullmatch(r"h[1-6]", tag):
            self.headings.append(int(tag[1]))
        for name, value in attrs:
            assert not name.startswith("on")
            assert name != "style"
            self.ids += [str(value)] if name == "id" else []
            self.links += [str(value)] if name in {"href", "src"} else []

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag


def facts(name: str = "train.log") -> dict[str, Value]:
    """Facts of one run, as JSON."""

    def at(value: Value, line: int) -> Value:
        return {"value": value, "path": name, "line": line}

    run: dict[str, Value] = {
        "location": {"path": name},
        "seed": at(7, 1),
        "headline": at({"label": name, "val_bpb": at(1.23456789, 9), "val_loss": {"missing": name}}, 9),
        "steps": at(100, 8),
        "train_seconds": at(600.5, 8),
        "eval_seconds": at(55.0, 9),
        "curve": [[0, 4.1], [50, 1.5], [100, 1.3]],
        "losses": [[1, 6.0], [50, 3.0], [100, 2.5]],
        "phases": [{"name": name, "seconds": 12.5, "location": {"path": name, "line": 5}, "counted": False}],
    }
    size: Value = {
        "per_seed": [{"seed": at(7, 1), "model_bytes": at(15_999_000, 2), "shipped_bytes": at(16_000_001, 2)}]
    }
    return {"claims": {"val_bpb": at(1.2, 3)}, "runs": [run], "size": size}


def page(*names: str, **changes: object) -> str:
    submissions = tuple(reports.submission(name, **changes) for name in names or ("records/one",))
    return html.render(Report("0.1.0", "2026-04-28", submissions, LIMITS), RULES)


def hostile() -> str:
    place = Location(HOSTILE, 3, HOSTILE)
    finding = reports.finding(
        message=f"`{HOSTILE}` {HOSTILE}",
        authority=HOSTILE,
        locations=(place,),
        values={"rows": [{HOSTILE: HOSTILE}], HOSTILE: HOSTILE},
    )
    return page(
        HOSTILE,
        "records/two",
        name=HOSTILE,
        findings=(finding,),
        notes=(HOSTILE,),
        facts=facts(HOSTILE) | {HOSTILE: {HOSTILE: {"value": HOSTILE, "path": HOSTILE}}},
        excerpts={place.file: Excerpt({3: HOSTILE}, anchor=2)},
    )


def test_hostile_text_is_shown_and_does_nothing() -> None:
    text = hostile()
    outline = Outline(text)
    assert {"script", "img", "iframe", "object", "form"}.isdisjoint(outline.tags)
    assert all(link.startswith(("#", "data:,")) for link in outline.links)
    bad = {character for character in text if unicodedata.category(character) in DISTURBING} - {"\n"}
    assert bad == set()
    assert "{{ 7*7 }}" in text


def test_the_policy_allows_one_style_sheet_and_nothing_else() -> None:
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', page())
    assert policy is not None
    assert "default-src &#39;none&#39;" in policy[1]
    assert "unsafe" not in policy[1]
    assert "http" not in policy[1]


def test_every_link_on_the_page_leads_somewhere_and_anchors_are_unique() -> None:
    excerpts = {"train.log": Excerpt({line: f"line {line}" for line in range(1, 12)})}
    outline = Outline(page("records/one", "records/two", facts=facts(), excerpts=excerpts))
    assert len(outline.ids) == len(set(outline.ids))
    assert {link[1:] for link in outline.links if link.startswith("#")} <= set(outline.ids)
    assert "#s2-f0-9" in outline.links


def test_headings_go_down_one_level_at_a_time() -> None:
    levels = Outline(page("records/one", "records/two", facts=facts())).headings
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(below - above <= 1 for above, below in itertools.pairwise(levels))


def test_everything_is_told() -> None:
    text = page(facts=facts(), excerpts={"train.log": Excerpt({7: "Total: 16000001 bytes"})})
    for part in (
        '<span class="badge fail">fail</span> One record',
        'class="line named"><span class="number">7</span><span class="text">Total: 16000001 bytes',
        "1.23456789 BPB",
        "Validation score, bits per byte",
        "Training loss, nats per token",
        '16,000,001 bytes <span class="over">1 bytes over the cap (seed 7)</span>',
        "timed, not counted",
        "600.5 s",
        "<code>harness reproduce records/one</code><br>would run PG801, PG802",
        "How to fix",
        "A note.",
    ):
        assert part in text


def test_a_reproduction_has_its_table() -> None:
    seed: Value = {"seed": 7, "outcome": "ok", "detail": "", "val_bpb": {"value": 1.5, "path": "seed-7/result.json"}}
    failed: Value = {"seed": 8, "outcome": "crash", "detail": "<b>", "val_bpb": {"missing": "it crashed"}}
    summary: Value = {"column": "val_bpb", "count": 1, "mean": 1.5, "std": None}
    measured: Value = {"seeds": [seed, failed], "summary": [summary]}
    text = page(facts=facts() | {"reproduction": measured})
    assert "<h3>Reproduction</h3>" in text
    assert '<span title="seed-7/result.json">1.5 BPB</span>' in text
    assert "crash &lt;b&gt;" in text
    assert "<h3>Reproduction</h3>" not in page(facts=facts() | {"reproduction": {"missing": "none was given"}})


def test_facts_stand_with_their_places_and_series_are_summed_up() -> None:
    groups = {group.name: {row.name: row.cell for row in group.rows} for group in jsonfacts.groups(facts())}
    runs = groups["runs"]
    assert runs["steps"] == jsonfacts.Cell("100", Location("train.log", 8))
    assert runs["headline.val_loss"].missing == "train.log"
    assert runs["losses"].text == "3 points, the last at 100, 2.5"
    assert groups["claims"]["val_bpb"].text == "1.2 BPB"


def test_a_family_of_very_many_facts_is_cut_and_says_so() -> None:
    (group,) = jsonfacts.groups({"package": {f"f{number}": number for number in range(jsonfacts.ROWS_LIMIT + 3)}})
    assert len(group.rows) == jsonfacts.ROWS_LIMIT
    assert group.cut == 3


def test_several_folders_begin_with_a_table_of_them() -> None:
    text = page("records/one", "records/two", facts=facts())
    assert "2 folders: 2 fail" in text
    assert '<a href="#s2">two</a>' in text
    assert "<h3>Facts</h3>" in text
    many = (f"records/{number}" for number in range(html.FOLDERS_WITH_FACTS + 1))
    assert "<h3>Facts</h3>" not in page(*many, facts=facts())


def test_places_close_together_share_their_lines() -> None:
    places = [Location("a", 1), Location("a", 5), Location("b", 5), Location("a", 40), Location("a"), Location("a", 2)]
    assert [len(group) for group in html.together(places)] == [2, 1, 1, 1, 1]


def test_places_have_addresses_where_they_are_given() -> None:
    report = Report("0.1.0", "e", (reports.submission(facts=facts()),), LIMITS)
    links = Outline(html.render(report, RULES, lambda _, place: f"https://host/{place.path}")).links
    assert "https://host/train.log" in links


@given(
    st.lists(
        st.tuples(
            st.lists(st.tuples(st.integers(0, 10**6), st.floats(0, 1e6)), max_size=6),
            st.none() | st.floats(0, 1e6),
        ),
        max_size=5,
    )
)
def test_curves_of_any_numbers_stay_on_the_plot(runs: list[tuple[list[tuple[int, float]], float | None]]) -> None:
    drawn = charts.plot([charts.Curve(str(i), tuple(points), final) for i, (points, final) in enumerate(runs)])
    for line in drawn.lines if drawn else ():
        assert all(-1e-6 <= x <= 100 + 1e-6 and y <= 100 + 1e-6 for x, y in line.dots)


@given(st.floats(-1e9, 1e9), st.floats(0, 1e9))
def test_an_axis_is_even_and_holds_its_ends(low: float, span: float) -> None:
    axis = charts.nice(low, low + span)
    assert 2 <= len(axis) <= 8
    near = 1e-6 * max(1.0, abs(low), span)
    assert axis[0] <= low + near
    assert axis[-1] >= low + span - near


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Pages of our own folders, alone and together, and the hostile one."""
    folders = [CASES / "ordinary", *sorted(path for path in CASES.glob("PG*/fail") if path.is_dir())]
    where = tmp_path_factory.mktemp("pages")
    pages = {
        "ordinary": html.render(audit.report_of(audit.audit_folders(folders[:1], EVERY)), RULES),
        "many": html.render(audit.report_of(audit.audit_folders(folders, EVERY)), RULES),
        "hostile": hostile(),
    }
    for name, text in pages.items():
        (where / f"{name}.html").write_text(text, encoding="utf-8")
    return {name: where / f"{name}.html" for name in pages}


def test_pages_of_real_folders_are_well_formed(real: dict[str, Path]) -> None:
    for path in real.values():
        outline = Outline(path.read_text(encoding="utf-8"))
        assert {link[1:] for link in outline.links if link.startswith("#")} <= set(outline.ids)


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[browser.Browser]:
    executable = browser.program()
    if executable is None:
        pytest.skip("no Chromium here: install it (Debian: apt-get install chromium) to test the page in a browser")
    with browser.Browser(executable, tmp_path_factory.mktemp("profile")) as started:
        yield started


@pytest.mark.slow
@pytest.mark.parametrize(("width", "dark"), SCREENS)
@pytest.mark.parametrize("name", ["ordinary", "many", "hostile"])
def test_a_page_is_quiet_and_fits_its_screen(
    chromium: browser.Browser,
    real: dict[str, Path],
    name: str,
    width: int,
    dark: bool,  # noqa: FBT001 - a column of the table
) -> None:
    chromium.open(real[name], width, dark=dark)
    chromium.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert chromium.evaluate("document.documentElement.scrollWidth") <= width
    assert chromium.requests() == []
    assert chromium.complaints() == []
    assert chromium.evaluate("getComputedStyle(document.body).backgroundColor") == (
        "rgb(15, 20, 25)" if dark else "rgb(255, 255, 255)"
    )


@pytest.mark.slow
def test_the_keyboard_reaches_and_opens_everything(chromium: browser.Browser, real: dict[str, Path]) -> None:
    chromium.open(real["ordinary"], 1280)
    closed = chromium.evaluate("[...document.querySelectorAll('details')].filter(one => one.checkVisibility()).length")
    reached = opened = 0
    for step in range(400):
        chromium.press("Tab", 9)
        tag = chromium.evaluate("document.activeElement.tagName")
        if step == 0:
            assert chromium.evaluate("document.activeElement.className") == "skip"
        if tag == "BODY":
            break
        ring = chromium.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert ring == "solid", f"no visible focus on {tag}"
        if tag == "SUMMARY":
            reached += 1
            before = chromium.evaluate("document.activeElement.parentElement.open")
            chromium.press("Enter", 13)
            opened += chromium.evaluate("document.activeElement.parentElement.open") != before
            # Closed again, so that what stands inside is not counted.
            chromium.press("Enter", 13)
    assert reached == opened == closed > 5


@pytest.mark.slow
def test_text_contrasts_with_what_is_behind_it(chromium: browser.Browser, real: dict[str, Path]) -> None:
    for dark in (False, True):
        chromium.open(real["many"], 1280, dark=dark)
        chromium.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
        assert chromium.evaluate(CONTRAST) == []
    chromium.evaluate("document.documentElement.style.setProperty('--quiet', 'gray')")
    assert chromium.evaluate(CONTRAST) != [], "the measurement itself works"


CONTRAST = """
(() => {
  const channels = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = (text) => {
    const [r, g, b] = channels(text).map((c) => (c /= 255, c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (one) => {
    for (; one; one = one.parentElement) {
      const color = getComputedStyle(one).backgroundColor;
      if (channels(color).length === 3) return color;
    }
    return "rgb(255, 255, 255)";
  };
  const bad = new Set();
  for (const one of document.querySelectorAll("main *, header *")) {
    if (one.closest("svg") || ![...one.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim())) continue;
    const [a, b] = [light(getComputedStyle(one).color), light(behind(one))].sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 4.5) bad.add(one.tagName + "." + one.className);
  }
  return [...bad];
})()
"""
