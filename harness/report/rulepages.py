"""The rules' documentation: one Markdown page for each rule, made from its docstring, and an index."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

from harness.model import Rule

AnyRule: TypeAlias = Rule[Any]
INDEX = "index.md"
SECTIONS = ("What it checks", "Why it matters", "Evidence", "How to fix")
MARK = "<!-- Made by `harness rules --write-docs` from the rule's docstring: change that. -->"


def file_name(rule: AnyRule) -> str:
    """`PG101-artifact-over-cap.md`."""
    return f"{rule.code}-{rule.name}.md"


def pages(rules: Sequence[AnyRule]) -> dict[str, str]:
    """Every page by file name, the index among them."""
    return {INDEX: index(rules)} | {file_name(rule): page(rule) for rule in rules}


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


def index(rules: Iterable[AnyRule]) -> str:
    """A table of all rules."""
    lines = [
        MARK,
        "",
        "# Rules",
        "",
        "Only *settled* rules may fail a submission; *disputed* and *policy* rules warn.",
        "",
        "| rule | says | family | status | authority |",
        "|---|---|---|---|---|",
    ]
    for rule in rules:
        title, _ = parts(rule)
        link = f"[{rule.code} {rule.name}]({file_name(rule)})"
        lines.append(f"| {link} | {title} | {rule.family} | {rule.status} | {rule.authority} |")
    return "\n".join(lines) + "\n"
