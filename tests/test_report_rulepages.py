"""The rules' pages: complete, current, and an index of all."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.checks import RULES
from harness.model import Status, rule
from harness.report import rulepages
from tests import factories

DOCS = Path(__file__).parents[1] / "docs" / "rules"


@pytest.mark.parametrize("checked", RULES, ids=lambda rule: rule.code)
def test_every_rule_explains_itself(checked: factories.AnyRule) -> None:
    title, sections = rulepages.parts(checked)
    assert title.endswith(".")
    assert [name for name, _ in sections] == list(rulepages.SECTIONS)
    assert all(body for _, body in sections)
    assert checked.authority


def test_the_pages_in_the_repository_are_current() -> None:
    standing = {path.name: path.read_text(encoding="utf-8") for path in DOCS.glob("*.md")}
    assert standing == rulepages.pages(RULES), "run `harness rules --write-docs docs/rules`"


def test_the_index_links_every_page() -> None:
    pages = rulepages.pages(RULES)
    assert all(f"({name})" in pages[rulepages.INDEX] for name in pages if name != rulepages.INDEX)


def test_a_docstring_without_its_sections_is_refused() -> None:
    @rule("PG999", "silent", family="size", status=Status.POLICY, authority="a test")
    def silent(_: object) -> None:
        """Says nothing.

        What it checks:
            Nothing.
        """

    with pytest.raises(ValueError, match="PG999"):
        rulepages.page(silent)
