"""The rules' documentation: one Markdown page for each rule, made from its docstring, and an index."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

from harness.model import Requirement, Rule

AnyRule: TypeAlias = Rule[Any]
INDEX = "index.md"
COVERAGE = "coverage.md"
SECTIONS = ("What it checks", "Why it matters", "Evidence", "How to fix")
# How every generated page begins.
GENERATED = "<!-- Made by `harness rules --write-docs`"
MARK = f"{GENERATED} from the rule's docstring: change that. -->"
COVERAGE_MARK = f"{GENERATED} from the table of requirements in the code: change that. -->"


def file_name(rule: AnyRule) -> str:
    """`PG101-artifact-over-cap.md`."""
    return f"{rule.code}-{rule.name}.md"


def pages(rules: Sequence[AnyRule], requirements: Sequence[Requirement] = ()) -> dict[str, str]:
    """Every page by file name, the index and the coverage among them."""
    pages = {INDEX: index(rules, with_coverage=bool(requirements))}
    if requirements:
        pages[COVERAGE] = coverage(requirements, rules)
    return pages | {file_name(rule): page(rule) for rule in rules}


def page(rule: AnyRule) -> str:
    """One rule's page."""
    title, sections = parts(rule)
    lines = [
        MARK,
        "",
        f"# {rule.code} {rule.name}",
        "",
        title,
        "",
        f"Family {rule.family}; status {rule.status}; authority: {rule.authority}; decided by `harness {rule.needs}`.",
    ]
    for name, body in sections:
        lines += ["", f"## {name}", "", body]
    return "\n".join(lines) + "\n"


def parts(rule: AnyRule) -> tuple[str, list[tuple[str, str]]]:
    """The docstring's first line, and its sections as (heading, Markdown).

    Raises:
        ValueError: a section is missing or out of order.
    """
    text = inspect.cleandoc(rule.page)
    title, _, rest = text.partition("\n")
    found = re.split(r"^([A-Z][A-Za-z ]+):\n", rest, flags=re.MULTILINE)[1:]
    sections = [
        (name, inspect.cleandoc("\n" + body).strip()) for name, body in zip(found[::2], found[1::2], strict=True)
    ]
    if tuple(name for name, _ in sections) != SECTIONS:
        raise ValueError(f"{rule.code}: the docstring's sections must be {', '.join(SECTIONS)}")
    return title.strip(), sections


def index(rules: Iterable[AnyRule], *, with_coverage: bool = False) -> str:
    """A table of the rules of each family."""
    lines = [MARK, "", "# Rules", "", "Only *settled* rules may fail a submission; *disputed* and *policy* rules warn."]
    if with_coverage:
        lines += ["", f"Which demand of the challenge each rule looks after: [coverage]({COVERAGE})."]
    families: dict[str, list[AnyRule]] = {}
    for rule in rules:
        families.setdefault(rule.family, []).append(rule)
    for family, members in families.items():
        lines += ["", f"## {family.capitalize()}", "", "| rule | says | status | authority |", "|---|---|---|---|"]
        for rule in members:
            title, _ = parts(rule)
            link = f"[{rule.code} {rule.name}]({file_name(rule)})"
            lines.append(f"| {link} | {title} | {rule.status} | {rule.authority} |")
    return "\n".join(lines) + "\n"


def coverage(requirements: Iterable[Requirement], rules: Iterable[AnyRule]) -> str:
    """A table of the challenge's demands with the rules that look after each.

    Raises:
        KeyError: a requirement names a rule that is not there.
    """
    known = {rule.code: rule for rule in rules}
    lines = [
        COVERAGE_MARK,
        "",
        "# Coverage",
        "",
        "What the challenge demands, the rules that decide it, and what a folder cannot decide.",
        "",
        "| | demand | status | authority | rules | beyond them |",
        "|---|---|---|---|---|---|",
    ]
    for one in requirements:
        links = " ".join(f"[{code}]({file_name(known[code])})" for code in one.rules) or "none"
        lines.append(f"| {one.code} | {one.demand} | {one.status} | {one.authority} | {links} | {one.beyond} |")
    return "\n".join(lines) + "\n"
