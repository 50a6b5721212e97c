"""The rules' pages: complete, current, and an index of all."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.checks import RULES
from harness.checks.coverage import REQUIREMENTS
from harness.model import Requirement, Status, rule
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
    assert standing == rulepages.pages(RULES, REQUIREMENTS), "run `harness rules --write-docs docs/rules`"


def test_the_index_links_every_page() -> None:
    pages = rulepages.pages(RULES, REQUIREMENTS)
    assert all(f"({name})" in pages[rulepages.INDEX] for name in pages if name != rulepages.INDEX)


def test_the_index_has_a_table_for_each_family() -> None:
    page = rulepages.pages(RULES)[rulepages.INDEX]
    assert [line for line in page.splitlines() if line.startswith("## ")] == [
        f"## {family.capitalize()}" for family in dict.fromkeys(rule.family for rule in RULES)
    ]


def test_every_page_states_authority_and_status() -> None:
    for checked in RULES:
        assert f"status {checked.status}; authority: {checked.authority}" in rulepages.page(checked)


def test_every_demand_has_a_rule_or_a_reason() -> None:
    assert [one.code for one in REQUIREMENTS] == [f"R{number:02}" for number in range(1, 29)]
    known = {rule.code for rule in RULES}
    for one in REQUIREMENTS:
        assert set(one.rules) <= known, f"{one.code} names rules that do not exist"
        assert one.rules or one.beyond, f"{one.code} has neither a rule nor a reason"
        assert not one.beyond or one.beyond.endswith(".")


def test_a_demand_may_not_name_a_rule_that_is_not_there() -> None:
    made = Requirement("R99", "a demand", "a test", Status.POLICY, ("PG000",))
    with pytest.raises(KeyError):
        rulepages.coverage([made], RULES)


def test_a_docstring_without_its_sections_is_refused() -> None:
    @rule("PG999", "silent", family="size", status=Status.POLICY, authority="a test")
    def silent(_: object) -> None:
        """Says nothing.

        What it checks:
            Nothing.
        """

    with pytest.raises(ValueError, match="PG999"):
        rulepages.page(silent)
